"""Which policies may speak here, and how another comes to: by an update, by an operator, by the one before failing.

    PolicyUpdate ─▶ signature ─▶ version ─▶ freshness ─▶ load, registries ─▶ try out ─▶ keep ─▶ PolicyInstalled
                        └───────────┴───────────┴──────────────┴───────────────┴─────▶ PolicyRejected

Rule 1: everything slow (reading, loading, trying out, keeping) is done on the caller's thread, before the journal is
        asked. A step never waits for it.
Rule 2: what speaks in a step follows from the state its packet arrived in. A swap is therefore one event in the
        journal: before it the old policy answers, after it the new one, and no step sees both.
Rule 3: a policy that was replaced stays loaded, so that a record lost with a failed log leads back to it.
"""

import hmac
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from google.protobuf.message import DecodeError, Message

from tamiyo import signing
from tamiyo.clock import Clock
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import unobserved
from tamiyo.core.events import Event
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import read_packet
from tamiyo.core.policies import UPDATE_VERSION, failed_probation
from tamiyo.core.proposal import malformation
from tamiyo.core.registries import Registries, RegistryStamp, require_stamp
from tamiyo.core.state import InstalledPolicy, Policies, State
from tamiyo.errors import CheckpointRejected, NotRecorded, PolicyUnchanged, RegistryConflict
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder
from tamiyo.journal import Journal
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.store import CHECKPOINT_MAX_BYTES, PolicyStore
from tamiyo.records import JournalUnavailable
from tamiyo.speakers import Load, Speaker, Speakers, baseline_speaker, load_checkpoint
from tamiyo.words import printable
from tamiyo.workers import in_words

__all__ = ["PolicyDesk", "UpdateVerdict"]

logger = logging.getLogger(__name__)

UPDATE_MAX_BYTES = CHECKPOINT_MAX_BYTES + 2**16  # a checkpoint, and what the message adds
FUTURE_TOLERANCE_NS = 5 * 10**9  # as a verifier of commands has it
TRIES = 2
"""The second is as steps will see it: what a first call allocates or compiles is there."""


@dataclass(frozen=True, slots=True)
class UpdateVerdict:
    """What became of an update: installed as `version`, or refused for one of `tamiyo.core.policies.REASONS`."""

    installed: bool
    version: str = ""
    reason: str = ""
    detail: str = ""


class _RefusedError(Exception):
    """An update is refused; raised and caught in here."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = printable(detail)


class PolicyDesk:
    """Where policies come and go. Every method may be called from any thread; one at a time is served."""

    def __init__(
        self,
        journal_: Journal,
        store: PolicyStore,
        speakers: Speakers,
        *,
        load: Load = load_checkpoint,
        key: bytes = b"",
        clock: Clock,
        freshness_s: float = 3_600.0,
    ) -> None:
        """`key` is what updates are signed with; without one none is taken."""
        self._journal = journal_
        self._store = store
        self._speakers = speakers
        self._load = load
        self._key = key
        self._clock = clock
        self._freshness_ns = int(freshness_s * 1e9)
        self._serving = threading.Lock()
        self._unusable: str = ""  # a kept checkpoint that could not be loaded again: it is not tried again and again

    def ingest(self, update: object, signature: str) -> UpdateVerdict:
        """Take an update over, or refuse it; either is journaled. Raises NotRecorded: nothing was changed."""
        with self._serving:
            parsed = pb.PolicyUpdate()
            try:
                data = _update_bytes(update)
                self._require_signature(data, signature)
                parsed = _parsed(data)
                self._require_fresh(parsed)
                speaker = self._tried(parsed.payload, f"update {printable(parsed.policy_id, 80)!r}")
                _require_version(parsed, speaker.identity.version)
                self._install(speaker, parsed.payload, parsed)
            except _RefusedError as refused:
                return self._refuse(refused, parsed)
            return UpdateVerdict(installed=True, version=speaker.identity.version)

    def install(
        self, data: bytes, name: str, *, operator: str, reason: str = "", request_id: str = ""
    ) -> UpdateVerdict:
        """An operator's own checkpoint: as an update, without signature and freshness. Raises as `ingest`."""
        with self._serving:
            if request_id and request_id in self._journal.state.directives:
                return UpdateVerdict(installed=True, version=self._journal.state.policy_version)
            try:
                speaker = self._tried(data, name)
                told = journal.PolicyInstalled(
                    operator=printable(operator), reason=printable(reason), request_id=request_id
                )
                self._install(speaker, data, pb.PolicyUpdate(), told)
            except _RefusedError as refused:
                return self._refuse(refused, pb.PolicyUpdate(payload=data))
            return UpdateVerdict(installed=True, version=speaker.identity.version)

    def roll_back(self, cause: str = "operator", *, operator: str = "", reason: str = "", request_id: str = "") -> str:
        """Let the last good policy speak again, or where there is none the one from before any; its version.

        Raises:
            PolicyUnchanged: no installed policy speaks.
            NotRecorded: the log takes no record at the moment; nothing was changed.
        """
        told = journal.PolicyRolledBack(
            cause=cause, operator=printable(operator), reason=printable(reason), request_id=request_id
        )
        with self._serving:
            return self._roll_back(told)

    def watch(self) -> None:
        """Roll a policy back that failed its probation; costs nothing where none did. Never waits for another call."""
        state = self._journal.state
        if not failed_probation(state) and self._speakers.of(state.policy_version) is not None:
            return
        if not self._serving.acquire(blocking=False):
            return  # whoever is served may take a while to load; this is looked at again
        try:
            self._load_again()
            cause = failed_probation(self._journal.state)  # asked again: who was served may have changed it
            if cause:
                self._roll_back(journal.PolicyRolledBack(cause=cause))
        except (NotRecorded, PolicyUnchanged) as error:
            logger.info("not rolled back for now: %s", error)
        finally:
            self._serving.release()

    def _roll_back(self, event: journal.PolicyRolledBack) -> str:
        state = self._journal.state
        if event.request_id and event.request_id in state.directives:
            return state.policy_version
        held = state.policies.current
        if held is None or held.version != state.policy_version:
            raise PolicyUnchanged(
                f"policy {state.policy_version!r} was not installed here, so there is none to go back to: open the "
                "controller with another one"
            )
        target, kept = self._before(state)
        event.from_version, event.version = state.policy_version, target.identity.version
        event.checkpoint_digest = "" if kept is None else kept.checkpoint_digest
        self._hold(target)
        self._record(lambda now, now_ns: _rolled_back(now, state.policies, event, now_ns))
        logger.warning("policy %s speaks in place of %s: %s", event.version, event.from_version, event.cause)
        return event.version

    def _hold(self, speaker: Speaker) -> None:
        state = self._journal.state
        previous = state.policies.previous
        needed = (state.policy_version, "" if previous is None else previous.version)
        self._speakers.add(speaker, needed)

    def _load_again(self) -> None:
        """Load who speaks: a log may come back without more records than there are policies kept loaded."""
        state = self._journal.state
        held = state.policies.current
        if self._speakers.of(state.policy_version) is not None:
            return
        if state.policy_version == baseline_speaker().identity.version:
            self._hold(baseline_speaker())
        elif held is not None and held.version == state.policy_version and held.checkpoint_digest != self._unusable:
            try:
                self._hold(self._tried(self._store.read(held.checkpoint_digest), held.version))
            except (_RefusedError, CheckpointRejected) as error:
                self._unusable = held.checkpoint_digest
                logger.error("policy %s cannot be loaded again: %s", held.version, error)  # noqa: TRY400  it says all

    def _require_signature(self, data: bytes, signature: object) -> None:
        given = signature.encode("utf-8", "replace") if isinstance(signature, str) else b""
        expected = signing.update_signature(data, self._key)
        if not self._key or not hmac.compare_digest(expected.encode(), given):
            raise _RefusedError("invalid_signature", "it is not signed with the key of this controller")

    def _require_fresh(self, update: pb.PolicyUpdate) -> None:
        if not update.HasField("issued_at"):
            raise _RefusedError("stale_update", "it does not say when it was issued")
        issued_ns = update.issued_at.seconds * 10**9 + update.issued_at.nanos
        age_ns = self._clock.wall_ns() - issued_ns
        if age_ns > self._freshness_ns:
            raise _RefusedError(
                "stale_update",
                f"it is {age_ns / 1e9:.0f} s old, and TAMIYO_UPDATE_FRESHNESS_SEC is {self._freshness_ns / 1e9:g}",
            )
        if -age_ns > FUTURE_TOLERANCE_NS:
            ahead_s = -age_ns / 1e9
            raise _RefusedError("stale_update", f"it was issued {ahead_s:.0f} s in the future: compare the clocks")
        _require_newer(self._journal.state, issued_ns)

    def _tried(self, data: bytes, name: str) -> Speaker:
        """Load, and see it answer: what comes with a file is somebody else's."""
        try:
            policy = self._load(data, name, self._journal.state.registries)
            identity = policy.identity
        except CheckpointRejected as rejected:
            raise _RefusedError(rejected.reason, str(rejected)) from rejected
        except Exception as error:  # a file that nobody foresaw is refused as well, and its caller is not to fall over
            raise _RefusedError("invalid_payload", f"loading it raised {in_words(error)}") from error
        graph, packet = _example(self._journal.state.registries)
        for _ in range(TRIES):
            try:
                proposal = policy.propose(graph)
            except Exception as error:  # whatever it raises, in a step it would raise again
                raise _RefusedError("invalid_payload", f"tried out, it raised {in_words(error)}") from error
            fault = malformation(proposal, read_packet(packet, UNLIMITED), 1)
            if fault is not None:
                raise _RefusedError("invalid_payload", f"tried out, it proposed what is none: {fault}")
        return Speaker(policy, identity)

    def _install(
        self, speaker: Speaker, data: bytes, update: pb.PolicyUpdate, told: journal.PolicyInstalled | None = None
    ) -> None:
        event = told or journal.PolicyInstalled()
        identity = speaker.identity
        event.version, event.architecture = identity.version, identity.architecture
        event.policy_id, event.training_run_id = printable(update.policy_id), printable(update.training_run_id)
        event.issued_unix_ns = update.issued_at.seconds * 10**9 + update.issued_at.nanos
        stamps: Mapping[str, RegistryStamp] = getattr(speaker.policy, "registry_stamps", {})
        for kind, stamp in stamps.items():
            if stamp.count:
                event.registries.add(kind=kind, count=stamp.count, digest=stamp.digest)
        _require_other(self._journal.state, identity.version)
        try:
            event.checkpoint_digest = self._store.write(data)
        except OSError as error:
            raise NotRecorded(
                f"the checkpoint cannot be kept in {self._store.path} ({error.strerror}), and was not installed"
            ) from error
        self._hold(speaker)
        self._record(lambda state, now_ns: _installed(state, event, now_ns))
        logger.info("policy %s speaks from now on", identity.version)
        self._tidy()

    def _tidy(self) -> None:
        held = self._journal.state.policies
        keep = {policy.checkpoint_digest for policy in (held.current, held.previous) if policy is not None}
        try:
            self._store.tidy(keep)
        except OSError as error:
            logger.warning("old checkpoints in %s stay: %s", self._store.path, error)

    def _before(self, state: State) -> tuple[Speaker, InstalledPolicy | None]:
        """Whom to go back to: the last good policy where it can be loaded, else the host's own, else the baseline."""
        previous = state.policies.previous
        if previous is not None:
            loaded = self._speakers.of(previous.version)
            if loaded is not None:
                return loaded, previous
            try:
                return self._tried(self._store.read(previous.checkpoint_digest), previous.version), previous
            except (_RefusedError, CheckpointRejected) as error:
                logger.warning("the last good policy %s cannot speak: %s", previous.version, error)
        first = self._speakers.first
        is_host_s = not first.is_kept and first.identity.version != state.policy_version
        return (first if is_host_s else baseline_speaker()), None

    def _refuse(self, refused: _RefusedError, update: pb.PolicyUpdate) -> UpdateVerdict:
        event = journal.PolicyRejected(
            reason=refused.reason,
            detail=refused.detail,
            policy_id=printable(update.policy_id),
            version=printable(update.tamiyo_policy_version),
            payload_digest=sha256(update.payload).hexdigest() if update.payload else "",
        )
        logger.warning("a policy update was refused: %s: %s", refused.reason, refused.detail)
        if not self._journal.ride(lambda _, now_ns: _timed(event, now_ns)):
            logger.warning("the log takes no records, and that it was refused is not among them")
        return UpdateVerdict(installed=False, reason=refused.reason, detail=refused.detail)

    def _record(self, make: Callable[[State, int], tuple[Event, ...]]) -> None:
        try:
            self._journal.record_aside(make)
        except JournalUnavailable as unavailable:
            raise NotRecorded(
                f"the log takes no record at the moment ({unavailable.cause}): the policy stays as it is, and this may "
                "be asked for again"
            ) from unavailable


def _installed(state: State, event: journal.PolicyInstalled, now_ns: int) -> tuple[Event, ...]:
    """What the state says against it, asked again where it is folded: meanwhile the log went on."""
    _require_other(state, event.version)
    if event.issued_unix_ns:
        _require_newer(state, event.issued_unix_ns)
    for stamp in event.registries:
        try:
            require_stamp(state.registries, stamp.kind, RegistryStamp(stamp.count, stamp.digest))
        except RegistryConflict as conflict:
            raise _RefusedError("registry_mismatch", str(conflict)) from conflict
    return _timed(event, now_ns)


def _rolled_back(state: State, policies: Policies, event: journal.PolicyRolledBack, now_ns: int) -> tuple[Event, ...]:
    """As above, against what was found when it was asked for."""
    is_as_found = state.policy_version == event.from_version and state.policies.previous == policies.previous
    if not is_as_found or event.cause not in ("operator", failed_probation(state)):
        raise PolicyUnchanged(f"policy {state.policy_version!r} speaks by now, or has mended: ask again")
    return _timed(event, now_ns)


def _require_other(state: State, version: str) -> None:
    if state.policy_version == version:
        raise _RefusedError("stale_update", f"policy {version} speaks already")


def _require_newer(state: State, issued_ns: int) -> None:
    if issued_ns <= state.policies.issued_unix_ns:
        raise _RefusedError("stale_update", "it, or one that was issued later, was installed before")


def _require_version(update: pb.PolicyUpdate, version: str) -> None:
    if update.tamiyo_policy_version != version:
        said = printable(update.tamiyo_policy_version, 80)
        raise _RefusedError("version_mismatch", f"it says {said!r} and carries {version!r}")


def _timed(
    event: journal.PolicyInstalled | journal.PolicyRejected | journal.PolicyRolledBack, now_ns: int
) -> tuple[Event, ...]:
    event.event_time_ns = now_ns
    return (event,)


def _update_bytes(update: object) -> bytes:
    if isinstance(update, Message):
        return update.SerializeToString(deterministic=True)
    if not isinstance(update, bytes | bytearray | memoryview):
        raise _RefusedError("invalid_payload", f"a {type(update).__name__} is no PolicyUpdate, and not its bytes")
    data = bytes(update)
    if len(data) > UPDATE_MAX_BYTES:
        raise _RefusedError("invalid_payload", f"it has {len(data)} bytes, more than {UPDATE_MAX_BYTES}")
    return data


def _parsed(data: bytes) -> pb.PolicyUpdate:
    try:
        update = pb.PolicyUpdate.FromString(data)
    except DecodeError as error:
        raise _RefusedError("invalid_payload", f"its {len(data)} bytes are no PolicyUpdate: {error}") from error
    if update.version != UPDATE_VERSION:
        raise _RefusedError("version_mismatch", f"it is of version {update.version}, not {UPDATE_VERSION}")
    if not update.policy_id:
        raise _RefusedError("invalid_payload", "it has no policy_id")
    return update


def _example(registries: Registries) -> tuple[Graph, bytes]:
    """A small graph with one candidate: enough for each part of a policy to be run once."""
    packet = pb.SystemStatePacket(version=1, training_run_id="try-out")
    packet.seed_states.add(seed_id="try-out", stage=pb.SEED_STAGE_TRAINING)
    data = packet.SerializeToString()
    inputs = [BlueprintInput(unobserved("try-out"), {})]
    graph = GraphBuilder().build(read_packet(data, UNLIMITED), norms=PRIORS, registries=registries, blueprints=inputs)
    return graph, data
