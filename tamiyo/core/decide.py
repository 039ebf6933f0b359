"""One decision: `decide(state, inputs)` reads what was recorded and says what follows from it.

Pure: its arguments are left untouched, and the same arguments give the same events, byte for byte. What
it returns is in the order it is journaled: the trials that OPEN breakers let through, DecisionMade, the
moves that its outcomes brought about, the change of conservative mode where there is one, the observation
windows that end with their reports, and the decision's own report.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tamiyo.core import breakers
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import EXPLAINED
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.command import command_bytes, safe_pause, unsigned_command
from tamiyo.core.conditions import edges_of_pause
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.inputs import Inputs
from tamiyo.core.intent import Intent, intend, reason_of, restrict
from tamiyo.core.layout import coverage_of
from tamiyo.core.ledger import Ledger
from tamiyo.core.observation import Observation
from tamiyo.core.record import decision_made
from tamiyo.core.report import field_report, pause_report
from tamiyo.core.risk import PAUSE, Triggered, triggered_rows
from tamiyo.core.signals import (
    blueprint_signals,
    loss_delta,
    packet_signals,
)
from tamiyo.core.windows import windows_closed
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Decision", "blueprint_observed", "decide", "log_trial", "pause_released", "signals_of"]


class Decision(NamedTuple):
    """What follows from one step: the events to journal, and the unsigned command among them."""

    events: tuple[Event, ...]
    command: pb.AdaptationCommand
    reason: str
    rows: tuple[Triggered, ...]


def decide(state: Standing, inputs: Inputs) -> Decision:
    """Decide one step. `state` is the state after the step's observations have been folded."""
    ledger = _settle_breakers(state, inputs)
    proposed = intend(state, inputs)
    named = _named_blueprint(state, proposed)
    selected = (proposed.seed.seed_id, proposed.blueprint_id) if proposed.seed is not None else ("", "")
    delta = loss_delta(state.loss, inputs.observation)
    covered = coverage_of(state.layouts[inputs.graph.layout_lsn], inputs.graph)
    rows = triggered_rows(signals_of(state, inputs, named, delta, covered.average), state.thresholds)
    clean = not rows or not any(t.row.asks == PAUSE and t.row.reason != "conservative_mode" for t in rows)
    final = restrict(proposed, rows)
    reason = reason_of(proposed, final, rows)
    command = unsigned_command(inputs, final, proposed, reason, named, covered, state.options)
    made = decision_made(
        state, inputs, command_bytes(command), reason=reason, rows=rows, ledger=ledger, final=final, named=named,
        selected=selected, loss_delta=delta, clean=clean,
    )  # fmt: skip
    report = field_report(inputs, command, reason, delta, named, selected)
    events: tuple[Event, ...] = (
        *ledger.trials,
        made,
        *ledger.moves,
        *_conservative_change(state, ledger, rows, inputs, clean=clean),
        *(windows_closed(state, made, command, step_lsn=inputs.step_lsn) if state.windows.open else ()),
        journal.FieldReportIssued(step_lsn=inputs.step_lsn, report=report.SerializeToString(deterministic=True)),
    )
    return Decision(events, command, reason, rows)


def signals_of(
    state: Standing, inputs: Inputs, named: Blueprint | None, delta: float, feature_coverage: float
) -> dict[str, float]:
    """Every signal the rows may read in this step."""
    signals = packet_signals(inputs.observation)
    signals["loss_delta"] = delta
    signals["feature_coverage"] = feature_coverage
    if named is not None:
        signals.update(blueprint_signals(named))
    if inputs.choice is not None:
        signals["policy_risk_score"] = inputs.choice.risk_score
    if state.breakers["log"].state == breakers.OPEN:
        signals["log_unavailable"] = 1.0
    if state.conservative.active:
        signals["conservative_mode"] = 1.0
    if inputs.proposal is None or inputs.metadata_faults:
        _add_faults(signals, inputs)
    return signals


def _add_faults(signals: dict[str, float], inputs: Inputs) -> None:
    """What went wrong with the calls that the step made."""
    inference = inputs.inference
    if isinstance(inference, journal.InferenceTimedOut):
        signals["inference_timed_out"] = 1.0
    elif isinstance(inference, journal.InferenceFailed):
        signals["inference_failed"] = 1.0
    elif isinstance(inference, journal.InferenceSkipped) and inference.cause == "breaker_open":
        signals["inference_breaker_open"] = 1.0
    for fault in inputs.metadata_faults:
        signals["metadata_timed_out" if isinstance(fault, journal.MetadataTimedOut) else "metadata_failed"] = 1.0


def _named_blueprint(state: Standing, proposed: Intent) -> Blueprint | None:
    observed = state.blueprints.get(proposed.blueprint_id)
    return observed.blueprint if observed is not None else None


def _settle_breakers(state: Standing, inputs: Inputs) -> Ledger:
    ledger = Ledger(state.breakers, state.thresholds, inputs.step_lsn)
    if state.unsettled is not None:  # a late commit would have said so before this decision
        ledger.record("log", succeeded=True, now_ns=inputs.event_time_ns)
    if inputs.proposal is not None or not isinstance(inputs.inference, journal.InferenceSkipped):
        ledger.happened("inference", breakers.REQUEST, inputs.received.event_time_ns)
        ledger.record("inference", succeeded=inputs.proposal is not None, now_ns=inputs.event_time_ns)
    for _ in inputs.metadata_faults:
        ledger.happened("metadata", breakers.REQUEST, inputs.received.event_time_ns)
        ledger.record("metadata", succeeded=False, now_ns=inputs.event_time_ns)
    return ledger


def _conservative_change(
    state: Standing, ledger: Ledger, rows: Sequence[Triggered], inputs: Inputs, *, clean: bool
) -> tuple[journal.ConservativeModeChanged, ...]:
    """The mode's change, where one is due. Set by an operator it ends only by an operator."""
    mode, thresholds = state.conservative, state.thresholds
    held_by = ledger.holding()
    if not mode.active:
        if not rows and not held_by:
            return ()
        asking = [t.row.reason for t in rows if t.row.conservative] + [f"breaker_{name}" for name in held_by]
        return (_mode_event(inputs, active=True, reason=asking[0]),) if asking else ()
    cooled = inputs.event_time_ns - mode.since_ns >= thresholds.conservative_cool_down_s * 1e9
    calm = clean and mode.clean_steps + 1 >= thresholds.conservative_clean_steps
    ends = cooled and calm and not held_by and not mode.operator
    return (_mode_event(inputs, active=False, reason="recovered"),) if ends else ()


def _mode_event(inputs: Inputs, *, active: bool, reason: str) -> journal.ConservativeModeChanged:
    return journal.ConservativeModeChanged(
        active=active, reason=reason, event_time_ns=inputs.event_time_ns, step_lsn=inputs.step_lsn
    )


def pause_released(
    state: Standing,
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
    released = safe_pause(
        observation, received.decision_id, received.received_unix_ns, cause, budget_ms=received.budget_ms
    )
    report = pause_report(released, observation.training_run_id, state.policy_version, cause)
    fact = journal.CommitLate(decision_lsn=decision_lsn) if decision_lsn else journal.StepPaused()
    fact.step_lsn, fact.released_command_id, fact.cause = step_lsn, released.command_id, cause
    fact.event_time_ns = event_time_ns
    if EXPLAINED in state.behaviour_flags:
        fact.edges.extend(edges_of_pause(state, cause, received.step_index))
    reported = journal.FieldReportIssued(step_lsn=step_lsn, report=report.SerializeToString(deterministic=True))
    ledger = Ledger(state.breakers, state.thresholds, step_lsn)
    if decision_lsn or cause == "timeout_wal":
        ledger.happened("log", breakers.FAILURE, event_time_ns)
    return (fact, reported, *ledger.moves, *_brought_on(state, ledger, step_lsn, event_time_ns))


def _brought_on(
    state: Standing, ledger: Ledger, step_lsn: int, event_time_ns: int
) -> tuple[journal.ConservativeModeChanged, ...]:
    """Conservative mode, where the log's breaker has opened outside a decision."""
    if state.conservative.active or ledger.records["log"].state == breakers.CLOSED:
        return ()
    changed = journal.ConservativeModeChanged(
        active=True, reason="breaker_log", event_time_ns=event_time_ns, step_lsn=step_lsn
    )
    return (changed,)


def log_trial(
    state: Standing, unrecorded: journal.StepsUnrecorded, *, writer_failed_at_ns: int | None = None
) -> tuple[Event, ...]:
    """The batch that says which steps are missing.

    The one that tries the log after a fault, and is waited for, is the first of the successes that close its breaker;
    of any other the next step's commit says whether it was in time. Steps that a busy log refused are failures of it.
    """
    ledger = Ledger(state.breakers, state.thresholds, 0)
    if writer_failed_at_ns is not None:
        ledger.happened("log", breakers.WRITER_FAILED, writer_failed_at_ns)
    ledger.happened("log", breakers.REQUEST, unrecorded.event_time_ns)
    before, brought_on = (*ledger.moves, *ledger.trials), _brought_on(state, ledger, 0, unrecorded.event_time_ns)
    ledger.moves = []
    for outcome in breakers.outcomes_of_a_gap(ledger.records["log"], unrecorded.timed_out, state.thresholds):
        ledger.happened("log", outcome, unrecorded.event_time_ns)
    brought_on = brought_on or _brought_on(state, ledger, 0, unrecorded.event_time_ns)
    return (*before, unrecorded, *ledger.moves, *brought_on)


def blueprint_observed(state: Standing, observed: journal.BlueprintObserved) -> tuple[Event, ...]:
    """A library's answer with the breaker moves around it: in time, it is the success of a lookup.

    An answer without an id is the library's list of ids, and nothing but such a success.
    """
    if observed.late:
        return (observed,)
    ledger = Ledger(state.breakers, state.thresholds, 0)
    ledger.happened("metadata", breakers.REQUEST, observed.event_time_ns)
    ledger.happened("metadata", breakers.SUCCESS, observed.event_time_ns)
    return (*ledger.trials, observed, *ledger.moves)
