"""The laws of who speaks, kept by a second bookkeeper that reads nothing but the log.

It knows the requirements, not the code: a step is answered by the policy in force when its packet was received;
another comes by an installation or a rollback that the log tells of; one that fails on probation gives way to the last
good one.
"""

from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.testing.machine.breakers import OPEN
from tamiyo.testing.machine.law import require

__all__ = ["IN_FORCE", "PROBATION", "PolicyBook"]

PROBATION = 3
"""Proposals that a new policy makes without a fault before it counts as good."""
IN_FORCE = "a step is answered by the policy in force when its packet was received"
_INFERENCE = (
    journal.InferenceObserved,
    journal.InferenceFailed,
    journal.InferenceTimedOut,
    journal.InferenceSkipped,
)


@dataclass(frozen=True, slots=True)
class _Installed:
    version: str
    digest: str


class PolicyBook:
    """Follows the events of a log in order; raises `LawBroken` at the first that breaks a law.

    `speaks` is the version in force, `installed` how many installations there were.
    """

    def __init__(self) -> None:
        self.speaks = ""
        self.installed = 0
        self._held: _Installed | None = None
        self._good: _Installed | None = None
        self._proposals = PROBATION
        self._failed = False
        self._opened = False  # the inference breaker, under who speaks
        self._in_force: dict[int, str] = {}

    def take(self, lsn: int, event: Event) -> None:
        """One more event."""
        if isinstance(event, journal.ServiceOpened):
            self.speaks, self._opened = event.policy_version, False
            self._in_force.clear()
        elif isinstance(event, journal.StepReceived):
            self._in_force[lsn] = self.speaks
        elif isinstance(event, _INFERENCE):
            self._asked(event)
        elif isinstance(event, journal.BreakerMoved) and event.breaker == "inference":
            self._opened = event.to_state == OPEN
        elif isinstance(event, journal.PolicyInstalled):
            self._install(event)
        elif isinstance(event, journal.PolicyRolledBack):
            self._roll_back(event)
        elif isinstance(event, journal.DecisionMade | journal.StepPaused):
            self._in_force.pop(event.step_lsn, None)

    @property
    def gives_way(self) -> bool:
        """Whether who speaks has failed its probation."""
        held = self._held
        if held is None or held.version != self.speaks or not self._proposals:
            return False
        return self._failed or self._opened

    def _asked(self, event: Event) -> None:
        version = event.identity.version  # type: ignore[attr-defined]  # each of `_INFERENCE` has one
        in_force = self._in_force.get(event.step_lsn)  # type: ignore[attr-defined]  # as above
        require(in_force == version, IN_FORCE, f"{version!r} was asked, {in_force!r} was in force")
        held = self._held
        if held is None or held.version != version or not self._proposals:
            return
        if isinstance(event, journal.InferenceFailed):
            self._failed = self._failed or event.attempted
        elif isinstance(event, journal.InferenceObserved) and not self._failed:
            self._proposals -= 1

    def _install(self, event: journal.PolicyInstalled) -> None:
        require(event.version != self.speaks, "an installation changes who speaks", event)
        before = self._held if not self._proposals else self._good
        self._good = None if before is None or before.version == event.version else before
        self._held = _Installed(event.version, event.checkpoint_digest)
        self._proposals, self._failed, self._opened = PROBATION, False, False
        self.speaks = event.version
        self.installed += 1

    def _roll_back(self, event: journal.PolicyRolledBack) -> None:
        law = "what is rolled back gives way to the last good policy"
        held, good = self._held, self._good
        require(held is not None and held.version == self.speaks == event.from_version, law, event)
        require(event.version != self.speaks, law, event)
        if event.cause != "operator":
            require(self.gives_way, "a policy is rolled back for a reason", event)
        if event.checkpoint_digest:
            require(good == _Installed(event.version, event.checkpoint_digest), law, f"{event}; good is {good}")
        self._held = good if event.checkpoint_digest else None
        self._good, self._proposals, self._failed = None, 0, False
        self.speaks = event.version
