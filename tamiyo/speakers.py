"""The policies that are loaded, by version, and who speaks when a service opens."""

import logging
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from operator import methodcaller

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.core.registries import Registries, RegistryStamp, require_stamp
from tamiyo.core.state import State
from tamiyo.errors import CheckpointRejected, RegistryConflict
from tamiyo.policy import Policy, WarmsUp
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy.manifest import REGISTRIES_ADVICE
from tamiyo.policy.store import PolicyStore
from tamiyo.words import printable
from tamiyo.workers import in_words

__all__ = [
    "Load",
    "Speaker",
    "Speakers",
    "as_this_thread_has",
    "baseline_speaker",
    "load_checkpoint",
    "opening_speaker",
]

logger = logging.getLogger(__name__)

Load = Callable[[bytes, str, Registries], Policy]
"""A policy from a checkpoint's bytes, what to call them, and the live registries. Raises CheckpointRejected."""

SEEDS_AT_FIRST = (1, 2, 4, 8)
"""Of graphs to be ready for when a log is opened: how many seeds there are only a packet says."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A policy with its identity, which is read once."""

    policy: Policy
    identity: PolicyIdentity
    is_kept: bool = False
    """It was installed here before, and opens again only where the log says so."""


class Speakers:
    """The loaded policies, by version; a network takes 150 MB and more, so there are no more than may have to speak."""

    def __init__(self, first: Speaker) -> None:
        self.own = None if first.is_kept else first
        """What the host gave, or the baseline: nobody could load it again."""
        self._told: tuple[str, Mapping[str, int]] = ("", {})
        self._held: Mapping[str, Speaker] = {first.identity.version: first}  # replaced whole, so a step needs no lock

    def of(self, version: str) -> Speaker | None:
        """The policy of that version, None where it is not loaded."""
        return self._held.get(version)

    def add(self, speaker: Speaker, needed: Collection[str] = ()) -> None:
        """One more may speak, ready for the graphs that there are; of the others those that are needed stay."""
        _, coming = self._told
        if coming:
            _unharmed(speaker, methodcaller("warm_up", coming))
        version = speaker.identity.version
        self._held = {**self._held, version: speaker}
        self.keep({version, *needed})

    def keep(self, needed: Collection[str], speaking: str = "") -> None:
        """Let all go but those, and what the host gave; once one of them is `speaking`, the others rest."""
        own = set() if self.own is None else {self.own.identity.version}
        self._held = {version: speaker for version, speaker in self._held.items() if version in own | {*needed}}
        for version in self._held.keys() - {speaking} if speaking else ():
            self._tell(version, methodcaller("rest"))

    def warm_up(self, version: str, node_counts: Callable[[int], Mapping[str, int]]) -> None:
        """A run begins: graphs of these sizes, by seeds, are coming, and no step waits yet.

        What a policy has to make for sizes that come later it begins with here.
        """
        for seeds in SEEDS_AT_FIRST:
            self._tell(version, methodcaller("warm_up", node_counts(seeds)))
        self.expect(version, node_counts(SEEDS_AT_FIRST[-1]))

    def expect(self, version: str, counts: Mapping[str, int]) -> None:
        """The policy of this version may meet graphs of this size; returns at once, and to repeat it costs nothing."""
        if self._told != (version, counts):
            self._told = (version, counts)
            self._tell(version, methodcaller("expect", counts))

    def _tell(self, version: str, word: Callable[[WarmsUp], None]) -> None:
        speaker = self.of(version)
        if speaker is not None:
            _unharmed(speaker, word)


def _unharmed(speaker: Speaker, word: Callable[[WarmsUp], None]) -> None:
    """Tell a policy that listens; what it raises is its own matter, and neither a step's nor a lookup's."""
    if not isinstance(speaker.policy, WarmsUp):
        return
    try:
        word(speaker.policy)
    except Exception as error:  # noqa: BLE001  it is somebody else's code, and nothing depends on it
        logger.warning("policy %s cannot get ready for a size: %s", speaker.identity.version, in_words(error))


def load_checkpoint(
    data: bytes, name: str, registries: Registries, *, device: str = "auto", may_capture: bool = True
) -> Policy:
    """What a service loads with unless it is told otherwise; `device` and `may_capture` as `load_policy` has them."""
    from pathlib import Path  # noqa: PLC0415

    from tamiyo.policy.checkpoint import parse_checkpoint, policy_of  # noqa: PLC0415  torch: slow to import

    return policy_of(parse_checkpoint(data, Path(name)), registries, device=device, may_capture=may_capture)


def as_this_thread_has(device: str) -> str:
    """A device's name for other threads too, on which torch's current device is the first, whatever the host chose."""
    torch = sys.modules.get("torch")  # a host that trains has imported it
    if device != "cuda" or torch is None or not torch.cuda.is_initialized():
        return device
    return f"cuda:{torch.cuda.current_device()}"


def opening_speaker(
    given: Policy | None, state: State, store: PolicyStore, load: Load
) -> tuple[Speaker, journal.PolicyRejected | None]:
    """Who speaks when a service opens: the policy that is given, else the installed one, else the baseline.

    The second is why the installed one does not, where it should.

    Raises:
        CheckpointRejected: the policy that is given was trained on other registries.
    """
    if given is not None:
        _require_stamps(given, state.registries)
        return Speaker(given, given.identity), None
    held = state.policies.current
    if held is None:
        return baseline_speaker(), None
    try:
        policy = _loaded(load, store, held.checkpoint_digest, state.registries)
    except CheckpointRejected as rejected:
        logger.error("policy %s cannot speak, and the baseline does in its place: %s", held.version, str(rejected))  # noqa: TRY400
        return baseline_speaker(), journal.PolicyRejected(
            reason=rejected.reason,
            detail=printable(f"the baseline speaks in its place: {rejected}"),
            policy_id=held.policy_id,
            version=held.version,
            payload_digest=held.checkpoint_digest,
        )
    return Speaker(policy, policy.identity, is_kept=True), None


def _loaded(load: Load, store: PolicyStore, digest: str, registries: Registries) -> Policy:
    """A kept policy. Raises CheckpointRejected, whatever stands in the way: a service opens all the same."""
    data, name = store.read(digest), str(store.place(digest))
    try:
        return load(data, name, registries)
    except CheckpointRejected:
        raise
    except (
        Exception
    ) as error:  # as an update that raises is refused: no memory for it, a torch that is set up strangely
        raise CheckpointRejected(f"loading {name} raised {in_words(error)}") from error


def _require_stamps(policy: Policy, registries: Registries) -> None:
    stamps: Mapping[str, RegistryStamp] = getattr(policy, "registry_stamps", {})
    for kind, stamp in stamps.items():
        try:
            require_stamp(registries, kind, stamp)
        except RegistryConflict as conflict:
            raise CheckpointRejected(
                f"policy {policy.identity.version} was trained on other registries: {conflict}; {REGISTRIES_ADVICE}",
                "registry_mismatch",
            ) from conflict


def baseline_speaker() -> Speaker:
    """The documented baseline, which needs no checkpoint."""
    policy = BaselinePolicy()
    return Speaker(policy, policy.identity)
