"""Observation windows: what is reported of a command when N more decisions have been made."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import Bench, packet, timed_out

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.decide import Decision
from tamiyo.core.options import Options
from tamiyo.core.state import WINDOWS_MAX, Sample
from tamiyo.core.windows import observe
from tamiyo.leyline import leyline_pb2 as pb

SUCCESS, NEUTRAL = pb.FIELD_REPORT_OUTCOME_SUCCESS, pb.FIELD_REPORT_OUTCOME_NEUTRAL
REGRESSION = pb.FIELD_REPORT_OUTCOME_REGRESSION


def synthesised(decision: Decision) -> list[pb.FieldReport]:
    return [
        pb.FieldReport.FromString(event.report)
        for event in decision.events
        if isinstance(event, journal.FieldReportIssued) and event.synthesised
    ]


def reopen(bench: Bench, **options: object) -> None:
    bench.fold(
        journal.ServiceOpened(
            event_time_ns=bench.state.event_time_ns + 1, behaviour_flags=bench.state.behaviour_flags,
            options=Options(**options).message(),
        )
    )  # fmt: skip


def test_by_default_there_are_no_windows() -> None:
    bench = Bench()
    assert [synthesised(bench.step(packet())) for _ in range(4)] == [[]] * 4
    assert bench.state.windows.open == ()


def test_a_command_is_reported_on_n_decisions_later() -> None:
    bench = Bench(observation_window=3)
    bench.observe()
    losses = [0.5, 0.75, 0.625, 0.5, 0.25]
    steps = [
        bench.step(packet(validation_loss=loss, current_epoch=7 + i, training_metrics={"hook_latency_ms": 2.0 * i}))
        for i, loss in enumerate(losses)
    ]
    assert [len(synthesised(step)) for step in steps] == [0, 0, 0, 1, 1]
    (report,) = synthesised(steps[3])
    first = steps[0].command
    assert report.report_id == f"fr-synth-{first.command_id}-7+3"
    assert (report.command_id, report.seed_id, report.training_run_id) == (first.command_id, "seed-0", "run-1")
    assert report.observation_window_epochs == 3
    assert dict(report.metrics) == {
        "loss_delta_total": 0.0, "loss_delta_min": -0.125, "loss_delta_max": 0.25, "avg_hook_latency_ms": 4.0,
    }  # fmt: skip
    assert report.outcome == NEUTRAL
    assert synthesised(steps[4])[0].outcome == SUCCESS


@pytest.mark.parametrize(
    ("deltas", "critical", "outcome"),
    [
        ([-0.25, 0.125], False, SUCCESS),
        ([-0.25, 0.5], False, REGRESSION),
        ([-0.25, 0.25], False, NEUTRAL),
        ([], False, NEUTRAL),
        ([-0.25], True, REGRESSION),
        ([math.nan, -0.25, math.inf], False, SUCCESS),
    ],
)
def test_the_outcome_is_that_of_the_total_unless_something_critical_happened(
    deltas: list[float], critical: bool, outcome: int
) -> None:
    samples = [Sample(index, delta, None, critical) for index, delta in enumerate(deltas)]
    assert observe(samples).outcome == outcome


@given(st.lists(st.floats(-1, 1, allow_nan=False), min_size=1))
def test_least_and_most_are_those_of_the_samples(deltas: list[float]) -> None:
    seen = observe([Sample(index, delta, None, False) for index, delta in enumerate(deltas)])
    assert (seen.loss_delta_min, seen.loss_delta_max) == (min(deltas), max(deltas))
    assert seen.avg_hook_latency_ms is None


def test_what_a_command_did_is_not_what_came_before_it() -> None:
    bench = Bench(observation_window=2)
    bench.step(packet(training_loss=math.nan))
    bench.step(packet())
    (report,) = synthesised(bench.step(packet()))
    assert report.outcome == NEUTRAL, "the critical row was the cause of the command, not its effect"


def test_a_timeout_is_observed_like_any_decision() -> None:
    bench = Bench(observation_window=2)
    first = bench.step(packet(), timed_out())
    bench.step(packet())
    assert synthesised(bench.step(packet()))[0].command_id == first.command.command_id


def test_windows_outlive_a_restart_and_keep_their_length() -> None:
    bench = Bench(observation_window=4)
    first = bench.step(packet())
    reopen(bench, observation_window=2)
    second = bench.step(packet())
    bench.step(packet())
    assert [report.command_id for report in synthesised(bench.step(packet()))] == [second.command.command_id]
    closed = synthesised(bench.step(packet()))
    assert [report.report_id for report in closed][-1].endswith("0+2")
    assert f"fr-synth-{first.command.command_id}-0+4" in [report.report_id for report in closed]


def test_past_the_cap_the_oldest_window_closes_neutral_and_is_counted() -> None:
    bench = Bench(observation_window=5_000)
    first = bench.step(packet(validation_loss=1.0))
    for index in range(1, WINDOWS_MAX):
        bench.fold(journal.StepReceived(step_index=index + 1, event_time_ns=bench.state.event_time_ns + 1))
        made = journal.DecisionMade(step_lsn=bench.state.last_lsn, command_id=f"c-{index}", loss_delta=-1.0)
        made.window.length = 5_000
        bench.fold(made)
    assert len(bench.state.windows.open) == WINDOWS_MAX
    (report,) = synthesised(bench.step(packet()))
    assert report.command_id == first.command.command_id
    assert report.outcome == NEUTRAL
    assert report.metrics["loss_delta_total"] == 1.0 - WINDOWS_MAX
    windows = bench.state.windows
    assert (len(windows.open), windows.expired) == (WINDOWS_MAX, 1)
    assert len(windows.samples) <= WINDOWS_MAX


def test_long_windows_close_after_a_restart_that_wants_none_and_their_samples_stay_bounded() -> None:
    bench = Bench(observation_window=5_000)
    bench.step(packet())
    reopen(bench)
    for index in range(1, WINDOWS_MAX):
        bench.fold(journal.StepReceived(step_index=index + 1, event_time_ns=bench.state.event_time_ns + 1))
        bench.fold(journal.DecisionMade(step_lsn=bench.state.last_lsn, command_id=f"c-{index}"))
    assert len(synthesised(bench.step(packet()))) == 1
    assert (bench.state.windows.open, bench.state.windows.samples) == ((), ())


def test_a_late_commit_leaves_the_window_to_the_pause_that_was_released() -> None:
    bench = Bench(observation_window=2)
    decision = bench.step(packet())
    made = next(event for event in decision.events if isinstance(event, journal.DecisionMade))
    bench.fold(journal.CommitLate(step_lsn=made.step_lsn, decision_lsn=5, released_command_id="pause"))
    bench.step(packet())
    (report,) = synthesised(bench.step(packet()))
    assert (report.report_id, report.seed_id) == ("fr-synth-pause-0+2", "")
