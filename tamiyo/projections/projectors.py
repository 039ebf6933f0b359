"""From events to rows: one small function for each kind of event, in a table.

A projector writes into a `Draft`, which is the rows of one transaction; `tamiyo.projections.projection` writes
the draft down together with the applied LSN. What a projector needs from earlier events is in the draft, so
rows depend on the events alone and never on how they were cut into transactions.

A log may have lost what came before: its beginning was pruned, payloads were redacted. A row then has NULL where a
record is gone, and no event is refused because the one before it is.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import MESSAGES, Event
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import models
from tamiyo.projections.models import Base

__all__ = ["NOT_PROJECTED", "PROJECTORS", "VERSION", "Draft", "Waiting", "project"]

VERSION = 3
"""Goes up with every change of what rows come out; a projection made by another version is made again."""


@dataclass(slots=True)
class Waiting:
    """A received packet that awaits its decision, and what was observed for it; None where the log does not say."""

    step_index: int | None = None
    received_unix_ns: int | None = None
    coverage: float | None = None
    graph_lsn: int | None = None
    inference: str | None = None
    inference_lsn: int | None = None
    inference_elapsed_ns: int | None = None
    policy_id: str | None = None


@dataclass(slots=True)
class Draft:
    """The rows of one transaction: what the tables held that matters to it, and what it adds.

    `updates` are made after the inserts, in their order: the name of one of `tamiyo.projections.writing.UPDATES`, and
    its parameters. `unnamed_policies` says that there may be policies that no row names any more.
    """

    waiting: dict[int, Waiting] = field(default_factory=dict)
    policies: set[str] = field(default_factory=set)
    inserts: dict[type[Base], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    updates: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    unnamed_policies: bool = False

    def add(self, table: type[Base], **row: Any) -> None:
        """Insert a row."""
        self.inserts[table].append(row)

    def step(self, lsn: int) -> Waiting:
        """What is known of a step, to be added to until its decision."""
        step = self.waiting.get(lsn)
        if step is None:
            step = self.waiting[lsn] = Waiting()
        return step

    def change(self, update: str, **parameters: Any) -> None:
        """Change rows that are there."""
        self.updates.append((update, parameters))


def project(draft: Draft, lsn: int, event: Event) -> None:
    """Put what follows from one event into the draft.

    Raises:
        JournalUnreadable: a message inside the event does not parse.
    """
    projector = PROJECTORS.get(type(event))
    if projector is not None:
        projector(draft, lsn, event)


def _service_opened(draft: Draft, lsn: int, event: journal.ServiceOpened) -> None:
    draft.add(
        models.Opening,
        lsn=lsn,
        opened_unix_ns=event.opened_unix_ns,
        policy_version=event.policy_version,
        code_fingerprint=event.code_fingerprint,
    )


def _step_received(draft: Draft, lsn: int, event: journal.StepReceived) -> None:
    step = draft.step(lsn)
    step.step_index, step.received_unix_ns = event.step_index, event.received_unix_ns


def _graph_observed(draft: Draft, lsn: int, event: journal.GraphObserved) -> None:
    step = draft.step(event.step_lsn)
    step.coverage, step.graph_lsn = _coverage(event), lsn


def _coverage(event: journal.GraphObserved) -> float | None:
    total = sum(event.total)
    return sum(event.present) / total if total else None


def _inference(name: str) -> Callable[[Draft, int, Any], None]:
    def project_inference(draft: Draft, lsn: int, event: Any) -> None:
        step = draft.step(event.step_lsn)
        step.inference, step.inference_lsn = name, lsn
        step.inference_elapsed_ns = getattr(event, "elapsed_ns", None)  # one that was skipped took none
        step.policy_id = _policy(draft, event.identity)

    return project_inference


def _policy(draft: Draft, identity: journal.PolicyIdentity) -> str:
    """The row of a policy, made when it is first seen; its key is a digest, so that any order gives the same one."""
    named = identity.version, identity.architecture, identity.engine, identity.checkpoint_digest
    policy_id = _policy_id(*named)
    if policy_id not in draft.policies:
        draft.policies.add(policy_id)
        version, architecture, engine, checkpoint_digest = named
        draft.add(
            models.Policy,
            id=policy_id,
            version=version,
            architecture=architecture,
            engine=engine,
            checkpoint_digest=checkpoint_digest,
        )
    return policy_id


@lru_cache(maxsize=64)
def _policy_id(*named: str) -> str:
    return sha256(json.dumps(named).encode()).hexdigest()[:16]


def _decision_made(draft: Draft, lsn: int, event: journal.DecisionMade) -> None:
    step = draft.waiting.pop(event.step_lsn, None) or Waiting()
    command = _parsed(lsn, "the command in the decision", pb.AdaptationCommand, event.command)
    draft.add(
        models.Decision,
        lsn=lsn,
        step_lsn=event.step_lsn,
        step_index=step.step_index,
        event_time_ns=event.event_time_ns,
        issued_unix_ns=command.issued_at.ToNanoseconds(),
        command_id=command.command_id,
        command_type=command.command_type,
        seed_operation=command.seed_operation.operation,
        risk_reason=event.risk_reason,
        policy_version=command.annotations.get("policy_version", ""),
        training_run_id=event.training_run_id,
        seed_id=command.annotations.get("selected_seed", ""),
        blueprint_id=command.annotations.get("selected_blueprint", ""),
        coverage=step.coverage,
        receive_ns=event.timings.receive_ns,
        blueprints_ns=event.timings.blueprints_ns,
        graph_ns=event.timings.graph_ns,
        inference_ns=event.timings.inference_ns,
        loss_delta=event.loss_delta,
        graph_lsn=step.graph_lsn,
        inference=step.inference,
        inference_lsn=step.inference_lsn,
        inference_elapsed_ns=step.inference_elapsed_ns,
        policy_id=step.policy_id,
    )


def _parsed(lsn: int, what: str, message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise JournalUnreadable(f"{what} at LSN {lsn} does not parse: {error}; run tamiyo audit to see more") from error


def _step_paused(draft: Draft, lsn: int, event: journal.StepPaused) -> None:
    step = draft.waiting.pop(event.step_lsn, None)
    draft.unnamed_policies |= step is not None and step.policy_id is not None
    _released(draft, lsn, event, decision_lsn=None)


def _commit_late(draft: Draft, lsn: int, event: journal.CommitLate) -> None:
    draft.change(
        "late_decision",
        at=event.decision_lsn,
        superseded_by=event.released_command_id,
        superseded_cause=event.cause,
        superseded_lsn=lsn,
    )
    draft.change("late_report", step=event.step_lsn, before=lsn, superseded_lsn=lsn)
    _released(draft, lsn, event, decision_lsn=event.decision_lsn)


def _released(
    draft: Draft, lsn: int, event: journal.StepPaused | journal.CommitLate, *, decision_lsn: int | None
) -> None:
    draft.add(
        models.ReleasedPause,
        lsn=lsn,
        step_lsn=event.step_lsn,
        decision_lsn=decision_lsn,
        command_id=event.released_command_id,
        cause=event.cause,
        event_time_ns=event.event_time_ns,
    )


def _steps_unrecorded(draft: Draft, lsn: int, event: journal.StepsUnrecorded) -> None:
    draft.add(
        models.UnrecordedSteps,
        lsn=lsn,
        first_step_index=event.first_step_index,
        last_step_index=event.last_step_index,
        cause=event.cause,
        event_time_ns=event.event_time_ns,
    )


def _field_report_issued(draft: Draft, lsn: int, event: journal.FieldReportIssued) -> None:
    report = _parsed(lsn, "the field report", pb.FieldReport, event.report)
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
        metrics=_json(dict(report.metrics)),
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


def _operator_directed(draft: Draft, lsn: int, event: journal.OperatorDirected) -> None:
    draft.add(
        models.Directive,
        lsn=lsn,
        directive=event.directive,
        operator=event.operator,
        reason=event.reason,
        request_id=event.request_id,
        event_time_ns=event.event_time_ns,
    )


_UPDATE = {"policy_id": "policy_id", "detail": "reason", "operator": "operator"}
_REJECTION = {"policy_id": "policy_id", "reason": "reason", "detail": "detail"}
_RETURN = {"reason": "cause", "detail": "reason", "operator": "operator"}


def _policy_update(what: str, **columns: str) -> Callable[[Draft, int, Any], None]:
    """The row's columns and the fields of the event that they are; the other columns are empty."""

    def project_update(draft: Draft, lsn: int, event: Any) -> None:
        texts = dict.fromkeys(("checkpoint_digest", "policy_id", "reason", "detail", "operator"), "")
        texts |= {column: getattr(event, name) for column, name in columns.items()}
        at_ns = event.event_time_ns
        draft.add(models.PolicyUpdateRow, lsn=lsn, what=what, version=event.version, event_time_ns=at_ns, **texts)

    return project_update


def _breaker_moved(draft: Draft, lsn: int, event: journal.BreakerMoved) -> None:
    draft.add(
        models.BreakerMove,
        lsn=lsn,
        breaker=event.breaker,
        from_state=event.from_state,
        to_state=event.to_state,
        cause=event.cause,
        event_time_ns=event.event_time_ns,
        step_lsn=event.step_lsn,
    )


def _conservative_mode_changed(draft: Draft, lsn: int, event: journal.ConservativeModeChanged) -> None:
    draft.add(
        models.ConservativeChange,
        lsn=lsn,
        active=event.active,
        reason=event.reason,
        event_time_ns=event.event_time_ns,
        step_lsn=event.step_lsn,
    )


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
        payloads=_json([_window(window) for window in event.payloads]),
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


def _json(content: Mapping[str, object] | Sequence[object]) -> str:
    """JSON, in which NaN and the infinities are null."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()


PROJECTORS: Mapping[type[Event], Callable[[Draft, int, Any], None]] = MappingProxyType(
    {
        journal.ServiceOpened: _service_opened,
        journal.StepReceived: _step_received,
        journal.GraphObserved: _graph_observed,
        journal.InferenceObserved: _inference("observed"),
        journal.InferenceTimedOut: _inference("timed_out"),
        journal.InferenceFailed: _inference("failed"),
        journal.InferenceSkipped: _inference("skipped"),
        journal.DecisionMade: _decision_made,
        journal.CommitLate: _commit_late,
        journal.StepPaused: _step_paused,
        journal.StepsUnrecorded: _steps_unrecorded,
        journal.FieldReportIssued: _field_report_issued,
        journal.PublishAttempted: _publish_attempted,
        journal.FieldReportsDropped: _field_reports_dropped,
        journal.CommandDelivered: _command_delivered,
        journal.OperatorDirected: _operator_directed,
        journal.BreakerMoved: _breaker_moved,
        journal.ConservativeModeChanged: _conservative_mode_changed,
        journal.StateBase: _state_base,
        journal.SnapshotTaken: _snapshot_taken,
        journal.RetentionPlanned: _retention_planned,
        journal.RetentionCompleted: _retention_completed,
        journal.PolicyInstalled: _policy_update("installed", checkpoint_digest="checkpoint_digest", **_UPDATE),
        journal.PolicyRejected: _policy_update("rejected", checkpoint_digest="payload_digest", **_REJECTION),
        journal.PolicyRolledBack: _policy_update("rolled_back", checkpoint_digest="checkpoint_digest", **_RETURN),
    }
)
"""The projector of each event that leaves rows of its own."""

NOT_PROJECTED = frozenset(
    {
        journal.RegistryAssigned,  # folded: tamiyo.projections.standing
        journal.RegistryImported,  # the same
        journal.BlueprintObserved,
        journal.MetadataTimedOut,
        journal.MetadataFailed,
        journal.GraphLayoutObserved,
        journal.WindowClosed,
        journal.TelemetryDrained,
    }
)
"""Events without rows of their own. Every event of the journal is in one of the two; a test sees to it."""
