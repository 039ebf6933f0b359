"""`DecisionMade`: the record of a decision, with every row that had a say and what later decisions need of it."""

from collections.abc import Sequence
from functools import lru_cache

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import EXPLAINED
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.conditions import edges_of_decision
from tamiyo.core.draft import Standing
from tamiyo.core.inputs import Inputs
from tamiyo.core.intent import Intent
from tamiyo.core.ledger import Ledger
from tamiyo.core.risk import Reading, Triggered
from tamiyo.core.signals import finite_validation_loss
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["decision_made"]

ROWS_REMEMBERED = 256


def decision_made(
    state: Standing, inputs: Inputs, command: bytes, *, reason: str, rows: Sequence[Triggered], ledger: Ledger,
    final: Intent, named: Blueprint | None, selected: tuple[str, str], loss_delta: float, clean: bool,
) -> journal.DecisionMade:  # fmt: skip
    """The record of one decision.

    Args:
        state: the state it was made in.
        inputs: what it read.
        command: the unsigned command, deterministic bytes.
        reason: the command's.
        rows: those that triggered, in table order.
        ledger: the outcomes of the calls that the step made.
        final: the command before it was written out.
        named: the blueprint that the proposal named, where it is known.
        selected: the seed and the blueprint that were proposed, "" for none.
        loss_delta: of the step.
        clean: whether no row but `conservative_mode` asked for a PAUSE.
    """
    observation = inputs.observation
    made = journal.DecisionMade(
        step_lsn=inputs.step_lsn,
        event_time_ns=inputs.event_time_ns,
        command=command,
        risk_reason=reason,
        timings=inputs.timings,
        clean=clean,
        training_run_id=observation.training_run_id,
    )
    parts = ledger.outcomes
    if rows:
        parts = [*parts, *(_row_part(t.row.reason, t.row.level, t.row.priority, t.row.asks, t.readings) for t in rows)]
    made.MergeFromString(b"".join(parts))
    loss = finite_validation_loss(observation)
    if named is not None:
        made.blueprint_digest = named.digest
    if loss is not None:
        made.has_validation_loss, made.validation_loss = True, loss
    if final.operation == pb.SEED_OP_GERMINATE and final.seed is not None:
        made.germinated_seed_id, made.germinated_blueprint_id = final.seed.seed_id, final.blueprint_id
    if EXPLAINED in state.behaviour_flags:
        _explain(made, state, inputs, rows, selected, loss_delta)
    return made


def _explain(
    made: journal.DecisionMade, state: Standing, inputs: Inputs, rows: Sequence[Triggered],
    selected: tuple[str, str], loss_delta: float,
) -> None:  # fmt: skip
    """What later decisions, windows and telemetry need of this one."""
    made.command_id = inputs.received.decision_id
    made.loss_delta = loss_delta
    hook_ms = inputs.observation.metrics.get("hook_latency_ms")
    if hook_ms is not None and hook_ms - hook_ms == 0.0:
        made.has_hook_latency, made.hook_latency_ms = True, hook_ms
    if rows or state.conditions:
        made.critical = any(t.row.level == pb.TELEMETRY_LEVEL_CRITICAL for t in rows)
        made.edges.extend(edges_of_decision(state, (t.row for t in rows), inputs.received.step_index))
    if state.options.observation_window > 1:
        made.window.length = state.options.observation_window
        made.window.start_epoch = inputs.observation.current_epoch
        made.window.training_run_id = inputs.observation.training_run_id
        made.window.seed_id, made.window.blueprint_id = selected
        made.window.policy_version = inputs.policy_version


@lru_cache(maxsize=ROWS_REMEMBERED)
def _row_part(reason: str, level: int, priority: int, effect: str, readings: tuple[Reading, ...]) -> bytes:
    """One row as it is journaled: the bytes of a record that has nothing else, to be merged into the step's."""
    row = journal.TriggeredRow(reason=reason, level=level, priority=priority, effect=effect)
    for signal, value, comparison, threshold in readings:
        row.readings.add(signal=signal, value=value, comparison=comparison, threshold=threshold)
    return journal.DecisionMade(rows=[row]).SerializeToString()
