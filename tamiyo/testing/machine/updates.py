"""A learner and an operator who bring policies, good ones and others, and what must become of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import wal
from tamiyo.core.state import State
from tamiyo.errors import NotRecorded, PolicyUnchanged
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.service import TamiyoService
from tamiyo.signing import sign_update
from tamiyo.testing.machine.cast import FAULTS, checkpoint
from tamiyo.testing.machine.law import require
from tamiyo.testing.machine.world import CALLS_WAIT, World

__all__ = ["INSTALLS", "UPDATES", "Learner"]

REASONS: Mapping[str, str] = {
    "unsigned": "invalid_signature",
    "of long ago": "stale_update",
    "of tomorrow": "stale_update",
    "of another version": "version_mismatch",
    "no checkpoint": "invalid_payload",
    "other registries": "registry_mismatch",
    "raises": "invalid_payload",
    "proposes nonsense": "invalid_payload",
}
"""Why an update is refused, by what is wrong with it."""
UPDATES = ("", *REASONS)
INSTALLS = ("again", *FAULTS)
"""What an operator may want installed: the policy that speaks once more, or a new checkpoint with one of `FAULTS`."""
AGES_S: Mapping[str, float] = {"of long ago": 7_200.0, "of tomorrow": -86_400.0}
UNTOUCHED = "an update that is refused leaves who speaks untouched"
REFUSED = "an update is refused for what is wrong with it"
UNRECORDED = "what is not recorded changes nothing"


@dataclass(slots=True)
class Learner:
    """Makes checkpoints that nobody has seen before. `made` has their bytes by version."""

    world: World
    made: dict[str, bytes]

    def checkpoint(self, fault: str) -> tuple[str, bytes]:
        """A new one: the version it speaks as, and its bytes."""
        version = f"made-{len(self.made) + 1}"
        self.made[version] = checkpoint(version, fault)
        return version, self.made[version]

    def wanted(self, service: TamiyoService, what: str) -> bytes:
        """The checkpoint for one of `INSTALLS`."""
        if what == "again" and service.state.policy_version in self.made:
            return self.made[service.state.policy_version]
        return self.checkpoint("" if what == "again" else what)[1]

    def send(self, service: TamiyoService, what: str) -> None:
        """An update: taken over, or refused for `what` is wrong with it, one of `UPDATES`."""
        version, data = self.checkpoint(what if what in FAULTS else "")
        issued_ns = self.world.clock.wall_ns() - int(AGES_S.get(what, 0.0) * 1e9)
        said = "another" if what == "of another version" else version
        update = pb.PolicyUpdate(version=1, policy_id=f"of {version}", tamiyo_policy_version=said, payload=data)
        update.issued_at.FromNanoseconds(issued_ns)
        signature = sign_update(update, b"another key of 16 bytes" if what == "unsigned" else self.world.secret)
        log, before = service.log, service.state
        is_late = issued_ns <= before.policies.issued_unix_ns and what != "unsigned"
        expected = "stale_update" if is_late else REASONS.get(what, "")
        try:
            with self.world.in_time(CALLS_WAIT):
                verdict = service.ingest_policy_update(update, signature)
        except NotRecorded:
            _require_unchanged(service, log, before)
            return
        require(verdict.reason == expected and verdict.installed == (not expected), REFUSED, f"{what!r}: {verdict}")
        now = service.state
        if expected:
            same = now.policy_version == before.policy_version and now.policies == before.policies
            require(same, UNTOUCHED, f"{before.policies} became {now.policies}")
        else:
            require(now.policy_version == version, "what is installed is in force at once", now.policy_version)

    def roll_back(self, service: TamiyoService) -> None:
        """An operator wants the last good policy back."""
        log, before = service.log, service.state
        held = before.policies.current
        installed = held is not None and held.version == before.policy_version
        law = "an installed policy can be rolled back, and no other"
        try:
            with self.world.in_time(CALLS_WAIT):
                version = service.roll_back_policy(operator="ada")
        except NotRecorded:
            _require_unchanged(service, log, before)
            return
        except PolicyUnchanged as unchanged:
            require(not installed, law, unchanged)
        else:
            require(installed and service.state.policy_version == version, law, version)


def _require_unchanged(service: TamiyoService, log: wal.Log, before: State) -> None:
    """A log that was opened again meanwhile may have lost what was in force before it."""
    now = service.state
    if service.log is log:
        same = now.policy_version == before.policy_version and now.policies == before.policies
        require(same, UNRECORDED, f"{before.policies} became {now.policies}")
