"""The risk table, walked in full: each row triggers on its own, names itself, and asks for what it says."""

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.core.risk import RISK_ROWS, Row, Test, triggered_rows
from tamiyo.core.signals import SIGNALS
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb

THRESHOLDS = Thresholds()
ROW_IDS = [f"{row.reason}-{row.level}" for row in RISK_ROWS]


def limit(test: Test) -> float:
    base = test.threshold if isinstance(test.threshold, float) else getattr(THRESHOLDS, test.threshold)
    return base * getattr(THRESHOLDS, test.factor) if test.factor else base


def triggering_value(test: Test) -> float:
    """The value nearest to the limit that triggers."""
    value = limit(test)
    return {
        ">": math.nextafter(value, math.inf),
        "<": math.nextafter(value, -math.inf),
        ">=": value,
        "<=": value,
        "==": value,
        "finite": math.nan,
    }[test.comparison]


def quiet_value(test: Test) -> float:
    """The value nearest to the limit that does not trigger."""
    value = limit(test)
    return {
        ">": value,
        "<": value,
        ">=": math.nextafter(value, -math.inf),
        "<=": math.nextafter(value, math.inf),
        "==": value - 1.0,
        "finite": 1.0,
    }[test.comparison]


def rows_for(signals: dict[str, float]) -> list[Row]:
    return [triggered.row for triggered in triggered_rows(signals, THRESHOLDS)]


def test_no_signal_triggers_nothing() -> None:
    assert rows_for({}) == []


@pytest.mark.parametrize("row", RISK_ROWS, ids=ROW_IDS)
def test_each_group_of_a_row_triggers_it_at_its_limit_and_not_before(row: Row) -> None:
    for group in row.when:
        assert row in rows_for({test.signal: triggering_value(test) for test in group})
        for spared in group:
            signals = {test.signal: triggering_value(test) for test in group} | {spared.signal: quiet_value(spared)}
            assert row not in rows_for(signals)


@pytest.mark.parametrize("row", RISK_ROWS, ids=ROW_IDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_triggers_every_row_that_reads_it(row: Row, value: float) -> None:
    for group in row.when:
        for test in group:
            assert row in rows_for({test.signal: value})


@pytest.mark.parametrize("row", RISK_ROWS, ids=ROW_IDS)
def test_a_triggered_row_reports_every_signal_it_read(row: Row) -> None:
    signals = {test.signal: triggering_value(test) for group in row.when for test in group}
    found = next(triggered for triggered in triggered_rows(signals, THRESHOLDS) if triggered.row is row)
    assert {reading.signal for reading in found.readings} == set(signals)


def test_every_signal_of_the_table_is_known_and_every_known_signal_is_read() -> None:
    read = {test.signal for row in RISK_ROWS for group in row.when for test in group}
    assert read == set(SIGNALS)


def test_every_threshold_of_the_table_is_a_field() -> None:
    names = {field.name for field in fields(Thresholds)}
    used = {
        name
        for row in RISK_ROWS
        for g in row.when
        for t in g
        for name in (t.threshold, t.factor)
        if isinstance(name, str)
    }
    assert used <= names


def test_the_table_is_what_the_requirements_say() -> None:
    """Reason, level, priority, effect and conservative flag of each row, written out once more by hand."""
    levels = {pb.TELEMETRY_LEVEL_CRITICAL: "C", pb.TELEMETRY_LEVEL_WARNING: "W", pb.TELEMETRY_LEVEL_INFO: "I"}
    priorities = {pb.MESSAGE_PRIORITY_CRITICAL: "C", pb.MESSAGE_PRIORITY_HIGH: "H", pb.MESSAGE_PRIORITY_NORMAL: "N"}
    found = [
        f"{row.reason} {levels[row.level]}{priorities[row.priority]} {row.asks}{'!' if row.conservative else ''}"
        for row in RISK_ROWS
    ]
    assert found == [
        "nonfinite_metric CC pause!",
        "log_failed CC pause",
        "rollback_deadline CC pause!",
        "bp_quarantine CC pause!",
        "bsds_handling_quarantine CC pause!",
        "bsds_hazard_critical CC pause!",
        "policy_risk_critical CC pause!",
        "degraded_inputs CC none",
        "loss_spike WH pause!",
        "isolation_violation WH pause",
        "hook_budget WH pause",
        "step_latency_high WH pause",
        "device_pressure_high WH pause",
        "timeout_inference WH pause",
        "inference_failed WH pause",
        "timeout_wal WH pause",
        "log_full WH pause",
        "breaker_open WH pause",
        "conservative_mode WN pause",
        "timeout_urza WH none",
        "metadata_failed WH none",
        "degraded_inputs WH none",
        "policy_risk_elevated WN downgrade",
        "bsds_hazard_high WN downgrade",
        "blueprint_risk WN downgrade",
        "loss_warning WN downgrade",
        "loss_volatility_high WN downgrade",
        "kasmina_apply_slow WN downgrade",
        "kasmina_finalize_slow WN downgrade",
        "grad_variance_high WN downgrade",
        "grad_conflict_high WN downgrade",
        "optimizer_hint WN downgrade",
        "cpu_pressure_high WH downgrade",
        "bsds_present IN none",
    ]


@given(
    st.dictionaries(st.sampled_from(SIGNALS), st.floats(-1e3, 1e3)),
    st.sampled_from(SIGNALS),
    st.floats(),
)
def test_adding_a_signal_never_untriggers_a_row(signals: dict[str, float], name: str, value: float) -> None:
    if name in signals:
        return
    before = rows_for(signals)
    after = rows_for(signals | {name: value})
    assert all(row in after for row in before)


def holds(test: Test, value: float) -> bool:
    threshold = limit(test)
    return {
        ">": value > threshold, "<": value < threshold, ">=": value >= threshold, "<=": value <= threshold,
        "==": value == threshold, "finite": False,
    }[test.comparison]  # fmt: skip


def walked(signals: dict[str, float]) -> list[Row]:
    """The table read plainly: every row, every test."""
    found = []
    for row in RISK_ROWS:
        tests = [test for group in row.when for test in group]
        broken = any(not math.isfinite(signals.get(test.signal, 0.0)) for test in tests)
        met = any(all(t.signal in signals and holds(t, signals[t.signal]) for t in group) for group in row.when)
        if broken or met:
            found.append(row)
    return found


NEAR_LIMITS = sorted({
    value
    for row in RISK_ROWS
    for group in row.when
    for test in group
    for value in (limit(test), math.nextafter(limit(test), math.inf), math.nextafter(limit(test), -math.inf))
})  # fmt: skip


@given(st.dictionaries(st.sampled_from(SIGNALS), st.floats(width=64) | st.sampled_from(NEAR_LIMITS)))
def test_looking_at_loud_signals_alone_finds_what_the_whole_table_does(signals: dict[str, float]) -> None:
    assert rows_for(signals) == walked(signals)
