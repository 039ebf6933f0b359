"""The policies that are loaded, by version, and who speaks when a service opens."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.core.registries import Registries, RegistryStamp, require_stamp
from tamiyo.core.state import State
from tamiyo.errors import CheckpointRejected, RegistryConflict
from tamiyo.policy import Policy
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy.store import PolicyStore
from tamiyo.words import printable

__all__ = ["SPEAKERS_MAX", "Load", "Speaker", "Speakers", "baseline_speaker", "load_checkpoint", "opening_speaker"]

logger = logging.getLogger(__name__)

Load = Callable[[bytes, str, Registries], Policy]
"""A policy from a checkpoint's bytes, what to call them, and the live registries. Raises CheckpointRejected."""

SPEAKERS_MAX = 4


@dataclass(frozen=True, slots=True)
class Speaker:
    """A policy with its identity, which is read once."""

    policy: Policy
    identity: PolicyIdentity
    is_kept: bool = False
    """It was installed here before, and opens again only where the log says so."""


class Speakers:
    """The loaded policies, by version: the one a service was opened with, and the last few since."""

    def __init__(self, first: Speaker) -> None:
        self.first = first
        self._held: Mapping[str, Speaker] = {first.identity.version: first}  # replaced whole, so a step needs no lock

    def of(self, version: str) -> Speaker | None:
        """The policy of that version, None where it is not loaded."""
        return self._held.get(version)

    def add(self, speaker: Speaker, needed: Collection[str] = ()) -> None:
        """One more may speak; the oldest is let go where there are too many, the first and those needed never."""
        version = speaker.identity.version
        held = {other: kept for other, kept in self._held.items() if other != version} | {version: speaker}
        stays = {self.first.identity.version, version, *needed}
        stays.update([other for other in held if other not in stays][-SPEAKERS_MAX:])
        self._held = {other: kept for other, kept in held.items() if other in stays}


def load_checkpoint(data: bytes, name: str, registries: Registries) -> Policy:
    """What a service loads with unless it is told otherwise."""
    from pathlib import Path  # noqa: PLC0415

    from tamiyo.policy.checkpoint import parse_checkpoint, policy_of  # noqa: PLC0415  torch: slow to import

    return policy_of(parse_checkpoint(data, Path(name)), registries)


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
        policy = load(store.read(held.checkpoint_digest), str(store.place(held.checkpoint_digest)), state.registries)
    except CheckpointRejected as rejected:
        logger.error("policy %s cannot speak, and the baseline does in its place: %s", held.version, rejected)  # noqa: TRY400
        return baseline_speaker(), journal.PolicyRejected(
            reason=rejected.reason,
            detail=printable(f"the baseline speaks in its place: {rejected}"),
            policy_id=held.policy_id,
            version=held.version,
            payload_digest=held.checkpoint_digest,
        )
    return Speaker(policy, policy.identity, is_kept=True), None


def _require_stamps(policy: Policy, registries: Registries) -> None:
    stamps: Mapping[str, RegistryStamp] = getattr(policy, "registry_stamps", {})
    for kind, stamp in stamps.items():
        try:
            require_stamp(registries, kind, stamp)
        except RegistryConflict as conflict:
            raise CheckpointRejected(
                f"policy {policy.identity.version} was trained on other registries: {conflict}", "registry_mismatch"
            ) from conflict


def baseline_speaker() -> Speaker:
    """The documented baseline, which needs no checkpoint."""
    policy = BaselinePolicy()
    return Speaker(policy, policy.identity)
