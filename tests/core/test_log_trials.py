"""The batch that says which steps are missing: as the log's trial it is a success of its breaker, else it is none."""

import pytest
from rig import Bench, with_thresholds

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.decide import log_trial
from tamiyo.errors import InvariantViolation


def tried(rig: Bench, *, failed_at_ns: int | None = None, count: int = 1, timed_out: int = 0) -> list[str]:
    """One trial, folded; the causes of the moves in it, with "durable" where the trial itself stands."""
    state = rig.state
    first, now_ns = state.steps_received + 1, state.event_time_ns + 2_000_000_000
    unrecorded = journal.StepsUnrecorded(
        first_step_index=first, last_step_index=first + count - 1, count=count, event_time_ns=now_ns,
        cause="timeout_wal" if timed_out else "log_failed", timed_out=timed_out,
    )  # fmt: skip
    events = log_trial(state, unrecorded, writer_failed_at_ns=failed_at_ns)
    for event in events:
        rig.fold(event)
    told = [event for event in events if not isinstance(event, journal.ConservativeModeChanged)]
    return [event.cause if isinstance(event, journal.BreakerMoved) else "durable" for event in told]


def test_the_trial_counts_and_what_is_queued_on_a_step_s_way_does_not() -> None:
    rig = Bench()
    assert tried(rig, failed_at_ns=rig.state.event_time_ns + 1) == ["writer_failed", "cooled_down", "durable"]
    assert (rig.state.breakers["log"].state, rig.state.breakers["log"].successes) == (HALF_OPEN, 1)
    assert tried(rig) == ["durable"]
    assert (rig.state.breakers["log"].state, rig.state.breakers["log"].successes) == (HALF_OPEN, 1)


def test_one_trial_is_enough_where_one_success_is() -> None:
    rig = Bench(with_thresholds(breaker_trials=1.0))
    causes = tried(rig, failed_at_ns=rig.state.event_time_ns + 1)
    assert causes == ["writer_failed", "cooled_down", "durable", "trials_passed"]
    assert rig.state.breakers["log"].state == CLOSED
    assert rig.state.conservative.active, "it was open, if not for long"


def test_a_trial_while_nothing_is_wrong_moves_nothing() -> None:
    rig = Bench()
    assert tried(rig) == ["durable"]
    assert rig.state.breakers["log"].state == CLOSED


def test_steps_that_a_busy_log_refused_are_failures_of_it_and_three_running_open_its_breaker() -> None:
    rig = Bench()
    assert tried(rig, count=5, timed_out=2) == ["durable"]
    assert (rig.state.breakers["log"].state, rig.state.breakers["log"].failures) == (CLOSED, 2)
    assert not rig.state.conservative.active
    assert tried(rig, timed_out=1) == ["durable", "failures"]
    assert rig.state.breakers["log"].state == OPEN
    assert rig.state.conservative.active


def test_a_long_gap_counts_no_more_failures_than_open_the_breaker() -> None:
    rig = Bench()
    assert tried(rig, count=1_000_000, timed_out=1_000_000) == ["durable", "failures"]
    assert rig.state.breakers["log"].failures == 3


def test_what_a_busy_log_refused_before_its_writer_failed_does_not_undo_the_trial() -> None:
    rig = Bench()
    causes = tried(rig, failed_at_ns=rig.state.event_time_ns + 1, count=4, timed_out=3)
    assert causes == ["writer_failed", "cooled_down", "durable"]
    assert (rig.state.breakers["log"].state, rig.state.breakers["log"].successes) == (HALF_OPEN, 1)


def test_more_steps_than_there_are_cannot_have_timed_out() -> None:
    with pytest.raises(InvariantViolation, match="2 of 1 steps"):
        tried(Bench(), timed_out=2)
