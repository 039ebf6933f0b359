"""What happens outside a step, and the batch that each such event stands in."""

from collections.abc import Sequence

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.decide import blueprint_observed, log_trial
from tamiyo.core.directives import command_delivered, operator_directed
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.outbox import DueReport, publish_attempted, telemetry_drained

__all__ = ["Idle", "following"]

Told = journal.PolicyInstalled | journal.PolicyRejected | journal.PolicyRolledBack | journal.RegistryImported
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


def following(before: Standing, event: Idle, moves: Sequence[tuple[int, journal.BreakerMoved]]) -> tuple[Event, ...]:
    """The whole batch that an event from outside stands in; `moves` are the breakers' moves before it, by LSN."""
    if isinstance(event, journal.BlueprintObserved):
        return blueprint_observed(before, event)
    if isinstance(event, journal.StepsUnrecorded):
        failures = [move.event_time_ns for _, move in moves if move.cause == "writer_failed"]
        return log_trial(before, event, writer_failed_at_ns=failures[0] if failures else None)
    if isinstance(event, journal.OperatorDirected):
        return operator_directed(
            before,
            event.directive,
            operator=event.operator,
            reason=event.reason,
            now_ns=event.event_time_ns,
            request_id=event.request_id,
        )
    if isinstance(event, journal.CommandDelivered):
        return command_delivered(event.command_id, event.outcome, event.detail, now_ns=event.event_time_ns)
    if isinstance(event, journal.TelemetryDrained):
        return telemetry_drained(
            before, through_lsn=event.through_lsn, packets=event.packets, now_ns=event.event_time_ns
        )
    if isinstance(event, Told):
        return (event,)
    reports = [
        DueReport(report_lsn, report_id, event.attempt)
        for report_lsn, report_id in zip(event.report_lsns, event.report_ids, strict=False)
    ]
    return publish_attempted(before, reports, succeeded=event.succeeded, cause=event.cause, now_ns=event.event_time_ns)
