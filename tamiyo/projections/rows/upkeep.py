"""Rows of the log's own upkeep: states that were written down or named, retention runs and what they dropped."""

from collections.abc import Mapping
from types import MappingProxyType

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import MESSAGES, Event
from tamiyo.projections import models
from tamiyo.projections.draft import Draft, Projector, json_text

__all__ = ["PROJECTORS"]


def _state_base(draft: Draft, lsn: int, event: journal.StateBase) -> None:
    draft.add(
        models.BaseRow,
        lsn=lsn,
        at_lsn=event.at_lsn,
        needs_lsn=event.needs_lsn,
        digest=event.digest,
        event_time_ns=event.event_time_ns,
    )


def _snapshot_taken(draft: Draft, lsn: int, event: journal.SnapshotTaken) -> None:
    draft.add(
        models.Snapshot,
        lsn=lsn,
        at_lsn=event.at_lsn,
        digest=event.digest,
        stored=event.stored,
        event_time_ns=event.event_time_ns,
    )


def _retention_planned(draft: Draft, lsn: int, event: journal.RetentionPlanned) -> None:
    draft.add(
        models.RetentionRun,
        lsn=lsn,
        run_id=event.run_id,
        event_time_ns=event.event_time_ns,
        prune_before_lsn=event.prune_before_lsn,
        base_lsn=event.base_lsn,
        payloads=json_text([_window(window) for window in event.payloads]),
        archive=event.archive,
    )


def _window(window: journal.PayloadWindow) -> dict[str, object]:
    message = MESSAGES.get(window.kind)
    kind: object = window.kind if message is None else message.DESCRIPTOR.name
    return {"kind": kind, "window_ns": window.window_ns, "upto_lsn": window.upto_lsn}


def _retention_completed(draft: Draft, lsn: int, event: journal.RetentionCompleted) -> None:
    draft.change(
        "completed_run",
        run=event.run_id,
        completed_lsn=lsn,
        completed_at_ns=event.event_time_ns,
        first_lsn=event.first_lsn,
        freed_bytes=event.freed_bytes,
        payloads_redacted=event.payloads_redacted,
        digest_lsn=event.digest_lsn,
        digest=event.digest,
        resumed=event.resumed,
    )
    for segment in event.segments:
        draft.add(
            models.PrunedSegment,
            lsn=lsn,
            segment=segment.segment,
            run_id=event.run_id,
            first_lsn=segment.first_lsn,
            last_lsn=segment.last_lsn,
            size_bytes=segment.size_bytes,
            archived_as=segment.archived_as,
            archived_sha256=segment.archived_sha256,
        )


PROJECTORS: Mapping[type[Event], Projector] = MappingProxyType(
    {
        journal.StateBase: _state_base,
        journal.SnapshotTaken: _snapshot_taken,
        journal.RetentionPlanned: _retention_planned,
        journal.RetentionCompleted: _retention_completed,
    }
)
