"""Every row of the risk table, through `evaluate_step`: the command, the reason, and the record of why."""

import errno
import math
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from live import COVERAGE_ASIDE, Live, library, step_until
from rig import packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.risk import RISK_ROWS
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FailingPolicy, FixedPolicy, HangingPolicy

C, W, I = pb.TELEMETRY_LEVEL_CRITICAL, pb.TELEMETRY_LEVEL_WARNING, pb.TELEMETRY_LEVEL_INFO  # noqa: E741  as the table has it
PAUSE, OPTIMIZER, SEED = pb.COMMAND_PAUSE, pb.COMMAND_OPTIMIZER, pb.COMMAND_SEED
DORMANT = pb.SEED_STAGE_DORMANT


def metric(**metrics: float) -> Callable[[], tuple[Live, pb.AdaptationCommand]]:
    def run() -> tuple[Live, pb.AdaptationCommand]:
        live = Live()
        names = {name.replace("__", "."): value for name, value in metrics.items()}
        return live, live.step(packet(training_metrics=names))

    return run


def blueprint(*, sheet: pb.BSDS | None = None, **descriptor: object) -> Callable[[], tuple[Live, pb.AdaptationCommand]]:
    def run() -> tuple[Live, pb.AdaptationCommand]:
        live = Live(urza=library(sheet=sheet, **descriptor))
        live.step(packet(DORMANT))
        while "run-1" not in live.service.state.blueprints:  # the lookup has a budget, and may land after the step
            live.step(packet(DORMANT))
        return live, live.step(packet(DORMANT))

    return run


def risk(*probabilities: float) -> Callable[[], tuple[Live, pb.AdaptationCommand]]:
    def run() -> tuple[Live, pb.AdaptationCommand]:
        live = Live(policy=FixedPolicy(risk=probabilities))
        return live, live.step(packet())

    return run


def coverage(limit: str) -> Callable[[], tuple[Live, pb.AdaptationCommand]]:
    def run() -> tuple[Live, pb.AdaptationCommand]:
        live = Live(thresholds=Thresholds(**{limit: 0.999}))
        return live, live.step(packet())

    return run


def policy_hangs() -> tuple[Live, pb.AdaptationCommand]:
    policy = HangingPolicy()
    live = Live(policy=policy, step_timeout_ms=1)
    command = live.step(packet())
    policy.release()
    return live, command


def policy_fails() -> tuple[Live, pb.AdaptationCommand]:
    live = Live(policy=FailingPolicy())
    return live, live.step(packet())


def policy_failed_three_times() -> tuple[Live, pb.AdaptationCommand]:
    live = Live(policy=FailingPolicy())
    for _ in range(3):
        live.step(packet())
    return live, live.step(packet())


def conservative() -> tuple[Live, pb.AdaptationCommand]:
    live = Live()
    live.step(packet(training_loss=math.nan))
    return live, live.step(packet())


def log_hangs() -> tuple[Live, pb.AdaptationCommand]:
    live = Live(commit_timeout_ms=1)
    live.disk.hang("fdatasync")
    command = live.step(packet())
    live.disk.release()
    return live, command


def log_fails() -> tuple[Live, pb.AdaptationCommand]:
    live = Live()
    live.disk.fail("fdatasync", errno.EIO)
    return live, live.step(packet())


def log_fills_up() -> tuple[Live, pb.AdaptationCommand]:
    live = Live(segment_bytes=2**16)
    live.disk.no_space()
    command = live.step(packet())
    while command.annotations["risk_reason"] != "log_full":
        command = live.step(packet(experiment_name="x" * 4_000))
    return live, command


def library_hangs() -> tuple[Live, pb.AdaptationCommand]:
    known = library()
    known.gate = threading.Event()
    live = Live(urza=known)
    command = live.step(packet())
    known.gate.set()
    return live, command


def library_fails() -> tuple[Live, pb.AdaptationCommand]:
    known = library()
    known.error = ConnectionError("the library is down")
    live = Live(urza=known)
    return live, live.step(packet())


def two_losses(first: float, second: float, **metrics: float) -> Callable[[], tuple[Live, pb.AdaptationCommand]]:
    def run() -> tuple[Live, pb.AdaptationCommand]:
        live = Live()
        live.step(packet(validation_loss=first))
        return live, live.step(packet(validation_loss=second, training_metrics=metrics))

    return run


SHEET = pb.BSDS
CASES: dict[tuple[str, int], tuple[Callable[[], tuple[Live, pb.AdaptationCommand]], int]] = {
    ("nonfinite_metric", C): (metric(gradient_norm=math.inf), PAUSE),
    ("log_failed", C): (log_fails, PAUSE),
    ("rollback_deadline", C): (metric(tolaria__rollback__deadline_exceeded=1.0), PAUSE),
    ("bp_quarantine", C): (blueprint(quarantine_only=True), PAUSE),
    ("bsds_handling_quarantine", C): (blueprint(sheet=SHEET(handling_class=3)), PAUSE),
    ("bsds_hazard_critical", C): (blueprint(sheet=SHEET(hazard_band=4)), PAUSE),
    ("policy_risk_critical", C): (risk(0, 0, 0, 0, 1), PAUSE),
    ("degraded_inputs", C): (coverage("feature_coverage_critical"), SEED),
    ("loss_spike", W): (two_losses(0.5, 0.75), PAUSE),
    ("isolation_violation", W): (metric(kasmina__isolation__violations=1.0), PAUSE),
    ("hook_budget", W): (metric(hook_latency_ms=50.5), PAUSE),
    ("step_latency_high", W): (metric(step_latency_ms=120.5), PAUSE),
    ("device_pressure_high", W): (metric(gpu_util_percent=95.0, gpu_mem_free_gb=0.1), PAUSE),
    ("timeout_inference", W): (policy_hangs, PAUSE),
    ("inference_failed", W): (policy_fails, PAUSE),
    ("timeout_wal", W): (log_hangs, PAUSE),
    ("log_full", W): (log_fills_up, PAUSE),
    ("breaker_open", W): (policy_failed_three_times, PAUSE),
    ("conservative_mode", W): (conservative, PAUSE),
    ("timeout_urza", W): (library_hangs, SEED),
    ("metadata_failed", W): (library_fails, SEED),
    ("degraded_inputs", W): (coverage("feature_coverage_low"), SEED),
    ("policy_risk_elevated", W): (risk(0, 0, 0, 0.5, 0.5), OPTIMIZER),
    ("bsds_hazard_high", W): (blueprint(sheet=SHEET(hazard_band=3)), OPTIMIZER),
    ("blueprint_risk", W): (blueprint(risk=0.5), OPTIMIZER),
    ("loss_warning", W): (two_losses(0.5, 0.625), OPTIMIZER),
    ("loss_volatility_high", W): (metric(loss_volatility=0.1128), OPTIMIZER),
    ("kasmina_apply_slow", W): (metric(kasmina__apply_ms=30.5), OPTIMIZER),
    ("kasmina_finalize_slow", W): (metric(kasmina__finalize_ms=30.5), OPTIMIZER),
    ("grad_variance_high", W): (metric(grad_var=1.5), OPTIMIZER),
    ("grad_conflict_high", W): (metric(grad_conflict_rate=0.6), OPTIMIZER),
    ("optimizer_hint", W): (two_losses(0.5, 0.625, optimizer_lr=0.0), OPTIMIZER),
    ("cpu_pressure_high", W): (metric(cpu_util_percent=95.0), OPTIMIZER),
    ("bsds_present", I): (blueprint(sheet=SHEET(hazard_band=1)), SEED),
}

ON_EVERY_COMMAND = {
    "policy_version", "policy_action", "policy_param_delta", "policy_value_estimate", "policy_risk_index",
    "policy_risk_score", "risk_reason", "feature_coverage", "coverage_types", "coverage_map", "blending_method",
    "blending_method_index", "signature",
}  # fmt: skip

UNRECORDED = {"log_failed", "timeout_wal", "log_full"}
"""Known only when the step's own record is late or impossible: answered with the safe PAUSE."""
WENT_WRONG = {
    "nonfinite_metric", "log_failed", "rollback_deadline", "bp_quarantine", "bsds_handling_quarantine",
    "bsds_hazard_critical", "policy_risk_critical", "loss_spike", "isolation_violation", "hook_budget",
}  # fmt: skip
"""Of a PAUSE for one of these a field report says REGRESSION, of any other NEUTRAL."""
OVERRULED = {"optimizer_hint": "loss_warning", "bsds_present": "policy"}
"""Rows that trigger beside one that comes first, or that ask for nothing."""


def test_every_row_has_a_case() -> None:
    assert set(CASES) == {(row.reason, row.level) for row in RISK_ROWS}


@pytest.mark.parametrize(("reason", "level"), CASES, ids=[f"{reason}-{level}" for reason, level in CASES])
def test_a_row_does_what_the_table_says(reason: str, level: int) -> None:
    run, command_type = CASES[reason, level]
    live, command = run()
    assert command.command_type == command_type
    assert command.annotations["risk_reason"] == OVERRULED.get(reason, reason)
    assert {name for name in ON_EVERY_COMMAND if not command.annotations.get(name)} == set()
    assert command.execution_deadline_ms == live.settings.step_timeout_ms
    if reason not in UNRECORDED:
        rows = {(row.reason, row.level) for row in live.decisions()[-1].rows}
        assert (reason, level) in rows
        report = pb.FieldReport.FromString(live.events(journal.FieldReportIssued)[-1].report)
        paused = "REGRESSION" if reason in WENT_WRONG else "NEUTRAL"
        outcome = paused if command_type == PAUSE else "SUCCESS"
        assert pb.FieldReportOutcome.Name(report.outcome) == f"FIELD_REPORT_OUTCOME_{outcome}"
        live.check()
    live.close()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"gpu_util_percent": 95.0, "gpu_mem_free_gb": 0.2}, "device_pressure_high"),
        ({"loss_delta": 0.15}, "loss_warning"),
        ({"loss_delta": 0.075}, "policy"),
        ({"loss_volatility": 0.1125}, "policy"),
        ({"hook_latency_ms": 50.0, "step_latency_ms": 120.0, "grad_var": 1.0, "grad_conflict_rate": 0.5}, "policy"),
        ({"kasmina.apply_ms": 30.0, "kasmina.finalize_ms": 30.0}, "policy"),
    ],
)
def test_a_metric_that_is_its_threshold_is_neither_over_it_nor_under_it(metrics: dict[str, float], reason: str) -> None:
    """The wire is single precision: 0.2 arrives as a little more, and 0.1125 as a little less."""
    live = Live()
    assert live.step(packet(training_metrics=metrics)).annotations["risk_reason"] == reason
    live.check()
    live.close()


@pytest.mark.parametrize(
    ("thresholds", "reason"), [({}, "bp_quarantine"), ({"blueprint_quarantine_risk": 0.7}, "bp_quarantine")]
)
def test_a_blueprint_s_risk_that_is_its_threshold_is_at_least_that(thresholds: dict[str, float], reason: str) -> None:
    described = library(risk=thresholds.get("blueprint_quarantine_risk", 0.8))
    live = Live(urza=described, thresholds=replace(COVERAGE_ASIDE, **thresholds))
    step_until(live, lambda: "run-1" in live.service.state.blueprints, made=packet(DORMANT))
    assert live.step(packet(DORMANT)).annotations["risk_reason"] == reason
    live.close()


@pytest.mark.parametrize("reason", [row.reason for row in RISK_ROWS if row.conservative])
def test_the_rows_that_say_so_bring_on_conservative_mode(reason: str) -> None:
    live, _ = CASES[reason, W if reason == "loss_spike" else C][0]()
    assert live.service.state.conservative.active
    assert live.service.state.conservative.reason == reason
    live.close()


@pytest.mark.parametrize("reason", [r.reason for r in RISK_ROWS if not r.conservative and r.reason not in UNRECORDED])
def test_no_other_row_does(reason: str) -> None:
    if reason in {"conservative_mode", "breaker_open"}:
        return  # entered by what came before
    level = next(row.level for row in RISK_ROWS if row.reason == reason)
    live, _ = CASES[reason, level][0]()
    assert not live.service.state.conservative.active
    live.close()
