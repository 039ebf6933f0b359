"""Rows of what leaves the service: field reports and their publishing, deliveries of commands."""

from collections.abc import Mapping
from types import MappingProxyType

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import models
from tamiyo.projections.draft import Draft, Projector, json_text, parsed

__all__ = ["PROJECTORS"]


def _field_report_issued(draft: Draft, lsn: int, event: journal.FieldReportIssued) -> None:
    report = parsed(lsn, "the field report", pb.FieldReport, event.report)
    draft.add(
        models.FieldReport,
        lsn=lsn,
        step_lsn=event.step_lsn,
        report_id=report.report_id,
        command_id=report.command_id,
        training_run_id=report.training_run_id,
        seed_id=report.seed_id,
        blueprint_id=report.blueprint_id,
        policy_version=report.tamiyo_policy_version,
        outcome=report.outcome,
        observation_window=report.observation_window_epochs,
        synthesised=event.synthesised,
        issued_unix_ns=report.issued_at.ToNanoseconds(),
        metrics=json_text(dict(report.metrics)),
        notes=report.notes,
    )


def _publish_attempted(draft: Draft, lsn: int, event: journal.PublishAttempted) -> None:
    for report_lsn in event.report_lsns:
        draft.change(
            "attempted_report",
            at=report_lsn,
            attempt_lsn=lsn,
            attempts=event.attempt,
            succeeded=event.succeeded,
            cause=event.cause,
            attempted_at_ns=event.event_time_ns,
        )


def _field_reports_dropped(draft: Draft, lsn: int, event: journal.FieldReportsDropped) -> None:
    for report_lsn in event.report_lsns:
        draft.change("dropped_report", at=report_lsn, dropped_lsn=lsn)


def _command_delivered(draft: Draft, lsn: int, event: journal.CommandDelivered) -> None:
    draft.add(
        models.Delivery,
        lsn=lsn,
        command_id=event.command_id,
        outcome=event.outcome,
        detail=event.detail,
        event_time_ns=event.event_time_ns,
    )


PROJECTORS: Mapping[type[Event], Projector] = MappingProxyType(
    {
        journal.FieldReportIssued: _field_report_issued,
        journal.PublishAttempted: _publish_attempted,
        journal.FieldReportsDropped: _field_reports_dropped,
        journal.CommandDelivered: _command_delivered,
    }
)
