"""One field report for each decision: what was commanded and how the training stood."""

from tamiyo.core.blueprint import Blueprint
from tamiyo.core.inputs import Inputs
from tamiyo.core.risk import PAUSE, RISK_ROWS
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["REGRESSION_REASONS", "field_report", "outcome_of", "pause_report"]

REGRESSION_REASONS = frozenset(
    {"bp_quarantine", "loss_spike", "isolation_violation", "hook_budget"}
    | {row.reason for row in RISK_ROWS if row.level == pb.TELEMETRY_LEVEL_CRITICAL and row.asks == PAUSE}
)


def outcome_of(command: pb.AdaptationCommand, reason: str) -> int:
    """REGRESSION where training itself went wrong, NEUTRAL for every other PAUSE, else SUCCESS."""
    if command.command_type != pb.COMMAND_PAUSE:
        return pb.FIELD_REPORT_OUTCOME_SUCCESS
    regression = reason in REGRESSION_REASONS
    return pb.FIELD_REPORT_OUTCOME_REGRESSION if regression else pb.FIELD_REPORT_OUTCOME_NEUTRAL


def field_report(
    inputs: Inputs,
    command: pb.AdaptationCommand,
    reason: str,
    loss_delta: float,
    named: Blueprint | None,
    selected: tuple[str, str],
) -> pb.FieldReport:
    """The report `fr-<command_id>` of a decision. `selected` is the seed and the blueprint that were proposed."""
    seed_id, blueprint_id = selected
    report = _shell(command, inputs.observation.training_run_id, inputs.policy_version, reason)
    report.outcome = outcome_of(command, reason)  # type: ignore[assignment]  # a Leyline value
    report.seed_id, report.blueprint_id = seed_id, blueprint_id
    metrics, timings = report.metrics, inputs.timings
    metrics["loss_delta"] = loss_delta
    metrics["graph_ms"] = timings.graph_ns / 1e6
    metrics["inference_ms"] = timings.inference_ns / 1e6
    if named is not None:
        metrics["blueprint_risk"] = named.risk
    choice = inputs.choice
    if choice is not None:
        metrics["param_delta"] = choice.param_delta
        metrics["value_estimate"] = choice.value
        metrics["risk_index"] = choice.risk_index
        metrics["risk_score"] = choice.risk_score
        metrics["blending_method_index"] = choice.method
        metrics["blending_schedule_start"] = choice.schedule_start
        metrics["blending_schedule_end"] = choice.schedule_end
    return report


def pause_report(
    command: pb.AdaptationCommand, training_run_id: str, policy_version: str, reason: str
) -> pb.FieldReport:
    """The NEUTRAL report of a safe PAUSE; it takes the place of its step's own report."""
    report = _shell(command, training_run_id, policy_version, reason)
    report.outcome = pb.FIELD_REPORT_OUTCOME_NEUTRAL
    return report


def _shell(command: pb.AdaptationCommand, training_run_id: str, policy_version: str, reason: str) -> pb.FieldReport:
    command_id = command.command_id
    report = pb.FieldReport(
        version=1,
        report_id=f"fr-{command_id}",
        command_id=command_id,
        tamiyo_policy_version=policy_version,
        training_run_id=training_run_id,
        observation_window_epochs=1,
        notes=reason,
    )
    issued_at, commanded_at = report.issued_at, command.issued_at
    issued_at.seconds, issued_at.nanos = commanded_at.seconds, commanded_at.nanos
    return report
