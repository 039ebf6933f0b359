"""The risk table: what can go wrong, how bad it is, and what it asks for.

    reason    what the command and the journal say
    level     Leyline TelemetryLevel
    priority  Leyline MessagePriority of the event
    when      any of these groups, all tests of a group together; a NaN or an infinity in any signal that
              the row reads triggers it as well
    asks      PAUSE, DOWNGRADE (a SEED that is not a CULL becomes OPTIMIZER) or NOTHING
    conservative  True where the row also brings on conservative mode

The final command is the most restrictive that the proposal or any triggered row asks for, in the order
SEED < OPTIMIZER = CULL < CIRCUIT_BREAKER < PAUSE. The order of the rows decides only which reason is
named among rows of one level. `timeout_wal` and `log_full` stand here for their level and priority: they are known
only when a step's record is late or impossible, so they are the causes of a safe PAUSE, outside `decide`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import nextafter
from typing import NamedTuple

from tamiyo.core.signals import HANDLING_QUARANTINE, HAZARD_CRITICAL, HAZARD_HIGH, SIGNALS
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "DOWNGRADE",
    "NOTHING",
    "PAUSE",
    "RISK_ROWS",
    "Reading",
    "Row",
    "Test",
    "Triggered",
    "triggered_rows",
]

NOTHING, DOWNGRADE, PAUSE = "none", "downgrade", "pause"
INFINITY = float("inf")
LARGEST = nextafter(INFINITY, 0.0)

INFO, WARNING, CRITICAL = pb.TELEMETRY_LEVEL_INFO, pb.TELEMETRY_LEVEL_WARNING, pb.TELEMETRY_LEVEL_CRITICAL
NORMAL, HIGH, URGENT = pb.MESSAGE_PRIORITY_NORMAL, pb.MESSAGE_PRIORITY_HIGH, pb.MESSAGE_PRIORITY_CRITICAL


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison. `threshold` is a number, or a field of `Thresholds`, times `factor` (another field)."""

    __test__ = False  # not one of pytest's

    signal: str
    comparison: str  # ">", ">=", "<", "<=", "==", or "finite": triggers on NaN and infinity alone
    threshold: float | str = 0.0
    factor: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    reason: str
    level: int
    priority: int
    when: tuple[tuple[Test, ...], ...]
    asks: str
    conservative: bool = False


def _any(*tests: Test) -> tuple[tuple[Test, ...], ...]:
    return tuple((test,) for test in tests)


def _all(*tests: Test) -> tuple[tuple[Test, ...], ...]:
    return (tests,)


def _set(signal: str) -> tuple[tuple[Test, ...], ...]:
    return _any(Test(signal, ">", 0.0))


_LOSS_WARNING = Test("loss_delta", ">", "max_loss_spike", factor="loss_warning_fraction")

# fmt: off
RISK_ROWS: tuple[Row, ...] = (
    Row("nonfinite_metric", CRITICAL, URGENT, _any(
        Test("training_loss", "finite"), Test("validation_loss", "finite"), Test("loss", "finite"),
        Test("gradient_norm", "finite")), PAUSE, conservative=True),
    Row("log_failed", CRITICAL, URGENT, _set("log_unavailable"), PAUSE),
    Row("rollback_deadline", CRITICAL, URGENT, _set("rollback_deadline_exceeded"), PAUSE, conservative=True),
    Row("bp_quarantine", CRITICAL, URGENT, _any(
        Test("blueprint_quarantine", ">", 0.0),
        Test("blueprint_risk", ">=", "blueprint_quarantine_risk")), PAUSE, conservative=True),
    Row("bsds_handling_quarantine", CRITICAL, URGENT, _any(
        Test("bsds_handling_class", ">=", HANDLING_QUARANTINE)), PAUSE, conservative=True),
    Row("bsds_hazard_critical", CRITICAL, URGENT, _any(
        Test("bsds_hazard_band", ">=", HAZARD_CRITICAL)), PAUSE, conservative=True),
    Row("policy_risk_critical", CRITICAL, URGENT, _any(
        Test("policy_risk_score", ">=", "policy_risk_critical")), PAUSE, conservative=True),
    Row("degraded_inputs", CRITICAL, URGENT, _any(
        Test("feature_coverage", "<=", "feature_coverage_critical")), NOTHING),
    Row("loss_spike", WARNING, HIGH, _any(Test("loss_delta", ">", "max_loss_spike")), PAUSE, conservative=True),
    Row("isolation_violation", WARNING, HIGH, _set("isolation_violations"), PAUSE),
    Row("hook_budget", WARNING, HIGH, _any(Test("hook_latency_ms", ">", "hook_latency_max_ms")), PAUSE),
    Row("step_latency_high", WARNING, HIGH, _any(Test("step_latency_ms", ">", "step_latency_max_ms")), PAUSE),
    Row("device_pressure_high", WARNING, HIGH, _all(
        Test("gpu_util_percent", ">=", "gpu_util_max_percent"),
        Test("gpu_mem_free_gb", "<=", "gpu_mem_free_min_gb")), PAUSE),
    Row("timeout_inference", WARNING, HIGH, _set("inference_timed_out"), PAUSE),
    Row("inference_failed", WARNING, HIGH, _set("inference_failed"), PAUSE),
    Row("timeout_wal", WARNING, HIGH, _set("commit_late"), PAUSE),
    Row("log_full", WARNING, HIGH, _set("log_full"), PAUSE),
    Row("breaker_open", WARNING, HIGH, _set("inference_breaker_open"), PAUSE),
    Row("conservative_mode", WARNING, NORMAL, _set("conservative_mode"), PAUSE),
    Row("timeout_urza", WARNING, HIGH, _set("metadata_timed_out"), NOTHING),
    Row("metadata_failed", WARNING, HIGH, _set("metadata_failed"), NOTHING),
    Row("degraded_inputs", WARNING, HIGH, _any(Test("feature_coverage", "<", "feature_coverage_low")), NOTHING),
    Row("policy_risk_elevated", WARNING, NORMAL, _any(
        Test("policy_risk_score", ">=", "policy_risk_elevated")), DOWNGRADE),
    Row("bsds_hazard_high", WARNING, NORMAL, _any(Test("bsds_hazard_band", "==", HAZARD_HIGH)), DOWNGRADE),
    Row("blueprint_risk", WARNING, NORMAL, _any(Test("blueprint_risk", ">=", "blueprint_risk")), DOWNGRADE),
    Row("loss_warning", WARNING, NORMAL, _any(_LOSS_WARNING), DOWNGRADE),
    Row("loss_volatility_high", WARNING, NORMAL, _any(
        Test("loss_volatility", ">", "max_loss_spike", factor="loss_volatility_fraction")), DOWNGRADE),
    Row("kasmina_apply_slow", WARNING, NORMAL, _any(
        Test("kasmina_apply_ms", ">", "kasmina_apply_max_ms")), DOWNGRADE),
    Row("kasmina_finalize_slow", WARNING, NORMAL, _any(
        Test("kasmina_finalize_ms", ">", "kasmina_finalize_max_ms")), DOWNGRADE),
    Row("grad_variance_high", WARNING, NORMAL, _any(Test("grad_var", ">", "grad_variance_max")), DOWNGRADE),
    Row("grad_conflict_high", WARNING, NORMAL, _any(
        Test("grad_conflict_rate", ">", "grad_conflict_rate_max")), DOWNGRADE),
    Row("optimizer_hint", WARNING, NORMAL, _all(Test("optimizer_lr", "<=", 0.0), _LOSS_WARNING), DOWNGRADE),
    Row("cpu_pressure_high", WARNING, HIGH, _any(Test("cpu_util_percent", ">=", "cpu_util_max_percent")), DOWNGRADE),
    Row("bsds_present", INFO, NORMAL, _set("bsds_present"), NOTHING),
)
# fmt: on


class Reading(NamedTuple):
    """What a row saw: the signal, its value, and what it was compared with."""

    signal: str
    value: float
    comparison: str
    threshold: float


class Triggered(NamedTuple):
    """A row that triggered, with every signal it read."""

    row: Row
    readings: tuple[Reading, ...]


def triggered_rows(signals: Mapping[str, float], thresholds: Thresholds) -> tuple[Triggered, ...]:
    """Walk the table: the rows that trigger on these signals, in table order.

    A row can only trigger through a signal that is loud: not finite, or past a threshold of one of its tests. Most
    steps have hardly any, so only the rows that read a loud signal are looked at.
    """
    table = _table(thresholds)
    quiet = table.quiet
    places: set[int] = set()
    for name, value in signals.items():
        least, most = quiet[name]
        if not least <= value <= most:
            places.update(table.readers[name])
    if not places:
        return ()
    found = []
    for place in sorted(places):
        row, groups = table.rows[place]
        readings = _triggering(groups, signals)
        if readings:
            found.append(Triggered(row, readings))
    return tuple(found)


_Group = tuple[tuple[str, str, float], ...]


def _narrowed(quiet: tuple[float, float], comparison: str, threshold: float) -> tuple[float, float]:
    """The part of (least, most) in which a comparison does not hold, or less."""
    least, most = quiet
    if comparison == ">":
        return least, min(most, threshold)
    if comparison in (">=", "=="):
        return least, min(most, nextafter(threshold, -INFINITY))
    if comparison == "<=":
        return max(least, nextafter(threshold, INFINITY)), most
    if comparison == "<":
        return max(least, threshold), most
    return quiet


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows with their thresholds looked up; by signal the least and most that are quiet, and which rows read it."""

    rows: tuple[tuple[Row, tuple[_Group, ...]], ...]
    quiet: Mapping[str, tuple[float, float]]
    readers: Mapping[str, tuple[int, ...]]


@lru_cache(maxsize=8)
def _table(thresholds: Thresholds) -> _Table:
    """Made once for each configuration, not once a step."""
    quiet = dict.fromkeys(SIGNALS, (-LARGEST, LARGEST))
    readers: dict[str, list[int]] = {name: [] for name in SIGNALS}
    rows = []
    for place, row in enumerate(RISK_ROWS):
        groups = tuple(tuple((t.signal, t.comparison, _threshold(t, thresholds)) for t in group) for group in row.when)
        rows.append((row, groups))
        for signal, comparison, threshold in chain.from_iterable(groups):
            quiet[signal] = _narrowed(quiet[signal], comparison, threshold)
            readers[signal].append(place)
    return _Table(tuple(rows), quiet, {signal: tuple(places) for signal, places in readers.items()})


def _threshold(test: Test, thresholds: Thresholds) -> float:
    base = test.threshold if isinstance(test.threshold, float) else float(getattr(thresholds, test.threshold))
    return base * float(getattr(thresholds, test.factor)) if test.factor else base


def _triggering(groups: tuple[_Group, ...], signals: Mapping[str, float]) -> tuple[Reading, ...]:
    readings, triggers = [], False
    for group in groups:
        holds = True
        for signal, comparison, threshold in group:
            value = signals.get(signal)
            if value is None:
                holds = False
                continue
            finite = value - value == 0.0
            readings.append((signal, value, comparison, threshold))
            triggers = triggers or not finite
            holds = holds and finite and _compare(value, comparison, threshold)
        triggers = triggers or holds
    return tuple(Reading(*reading) for reading in readings) if triggers else ()


def _compare(value: float, comparison: str, threshold: float) -> bool:
    if comparison == ">":
        return value > threshold
    if comparison == ">=":
        return value >= threshold
    if comparison == "<=":
        return value <= threshold
    if comparison == "<":
        return value < threshold
    if comparison == "==":
        return value == threshold
    if comparison == "finite":
        return False  # only a value that is not finite triggers it, and that was asked before
    raise ValueError(f"the risk table compares with {comparison!r}, which means nothing")
