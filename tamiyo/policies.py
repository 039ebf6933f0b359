"""Which policies may speak here, and how another comes to: by an update, by an operator, by the one before failing.

    PolicyUpdate ─▶ signature ─▶ version ─▶ freshness ─▶ load, registries ─▶ try out ─▶ keep ─▶ PolicyInstalled
                        └───────────┴───────────┴──────────────┴───────────────┴─────▶ PolicyRejected

Rule 1: everything slow (reading, loading, trying out, keeping) is done on the caller's thread, before the journal is
        asked. A step never waits for it.
Rule 2: what speaks in a step follows from the state its packet arrived in. A swap is therefore one event in the
        journal: before it the old policy answers, after it the new one, and no step sees both.
Rule 3: who speaks, who was just replaced and the last good one stay loaded; any other that a record lost with a failed
        log leads back to is loaded again from what was kept.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import wal
from tamiyo.clock import Clock
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import OPEN
from tamiyo.core.events import Event
from tamiyo.core.policies import failed_probation
from tamiyo.core.registries import RegistryStamp, require_stamp
from tamiyo.core.state import InstalledPolicy, Policies, State
from tamiyo.errors import CheckpointRejected, NotRecorded, PolicyUnchanged, RegistryConflict
from tamiyo.journal import Journal
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.store import PolicyStore
from tamiyo.policy_updates import (
    Refused,
    issued_unix_ns,
    parsed,
    require_fresh,
    require_newer,
    require_signature,
    require_version,
    tried_out,
    update_bytes,
    updates_after_unix_ns,
)
from tamiyo.records import JournalUnavailable, Recorded
from tamiyo.speakers import Load, Speaker, Speakers, baseline_speaker, load_checkpoint
from tamiyo.words import printable

__all__ = ["PolicyDesk", "UpdateVerdict"]

logger = logging.getLogger(__name__)

PUT_BACK = "its checkpoint was missing from the directory, and is back"


@dataclass(frozen=True, slots=True)
class UpdateVerdict:
    """What became of an update: installed as `version`, or refused for one of `tamiyo.core.policies.REASONS`.

    Where that version speaks already and its checkpoint was gone from the directory, `detail` says that it is back.
    """

    installed: bool
    version: str = ""
    reason: str = ""
    detail: str = ""


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
        self._found_open_ns = {journal_.state.policy_version: _opened_ns(journal_.state)}
        """Since when the inference breaker was open as a policy came to speak, by version."""
        self._recorded_lsn = 0
        self._unusable: str = ""  # a kept checkpoint that could not be loaded again: it is not tried again and again

    def ingest(self, update: object, signature: str) -> UpdateVerdict:
        """Take an update over, or refuse it; either is journaled. Raises NotRecorded: nothing was changed."""
        with self._serving:
            self._require_log()
            given = pb.PolicyUpdate()
            try:
                data = update_bytes(update)
                require_signature(data, signature, self._key)
                given = parsed(data)
                require_fresh(given, wall_ns=self._clock.wall_ns(), freshness_ns=self._freshness_ns)
                require_newer(self._journal.state, issued_unix_ns(given), wall_ns=self._clock.wall_ns())
                speaker = self._tried(given.payload, f"update {printable(given.policy_id, 80)!r}")
                require_version(given, speaker.identity.version)
                self._install(speaker, given.payload, given)
            except Refused as refused:
                return self._refuse(refused, given)
            return UpdateVerdict(installed=True, version=speaker.identity.version)

    def install(
        self, data: bytes, name: str, *, operator: str, reason: str = "", request_id: str = ""
    ) -> UpdateVerdict:
        """An operator's own checkpoint: as an update, without signature and freshness. Raises as `ingest`.

        Durable when it returns. Of a policy that speaks already, a checkpoint that was lost is put back.
        """
        with self._serving:
            self._require_log()
            if request_id and request_id in self._journal.state.directives:
                return UpdateVerdict(installed=True, version=self._journal.state.policy_version)
            if self._put_back(data):
                return UpdateVerdict(installed=True, version=self._journal.state.policy_version, detail=PUT_BACK)
            try:
                speaker = self._tried(data, name)
                told = journal.PolicyInstalled(
                    operator=printable(operator), reason=printable(reason), request_id=request_id
                )
                recorded = self._install(speaker, data, pb.PolicyUpdate(), told)
            except Refused as refused:
                return self._refuse(refused, pb.PolicyUpdate(payload=data))
        _require_durable(recorded)
        return UpdateVerdict(installed=True, version=speaker.identity.version)

    def roll_back(self, cause: str = "operator", *, operator: str = "", reason: str = "", request_id: str = "") -> str:
        """Let the last good policy speak again, or where there is none the one from before any; its version.

        What a request asked for is durable when this returns.

        Raises:
            PolicyUnchanged: no installed policy speaks.
            NotRecorded: the log takes no record at the moment; nothing was changed.
        """
        told = journal.PolicyRolledBack(
            cause=cause, operator=printable(operator), reason=printable(reason), request_id=request_id
        )
        with self._serving:
            version, recorded = self._roll_back(told)
        if request_id and recorded is not None:
            _require_durable(recorded)
        return version

    def watch(self) -> None:
        """Roll a policy back that failed its probation; costs nothing where none did. Never waits for another call."""
        state = self._journal.state
        if not self._failing(state) and self._speakers.of(state.policy_version) is not None:
            return
        if not self._serving.acquire(blocking=False):
            return  # whoever is served may take a while to load; this is looked at again
        try:
            self._load_again()
            cause = self._failing(self._journal.state)  # asked again: who was served may have changed it
            if cause:
                self._roll_back(journal.PolicyRolledBack(cause=cause))
        except (NotRecorded, PolicyUnchanged) as error:
            logger.info("not rolled back for now: %s", str(error))
        finally:
            self._serving.release()

    def _failing(self, state: State) -> str:
        """Why who speaks is to be rolled back, "" where it is not. A breaker that it found open is not its doing."""
        cause = failed_probation(state)
        found_open = cause == "breaker_open" and _opened_ns(state) == self._found_open_ns.get(state.policy_version)
        return "" if found_open else cause

    def _roll_back(self, event: journal.PolicyRolledBack) -> tuple[str, Recorded | None]:
        """Who speaks then, and the record of it; None where the request was taken up before."""
        self._require_log()
        state = self._journal.state
        if event.request_id and event.request_id in state.directives:
            return state.policy_version, None
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
        wall_ns = self._clock.wall_ns()
        recorded = self._record(lambda now, now_ns: _rolled_back(now, state.policies, event, now_ns, wall_ns=wall_ns))
        self._let_go(state.policy_version)
        logger.warning("policy %s speaks in place of %s: %s", event.version, event.from_version, event.cause)
        return event.version, recorded

    def _let_go(self, replaced: str) -> None:
        """Once another speaks; a step under way may still ask who was replaced."""
        state = self._journal.state
        previous = state.policies.previous
        needed = {state.policy_version, replaced, "" if previous is None else previous.version}
        self._speakers.keep(needed, speaking=state.policy_version)

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
            except (Refused, CheckpointRejected) as error:
                self._unusable = held.checkpoint_digest
                logger.error("policy %s cannot be loaded again: %s", held.version, str(error))  # noqa: TRY400  it says all

    def _tried(self, data: bytes, name: str) -> Speaker:
        return tried_out(self._load, data, name, self._journal.state.registries)

    def _install(
        self, speaker: Speaker, data: bytes, update: pb.PolicyUpdate, told: journal.PolicyInstalled | None = None
    ) -> Recorded:
        event = told or journal.PolicyInstalled()
        identity = speaker.identity
        event.version, event.architecture = identity.version, identity.architecture
        event.policy_id, event.training_run_id = printable(update.policy_id), printable(update.training_run_id)
        event.issued_unix_ns = issued_unix_ns(update)
        stamps: Mapping[str, RegistryStamp] = getattr(speaker.policy, "registry_stamps", {})
        for kind, stamp in stamps.items():
            if stamp.count:
                event.registries.add(kind=kind, count=stamp.count, digest=stamp.digest)
        _require_other(self._journal.state, identity.version)
        self._tidy()
        event.checkpoint_digest = self._keep(data)
        replaced = self._journal.state.policy_version
        self._hold(speaker)
        opened_ns = 0

        def installed(state: State, now_ns: int) -> tuple[Event, ...]:
            nonlocal opened_ns
            opened_ns = _opened_ns(state)
            return _installed(state, event, now_ns, wall_ns=self._clock.wall_ns())

        recorded = self._record(installed)
        # What is refused up to here comes to nothing: who speaks still answers for the breaker. The one before stays
        # known, because a log that fails may take the installation back.
        before_ns = self._found_open_ns.get(replaced, 0)
        self._found_open_ns = {replaced: before_ns, event.version: opened_ns}
        self._let_go(replaced)
        logger.info("policy %s speaks from now on", identity.version)
        return recorded

    def _put_back(self, data: bytes) -> bool:
        """Whether these bytes are the checkpoint of who speaks, and were missing from the directory."""
        state = self._journal.state
        held = state.policies.current
        if held is None or held.version != state.policy_version or self._store.holds(held.checkpoint_digest):
            return False
        if sha256(data).hexdigest() != held.checkpoint_digest:
            return False
        self._keep(data)
        self._unusable = ""
        logger.info("the checkpoint of policy %s is back in %s", held.version, self._store.path)
        return True

    def _keep(self, data: bytes) -> str:
        try:
            return self._store.write(data)
        except OSError as error:
            raise NotRecorded(
                f"the checkpoint cannot be kept in {self._store.path} ({error.strerror}), and was not installed"
            ) from error

    def _tidy(self) -> None:
        """Drop old checkpoints; not while a crash could still bring back a state that needs them."""
        if self._journal.log.durable_lsn < self._recorded_lsn:
            return
        held = self._journal.state.policies
        keep = {policy.checkpoint_digest for policy in (held.current, held.previous) if policy is not None}
        try:
            self._store.tidy(keep)
        except OSError as error:
            logger.warning("old checkpoints in %s stay: %s", self._store.path, str(error))

    def _before(self, state: State) -> tuple[Speaker, InstalledPolicy | None]:
        """Whom to go back to: the last good policy where it can be loaded, else the host's own, else the baseline."""
        previous = state.policies.previous
        if previous is not None:
            loaded = self._speakers.of(previous.version)
            if loaded is not None:
                return loaded, previous
            try:
                return self._tried(self._store.read(previous.checkpoint_digest), previous.version), previous
            except (Refused, CheckpointRejected) as error:
                logger.warning("the last good policy %s cannot speak: %s", previous.version, str(error))
        own = self._speakers.own
        return (baseline_speaker() if own is None or own.identity.version == state.policy_version else own), None

    def _refuse(self, refused: Refused, update: pb.PolicyUpdate) -> UpdateVerdict:
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

    def _require_log(self) -> None:
        """Load and try out nothing that could not be recorded."""
        try:
            self._journal.require()
        except JournalUnavailable as unavailable:
            raise _not_recorded(unavailable) from unavailable

    def _record(self, make: Callable[[State, int], tuple[Event, ...]]) -> Recorded:
        try:
            recorded = self._journal.record_aside(make)
        except JournalUnavailable as unavailable:
            raise _not_recorded(unavailable) from unavailable
        assert recorded is not None  # noqa: S101  each of these makes one event
        self._recorded_lsn = recorded.first_lsn + len(recorded.events) - 1
        return recorded


def _not_recorded(unavailable: JournalUnavailable) -> NotRecorded:
    return NotRecorded(
        f"the log takes no record at the moment ({unavailable.cause}): the policy stays as it is, and this may be "
        "asked for again"
    )


def _require_durable(recorded: Recorded) -> None:
    """Wait for the disk, however long: a request goes only once its record is there for good."""
    try:
        recorded.result()
    except wal.LogError as error:
        raise NotRecorded(f"whether it is recorded is not known ({error}): this may be asked for again") from error


def _opened_ns(state: State) -> int:
    """Since when the inference breaker is open, 0 where it is not."""
    breaker = state.breakers["inference"]
    return breaker.moved_at_ns if breaker.state == OPEN else 0


def _installed(state: State, event: journal.PolicyInstalled, now_ns: int, *, wall_ns: int) -> tuple[Event, ...]:
    """What the state says against it, asked again where it is folded: meanwhile the log went on."""
    _require_other(state, event.version)
    if event.issued_unix_ns:
        require_newer(state, event.issued_unix_ns, wall_ns=wall_ns)
    event.updates_after_unix_ns = updates_after_unix_ns(state, wall_ns=wall_ns) if event.operator else 0
    for stamp in event.registries:
        try:
            require_stamp(state.registries, stamp.kind, RegistryStamp(stamp.count, stamp.digest))
        except RegistryConflict as conflict:
            raise Refused("registry_mismatch", str(conflict)) from conflict
    return _timed(event, now_ns)


def _rolled_back(
    state: State, policies: Policies, event: journal.PolicyRolledBack, now_ns: int, *, wall_ns: int
) -> tuple[Event, ...]:
    """As above, against what was found when it was asked for."""
    is_as_found = state.policy_version == event.from_version and state.policies.previous == policies.previous
    if not is_as_found or event.cause not in ("operator", failed_probation(state)):
        raise PolicyUnchanged(f"policy {state.policy_version!r} speaks by now, or has mended: ask again")
    event.updates_after_unix_ns = updates_after_unix_ns(state, wall_ns=wall_ns) if event.operator else 0
    return _timed(event, now_ns)


def _require_other(state: State, version: str) -> None:
    if state.policy_version == version:
        raise Refused("stale_update", f"policy {version} speaks already")


def _timed(
    event: journal.PolicyInstalled | journal.PolicyRejected | journal.PolicyRolledBack, now_ns: int
) -> tuple[Event, ...]:
    event.event_time_ns = now_ns
    return (event,)
