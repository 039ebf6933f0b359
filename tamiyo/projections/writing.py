"""A draft, written down: inserts first, then the changes of rows in the order they happened."""

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Update, bindparam, delete, exists, insert, select, update

from tamiyo.projections.draft import Draft, Waiting
from tamiyo.projections.models import Base, Decision, FieldReport, Policy, RetentionRun, UndecidedStep

__all__ = ["UPDATES", "drop_unnamed_policies", "read_draft", "write_draft"]

_TABLES = Base.metadata.tables
"""The tables behind the models: only on these does an update take a list of rows with a condition of its own."""

UPDATES: Mapping[str, Update] = MappingProxyType(
    {
        "late_decision": update(_TABLES["decisions"]).where(Decision.lsn == bindparam("at")),
        "late_report": update(_TABLES["field_reports"]).where(
            FieldReport.lsn > bindparam("step"),  # by key alone: a commit is known to be late soon after its report
            FieldReport.lsn < bindparam("before"),
            FieldReport.step_lsn == bindparam("step"),
            FieldReport.synthesised.is_(False),
        ),
        "attempted_report": update(_TABLES["field_reports"]).where(FieldReport.lsn == bindparam("at")),
        "dropped_report": update(_TABLES["field_reports"]).where(FieldReport.lsn == bindparam("at")),
        "completed_run": update(_TABLES["retention_runs"]).where(RetentionRun.run_id == bindparam("run")),
    }
)
"""What an event changes in rows of earlier ones; where those are gone it changes nothing."""

_WAITING = (
    "step_index", "received_unix_ns", "coverage", "graph_lsn", "inference", "inference_lsn", "inference_elapsed_ns",
    "policy_id",
)  # fmt: skip


def read_draft(connection: Connection) -> Draft:
    """An empty draft, with what the tables hold that the next events may refer to."""
    columns = [UndecidedStep.lsn, *(getattr(UndecidedStep, name) for name in _WAITING)]
    steps = connection.execute(select(*columns).order_by(UndecidedStep.lsn))
    return Draft(
        waiting={lsn: Waiting(*facts) for lsn, *facts in steps},
        policies=set(connection.execute(select(Policy.id)).scalars()),
    )


def write_draft(connection: Connection, draft: Draft) -> None:
    """Write everything that the draft adds and changes."""
    for table, rows in draft.inserts.items():
        connection.execute(insert(table), rows)
    for name, changes in groupby(draft.updates, key=itemgetter(0)):
        connection.execute(UPDATES[name], [parameters for _, parameters in changes])
    connection.execute(delete(UndecidedStep))
    if draft.waiting:
        connection.execute(insert(UndecidedStep), [_waiting_row(lsn, step) for lsn, step in draft.waiting.items()])
    if draft.unnamed_policies:
        drop_unnamed_policies(connection)


def drop_unnamed_policies(connection: Connection) -> None:
    """Keep the policies that a decision names, or a step that awaits one: never more, whenever somebody looks."""
    named = (exists().where(table.policy_id == Policy.id) for table in (Decision, UndecidedStep))
    connection.execute(delete(Policy).where(*(~one for one in named)))


def _waiting_row(lsn: int, step: Waiting) -> dict[str, Any]:
    return {"lsn": lsn, **{name: getattr(step, name) for name in _WAITING}}
