"""Telemetry events: what of the journal is worth telling an operator, by the kind of its event.

Conditions that last are told by their edges; everything else as often as it stands in the journal. Each notice has
the priority of its row in the risk table; those without a row have theirs here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import OPEN, STEP_BREAKERS
from tamiyo.core.conditions import ENDED, STARTED
from tamiyo.core.events import Event
from tamiyo.core.options import Options
from tamiyo.core.risk import RISK_ROWS
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["EVENT_NAMES", "NOTICES", "Notice", "enum_name", "notices_of"]

INFO, WARNING = pb.TELEMETRY_LEVEL_INFO, pb.TELEMETRY_LEVEL_WARNING
NORMAL, HIGH = pb.MESSAGE_PRIORITY_NORMAL, pb.MESSAGE_PRIORITY_HIGH
NAMES_REMEMBERED = 256

EVENT_NAMES: Mapping[str, str] = MappingProxyType({"conservative_mode": "pause_triggered"})
"""Rows whose event is not called as the row is."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One telemetry event before it has an id; level and priority are Leyline's."""

    name: str
    level: int
    priority: int
    attributes: Mapping[str, str]


@lru_cache(maxsize=NAMES_REMEMBERED)
def enum_name(family: EnumTypeWrapper, number: int) -> str:
    """Leyline's name of a number; one that has none stays a number."""
    known = family.DESCRIPTOR.values_by_number.get(number)
    return str(known.name) if known is not None else str(number)


def notices_of(event: Event, options: Options) -> list[Notice]:
    """What an event tells under the options in force, in order; most tell nothing."""
    tell = NOTICES.get(type(event))
    return tell(event, options) if tell is not None else []


def _decision(event: journal.DecisionMade, _: Options) -> list[Notice]:
    if event.command_id:
        readings = {(row.reason, row.level): row.readings for row in event.rows} if event.edges else {}
        return [_edge(edge, readings.get((edge.reason, edge.level), ())) for edge in event.edges]
    # A log from before conditions had edges: each row is told each time.
    return [_row(row) for row in event.rows]


def _edge(edge: journal.ConditionEdge, readings: Any) -> Notice:
    attributes = {
        "reason": edge.reason,
        "condition": edge.edge,
        "condition_level": enum_name(pb.TelemetryLevel, edge.level),
        "since_step_index": str(edge.since_step_index),
    }
    if edge.edge != ENDED:
        attributes.update(_readings(readings))
    level = INFO if edge.edge == ENDED else edge.level
    return Notice(EVENT_NAMES.get(edge.reason, edge.reason), level, edge.priority, attributes)


def _row(row: journal.TriggeredRow) -> Notice:
    attributes = {"reason": row.reason, "condition": STARTED, **_readings(row.readings)}
    return Notice(EVENT_NAMES.get(row.reason, row.reason), row.level, row.priority, attributes)


def _readings(readings: Any) -> dict[str, str]:
    """What a row read: by signal its value, and what that was compared with."""
    found: dict[str, str] = {}
    for reading in readings:
        found[reading.signal] = repr(reading.value)
        if reading.comparison != "finite":
            found[f"{reading.signal}_limit"] = f"{reading.comparison} {reading.threshold!r}"
    return found


def _pause(event: journal.CommitLate | journal.StepPaused, _: Options) -> list[Notice]:
    """A safe PAUSE that was released outside a decision: told by its edges, as a row is."""
    if event.edges:
        return [_edge(edge, ()) for edge in event.edges]
    return []


def _breaker(event: journal.BreakerMoved, _: Options) -> list[Notice]:
    opened = event.to_state == OPEN
    urgent = opened and event.breaker in STEP_BREAKERS
    attributes = {
        "breaker": event.breaker,
        "from_state": enum_name(pb.CircuitBreakerState, event.from_state),
        "to_state": enum_name(pb.CircuitBreakerState, event.to_state),
        "cause": event.cause,
    }
    return [Notice("breaker_moved", WARNING if opened else INFO, HIGH if urgent else NORMAL, attributes)]


def _conservative(event: journal.ConservativeModeChanged, _: Options) -> list[Notice]:
    name, level = ("conservative_entered", WARNING) if event.active else ("conservative_exited", INFO)
    return [Notice(name, level, NORMAL, {"reason": event.reason})]


def _directed(event: journal.OperatorDirected, _: Options) -> list[Notice]:
    attributes = {"directive": event.directive, "operator": event.operator, "reason": event.reason}
    return [Notice("operator_directed", INFO, NORMAL, attributes)]


def _installed(event: journal.PolicyInstalled, _: Options) -> list[Notice]:
    attributes = {
        "policy": event.version,
        "policy_arch": event.architecture,
        "checkpoint_digest": event.checkpoint_digest,
        "policy_id": event.policy_id,
        "operator": event.operator,
        "reason": event.reason,
    }
    return [Notice("policy_update_applied", INFO, NORMAL, {name: value for name, value in attributes.items() if value})]


def _rejected(event: journal.PolicyRejected, _: Options) -> list[Notice]:
    attributes = {
        "reason": event.reason,
        "detail": event.detail,
        "policy": event.version,
        "policy_id": event.policy_id,
        "payload_digest": event.payload_digest,
    }
    named = {name: value for name, value in attributes.items() if value}
    return [Notice("policy_update_rejected", WARNING, NORMAL, named)]


def _rolled_back(event: journal.PolicyRolledBack, _: Options) -> list[Notice]:
    by_itself = event.cause != "operator"
    attributes = {
        "cause": event.cause,
        "policy": event.version,
        "from_policy": event.from_version,
        "operator": event.operator,
        "reason": event.reason or event.cause,
    }
    named = {name: value for name, value in attributes.items() if value}
    return [Notice("policy_rolled_back", WARNING if by_itself else INFO, HIGH if by_itself else NORMAL, named)]


def _unrecorded(event: journal.StepsUnrecorded, _: Options) -> list[Notice]:
    if not event.count:
        return []
    row = next((row for row in RISK_ROWS if row.reason == event.cause), None)
    level, priority = (row.level, row.priority) if row is not None else (WARNING, HIGH)
    attributes = {
        "reason": event.cause,
        "first_step_index": str(event.first_step_index),
        "last_step_index": str(event.last_step_index),
        "count": str(event.count),
    }
    return [Notice("steps_unrecorded", level, priority, attributes)]


def _closed(event: journal.WindowClosed, _: Options) -> list[Notice]:
    attributes = {
        "command_id": event.command_id,
        "outcome": enum_name(pb.FieldReportOutcome, event.outcome),
        "observed": str(event.observed),
        "expired": str(event.expired).lower(),
    }
    return [Notice("field_report_synthesised", INFO, NORMAL, attributes)]


def _attempted(event: journal.PublishAttempted, options: Options) -> list[Notice]:
    """A refusal, where the report will be tried again; where it will not, its drop tells so."""
    if event.succeeded or event.attempt > options.report_retries_max:
        return []
    told = {"attempt": str(event.attempt), "cause": event.cause}
    return [
        Notice("field_report_retry", WARNING, NORMAL, {"report_id": report_id, **told})
        for report_id in event.report_ids
    ]


def _dropped(event: journal.FieldReportsDropped, _: Options) -> list[Notice]:
    return [
        Notice(
            "field_report_drop",
            WARNING,
            NORMAL,
            {"report_id": report_id, "attempts": str(event.attempts), "cause": event.cause},
        )
        for report_id in event.report_ids
    ]


def _telemetry_dropped(event: journal.TelemetryDropped, _: Options) -> list[Notice]:
    told = {"packet_id": event.packet_id, "attempts": str(event.attempts), "cause": event.cause}
    return [Notice("telemetry_drop", WARNING, NORMAL, told)]


NOTICES: Mapping[type[Event], Callable[[Any, Options], list[Notice]]] = MappingProxyType(
    {
        journal.DecisionMade: _decision,
        journal.CommitLate: _pause,
        journal.StepPaused: _pause,
        journal.BreakerMoved: _breaker,
        journal.ConservativeModeChanged: _conservative,
        journal.OperatorDirected: _directed,
        journal.StepsUnrecorded: _unrecorded,
        journal.WindowClosed: _closed,
        journal.PublishAttempted: _attempted,
        journal.FieldReportsDropped: _dropped,
        journal.TelemetryDropped: _telemetry_dropped,
        journal.PolicyInstalled: _installed,
        journal.PolicyRejected: _rejected,
        journal.PolicyRolledBack: _rolled_back,
    }
)
"""Events that tell something. The others are read, or are metrics of the step they belong to."""
