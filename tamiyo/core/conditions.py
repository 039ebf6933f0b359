"""Lasting conditions: a risk row that stays true is an event when it starts and when it ends, with reminders between.

Keyed by (reason, level), so that an escalation is a start of its own. What the log says of a commit is known only at
the next decision after one: until then its conditions neither end nor start again.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.options import Options
from tamiyo.core.risk import RISK_ROWS, Row
from tamiyo.core.state import Condition
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["ENDED", "LASTING", "LOG_REASONS", "STARTED", "edges_of_decision", "edges_of_pause"]

STARTED, LASTING, ENDED = "started", "lasting", "ended"

LOG_REASONS = frozenset({"timeout_wal", "log_full", "log_failed"})
"""Causes of a safe PAUSE: known only outside `decide`."""

ROWS: Mapping[tuple[str, int], Row] = MappingProxyType({(row.reason, row.level): row for row in RISK_ROWS})
_LOG_ROWS: Mapping[str, Row] = MappingProxyType({row.reason: row for row in RISK_ROWS if row.reason in LOG_REASONS})


def edges_of_decision(state: Standing, triggered: Iterable[Row], step_index: int) -> list[journal.ConditionEdge]:
    """What starts, lasts and ends with a decision: starts and reminders in table order, then ends, oldest first."""
    known = state.conditions
    now = {(row.reason, row.level): row for row in triggered}
    if not now and not known:
        return []
    edges = [
        edge for key, row in now.items() if (edge := _shown(known.get(key), row, step_index, state.options)) is not None
    ]
    judged = state.unsettled is not None  # the last commit was in time
    for key, condition in known.items():
        if key not in now and (judged or key[0] not in LOG_REASONS):
            edges.append(_edge(ENDED, *key, condition.since_step_index, step_index))
    return edges


def edges_of_pause(state: Standing, cause: str, step_index: int) -> list[journal.ConditionEdge]:
    """What a safe PAUSE shows of its cause: the start of the condition, or a reminder."""
    row = _LOG_ROWS.get(cause)
    if row is None:
        return []
    edge = _shown(state.conditions.get((row.reason, row.level)), row, step_index, state.options)
    return [edge] if edge is not None else []


def _shown(condition: Condition | None, row: Row, step_index: int, options: Options) -> journal.ConditionEdge | None:
    if condition is None:
        return _edge(STARTED, row.reason, row.level, step_index, step_index)
    critical = row.level == pb.TELEMETRY_LEVEL_CRITICAL
    every = options.reminder_steps_critical if critical else options.reminder_steps
    if step_index - condition.shown_step_index < every:
        return None
    return _edge(LASTING, row.reason, row.level, condition.since_step_index, step_index)


def _edge(edge: str, reason: str, level: int, since: int, step_index: int) -> journal.ConditionEdge:
    row = ROWS.get((reason, level))  # None where an older version had a row that is gone
    return journal.ConditionEdge(
        reason=reason,
        level=level,
        priority=row.priority if row is not None else pb.MESSAGE_PRIORITY_NORMAL,
        edge=edge,
        since_step_index=since,
        step_index=step_index,
    )
