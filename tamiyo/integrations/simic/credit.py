"""What came of a decision, from the decisions after it: pure functions of what the journal says.

    return   how much the loss of the run fell within the next `horizon` decisions, less a penalty for each regression
             of training that its field reports name
    hazard   the worst that training itself showed within them, as one of the five risk classes

The loss is the last validation loss that is known; where a run has none, the smoothed training loss. It counts relative
to where it stood, in units of what is usual in the log, so that runs of different losses can be learned from together.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.intent import POLICY_ACTIONS
from tamiyo.core.risk import DOWNGRADE, NOTHING, PAUSE
from tamiyo.core.signals import METRIC_SIGNALS
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["APPLIED", "Moment", "Outcome", "action_of", "blames_training", "hazard_of", "outcomes"]

PAUSED = 2
"""The class of the action head that pauses; the reserved ones come to the same."""
APPLIED = "applied"
"""What is said of a command that was carried out: `TamiyoService.record_delivery`."""
RETURN_MAX = 2.0
"""Of the loss, in usual falls; so many regressions count at most, too."""
SMOOTHING = 0.1
"""Weight of the newest training loss: that of the norms, `tamiyo.core.norms`."""

TRAINING_SIGNALS = frozenset({*METRIC_SIGNALS.values(), "training_loss", "validation_loss", "loss_delta"})
"""What says something of training. The others are about the controller, its library or its own risk head: a head that
learned from what it had said itself would only confirm it."""

_HAZARDS = {NOTHING: 1, DOWNGRADE: 2, PAUSE: 3}
_CRITICAL = 4


@dataclass(slots=True)
class Moment:
    """One decision as the journal tells of it; what comes later is filled in when it is read.

    `losses` are validation and training loss, None where the packet has none that is finite. `blames_training`: the
    reason of its command is about training itself; `regressed`: and its field report says that this went wrong.
    `delivery` is what whoever applies commands said of it, "" for nothing. `superseded`: a safe PAUSE was released in
    its place.
    """

    run_id: str
    step_lsn: int
    action: int
    losses: tuple[float | None, float | None]
    hazard: int
    blames_training: bool = False
    regressed: bool = False
    delivery: str = ""
    superseded: bool = False

    @property
    def was_applied(self) -> bool:
        """As far as is known: the word of whoever applies it counts, silence does not."""
        return not self.superseded and self.delivery in ("", APPLIED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a decision: `value` is its return, `hazard` a risk class.

    `judged_lsn` is the step LSN of the last decision that says so.
    """

    value: float
    hazard: int
    judged_lsn: int


def action_of(command: pb.AdaptationCommand) -> int:
    """The class of the action head that asks for this command."""
    detail = 0
    if command.command_type == pb.COMMAND_SEED and command.seed_operation.operation == pb.SEED_OP_CULL:
        detail = pb.SEED_OP_CULL
    elif command.command_type == pb.COMMAND_CIRCUIT_BREAKER:
        detail = command.circuit_breaker.desired_state
    asked = (command.command_type, detail)
    return next((action for action, meant in POLICY_ACTIONS.items() if meant == asked), PAUSED)


def hazard_of(rows: Iterable[journal.TriggeredRow]) -> int:
    """The worst of the rows that read nothing but training: 0 for none, 4 for a CRITICAL one."""
    classes = [0]
    for row in filter(_is_of_training, rows):
        critical = row.level >= pb.TELEMETRY_LEVEL_CRITICAL
        classes.append(_CRITICAL if critical else _HAZARDS.get(row.effect, _HAZARDS[NOTHING]))
    return max(classes)


def blames_training(reason: str, rows: Iterable[journal.TriggeredRow]) -> bool:
    """Whether the reason that a decision names is a row about training."""
    return any(row.reason == reason and _is_of_training(row) for row in rows)


def _is_of_training(row: journal.TriggeredRow) -> bool:
    return all(reading.signal in TRAINING_SIGNALS for reading in row.readings)


def outcomes(moments: Sequence[Moment], horizon: int) -> list[Outcome | None]:
    """What came of each, in the order of the log; None where that is not known.

    It is not known where a run, or the log, ends within the horizon, and where no newer loss came within it.
    """
    falls: dict[int, float] = {}
    after: dict[int, Sequence[Moment]] = {}
    for places in _runs(moments):
        known = _known_losses([moments[place] for place in places])
        for index, place in enumerate(places[: max(len(places) - horizon, 0)]):
            fall = _fall(known[index], known[index + horizon])
            if fall is not None:
                falls[place] = fall
                after[place] = [moments[later] for later in places[index + 1 : index + 1 + horizon]]
    usual = median([abs(fall) for fall in falls.values() if fall] or [1.0])
    return [_outcome(falls[place] / usual, after[place]) if place in falls else None for place in range(len(moments))]


def _outcome(fall: float, after: Sequence[Moment]) -> Outcome:
    regressions = sum(later.regressed for later in after)
    value = min(max(fall, -RETURN_MAX), RETURN_MAX) - min(float(regressions), RETURN_MAX)
    return Outcome(value, max(later.hazard for later in after), after[-1].step_lsn)


def _runs(moments: Sequence[Moment]) -> Iterable[list[int]]:
    """The places of each run's decisions."""
    runs: dict[str, list[int]] = {}
    for place, moment in enumerate(moments):
        runs.setdefault(moment.run_id, []).append(place)
    return runs.values()


def _known_losses(run: Sequence[Moment]) -> list[tuple[float, int]]:
    """At each decision the last loss that is known, and where it was measured; -1 before the first."""
    validated = any(moment.losses[0] is not None for moment in run)
    known, found = (math.nan, -1), list[tuple[float, int]]()
    for index, moment in enumerate(run):
        loss = moment.losses[0 if validated else 1]
        if loss is not None:
            is_smoothed = not validated and known[1] >= 0
            known = (known[0] + SMOOTHING * (loss - known[0]) if is_smoothed else loss), index
        found.append(known)
    return found


def _fall(before: tuple[float, int], later: tuple[float, int]) -> float | None:
    """By which share of itself the loss fell; None where there is nothing to compare."""
    (start, measured), (end, measured_later) = before, later
    if measured < 0 or measured_later <= measured or not start:
        return None
    fall = (start - end) / abs(start)
    return fall if math.isfinite(fall) else None
