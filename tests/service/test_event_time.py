"""Event time: the last one plus the monotonic time elapsed, anchored to the wall clock at open alone."""

import itertools

import pytest
from live import Live, reason
from rig import SECRET, packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import HALF_OPEN, OPEN
from tamiyo.core.events import Event
from tamiyo.signing import Verifier
from tamiyo.testing import FailingPolicy, FixedPolicy, ManualClock

DAY_S = 86_400.0


def jumped(clock: ManualClock, seconds: float) -> None:
    clock.wall += int(seconds * 1e9)


def times(live: Live) -> list[int]:
    live.durable()
    found: list[Event] = live.events()
    return [event.event_time_ns for event in found if "event_time_ns" in event.DESCRIPTOR.fields_by_name]


def broken(live: Live) -> None:
    """Three failures open the inference breaker, and with it conservative mode."""
    for _ in range(3):
        live.step(packet())
    assert live.service.state.breakers["inference"].state == OPEN
    assert live.service.state.conservative.active


@pytest.mark.parametrize("days", [-3, -1, 1, 30])
def test_a_wall_clock_that_jumps_freezes_no_cool_down_and_shortens_none(days: int) -> None:
    live = Live(policy=FailingPolicy())
    broken(live)
    jumped(live.clock, days * DAY_S)
    assert reason(live.step(packet())) == "breaker_open", "no time has passed"
    live.clock.advance(1.0)
    live.step(packet())
    moves = [(m.to_state, m.cause) for m in live.events(journal.BreakerMoved) if m.breaker == "inference"]
    assert moves[1] == (HALF_OPEN, "cooled_down")
    live.check()
    live.close()


@pytest.mark.parametrize("days", [-1, 1])
def test_conservative_mode_ends_after_its_cool_down_whatever_the_wall_clock_does(days: int) -> None:
    live = Live(policy=FixedPolicy(1))
    live.step(packet(training_loss=float("nan")))
    jumped(live.clock, days * DAY_S)
    for _ in range(3):
        assert reason(live.step(packet())) == "conservative_mode"
    assert live.service.state.conservative.active, "three clean steps, and the cool-down has not passed"
    jumped(live.clock, -days * DAY_S)  # set right again
    live.clock.advance(1.0)
    live.step(packet())
    assert not live.service.state.conservative.active
    live.check()
    live.close()


def test_a_command_carries_the_wall_clock_of_its_packet_and_is_not_stale_after_a_jump() -> None:
    live = Live()
    live.step(packet())
    jumped(live.clock, DAY_S)
    command = live.step(packet())
    assert Verifier(SECRET, wall_ns=live.clock.wall_ns).verify(command).accepted
    jumped(live.clock, -DAY_S)
    assert Verifier(SECRET, wall_ns=live.clock.wall_ns).verify(live.step(packet())).accepted
    assert Verifier(SECRET, wall_ns=live.clock.wall_ns).verify(command).reason == "issued_in_future"
    live.check()
    live.close()


def test_event_time_grows_by_a_nanosecond_at_least_even_on_a_clock_that_stands_still() -> None:
    live = Live(clock=ManualClock(tick_ns=0))
    for _ in range(5):
        live.step(packet())
    received = [event.event_time_ns for event in live.events(journal.StepReceived)]
    steps = [later - earlier for earlier, later in itertools.pairwise(received)]
    assert steps == [2] * 4, "one nanosecond for the packet, one for the decision"
    assert times(live) == sorted(times(live))
    live.check()
    live.close()


def test_at_open_it_is_anchored_to_the_wall_clock_unless_that_is_behind() -> None:
    live = Live()
    live.step(packet())
    last = live.service.state.event_time_ns
    live.clock.advance(500)
    live.reopen()
    assert live.service.state.event_time_ns >= last + 500 * 10**9
    last = live.service.state.event_time_ns
    jumped(live.clock, -30 * DAY_S)
    live.reopen()
    assert last < live.service.state.event_time_ns < last + 10**9
    assert times(live) == sorted(times(live))
    live.check()
    live.close()


def test_a_log_whose_time_is_ahead_of_the_clock_is_named_at_open(caplog: pytest.LogCaptureFixture) -> None:
    live = Live()
    jumped(live.clock, 4 * 365 * DAY_S)
    live.reopen()
    live.step(packet())
    jumped(live.clock, -59)  # clocks are set by seconds every day
    live.reopen()
    assert "ahead of this machine's clock" not in caplog.text
    jumped(live.clock, 59 - 4 * 365 * DAY_S)
    live.reopen()
    assert "the log's time is 126,144,000 s ahead of this machine's clock" in caplog.text
    assert reason(live.step(packet())) == "policy", "and nothing waits for it"
    live.check()
    live.close()


def test_cool_downs_begin_again_at_open_however_long_the_process_was_away() -> None:
    live = Live(policy=FailingPolicy())
    broken(live)
    live.clock.advance(DAY_S)
    live.reopen()
    assert reason(live.step(packet())) == "breaker_open"
    live.clock.advance(1.0)
    assert reason(live.step(packet())) == "inference_failed"
    live.check()
    live.close()


def test_a_clock_that_was_a_day_ahead_at_open_holds_nothing_up_after_it_was_set_right() -> None:
    live = Live(policy=FailingPolicy(), clock=ManualClock())
    jumped(live.clock, DAY_S)
    live.reopen()
    broken(live)
    jumped(live.clock, -DAY_S)
    live.reopen()
    live.clock.advance(1.0)
    assert reason(live.step(packet())) == "inference_failed", "the trial was let through"
    assert times(live) == sorted(times(live))
    live.check()
    live.close()


def test_the_log_s_own_cool_down_is_in_monotonic_time_too() -> None:
    live = Live()
    live.step(packet())
    live.disk.fail("fdatasync", 5)
    live.step(packet())
    jumped(live.clock, DAY_S)
    assert reason(live.step(packet())) == "log_failed"
    assert live.service.journal._trial is None, "the cool-down has not passed"
    jumped(live.clock, -2 * DAY_S)
    live.clock.advance(1.0)
    live.step(packet())
    live.service.journal.wait_for_trial()
    assert reason(live.step(packet())) != "log_failed"
    live.check()
    live.close()


def test_retries_of_reports_are_due_in_event_time() -> None:
    import asyncio

    from tamiyo.testing import MemoryBus

    live, bus = Live(), MemoryBus()
    command = live.step(packet())
    bus.refuse(f"fr-{command.command_id}")
    asyncio.run(live.service.publish_history(bus))
    bus.heal()
    jumped(live.clock, DAY_S)
    assert not asyncio.run(live.service.publish_history(bus)), "a jump makes nothing due"
    jumped(live.clock, -DAY_S)
    live.clock.advance(1.0)
    assert asyncio.run(live.service.publish_history(bus))
    live.check()
    live.close()
