"""The breakers as one batch moves them: outcomes count first, and a move follows where one is due."""

from collections.abc import Mapping
from functools import lru_cache

from tamiyo.core import breakers
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import Breaker
from tamiyo.core.thresholds import Thresholds

__all__ = ["Ledger"]

_GOOD = frozenset({breakers.SUCCESS, breakers.REQUEST})
"""What changes nothing where all is well, which is nearly always."""


@lru_cache(maxsize=2 * len(breakers.BREAKERS))
def _outcome(name: str, succeeded: bool) -> journal.BreakerOutcome:  # noqa: FBT001  a fact, not an option
    """The message is shared: it is copied into records, and never written to."""
    return journal.BreakerOutcome(breaker=name, succeeded=succeeded)


class Ledger:
    """Trials are kept apart because they come before the outcomes they make possible, in the journal too."""

    def __init__(self, records: Mapping[str, Breaker], thresholds: Thresholds, step_lsn: int = 0) -> None:
        """Begin from the state's breakers, which stay as they are; `step_lsn` is 0 where no step moves them."""
        self.records = dict(records)
        self.thresholds = thresholds
        self.step_lsn = step_lsn
        self.outcomes: list[journal.BreakerOutcome] = []
        self.trials: list[journal.BreakerMoved] = []
        self.moves: list[journal.BreakerMoved] = []

    def record(self, name: str, *, succeeded: bool, now_ns: int) -> None:
        """Count one outcome of the wrapped call."""
        self.outcomes.append(_outcome(name, succeeded))
        self.happened(name, breakers.SUCCESS if succeeded else breakers.FAILURE, now_ns)

    def happened(self, name: str, event: str, now_ns: int) -> None:
        """Count `event` and make the move that is due after it."""
        if event in _GOOD and not breakers.heeds_success(self.records[name]):
            return
        self.records[name] = breakers.counted(self.records[name], event)
        move = breakers.move_after(self.records[name], event, now_ns, self.thresholds)
        if move is None:
            return
        self.records[name] = breakers.moved(self.records[name], move, now_ns)
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
