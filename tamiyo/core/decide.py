"""One decision: `decide(state, inputs)` reads what was recorded and says what follows from it.

Pure: its arguments are left untouched, and the same arguments give the same events, byte for byte. What
it returns is in the order it is journaled: the trials that OPEN breakers let through, DecisionMade, the
moves that its outcomes brought about, the change of conservative mode where there is one, the observation
windows that end with their reports, and the decision's own report.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tamiyo.core import breakers, coverage
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import EXPLAINED
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.command import command_bytes, safe_pause, unsigned_command
from tamiyo.core.conditions import edges_of_decision, edges_of_pause
from tamiyo.core.events import Event
from tamiyo.core.inputs import Inputs
from tamiyo.core.intent import Intent, intend, reason_of, restrict
from tamiyo.core.layout import counts
from tamiyo.core.ledger import Ledger
from tamiyo.core.observation import Observation
from tamiyo.core.report import field_report, pause_report
from tamiyo.core.risk import PAUSE, Triggered, triggered_rows
from tamiyo.core.signals import (
    blueprint_signals,
    finite_validation_loss,
    loss_delta,
    packet_signals,
    policy_risk_score,
)
from tamiyo.core.state import State
from tamiyo.core.windows import windows_closed
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Decision", "blueprint_observed", "decide", "log_trial", "pause_released", "signals_of"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one step: the events to journal, and the unsigned command among them."""

    events: tuple[Event, ...]
    command: pb.AdaptationCommand
    reason: str
    rows: tuple[Triggered, ...]


def decide(state: State, inputs: Inputs) -> Decision:
    """Decide one step. `state` is the state after the step's observations have been folded."""
    ledger = _settle_breakers(state, inputs)
    proposed = intend(state, inputs)
    named = _named_blueprint(state, proposed)
    delta = loss_delta(state.loss, inputs.observation)
    counted = coverage.Coverage.of(counts(state.layouts[inputs.graph.layout_lsn], inputs.graph))
    rows = triggered_rows(signals_of(state, inputs, named, delta, counted.average), state.thresholds)
    final = restrict(proposed, rows)
    reason = reason_of(proposed, final, rows)
    command = unsigned_command(inputs, final, proposed, reason, named, counted)
    clean = not any(t.row.asks == PAUSE and t.row.reason != "conservative_mode" for t in rows)
    made = _decision_made(inputs, command, reason, rows, ledger, final, named, clean=clean)
    closed: tuple[Event, ...] = ()
    if EXPLAINED in state.behaviour_flags:
        _explain(made, state, inputs, rows, delta, command)
        closed = windows_closed(state, made, command, step_lsn=inputs.step_lsn)
    report = field_report(inputs, command, reason, delta, named)
    change = _conservative_change(state, ledger, rows, inputs, clean=clean)
    reported = journal.FieldReportIssued(step_lsn=inputs.step_lsn, report=report.SerializeToString(deterministic=True))
    events: tuple[Event, ...] = (
        *ledger.trials,
        made,
        *ledger.moves,
        *((change,) if change else ()),
        *closed,
        reported,
    )
    return Decision(events, command, reason, rows)


def signals_of(
    state: State, inputs: Inputs, named: Blueprint | None, delta: float, feature_coverage: float
) -> dict[str, float]:
    """Every signal the rows may read in this step."""
    signals = packet_signals(inputs.observation)
    signals["loss_delta"] = delta
    signals["feature_coverage"] = feature_coverage
    signals.update(blueprint_signals(named))
    if inputs.proposal is not None:
        signals["policy_risk_score"] = policy_risk_score(inputs.proposal)
    for name, holds in _flags(state, inputs):
        if holds:
            signals[name] = 1.0
    return signals


def _flags(state: State, inputs: Inputs) -> Sequence[tuple[str, bool]]:
    inference = inputs.inference
    faults = inputs.metadata_faults
    return (
        ("log_unavailable", state.breakers["log"].state == breakers.OPEN),
        ("inference_timed_out", isinstance(inference, journal.InferenceTimedOut)),
        ("inference_failed", isinstance(inference, journal.InferenceFailed)),
        (
            "inference_breaker_open",
            isinstance(inference, journal.InferenceSkipped) and inference.cause == "breaker_open",
        ),
        ("conservative_mode", state.conservative.active),
        ("metadata_timed_out", any(isinstance(fault, journal.MetadataTimedOut) for fault in faults)),
        ("metadata_failed", any(isinstance(fault, journal.MetadataFailed) for fault in faults)),
    )


def _named_blueprint(state: State, proposed: Intent) -> Blueprint | None:
    observed = state.blueprints.get(proposed.blueprint_id)
    return observed.blueprint if observed is not None else None


def _settle_breakers(state: State, inputs: Inputs) -> Ledger:
    ledger = Ledger(dict(state.breakers), state.thresholds, inputs.step_lsn)
    if state.unsettled is not None:  # a late commit would have said so before this decision
        ledger.record("log", succeeded=True, now_ns=inputs.event_time_ns)
    if not isinstance(inputs.inference, journal.InferenceSkipped):
        ledger.happened("inference", breakers.REQUEST, inputs.received.event_time_ns)
        ledger.record("inference", succeeded=inputs.proposal is not None, now_ns=inputs.event_time_ns)
    for _ in inputs.metadata_faults:
        ledger.happened("metadata", breakers.REQUEST, inputs.received.event_time_ns)
        ledger.record("metadata", succeeded=False, now_ns=inputs.event_time_ns)
    return ledger


def _conservative_change(
    state: State, ledger: Ledger, rows: Sequence[Triggered], inputs: Inputs, *, clean: bool
) -> journal.ConservativeModeChanged | None:
    mode, thresholds = state.conservative, state.thresholds
    held_by = ledger.holding()
    if not mode.active:
        asking = [t.row.reason for t in rows if t.row.conservative]
        cause = next(iter(asking + [f"breaker_{name}" for name in held_by]), None)
        return _mode_event(inputs, active=True, reason=cause) if cause else None
    if mode.operator:
        return None  # set by an operator it ends only by an operator
    cooled = inputs.event_time_ns - mode.since_ns >= thresholds.conservative_cool_down_s * 1e9
    calm = clean and mode.clean_steps + 1 >= thresholds.conservative_clean_steps
    return _mode_event(inputs, active=False, reason="recovered") if cooled and calm and not held_by else None


def _mode_event(inputs: Inputs, *, active: bool, reason: str) -> journal.ConservativeModeChanged:
    return journal.ConservativeModeChanged(
        active=active, reason=reason, event_time_ns=inputs.event_time_ns, step_lsn=inputs.step_lsn
    )


def _decision_made(
    inputs: Inputs, command: pb.AdaptationCommand, reason: str, rows: Sequence[Triggered], ledger: Ledger,
    final: Intent, named: Blueprint | None, *, clean: bool,
) -> journal.DecisionMade:  # fmt: skip
    made = journal.DecisionMade(
        step_lsn=inputs.step_lsn,
        event_time_ns=inputs.event_time_ns,
        command=command_bytes(command),
        risk_reason=reason,
        rows=[_row_message(triggered) for triggered in rows],
        outcomes=ledger.outcomes,
        timings=inputs.timings,
        clean=clean,
        training_run_id=inputs.observation.training_run_id,
    )
    loss = finite_validation_loss(inputs.observation)
    if named is not None:
        made.blueprint_digest = named.digest
    if loss is not None:
        made.has_validation_loss, made.validation_loss = True, loss
    if final.operation == pb.SEED_OP_GERMINATE and final.seed is not None:
        made.germinated_seed_id, made.germinated_blueprint_id = final.seed.seed_id, final.blueprint_id
    return made


def _explain(
    made: journal.DecisionMade, state: State, inputs: Inputs, rows: Sequence[Triggered], delta: float,
    command: pb.AdaptationCommand,
) -> None:  # fmt: skip
    """What later decisions, windows and telemetry need of this one."""
    made.command_id = command.command_id
    made.loss_delta = delta
    made.critical = any(t.row.level == pb.TELEMETRY_LEVEL_CRITICAL for t in rows)
    hook_ms = inputs.observation.metrics.get("hook_latency_ms")
    if hook_ms is not None and hook_ms - hook_ms == 0.0:
        made.has_hook_latency, made.hook_latency_ms = True, hook_ms
    made.edges.extend(edges_of_decision(state, (t.row for t in rows), inputs.received.step_index))
    if state.options.observation_window > 1:
        made.window.length = state.options.observation_window
        made.window.start_epoch = inputs.observation.current_epoch
        made.window.training_run_id = inputs.observation.training_run_id
        made.window.seed_id = command.annotations.get("selected_seed", "")
        made.window.blueprint_id = command.annotations.get("selected_blueprint", "")
        made.window.policy_version = inputs.inference.identity.version


def _row_message(triggered: Triggered) -> journal.TriggeredRow:
    row = triggered.row
    readings = [
        journal.SignalReading(signal=r.signal, value=r.value, comparison=r.comparison, threshold=r.threshold)
        for r in triggered.readings
    ]
    return journal.TriggeredRow(
        reason=row.reason, level=row.level, priority=row.priority, effect=row.asks, readings=readings
    )


def pause_released(
    state: State,
    observation: Observation,
    received: journal.StepReceived,
    *,
    step_lsn: int,
    decision_lsn: int,
    cause: str,
    event_time_ns: int,
) -> tuple[Event, ...]:
    """What the log says next of a received step that was answered with a safe PAUSE.

    Where its decision was recorded (`decision_lsn`), the commit was late: the PAUSE supersedes the command, and its
    NEUTRAL report the step's own. Where it could not be (0), the PAUSE is all there is, and it gets its report.
    """
    released = safe_pause(observation, received.decision_id, received.received_unix_ns, cause)
    report = pause_report(released, observation.training_run_id, state.policy_version, cause)
    fact = journal.CommitLate(decision_lsn=decision_lsn) if decision_lsn else journal.StepPaused()
    fact.step_lsn, fact.released_command_id, fact.cause = step_lsn, released.command_id, cause
    fact.event_time_ns = event_time_ns
    if EXPLAINED in state.behaviour_flags:
        fact.edges.extend(edges_of_pause(state, cause, received.step_index))
    reported = journal.FieldReportIssued(step_lsn=step_lsn, report=report.SerializeToString(deterministic=True))
    ledger = Ledger(dict(state.breakers), state.thresholds, step_lsn)
    if decision_lsn or cause == "timeout_wal":
        ledger.happened("log", breakers.FAILURE, event_time_ns)
    return (fact, reported, *ledger.moves, *_brought_on(state, ledger, step_lsn, event_time_ns))


def _brought_on(
    state: State, ledger: Ledger, step_lsn: int, event_time_ns: int
) -> tuple[journal.ConservativeModeChanged, ...]:
    """Conservative mode, where the log's breaker has opened outside a decision."""
    if state.conservative.active or ledger.records["log"].state == breakers.CLOSED:
        return ()
    changed = journal.ConservativeModeChanged(
        active=True, reason="breaker_log", event_time_ns=event_time_ns, step_lsn=step_lsn
    )
    return (changed,)


def log_trial(
    state: State, unrecorded: journal.StepsUnrecorded, *, writer_failed_at_ns: int | None = None
) -> tuple[Event, ...]:
    """The batch that tries the log after a fault; durable, it is the first of the successes that close its breaker."""
    ledger = Ledger(dict(state.breakers), state.thresholds, 0)
    if writer_failed_at_ns is not None:
        ledger.happened("log", breakers.WRITER_FAILED, writer_failed_at_ns)
    ledger.happened("log", breakers.REQUEST, unrecorded.event_time_ns)
    return (*ledger.moves, *ledger.trials, unrecorded, *_brought_on(state, ledger, 0, unrecorded.event_time_ns))


def blueprint_observed(state: State, observed: journal.BlueprintObserved) -> tuple[Event, ...]:
    """A library's answer with the breaker moves around it: in time, it is the success of a lookup."""
    if observed.late:
        return (observed,)
    ledger = Ledger(dict(state.breakers), state.thresholds, 0)
    ledger.happened("metadata", breakers.REQUEST, observed.event_time_ns)
    ledger.happened("metadata", breakers.SUCCESS, observed.event_time_ns)
    return (*ledger.trials, observed, *ledger.moves)
