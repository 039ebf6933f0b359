"""Circuit breakers: pure functions of (record, outcome, event time), no clock of their own.

    CLOSED ──3 failures running──▶ OPEN ──cool-down──▶ HALF_OPEN ──2 successes──▶ CLOSED
                                    ▲                     │
                                    └──────a failure──────┘

While a breaker is OPEN the call it wraps is not attempted. Outcomes only count; the one thing that changes a
state is a `Move`, which is a journal event of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "BREAKERS",
    "CLOSED",
    "FAILURE",
    "HALF_OPEN",
    "OPEN",
    "REQUEST",
    "STEP_BREAKERS",
    "SUCCESS",
    "TRANSITIONS",
    "WRITER_FAILED",
    "Breaker",
    "Move",
    "admits",
    "after",
    "awaits_trial",
    "counted",
    "heeds_success",
    "move_after",
    "moved",
    "outcomes_of_a_gap",
]

CLOSED = pb.CIRCUIT_STATE_CLOSED
OPEN = pb.CIRCUIT_STATE_OPEN
HALF_OPEN = pb.CIRCUIT_STATE_HALF_OPEN

BREAKERS = ("inference", "log", "metadata", "publishing")
STEP_BREAKERS = ("inference", "log")
"""The two that the step needs: when one opens it brings on conservative mode and holds it."""

SUCCESS, FAILURE, REQUEST, WRITER_FAILED = "success", "failure", "request", "writer_failed"
"""What can happen to a breaker: the two outcomes, a call that asks to be let through, the log's writer ending."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """One breaker: consecutive failures while CLOSED, successes while HALF_OPEN, when it last moved."""

    state: int = CLOSED
    failures: int = 0
    successes: int = 0
    moved_at_ns: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """A change of state that is due, and why."""

    from_state: int
    to_state: int
    cause: str


@dataclass(frozen=True, slots=True)
class Transition:
    """Where `event` leads from a state, once `when` holds; `cause` is what the journal says."""

    to_state: int
    when: str  # "always", "failures_reached", "trials_passed" or "cooled_down"
    cause: str


TRANSITIONS: Mapping[int, Mapping[str, Transition]] = MappingProxyType(
    {
        CLOSED: {
            FAILURE: Transition(OPEN, "failures_reached", "failures"),
            WRITER_FAILED: Transition(OPEN, "always", "writer_failed"),
        },
        OPEN: {
            REQUEST: Transition(HALF_OPEN, "cooled_down", "cooled_down"),
        },
        HALF_OPEN: {
            SUCCESS: Transition(CLOSED, "trials_passed", "trials_passed"),
            FAILURE: Transition(OPEN, "always", "trial_failed"),
            WRITER_FAILED: Transition(OPEN, "always", "writer_failed"),
        },
    }
)
"""By state and event. What is not here changes no state: a late outcome of an OPEN breaker, say."""


def counted(breaker: Breaker, event: str) -> Breaker:
    """The counters after an outcome; the state stays."""
    if event == SUCCESS and breaker.state == CLOSED:
        return replace(breaker, failures=0) if breaker.failures else breaker
    if event == SUCCESS and breaker.state == HALF_OPEN:
        return replace(breaker, successes=breaker.successes + 1)
    if event == FAILURE and breaker.state != OPEN:
        return replace(breaker, failures=breaker.failures + 1)
    return breaker


def move_after(breaker: Breaker, event: str, now_ns: int, thresholds: Thresholds) -> Move | None:
    """The move that is due once `event` has been counted, or None."""
    transition = TRANSITIONS[breaker.state].get(event)
    if transition is None or not _holds(transition.when, breaker, now_ns, thresholds):
        return None
    return Move(breaker.state, transition.to_state, transition.cause)


def moved(breaker: Breaker, move: Move, now_ns: int) -> Breaker:
    """The breaker in its new state. Failures stay visible while it is not CLOSED."""
    failures = 0 if move.to_state == CLOSED else breaker.failures
    return Breaker(state=move.to_state, failures=failures, successes=0, moved_at_ns=now_ns)


def after(breaker: Breaker, event: str, now_ns: int, thresholds: Thresholds) -> Breaker:
    """The breaker after `event`, counted, and the move that is due after it, made."""
    breaker = counted(breaker, event)
    move = move_after(breaker, event, now_ns, thresholds)
    return breaker if move is None else moved(breaker, move, now_ns)


def admits(breaker: Breaker, now_ns: int, thresholds: Thresholds) -> bool:
    """Whether the wrapped call may be attempted now; an OPEN breaker lets a trial through after its cool-down."""
    return breaker.state != OPEN or move_after(breaker, REQUEST, now_ns, thresholds) is not None


def awaits_trial(breaker: Breaker) -> bool:
    """Whether it was let half open and nothing has come of that yet."""
    return breaker.state == HALF_OPEN and breaker.successes == 0


def heeds_success(breaker: Breaker) -> bool:
    """Whether one more success would change anything: where it has failures behind it, or is not CLOSED."""
    return breaker.state != CLOSED or breaker.failures > 0


def outcomes_of_a_gap(breaker: Breaker, timed_out: int, thresholds: Thresholds) -> tuple[str, ...]:
    """What the batch that tells of unrecorded steps says of the log.

    As the trial that was waited for it is a success; else each step that the log was too busy for is a failure, and
    more of them than it takes to open say nothing new.
    """
    if awaits_trial(breaker):
        return (SUCCESS,)
    return (FAILURE,) * min(timed_out, int(thresholds.breaker_failures))


def _holds(when: str, breaker: Breaker, now_ns: int, thresholds: Thresholds) -> bool:
    if when == "failures_reached":
        return breaker.failures >= thresholds.breaker_failures
    if when == "trials_passed":
        return breaker.successes >= thresholds.breaker_trials
    if when == "cooled_down":
        return now_ns - breaker.moved_at_ns >= thresholds.breaker_cool_down_s * 1e9
    return True
