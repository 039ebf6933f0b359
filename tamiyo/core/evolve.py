"""The fold: `evolve(state, lsn, event)` is the only writer of state, live and in recovery.

Rule 1: an event that is illegal in its state raises before anything is written, so nothing illegal is logged.
Rule 2: a packet that was received but not decided changes nothing but the list of such packets.
Rule 3: nothing here looks at packets, commands or reports: what the state needs of them is a field of its event.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from tamiyo.core import breakers, norms
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import read_blueprint
from tamiyo.core.events import Event
from tamiyo.core.layout import LAYOUTS_MAX, read_layout
from tamiyo.core.registries import CAPACITIES, extended
from tamiyo.core.state import (
    BLUEPRINTS_MAX,
    SEED_BLUEPRINTS_MAX,
    UNDECIDED_MAX,
    Conservative,
    ObservedBlueprint,
    State,
    Unsettled,
)
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import InvariantViolation

__all__ = ["FOLDS", "evolve"]

K = TypeVar("K")
V = TypeVar("V")


def evolve(state: State, lsn: int, event: Event) -> State:
    """The state after one more event.

    Raises:
        InvariantViolation: the event is illegal here, or its LSN is not the next one.
    """
    if lsn != state.last_lsn + 1:
        raise InvariantViolation(f"event {lsn} follows {state.last_lsn}: LSNs are dense; the log was misread")
    fold = FOLDS[type(event)]
    return replace(fold(state, lsn, event), last_lsn=lsn)


def _require(holds: bool, event: Event, state: State, rule: str) -> None:  # noqa: FBT001  a condition, not an option
    if not holds:
        name = event.DESCRIPTOR.name
        raise InvariantViolation(f"{name} after LSN {state.last_lsn} is illegal: {rule}; nothing was written")


def _service_opened(state: State, _: int, event: journal.ServiceOpened) -> State:
    _require(event.event_time_ns > state.event_time_ns, event, state, "event time only moves forward")
    return replace(
        state,
        event_time_ns=event.event_time_ns,
        thresholds=Thresholds.from_map(event.thresholds),
        behaviour_flags=tuple(event.behaviour_flags),
        policy_version=event.policy_version,
        unsettled=None,  # whether the last commit was in time died with the process
        seed_blueprints=_settled_seeds(state),
        breakers=_restarted(state.breakers, event.event_time_ns),
        conservative=replace(state.conservative, since_ns=event.event_time_ns)
        if state.conservative.active
        else state.conservative,
    )


def _restarted(records: Mapping[str, breakers.Breaker], now_ns: int) -> Mapping[str, breakers.Breaker]:
    """Cool-downs restart with the process: event time says nothing of how long it was away."""
    restarted = {
        name: replace(record, moved_at_ns=now_ns) if record.state == breakers.OPEN else record
        for name, record in records.items()
    }
    return MappingProxyType(restarted)


def _step_received(state: State, lsn: int, event: journal.StepReceived) -> State:
    _require(
        event.step_index == state.steps_received + 1,
        event,
        state,
        f"step {event.step_index} follows {state.steps_received}",
    )
    _require(event.event_time_ns > state.event_time_ns, event, state, "event time only moves forward")
    undecided = (*state.undecided, lsn)[-UNDECIDED_MAX:]
    return replace(state, steps_received=event.step_index, event_time_ns=event.event_time_ns, undecided=undecided)


def _graph_observed(state: State, _: int, event: journal.GraphObserved) -> State:
    layout = state.layouts.get(event.layout_lsn)
    _require(layout is not None and layout.fits(event), event, state, f"layout {event.layout_lsn} does not fit it")
    if not event.norm_inputs:
        return state
    changed = list(state.norms)
    for entry in event.norm_inputs:
        _require(entry.index < len(changed), event, state, f"there is no norm {entry.index}")
        changed[entry.index] = norms.updated(changed[entry.index], entry.value)
    return replace(state, norms=tuple(changed))


def _graph_layout_observed(state: State, lsn: int, event: journal.GraphLayoutObserved) -> State:
    return replace(state, layouts=_remembered(state.layouts, lsn, read_layout(event), LAYOUTS_MAX))


def _blueprint_observed(state: State, lsn: int, event: journal.BlueprintObserved) -> State:
    known = state.blueprints.get(event.blueprint_id)
    if not event.digest:
        last = known or ObservedBlueprint(None, 0, 0)
        observed = replace(last, observed_at_ns=event.event_time_ns, withdrawn=True)
    elif event.content:
        content = journal.BlueprintContent.FromString(event.content)
        blueprint = read_blueprint(event.blueprint_id, event.digest, content)
        observed = ObservedBlueprint(blueprint, lsn, event.event_time_ns)
    else:
        same = known is not None and known.blueprint is not None and known.blueprint.digest == event.digest
        _require(same, event, state, "content may be left out only where the same digest is known")
        assert known is not None  # noqa: S101  said by the line above; the type checker cannot see it
        observed = replace(known, observed_at_ns=event.event_time_ns, withdrawn=False)
    blueprints = _remembered(state.blueprints, event.blueprint_id, observed, BLUEPRINTS_MAX)
    counted = state.breakers if event.late else _counted(state.breakers, "metadata", breakers.SUCCESS)
    return replace(
        state,
        blueprints=blueprints,
        breakers=counted,
        event_time_ns=max(state.event_time_ns, event.event_time_ns),
    )


def _registry_assigned(state: State, _: int, event: journal.RegistryAssigned) -> State:
    _require(event.kind in CAPACITIES, event, state, f"there is no registry {event.kind!r}")
    entries, keys = state.registries[event.kind], list(event.keys)
    fits = event.first_index == len(entries) + 1 and len(entries) + len(keys) <= CAPACITIES[event.kind]
    new = len(set(keys)) == len(keys) and all(key and key not in entries for key in keys)
    rule = f"{len(keys)} names cannot be numbered from {event.first_index} on after {len(entries)} in {event.kind}"
    _require(fits and new, event, state, rule)
    return replace(state, registries=extended(state.registries, {event.kind: keys}))


def _decision_made(state: State, _: int, event: journal.DecisionMade) -> State:
    _require(event.step_lsn in state.undecided, event, state, f"step {event.step_lsn} is not awaiting a decision")
    records = state.breakers
    for outcome in event.outcomes:
        _require(outcome.breaker in records, event, state, f"there is no breaker {outcome.breaker!r}")
        records = _counted(records, outcome.breaker, breakers.SUCCESS if outcome.succeeded else breakers.FAILURE)
    clean_steps = state.conservative.clean_steps + 1 if event.clean else 0
    loss = state.loss.after(event.training_run_id, event.validation_loss) if event.has_validation_loss else state.loss
    return replace(
        state,
        event_time_ns=max(state.event_time_ns, event.event_time_ns),
        decisions=state.decisions + 1,
        undecided=tuple(lsn for lsn in state.undecided if lsn != event.step_lsn),
        unsettled=Unsettled(event.step_lsn, event.germinated_seed_id, event.germinated_blueprint_id),
        breakers=records,
        conservative=replace(state.conservative, clean_steps=clean_steps),
        loss=loss,
        seed_blueprints=_settled_seeds(state),
    )


def _settled_seeds(state: State) -> Mapping[str, str]:
    """The seeds' blueprints with the last decision's germination among them, its commit having been in time."""
    last = state.unsettled
    if last is None or not last.seed_id:
        return state.seed_blueprints
    return _remembered(state.seed_blueprints, last.seed_id, last.blueprint_id, SEED_BLUEPRINTS_MAX)


def _breaker_moved(state: State, _: int, event: journal.BreakerMoved) -> State:
    _require(event.breaker in state.breakers, event, state, f"there is no breaker {event.breaker!r}")
    record = state.breakers[event.breaker]
    rule = f"breaker {event.breaker} is in state {record.state}, not {event.from_state}"
    _require(record.state == event.from_state, event, state, rule)
    move = breakers.Move(event.from_state, event.to_state, event.cause)
    changed = {**state.breakers, event.breaker: breakers.moved(record, move, event.event_time_ns)}
    return replace(
        state, breakers=MappingProxyType(changed), event_time_ns=max(state.event_time_ns, event.event_time_ns)
    )


def _conservative_mode_changed(state: State, _: int, event: journal.ConservativeModeChanged) -> State:
    _require(event.active != state.conservative.active, event, state, "conservative mode is there already")
    clean_steps = 0 if event.active else state.conservative.clean_steps
    return replace(state, conservative=Conservative(event.active, event.reason, event.event_time_ns, clean_steps))


def _commit_late(state: State, _: int, event: journal.CommitLate) -> State:
    waiting = state.unsettled is not None and state.unsettled.step_lsn == event.step_lsn
    _require(waiting, event, state, f"the commit of step {event.step_lsn} is not waiting to be judged")
    counted = _counted(state.breakers, "log", breakers.FAILURE)
    return replace(state, unsettled=None, commits_late=state.commits_late + 1, breakers=counted)


def _step_paused(state: State, _: int, event: journal.StepPaused) -> State:
    _require(event.step_lsn in state.undecided, event, state, f"step {event.step_lsn} is not awaiting a decision")
    undecided = tuple(lsn for lsn in state.undecided if lsn != event.step_lsn)
    late = event.cause == "timeout_wal"
    counted = _counted(state.breakers, "log", breakers.FAILURE) if late else state.breakers
    return replace(state, undecided=undecided, breakers=counted)


def _steps_unrecorded(state: State, _: int, event: journal.StepsUnrecorded) -> State:
    spanned = event.last_step_index - event.first_step_index + 1
    _require(event.count == spanned, event, state, f"{event.count} steps are not the {spanned} it names")
    _require(
        event.first_step_index == state.steps_received + 1,
        event,
        state,
        f"step {event.first_step_index} follows {state.steps_received}",
    )
    return replace(
        state,
        steps_received=event.last_step_index,
        steps_unrecorded=state.steps_unrecorded + event.count,
        breakers=_counted(state.breakers, "log", breakers.SUCCESS),  # it is durable, so the log takes records again
    )


def _unchanged(state: State, _lsn: int, _event: Event) -> State:
    """Observations that only their step's decision reads."""
    return state


def _counted(records: Mapping[str, breakers.Breaker], name: str, outcome: str) -> Mapping[str, breakers.Breaker]:
    record = breakers.counted(records[name], outcome)
    return (
        records if record is records[name] or record == records[name] else MappingProxyType({**records, name: record})
    )


def _remembered(entries: Mapping[K, V], key: K, value: V, most: int) -> Mapping[K, V]:
    """`entries` with `key` as the newest; the oldest goes when there are more than `most`."""
    changed = {other: kept for other, kept in entries.items() if other != key}
    changed[key] = value
    while len(changed) > most:
        del changed[next(iter(changed))]
    return MappingProxyType(changed)


FOLDS: Mapping[type[Event], Callable[[State, int, Any], State]] = MappingProxyType(
    {
        journal.ServiceOpened: _service_opened,
        journal.StepReceived: _step_received,
        journal.GraphObserved: _graph_observed,
        journal.BlueprintObserved: _blueprint_observed,
        journal.MetadataTimedOut: _unchanged,
        journal.MetadataFailed: _unchanged,
        journal.InferenceObserved: _unchanged,
        journal.InferenceTimedOut: _unchanged,
        journal.InferenceFailed: _unchanged,
        journal.InferenceSkipped: _unchanged,
        journal.RegistryAssigned: _registry_assigned,
        journal.DecisionMade: _decision_made,
        journal.BreakerMoved: _breaker_moved,
        journal.ConservativeModeChanged: _conservative_mode_changed,
        journal.FieldReportIssued: _unchanged,
        journal.CommitLate: _commit_late,
        journal.StepsUnrecorded: _steps_unrecorded,
        journal.GraphLayoutObserved: _graph_layout_observed,
        journal.StepPaused: _step_paused,
    }
)
"""The handler of each event; a message without one cannot be logged."""
