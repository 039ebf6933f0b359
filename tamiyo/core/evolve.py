"""The fold: `evolve(state, lsn, event)` is the only writer of state, live and in recovery.

Rule 1: an event that is illegal in its state raises before anything is written, so nothing illegal is logged.
Rule 2: a packet that was received but not decided changes nothing but the list of such packets.
Rule 3: nothing here looks at packets, commands or reports: what the state needs of them is a field of its event.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tamiyo.core import between, breakers, norms, policies
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import EXPLAINED, SAFE_PAUSES_UNCLEAN, require_known
from tamiyo.core.blueprint import read_blueprint
from tamiyo.core.draft import Draft
from tamiyo.core.events import Event
from tamiyo.core.layout import LAYOUTS_MAX, read_layout
from tamiyo.core.options import Options
from tamiyo.core.registries import CAPACITIES, extended
from tamiyo.core.state import (
    BLUEPRINTS_MAX,
    CONDITIONS_MAX,
    SEED_BLUEPRINTS_MAX,
    UNDECIDED_MAX,
    WINDOWS_MAX,
    Condition,
    Conservative,
    ObservedBlueprint,
    Sample,
    State,
    Unsettled,
    Window,
    Windows,
)
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import InvariantViolation

__all__ = ["FOLDS", "Fold", "Folded", "evolve", "evolve_all"]


def evolve(state: State, lsn: int, event: Event) -> State:
    """The state after one more event.

    Raises:
        InvariantViolation: the event is illegal here, or its LSN is not the next one.
        JournalUnreadable: a service of a newer version opened the log here.
    """
    fold = Fold(state)
    fold.take(lsn, event)
    return fold.state()


def evolve_all(state: State, events: Iterable[Event]) -> State:
    """The state after several more events, in order. Raises as `evolve`."""
    fold = Fold(state)
    fold.follow(events)
    return fold.state()


@dataclass(frozen=True, slots=True)
class Folded:
    """Events with the state after them, where they had to be folded to be made."""

    events: tuple[Event, ...]
    state: State


class Fold:
    """A fold under way: the same as `evolve` one event after the other, without a state in between."""

    def __init__(self, state: State | None = None) -> None:
        """Begin from a state, or from that of an empty log. After an exception a fold is of no more use."""
        self._draft = Draft(state if state is not None else State())

    @property
    def last_lsn(self) -> int:
        """The LSN of the last event taken."""
        return self._draft.last_lsn

    @property
    def standing(self) -> Draft:
        """The fields of the state as they are now, to be read before the next event is taken."""
        return self._draft

    def take(self, lsn: int, event: Event) -> None:
        """Fold one more event. Raises as `evolve`."""
        draft = self._draft
        if lsn != draft.last_lsn + 1:
            raise InvariantViolation(f"event {lsn} follows {draft.last_lsn}: LSNs are dense; the log was misread")
        FOLDS[type(event)](draft, lsn, event)
        draft.last_lsn = lsn

    def follow(self, events: Iterable[Event]) -> None:
        """Fold several more events, one LSN after the other. Raises as `evolve`."""
        draft = self._draft
        for event in events:
            lsn = draft.last_lsn + 1
            FOLDS[type(event)](draft, lsn, event)
            draft.last_lsn = lsn

    def state(self) -> State:
        """The state after everything taken so far."""
        return self._draft.frozen()


def _service_opened(draft: Draft, _: int, event: journal.ServiceOpened) -> None:
    require_known(event.behaviour_flags)
    if event.event_time_ns <= draft.event_time_ns:
        raise draft.refusal(event, "event time only moves forward")
    try:
        draft.thresholds, draft.options = Thresholds.from_map(event.thresholds), Options.of(event)
    except ValueError as error:
        raise draft.refusal(event, str(error)) from error
    draft.event_time_ns = event.event_time_ns
    draft.log_id = event.log_id or draft.log_id
    draft.behaviour_flags = tuple(event.behaviour_flags)
    draft.policy_version = event.policy_version
    draft.metadata_budget_ms = event.metadata_budget_ms
    _settle_seed(draft)
    draft.unsettled = None  # whether the last commit was in time died with the process
    # Cool-downs restart with the process: event time says nothing of how long it was away.
    for name, record in draft.breakers.items():
        if record.state == breakers.OPEN:
            draft.writable("breakers")[name] = replace(record, moved_at_ns=event.event_time_ns)
    if draft.conservative.active:
        draft.conservative = draft.conservative._replace(since_ns=event.event_time_ns)


def _step_received(draft: Draft, lsn: int, event: journal.StepReceived) -> None:
    if event.step_index != draft.steps_received + 1:
        raise draft.refusal(event, f"step {event.step_index} follows {draft.steps_received}")
    if event.event_time_ns <= draft.event_time_ns:
        raise draft.refusal(event, "event time only moves forward")
    draft.steps_received = event.step_index
    draft.event_time_ns = event.event_time_ns
    draft.undecided = (*draft.undecided, lsn)[-UNDECIDED_MAX:]


def _graph_observed(draft: Draft, _: int, event: journal.GraphObserved) -> None:
    layout = draft.layouts.get(event.layout_lsn)
    if layout is None or not layout.fits(event):
        raise draft.refusal(event, f"layout {event.layout_lsn} does not fit it")
    try:
        draft.norms = norms.folded(draft.norms, norms.recorded(event))
    except (IndexError, ValueError) as error:
        raise draft.refusal(event, "its norm inputs are not one value for each row that it names") from error


def _graph_layout_observed(draft: Draft, lsn: int, event: journal.GraphLayoutObserved) -> None:
    draft.remember("layouts", lsn, read_layout(event), LAYOUTS_MAX)


def _blueprint_observed(draft: Draft, lsn: int, event: journal.BlueprintObserved) -> None:
    if event.blueprint_id:
        _blueprint_known(draft, lsn, event)
    elif event.digest or event.content:
        raise draft.refusal(event, "the library's list of ids has no content")
    if not event.late:
        draft.count("metadata", breakers.SUCCESS)
    draft.advance(event.event_time_ns)


def _blueprint_known(draft: Draft, lsn: int, event: journal.BlueprintObserved) -> None:
    known = draft.blueprints.get(event.blueprint_id)
    if not event.digest:
        last = known or ObservedBlueprint(None, 0, 0)
        observed = replace(last, observed_at_ns=event.event_time_ns, withdrawn=True)
    elif event.content:
        content = journal.BlueprintContent.FromString(event.content)
        blueprint = read_blueprint(event.blueprint_id, event.digest, content)
        observed = ObservedBlueprint(blueprint, lsn, event.event_time_ns)
    elif known is not None and known.blueprint is not None and known.blueprint.digest == event.digest:
        observed = replace(known, observed_at_ns=event.event_time_ns, withdrawn=False)
    else:
        raise draft.refusal(event, "content may be left out only where the same digest is known")
    draft.remember("blueprints", event.blueprint_id, observed, BLUEPRINTS_MAX)


def _registry_assigned(draft: Draft, _: int, event: journal.RegistryAssigned) -> None:
    if event.kind not in CAPACITIES:
        raise draft.refusal(event, f"there is no registry {event.kind!r}")
    entries, keys = draft.registries[event.kind], list(event.keys)
    fits = event.first_index == len(entries) + 1 and len(entries) + len(keys) <= CAPACITIES[event.kind]
    if not fits or len(set(keys)) != len(keys) or not all(key and key not in entries for key in keys):
        rule = f"{len(keys)} names cannot be numbered from {event.first_index} on after {len(entries)} in {event.kind}"
        raise draft.refusal(event, rule)
    draft.registries = extended(draft.registries, {event.kind: keys})


def _decision_made(draft: Draft, lsn: int, event: journal.DecisionMade) -> None:
    step_lsn, command_id = event.step_lsn, event.command_id
    draft.undecided = _without(draft, event, step_lsn)
    for outcome in event.outcomes[:]:  # a slice: half the time of going through the field
        breaker = outcome.breaker
        if breaker not in draft.breakers:
            raise draft.refusal(event, f"there is no breaker {breaker!r}")
        draft.count(breaker, breakers.SUCCESS if outcome.succeeded else breakers.FAILURE)
    _settle_seed(draft)
    draft.advance(event.event_time_ns)
    draft.decisions += 1
    draft.unsettled = Unsettled(step_lsn, event.germinated_seed_id, event.germinated_blueprint_id, command_id)
    mode = draft.conservative
    clean_steps = mode.clean_steps + 1 if event.clean else 0
    draft.conservative = Conservative(mode.active, mode.reason, mode.since_ns, clean_steps, mode.operator)
    if event.has_validation_loss:
        draft.loss = draft.loss.after(event.training_run_id, event.validation_loss)
    if command_id:
        between.await_delivery(draft, command_id, lsn)
    if event.edges:
        _apply_edges(draft, event)
    if draft.windows.open:
        _sample(draft, event)
    if event.HasField("window"):
        _open_window(draft, event)


def _without(draft: Draft, event: journal.DecisionMade | journal.StepPaused, step_lsn: int) -> tuple[int, ...]:
    """The packets that await a decision, but for this one; there is hardly ever another."""
    waiting = draft.undecided
    if step_lsn not in waiting:
        raise draft.refusal(event, f"step {step_lsn} is not awaiting a decision")
    return tuple([lsn for lsn in waiting if lsn != step_lsn]) if len(waiting) > 1 else ()


def _settle_seed(draft: Draft) -> None:
    """The last decision's germination joins the seeds' blueprints, its commit having been in time."""
    last = draft.unsettled
    if last is not None and last.seed_id:
        draft.remember("seed_blueprints", last.seed_id, last.blueprint_id, SEED_BLUEPRINTS_MAX)


def _sample(draft: Draft, event: journal.DecisionMade) -> None:
    """What this decision saw, for the windows that are open; of older samples only what the first window needs."""
    windows = draft.windows
    hook_ms = event.hook_latency_ms if event.has_hook_latency else None
    sample = Sample(draft.decisions, event.loss_delta, hook_ms, event.critical)
    draft.windows = Windows(windows.open, (*windows.samples, sample), windows.expired)


def _open_window(draft: Draft, event: journal.DecisionMade) -> None:
    opened, windows = event.window, draft.windows
    if len(windows.open) > WINDOWS_MAX or opened.length < 1:
        raise draft.refusal(event, f"{len(windows.open)} windows are open, and its own is {opened.length} long")
    window = Window(
        command_id=event.command_id,
        opened_at=draft.decisions,
        length=opened.length,
        start_epoch=opened.start_epoch,
        training_run_id=opened.training_run_id,
        seed_id=opened.seed_id,
        blueprint_id=opened.blueprint_id,
        policy_version=opened.policy_version,
    )
    place = len(windows.open)  # windows of one length close in the order they open; only another setting differs
    while place and windows.open[place - 1].closes_at > window.closes_at:
        place -= 1
    draft.windows = Windows((*windows.open[:place], window, *windows.open[place:]), windows.samples, windows.expired)


def _window_closed(draft: Draft, _: int, event: journal.WindowClosed) -> None:
    windows, command_id = draft.windows, event.command_id
    place = next((place for place, window in enumerate(windows.open) if window.command_id == command_id), None)
    if place is None:
        raise draft.refusal(event, f"no window of command {command_id!r} is open")
    left = (*windows.open[:place], *windows.open[place + 1 :])
    first = min([window.opened_at for window in left], default=draft.decisions)
    draft.windows = Windows(left, windows.after(first), windows.expired + event.expired)


def _apply_edges(draft: Draft, event: journal.DecisionMade | journal.CommitLate | journal.StepPaused) -> None:
    conditions = draft.writable("conditions")
    for edge in event.edges:
        key = (edge.reason, edge.level)
        if edge.edge == "started" and key not in conditions and len(conditions) < CONDITIONS_MAX:
            conditions[key] = Condition(edge.step_index, edge.step_index)
        elif edge.edge == "lasting" and key in conditions:
            conditions[key] = Condition(conditions[key].since_step_index, edge.step_index)
        elif edge.edge == "ended" and key in conditions:
            del conditions[key]
        else:
            raise draft.refusal(event, f"condition {edge.reason!r} of level {edge.level} cannot be {edge.edge!r} here")


def _breaker_moved(draft: Draft, _: int, event: journal.BreakerMoved) -> None:
    record = draft.breakers.get(event.breaker)
    if record is None:
        raise draft.refusal(event, f"there is no breaker {event.breaker!r}")
    if record.state != event.from_state:
        raise draft.refusal(event, f"breaker {event.breaker} is in state {record.state}, not {event.from_state}")
    move = breakers.Move(event.from_state, event.to_state, event.cause)
    draft.writable("breakers")[event.breaker] = breakers.moved(record, move, event.event_time_ns)
    draft.advance(event.event_time_ns)


def _conservative_mode_changed(draft: Draft, _: int, event: journal.ConservativeModeChanged) -> None:
    mode = draft.conservative
    if event.active == mode.active:
        raise draft.refusal(event, "conservative mode is there already")
    clean_steps = 0 if event.active else mode.clean_steps
    draft.conservative = Conservative(event.active, event.reason, event.event_time_ns, clean_steps, mode.operator)


def _commit_late(draft: Draft, lsn: int, event: journal.CommitLate) -> None:
    """The released PAUSE takes the place of the decision's command: for its delivery, its window and its report."""
    last = draft.unsettled
    if last is None or last.step_lsn != event.step_lsn:
        raise draft.refusal(event, f"the commit of step {event.step_lsn} is not waiting to be judged")
    if last.command_id:
        between.forget_delivery(draft, last.command_id)
        between.await_delivery(draft, event.released_command_id, lsn)
        draft.windows = draft.windows._replace(
            open=tuple(
                replace(window, command_id=event.released_command_id, seed_id="", blueprint_id="")
                if window.command_id == last.command_id
                else window
                for window in draft.windows.open
            ),
        )
    if draft.unsettled_report_lsn > draft.outbox.reports_lsn:
        draft.outbox = replace(draft.outbox, superseded=draft.outbox.superseded + 1)
    draft.unsettled = None
    draft.commits_late += 1
    _unclean(draft)
    draft.count("log", breakers.FAILURE)
    if event.edges:
        _apply_edges(draft, event)


def _step_paused(draft: Draft, lsn: int, event: journal.StepPaused) -> None:
    draft.undecided = _without(draft, event, event.step_lsn)
    _unclean(draft)
    if event.cause == "timeout_wal":
        draft.count("log", breakers.FAILURE)
    if EXPLAINED in draft.behaviour_flags:
        between.await_delivery(draft, event.released_command_id, lsn)
    if event.edges:
        _apply_edges(draft, event)


def _steps_unrecorded(draft: Draft, _: int, event: journal.StepsUnrecorded) -> None:
    spanned = event.last_step_index - event.first_step_index + 1
    if event.timed_out > event.count:
        raise draft.refusal(event, f"{event.timed_out} of {event.count} steps cannot have timed out")
    if event.count != spanned:
        raise draft.refusal(event, f"{event.count} steps are not the {spanned} it names")
    if event.first_step_index != draft.steps_received + 1:
        raise draft.refusal(event, f"step {event.first_step_index} follows {draft.steps_received}")
    draft.steps_received = event.last_step_index
    draft.steps_unrecorded += event.count
    if event.count:
        _unclean(draft)
    for outcome in breakers.outcomes_of_a_gap(draft.breakers["log"], event.timed_out, draft.thresholds):
        draft.count("log", outcome)


def _unclean(draft: Draft) -> None:
    """The step was a PAUSE for a cause of the log's: the clean steps that conservative mode waits for begin anew."""
    if draft.conservative.clean_steps and SAFE_PAUSES_UNCLEAN in draft.behaviour_flags:
        draft.conservative = draft.conservative._replace(clean_steps=0)


def _looked_back(draft: Draft, lsn: int, event: journal.StateBase | journal.SnapshotTaken) -> None:
    """Words about a state that was; an audit compares them with the state that the log comes to there."""
    if not 0 < event.at_lsn < lsn:
        raise draft.refusal(event, f"it speaks of LSN {event.at_lsn}, which is not before it")
    draft.advance(event.event_time_ns)


def _retention(draft: Draft, _: int, event: journal.RetentionPlanned | journal.RetentionCompleted) -> None:
    """What a run takes away is folded already, or read from a base: the state stays as it is."""
    draft.advance(event.event_time_ns)


def _unchanged(_draft: Draft, _lsn: int, _event: Event) -> None:
    """Observations that only their step's decision reads."""


FOLDS: Mapping[type[Event], Callable[[Draft, int, Any], None]] = MappingProxyType(
    {
        journal.ServiceOpened: _service_opened,
        journal.StepReceived: _step_received,
        journal.GraphObserved: _graph_observed,
        journal.BlueprintObserved: _blueprint_observed,
        journal.MetadataTimedOut: _unchanged,
        journal.MetadataFailed: _unchanged,
        journal.InferenceObserved: policies.inference_observed,
        journal.InferenceTimedOut: _unchanged,
        journal.InferenceFailed: policies.inference_failed,
        journal.InferenceSkipped: _unchanged,
        journal.RegistryAssigned: _registry_assigned,
        journal.DecisionMade: _decision_made,
        journal.BreakerMoved: _breaker_moved,
        journal.ConservativeModeChanged: _conservative_mode_changed,
        journal.FieldReportIssued: between.field_report_issued,
        journal.CommitLate: _commit_late,
        journal.StepsUnrecorded: _steps_unrecorded,
        journal.GraphLayoutObserved: _graph_layout_observed,
        journal.StepPaused: _step_paused,
        journal.OperatorDirected: between.operator_directed,
        journal.CommandDelivered: between.command_delivered,
        journal.WindowClosed: _window_closed,
        journal.PublishAttempted: between.publish_attempted,
        journal.FieldReportsDropped: between.field_reports_dropped,
        journal.TelemetryDrained: between.telemetry_drained,
        journal.TelemetryDropped: between.telemetry_dropped,
        journal.StateBase: _looked_back,
        journal.SnapshotTaken: _looked_back,
        journal.RetentionPlanned: _retention,
        journal.RetentionCompleted: _retention,
        journal.PolicyInstalled: policies.policy_installed,
        journal.PolicyRejected: policies.policy_rejected,
        journal.PolicyRolledBack: policies.policy_rolled_back,
        journal.RegistryImported: policies.registry_imported,
    }
)
"""The handler of each event; a message without one cannot be logged."""
