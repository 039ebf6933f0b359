"""The breakers' laws, kept by a second bookkeeper: what a log says of breakers, and what it may say.

It knows the requirements, not the code: three failures in a row open, a cool-down lets one trial through, two
successes close, a failure opens again, and nothing is tried while a breaker is open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.state import State
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.machine.law import require

__all__ = ["BreakerBook"]

CLOSED, OPEN, HALF_OPEN = pb.CIRCUIT_STATE_CLOSED, pb.CIRCUIT_STATE_OPEN, pb.CIRCUIT_STATE_HALF_OPEN
NAMES: Mapping[int, str] = {CLOSED: "CLOSED", OPEN: "OPEN", HALF_OPEN: "HALF_OPEN"}
MOVES: Mapping[tuple[int, int], frozenset[str]] = {
    (CLOSED, OPEN): frozenset({"failures", "writer_failed"}),
    (OPEN, HALF_OPEN): frozenset({"cooled_down"}),
    (HALF_OPEN, CLOSED): frozenset({"trials_passed"}),
    (HALF_OPEN, OPEN): frozenset({"trial_failed", "writer_failed"}),
}
"""Every move there is, with its causes."""
NEVER_LATE = ("inference",)
"""Breakers whose outcomes all come from calls of the step itself: none may be counted while they are open."""


@dataclass(slots=True)
class _Record:
    state: int = CLOSED
    failures: int = 0  # in a row
    successes: int = 0  # since HALF_OPEN
    moved_at_ns: int = 0


class BreakerBook:
    """Follows the events of a log in order; raises `LawBroken` at the first that breaks a law."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._thresholds = Thresholds()

    def take(self, event: Event) -> None:
        """One more event."""
        if isinstance(event, journal.ServiceOpened):
            self._opened(event)
        elif isinstance(event, journal.BreakerMoved):
            self._moved(event)
        else:
            for name, succeeded in self._outcomes(event):
                self._count(name, succeeded=succeeded)

    def _outcomes(self, event: Event) -> Sequence[tuple[str, bool]]:
        """What an event says of the calls that breakers wrap."""
        if isinstance(event, journal.DecisionMade):
            return [(outcome.breaker, outcome.succeeded) for outcome in event.outcomes]
        if isinstance(event, journal.StepsUnrecorded):
            return self._gap(event)
        of: Mapping[type[Event], tuple[bool, str, bool]] = {
            journal.BlueprintObserved: (not getattr(event, "late", False), "metadata", True),
            journal.CommitLate: (True, "log", False),
            journal.StepPaused: (getattr(event, "cause", "") == "timeout_wal", "log", False),
            journal.PublishAttempted: (True, "publishing", getattr(event, "succeeded", False)),
            journal.TelemetryDrained: (True, "publishing", True),
        }
        counts, name, succeeded = of.get(type(event), (False, "", False))
        return [(name, succeeded)] if counts else []

    def _gap(self, event: journal.StepsUnrecorded) -> Sequence[tuple[str, bool]]:
        """The trial was waited for; else steps were refused, of which no more count than open the breaker."""
        log = self._record("log")
        if log.state == HALF_OPEN and not log.successes:
            return [("log", True)]
        return [("log", False)] * min(event.timed_out, int(self._thresholds.breaker_failures))

    def state_of(self, name: str) -> int:
        """Where a breaker stands."""
        return self._record(name).state

    def admits(self, name: str, now_ns: int) -> bool:
        """Whether the wrapped call may be attempted at this event time."""
        record = self._record(name)
        return record.state != OPEN or now_ns - record.moved_at_ns >= self._thresholds.breaker_cool_down_s * 1e9

    def check(self, state: State) -> None:
        """At the end of a batch: no move is due, and the controller's own records say the same."""
        for name, breaker in state.breakers.items():
            record = self._record(name)
            due = record.state == CLOSED and record.failures >= self._thresholds.breaker_failures
            due = due or (record.state == HALF_OPEN and record.successes >= self._thresholds.breaker_trials)
            require(not due, "a breaker moves when it is due", f"{name}: {record}")
            same = breaker.state == record.state
            same = same and (record.state != CLOSED or breaker.failures == record.failures)
            same = same and (record.state != HALF_OPEN or breaker.successes == record.successes)
            require(same, "breakers move by their table alone", f"{name}: {breaker} in the state, {record} by the log")

    def _record(self, name: str) -> _Record:
        return self._records.setdefault(name, _Record())

    def _opened(self, event: journal.ServiceOpened) -> None:
        self._thresholds = Thresholds.from_map(event.thresholds)
        for record in self._records.values():
            record.moved_at_ns = event.event_time_ns if record.state == OPEN else record.moved_at_ns

    def _count(self, name: str, *, succeeded: bool) -> None:
        record = self._record(name)
        if record.state == OPEN:
            require(name not in NEVER_LATE, "while a breaker is open its call is not attempted", f"{name}: {record}")
        elif succeeded:
            record.failures = 0
            record.successes += record.state == HALF_OPEN
        else:
            record.failures += 1

    def _moved(self, event: journal.BreakerMoved) -> None:
        record, law = self._record(event.breaker), "breakers move by their table alone"
        move = (event.from_state, event.to_state)
        told = f"{event.breaker} {NAMES.get(move[0])} to {NAMES.get(move[1])} because of {event.cause!r}; {record}"
        require(record.state == event.from_state, law, told)
        require(event.cause in MOVES.get(move, frozenset()), law, told)
        cooled = event.event_time_ns - record.moved_at_ns >= self._thresholds.breaker_cool_down_s * 1e9
        held = {
            "failures": record.failures >= self._thresholds.breaker_failures,
            "cooled_down": cooled,
            "trials_passed": record.successes >= self._thresholds.breaker_trials,
            "trial_failed": record.failures > 0,
        }
        require(held.get(event.cause, True), "a breaker moves no sooner than it is due", told)
        self._records[event.breaker] = _Record(event.to_state, 0, 0, event.event_time_ns)
