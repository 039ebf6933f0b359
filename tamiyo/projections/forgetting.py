"""What the tables forget when a retention run is planned: the rows, and the columns, of records that it takes away.

Rule 1: a row made from a record that is gone goes; a column that another record's row has from it becomes NULL.
Rule 2: they go when the run is planned, whether its records are gone by then or not. So whoever reads the log later,
        with stubs and without a beginning, comes to the same rows as whoever followed it while it was whole.
Rule 3: plans and bases themselves keep their payloads; a run that pruned them has a later plan, or a later base.
Rule 4: what was pruned without a plan, for which a full disk had no room, is forgotten when the log is seen to begin
        later; that is the same for everybody who looks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, delete, update
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import Delete

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import MESSAGES, Event
from tamiyo.projections.models import (
    Base,
    BaseRow,
    BreakerMove,
    ConservativeChange,
    Decision,
    Delivery,
    Directive,
    FieldReport,
    Opening,
    PolicyUpdateRow,
    PrunedSegment,
    ReleasedPause,
    RetentionRun,
    Snapshot,
    UndecidedStep,
    UnrecordedSteps,
)
from tamiyo.projections.writing import drop_unnamed_policies

__all__ = ["FORGOTTEN", "forget", "forget_before"]

Statement = Callable[[int], Update | Delete]
"""What to do about one kind of record, up to an LSN."""


def _rows(table: type[Base], column: InstrumentedAttribute[Any], *which: ColumnElement[bool]) -> Statement:
    """Delete the rows that were made from records up to an LSN."""
    return lambda upto_lsn: delete(table).where(column <= upto_lsn, *which)


def _columns(
    column: InstrumentedAttribute[Any], *others: str, which: tuple[ColumnElement[bool], ...] = ()
) -> Statement:
    """Set the column that says where a record lies, and others that came from it, to NULL."""
    gone = dict.fromkeys((column.key, *others))
    return lambda upto_lsn: update(column.class_).where(column <= upto_lsn, *which).values(gone)


def _inference(name: str) -> tuple[Statement, ...]:
    others = ("inference", "inference_elapsed_ns", "policy_id")
    return tuple(
        _columns(table.inference_lsn, *others, which=(table.inference == name,)) for table in (Decision, UndecidedStep)
    )


def _policy_updates(what: str) -> tuple[Statement, ...]:
    return (_rows(PolicyUpdateRow, PolicyUpdateRow.lsn, PolicyUpdateRow.what == what),)


def _step_index(upto_lsn: int) -> Update:
    return update(Decision).where(Decision.step_lsn <= upto_lsn).values(step_index=None)


ATTEMPT = ("attempts", "succeeded", "cause", "attempted_at_ns")
COMPLETION = (
    "completed_at_ns", "first_lsn", "freed_bytes", "payloads_redacted", "digest_lsn", "digest", "resumed",
)  # fmt: skip

FORGOTTEN: Mapping[type[Event], tuple[Statement, ...]] = MappingProxyType(
    {
        journal.ServiceOpened: (_rows(Opening, Opening.lsn),),
        journal.StepReceived: (_rows(UndecidedStep, UndecidedStep.lsn), _step_index),
        journal.GraphObserved: (
            _columns(Decision.graph_lsn, "coverage"),
            _columns(UndecidedStep.graph_lsn, "coverage"),
        ),
        journal.InferenceObserved: _inference("observed"),
        journal.InferenceTimedOut: _inference("timed_out"),
        journal.InferenceFailed: _inference("failed"),
        journal.InferenceSkipped: _inference("skipped"),
        # Whether a step before it is still undecided, nobody can say who has not seen the decision.
        journal.DecisionMade: (_rows(Decision, Decision.lsn), _rows(UndecidedStep, UndecidedStep.lsn)),
        journal.StepPaused: (
            _rows(ReleasedPause, ReleasedPause.lsn, ReleasedPause.decision_lsn.is_(None)),
            _rows(UndecidedStep, UndecidedStep.lsn),
        ),
        journal.CommitLate: (
            _rows(ReleasedPause, ReleasedPause.lsn, ReleasedPause.decision_lsn.is_not(None)),
            _columns(Decision.superseded_lsn, "superseded_by", "superseded_cause"),
            _columns(FieldReport.superseded_lsn),
        ),
        journal.StepsUnrecorded: (_rows(UnrecordedSteps, UnrecordedSteps.lsn),),
        journal.FieldReportIssued: (_rows(FieldReport, FieldReport.lsn),),
        journal.PublishAttempted: (_columns(FieldReport.attempt_lsn, *ATTEMPT),),
        journal.FieldReportsDropped: (_columns(FieldReport.dropped_lsn),),
        journal.CommandDelivered: (_rows(Delivery, Delivery.lsn),),
        journal.OperatorDirected: (_rows(Directive, Directive.lsn),),
        journal.PolicyInstalled: _policy_updates("installed"),
        journal.PolicyRejected: _policy_updates("rejected"),
        journal.PolicyRolledBack: _policy_updates("rolled_back"),
        journal.BreakerMoved: (_rows(BreakerMove, BreakerMove.lsn),),
        journal.ConservativeModeChanged: (_rows(ConservativeChange, ConservativeChange.lsn),),
        journal.StateBase: (_rows(BaseRow, BaseRow.lsn),),
        journal.SnapshotTaken: (_rows(Snapshot, Snapshot.lsn),),
        journal.RetentionPlanned: (_rows(RetentionRun, RetentionRun.lsn),),
        journal.RetentionCompleted: (
            _columns(RetentionRun.completed_lsn, *COMPLETION),
            _rows(PrunedSegment, PrunedSegment.lsn),
        ),
    }
)
"""By kind of record, what is left of it in the tables: a test holds this against the projectors."""


def forget(connection: Connection, plan: journal.RetentionPlanned) -> None:
    """Take away what the records that a run is going to take away had left in the tables."""
    _forget(connection, _taken(plan))


def forget_before(connection: Connection, lsn: int) -> None:
    """Take away what the records before an LSN had left in the tables."""
    _forget(connection, ((message, lsn - 1) for message in FORGOTTEN))


def _forget(connection: Connection, taken: Iterable[tuple[type[Event], int]]) -> None:
    for message, upto_lsn in taken:
        for statement in FORGOTTEN.get(message, ()):
            connection.execute(statement(upto_lsn))
    drop_unnamed_policies(connection)


def _taken(plan: journal.RetentionPlanned) -> Iterator[tuple[type[Event], int]]:
    if plan.prune_before_lsn:
        yield from ((message, plan.prune_before_lsn - 1) for message in FORGOTTEN)
    for window in plan.payloads:
        message = MESSAGES.get(window.kind)
        if message is not None:
            yield message, window.upto_lsn
