"""From events to rows: one small function for each kind of event, in a table.

A projector writes into a `Draft`, which is the rows of one transaction; `tamiyo.projections.projection` writes
the draft down together with the applied LSN. What a projector needs from earlier events is in the draft, so
rows depend on the events alone and never on how they were cut into transactions.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from google.protobuf.message import DecodeError

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.norms import NORM_INPUTS, PRIORS, Norm, recorded, updated
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import models
from tamiyo.projections.models import Base

__all__ = ["NOT_PROJECTED", "PROJECTORS", "VERSION", "Draft", "Waiting", "project"]

VERSION = 1
"""Goes up with every change of what rows come out; a projection made by another version is made again."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A received packet that awaits its decision."""

    step_index: int
    received_unix_ns: int
    coverage: float | None = None


@dataclass(slots=True)
class Draft:
    """The rows of one transaction: what the tables held that matters to it, and what it adds."""

    norms: list[Norm] = field(default_factory=lambda: list(PRIORS))
    waiting: dict[int, Waiting] = field(default_factory=dict)
    inserts: dict[type[Base], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    superseded: list[dict[str, Any]] = field(default_factory=list)

    def add(self, table: type[Base], **row: Any) -> None:
        """Insert a row."""
        self.inserts[table].append(row)


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
    draft.waiting[lsn] = Waiting(event.step_index, event.received_unix_ns)


def _graph_observed(draft: Draft, _: int, event: journal.GraphObserved) -> None:
    for index, value in recorded(event):
        if index < len(NORM_INPUTS):  # a row that a newer version knows is not ours to fold
            draft.norms[index] = updated(draft.norms[index], value)
    step = draft.waiting.get(event.step_lsn)
    if step is not None:
        draft.waiting[event.step_lsn] = replace(step, coverage=_coverage(event))


def _coverage(event: journal.GraphObserved) -> float | None:
    total = sum(event.total)
    return sum(event.present) / total if total else None


def _step_paused(draft: Draft, _: int, event: journal.StepPaused) -> None:
    draft.waiting.pop(event.step_lsn, None)


def _registry_assigned(draft: Draft, _: int, event: journal.RegistryAssigned) -> None:
    for index, key in enumerate(event.keys, start=event.first_index):
        draft.add(models.RegistryEntry, kind=event.kind, key=key, index=index)


def _decision_made(draft: Draft, lsn: int, event: journal.DecisionMade) -> None:
    step = draft.waiting.pop(event.step_lsn, None)
    if step is None:
        raise JournalUnreadable(
            f"the decision at LSN {lsn} answers step {event.step_lsn}, which awaits none; "
            "the log was written by another program or is incomplete: run tamiyo audit"
        )
    command = _command(lsn, event.command)
    draft.add(
        models.Decision,
        lsn=lsn,
        step_lsn=event.step_lsn,
        step_index=step.step_index,
        event_time_ns=event.event_time_ns,
        issued_unix_ns=step.received_unix_ns,
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
        superseded_by=None,
        superseded_cause=None,
    )


def _command(lsn: int, data: bytes) -> pb.AdaptationCommand:
    try:
        return pb.AdaptationCommand.FromString(data)
    except DecodeError as error:
        raise JournalUnreadable(
            f"the command in the decision at LSN {lsn} does not parse: {error}; run tamiyo audit to see more"
        ) from error


def _commit_late(draft: Draft, _: int, event: journal.CommitLate) -> None:
    draft.superseded.append(
        {"at": event.decision_lsn, "superseded_by": event.released_command_id, "superseded_cause": event.cause}
    )


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


PROJECTORS: Mapping[type[Event], Callable[[Draft, int, Any], None]] = MappingProxyType(
    {
        journal.ServiceOpened: _service_opened,
        journal.StepReceived: _step_received,
        journal.GraphObserved: _graph_observed,
        journal.RegistryAssigned: _registry_assigned,
        journal.DecisionMade: _decision_made,
        journal.CommitLate: _commit_late,
        journal.StepPaused: _step_paused,
        journal.BreakerMoved: _breaker_moved,
        journal.ConservativeModeChanged: _conservative_mode_changed,
    }
)
"""The projector of each event that leaves rows."""

NOT_PROJECTED = frozenset(
    {
        journal.BlueprintObserved,
        journal.MetadataTimedOut,
        journal.MetadataFailed,
        journal.InferenceObserved,
        journal.InferenceTimedOut,
        journal.InferenceFailed,
        journal.InferenceSkipped,
        journal.FieldReportIssued,
        journal.StepsUnrecorded,
        journal.GraphLayoutObserved,
        journal.OperatorDirected,
        journal.CommandDelivered,
        journal.WindowClosed,
        journal.PublishAttempted,
        journal.FieldReportsDropped,
        journal.TelemetryDrained,
        journal.StateBase,
        journal.SnapshotTaken,
        journal.RetentionPlanned,
        journal.RetentionCompleted,
    }
)
"""Events without rows so far. Every event of the journal is in one of the two; a test sees to it."""
