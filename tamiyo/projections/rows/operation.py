"""Rows of how the controller was operated: openings, policies, directives, breakers, conservative mode."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.projections import models
from tamiyo.projections.draft import Draft, Projector

__all__ = ["PROJECTORS"]


def _service_opened(draft: Draft, lsn: int, event: journal.ServiceOpened) -> None:
    draft.add(
        models.Opening,
        lsn=lsn,
        opened_unix_ns=event.opened_unix_ns,
        policy_version=event.policy_version,
        code_fingerprint=event.code_fingerprint,
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


def _policy_update(what: str, **columns: str) -> Projector:
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


PROJECTORS: Mapping[type[Event], Projector] = MappingProxyType(
    {
        journal.ServiceOpened: _service_opened,
        journal.OperatorDirected: _operator_directed,
        journal.BreakerMoved: _breaker_moved,
        journal.ConservativeModeChanged: _conservative_mode_changed,
        journal.PolicyInstalled: _policy_update("installed", checkpoint_digest="checkpoint_digest", **_UPDATE),
        journal.PolicyRejected: _policy_update("rejected", checkpoint_digest="payload_digest", **_REJECTION),
        journal.PolicyRolledBack: _policy_update("rolled_back", checkpoint_digest="checkpoint_digest", **_RETURN),
    }
)
