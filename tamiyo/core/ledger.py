"""The breakers as one batch moves them: outcomes count first, and a move follows where one is due."""

from collections.abc import Mapping

from tamiyo.core import breakers
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import Breaker
from tamiyo.core.thresholds import Thresholds

__all__ = ["Ledger"]

_GOOD = frozenset({breakers.SUCCESS, breakers.REQUEST})
"""What changes nothing where all is well, which is nearly always."""


def _outcome(name: str, *, succeeded: bool) -> bytes:
    outcome = journal.BreakerOutcome(breaker=name, succeeded=succeeded)
    return journal.DecisionMade(outcomes=[outcome]).SerializeToString()


_OUTCOMES = {
    succeeded: {name: _outcome(name, succeeded=succeeded) for name in breakers.BREAKERS} for succeeded in (True, False)
}
"""Each as the bytes of a decision that has nothing else, to be merged into a step's: faster than copying messages."""


class Ledger:
    """Trials are kept apart because they come before the outcomes they make possible, in the journal too."""

    __slots__ = ("moves", "outcomes", "records", "step_lsn", "thresholds", "trials")

    def __init__(self, records: Mapping[str, Breaker], thresholds: Thresholds, step_lsn: int = 0) -> None:
        """Begin from the state's breakers, which stay as they are; `step_lsn` is 0 where no step moves them."""
        self.records = records
        self.thresholds = thresholds
        self.step_lsn = step_lsn
        self.outcomes: list[bytes] = []
        self.trials: list[journal.BreakerMoved] = []
        self.moves: list[journal.BreakerMoved] = []

    def record(self, name: str, *, succeeded: bool, now_ns: int) -> None:
        """Count one outcome of the wrapped call."""
        self.outcomes.append(_OUTCOMES[succeeded][name])
        self.happened(name, breakers.SUCCESS if succeeded else breakers.FAILURE, now_ns)

    def happened(self, name: str, event: str, now_ns: int) -> None:
        """Count `event` and make the move that is due after it."""
        record = self.records[name]
        if event in _GOOD and not breakers.heeds_success(record):
            return
        record = breakers.counted(record, event)
        move = breakers.move_after(record, event, now_ns, self.thresholds)
        self.records = {**self.records, name: record if move is None else breakers.moved(record, move, now_ns)}
        if move is None:
            return
        (self.trials if event == breakers.REQUEST else self.moves).append(
            journal.BreakerMoved(
                breaker=name,
                from_state=move.from_state,
                to_state=move.to_state,
                event_time_ns=now_ns,
                cause=move.cause,
                step_lsn=self.step_lsn,
            )
        )

    def holding(self) -> list[str]:
        """The breakers that hold conservative mode: those that a step needs and that are not CLOSED."""
        return [name for name in breakers.STEP_BREAKERS if self.records[name].state != breakers.CLOSED]
