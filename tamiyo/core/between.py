"""What is folded between steps: operators, deliveries, field reports and their publishing, telemetry.

Part of `tamiyo.core.evolve`, under its rules.
"""

from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

from tamiyo.core import breakers
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Draft
from tamiyo.core.outbox import backoff_ns
from tamiyo.core.state import RETRIES_MAX, UNDELIVERED_MAX, Deliveries, Retry

__all__ = [
    "await_delivery",
    "command_delivered",
    "field_report_issued",
    "field_reports_dropped",
    "forget_delivery",
    "operator_directed",
    "publish_attempted",
    "telemetry_drained",
    "telemetry_dropped",
]


def operator_directed(draft: Draft, _: int, event: journal.OperatorDirected) -> None:
    """An operator sets or clears the hold on conservative mode."""
    if event.directive not in ("conservative_on", "conservative_off"):
        raise draft.refusal(event, f"there is no directive {event.directive!r}")
    if not event.operator:
        raise draft.refusal(event, "a directive names its operator")
    if event.request_id:
        if event.request_id in draft.directives:
            raise draft.refusal(event, f"request {event.request_id} was taken up before")
        draft.note_request(event.request_id)
    holder = event.operator if event.directive == "conservative_on" else ""
    draft.conservative = draft.conservative._replace(operator=holder)
    draft.advance(event.event_time_ns)


def await_delivery(draft: Draft, command_id: str, lsn: int) -> None:
    """One more command of which nobody has said anything; the oldest is forgotten where there are too many."""
    waiting = draft.writable("undelivered")
    waiting[command_id] = lsn
    if len(waiting) > UNDELIVERED_MAX:
        del waiting[next(iter(waiting))]
        draft.deliveries = draft.deliveries._replace(forgotten=draft.deliveries.forgotten + 1)


def forget_delivery(draft: Draft, command_id: str) -> bool:
    """Take a command off the list; False where it is not in there."""
    return command_id in draft.undelivered and draft.writable("undelivered").pop(command_id) > 0


def command_delivered(draft: Draft, _: int, event: journal.CommandDelivered) -> None:
    """A command's fate is known."""
    command_id = event.command_id
    if not command_id or not event.outcome:
        raise draft.refusal(event, "a delivery names its command and what became of it")
    known, last = forget_delivery(draft, command_id), draft.deliveries
    draft.deliveries = Deliveries(last.forgotten, last.delivered + known, last.unmatched + (not known))
    draft.advance(event.event_time_ns)


def field_report_issued(draft: Draft, lsn: int, event: journal.FieldReportIssued) -> None:
    """One more report to publish."""
    draft.reports_issued += 1
    last = draft.unsettled
    if last is not None and last.step_lsn == event.step_lsn and not event.synthesised:
        draft.unsettled_report_lsn = lsn


def publish_attempted(draft: Draft, _: int, event: journal.PublishAttempted) -> None:
    """An outcome of the bus: reports leave the outbox, or wait for their next attempt."""
    outbox = draft.outbox
    lsns, ids = list(event.report_lsns), list(event.report_ids)
    if len(lsns) != len(ids) or any(one >= other for one, other in pairwise(lsns)):
        raise draft.refusal(event, f"{len(lsns)} reports with {len(ids)} names are not a list in order")
    retries = dict(outbox.retries)
    if event.attempt == 1 and lsns:
        if lsns[0] <= outbox.reports_lsn or lsns[-1] > draft.last_lsn:
            raise draft.refusal(event, f"reports up to {outbox.reports_lsn} were tried before")
        outbox = replace(outbox, reports_lsn=lsns[-1])
    elif lsns:
        waiting = [retries.pop(report_id, None) for report_id in ids]
        known = [(retry.report_lsn, retry.attempts + 1) for retry in waiting if retry is not None]
        if known != [(lsn, event.attempt) for lsn in lsns]:
            raise draft.refusal(event, f"these reports do not wait for attempt {event.attempt}")
        outbox = replace(outbox, retried=outbox.retried + len(lsns))
    if event.succeeded:
        outbox = replace(outbox, published=outbox.published + len(lsns))
    elif lsns:
        due_ns = event.event_time_ns + backoff_ns(draft.options, event.attempt)
        retries.update((name, Retry(lsn, event.attempt, due_ns)) for lsn, name in zip(lsns, ids, strict=True))
        if len(retries) > RETRIES_MAX:
            raise draft.refusal(event, f"more than {RETRIES_MAX} reports would wait for a retry")
    draft.outbox = replace(outbox, retries=MappingProxyType(retries))
    draft.count("publishing", breakers.SUCCESS if event.succeeded else breakers.FAILURE)
    draft.advance(event.event_time_ns)


def field_reports_dropped(draft: Draft, _: int, event: journal.FieldReportsDropped) -> None:
    """Reports that are published no more."""
    retries = dict(draft.outbox.retries)
    gone = [retries.pop(report_id, None) for report_id in event.report_ids]
    if [retry.report_lsn for retry in gone if retry is not None] != list(event.report_lsns) or not gone:
        raise draft.refusal(event, "these reports do not wait for a retry")
    draft.outbox = replace(
        draft.outbox, retries=MappingProxyType(retries), dropped=draft.outbox.dropped + len(event.report_ids)
    )


def telemetry_drained(draft: Draft, _: int, event: journal.TelemetryDrained) -> None:
    """Telemetry went out, up to an LSN."""
    if not draft.outbox.telemetry_lsn < event.through_lsn <= draft.last_lsn:
        raise draft.refusal(event, f"telemetry is published up to {draft.outbox.telemetry_lsn}")
    draft.outbox = replace(draft.outbox, telemetry_lsn=event.through_lsn)
    draft.count("publishing", breakers.SUCCESS)
    draft.advance(event.event_time_ns)


def telemetry_dropped(draft: Draft, _: int, event: journal.TelemetryDropped) -> None:
    """A packet that the bus refused for good; the cursor moves with what went out past it."""
    if not event.packet_id or not event.attempts:
        raise draft.refusal(event, "a packet that is dropped has an id and was tried")
    draft.outbox = replace(draft.outbox, telemetry_dropped=draft.outbox.telemetry_dropped + 1)
    draft.advance(event.event_time_ns)
