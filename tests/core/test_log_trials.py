"""The batch that says which steps are missing: as the log's trial it is a success of its breaker, else it is none."""

from rig import Bench, with_thresholds

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN
from tamiyo.core.decide import log_trial


def tried(rig: Bench, *, failed_at_ns: int | None = None) -> list[str]:
    """One trial, folded; the causes of the moves in it, with "durable" where the trial itself stands."""
    state = rig.state
    first, now_ns = state.steps_received + 1, state.event_time_ns + 2_000_000_000
    unrecorded = journal.StepsUnrecorded(
        first_step_index=first, last_step_index=first, count=1, event_time_ns=now_ns, cause="log_failed"
    )
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
