"""What happens outside a step, and the batch that each such event stands in."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, get_args

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.decide import blueprint_observed, log_trial
from tamiyo.core.directives import command_delivered, operator_directed
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.outbox import DueReport, publish_attempted, telemetry_drained

__all__ = ["Idle", "following"]

Told = (
    journal.PolicyInstalled
    | journal.PolicyRejected
    | journal.PolicyRolledBack
    | journal.RegistryImported
    | journal.TelemetryDropped
)
"""What is told of something outside and brings nothing about; whether the log speaks against it, folding says."""
Idle = (
    journal.BlueprintObserved
    | journal.StepsUnrecorded
    | journal.OperatorDirected
    | journal.CommandDelivered
    | journal.PublishAttempted
    | journal.TelemetryDrained
    | Told
)
"""What happens outside a step, and may bring something about."""


Moves = Sequence[tuple[int, journal.BreakerMoved]]
"""Moves of breakers, by LSN."""


def following(before: Standing, event: Idle, moves: Moves) -> tuple[Event, ...]:
    """The whole batch that an event from outside stands in; `moves` are the breakers' moves before it."""
    return _FOLLOWING[type(event)](before, event, moves)


def _blueprint_observed(before: Standing, event: journal.BlueprintObserved, _: Moves) -> tuple[Event, ...]:
    return blueprint_observed(before, event)


def _steps_unrecorded(before: Standing, event: journal.StepsUnrecorded, moves: Moves) -> tuple[Event, ...]:
    failures = [move.event_time_ns for _, move in moves if move.cause == "writer_failed"]
    return log_trial(before, event, writer_failed_at_ns=failures[0] if failures else None)


def _operator_directed(before: Standing, event: journal.OperatorDirected, _: Moves) -> tuple[Event, ...]:
    return operator_directed(
        before,
        event.directive,
        operator=event.operator,
        reason=event.reason,
        now_ns=event.event_time_ns,
        request_id=event.request_id,
    )


def _command_delivered(_before: Standing, event: journal.CommandDelivered, _: Moves) -> tuple[Event, ...]:
    return command_delivered(event.command_id, event.outcome, event.detail, now_ns=event.event_time_ns)


def _publish_attempted(before: Standing, event: journal.PublishAttempted, _: Moves) -> tuple[Event, ...]:
    reports = [
        DueReport(report_lsn, report_id, event.attempt)
        for report_lsn, report_id in zip(event.report_lsns, event.report_ids, strict=False)
    ]
    return publish_attempted(before, reports, succeeded=event.succeeded, cause=event.cause, now_ns=event.event_time_ns)


def _telemetry_drained(before: Standing, event: journal.TelemetryDrained, _: Moves) -> tuple[Event, ...]:
    return telemetry_drained(before, through_lsn=event.through_lsn, packets=event.packets, now_ns=event.event_time_ns)


def _told(_before: Standing, event: Told, _: Moves) -> tuple[Event, ...]:
    return (event,)


_FOLLOWING: Mapping[type[Event], Callable[[Standing, Any, Moves], tuple[Event, ...]]] = MappingProxyType(
    {
        journal.BlueprintObserved: _blueprint_observed,
        journal.StepsUnrecorded: _steps_unrecorded,
        journal.OperatorDirected: _operator_directed,
        journal.CommandDelivered: _command_delivered,
        journal.PublishAttempted: _publish_attempted,
        journal.TelemetryDrained: _telemetry_drained,
        **dict.fromkeys(get_args(Told), _told),
    }
)
"""How the batch of each is recomputed."""
