"""Rows of steps: what arrived, what was observed for it, what was decided, and what was released instead."""

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import models
from tamiyo.projections.draft import Draft, Projector, Waiting, parsed

__all__ = ["PROJECTORS"]


def _step_received(draft: Draft, lsn: int, event: journal.StepReceived) -> None:
    step = draft.step(lsn)
    step.step_index, step.received_unix_ns = event.step_index, event.received_unix_ns


def _graph_observed(draft: Draft, lsn: int, event: journal.GraphObserved) -> None:
    step = draft.step(event.step_lsn)
    step.coverage, step.graph_lsn = _coverage(event), lsn


def _coverage(event: journal.GraphObserved) -> float | None:
    total = sum(event.total)
    return sum(event.present) / total if total else None


def _inference(name: str) -> Projector:
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
    command = parsed(lsn, "the command in the decision", pb.AdaptationCommand, event.command)
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


PROJECTORS: Mapping[type[Event], Projector] = MappingProxyType(
    {
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
    }
)
