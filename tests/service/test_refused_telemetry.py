"""A telemetry packet that the bus refuses for good lets the later ones pass; a bus that is down loses none."""

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live
from rig import packet

from tamiyo.backlog import PORTION_MAX
from tamiyo.bus import EMERGENCY, NORMAL, TELEMETRY
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED
from tamiyo.core.events import decode
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.line import STRIKES_MAX
from tamiyo.testing import FixedPolicy, MemoryBus


def publish(live: Live, bus: MemoryBus) -> bool:
    went = asyncio.run(live.service.publish_history(bus))
    live.durable()
    return went


def told(live: Live) -> list[str]:
    """The telemetry packets that the log makes, by id."""
    reader, found = TelemetryReader(), []
    for entry in live.entries():
        made = reader.take(entry.lsn, decode(entry.kind, entry.payload))
        if made is not None:
            found.append(made.packet_id)
    return found


def got(bus: MemoryBus) -> list[str]:
    return bus.ids(TELEMETRY) + bus.ids(EMERGENCY)


def dropped(live: Live) -> list[str]:
    return [event.packet_id for event in live.events(journal.TelemetryDropped)]


def go_on(live: Live, bus: MemoryBus, turns: int = 60) -> list[bool]:
    """The host goes on as hosts do: a step, a flush, and time passes."""
    went = []
    for _ in range(turns):
        live.step(packet())
        went.append(publish(live, bus))
        live.clock.advance(2)
    return went


def test_a_packet_that_is_always_refused_lets_the_later_ones_pass(caplog: pytest.LogCaptureFixture) -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    live.step(packet())
    (poison,) = told(live)
    bus.refuse(poison)
    with caplog.at_level(logging.WARNING):
        went = go_on(live, bus)
    assert went[-1], "after that everything goes"
    (said,) = live.events(journal.TelemetryDropped)
    assert (said.packet_id, said.attempts >= STRIKES_MAX) == (poison, True)
    assert "refuse" in said.cause
    assert set(told(live)) - set(got(bus)) == {poison}
    assert live.service.state.outbox.telemetry_dropped == 1
    assert sum(poison in record.message for record in caplog.records) == 1, "it is said once"
    live.check()
    live.close()


def test_its_drop_is_an_event_and_a_metric_of_telemetry() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    live.step(packet())
    (poison,) = told(live)
    bus.refuse(poison)
    go_on(live, bus)
    packets = [pb.TelemetryPacket.FromString(m.payload) for m in bus.messages if m.stream != NORMAL]
    (notice,) = [event for made in packets for event in made.events if event.description == "telemetry_drop"]
    assert (notice.level, notice.attributes["packet_id"]) == (pb.TELEMETRY_LEVEL_WARNING, poison)
    last = {metric.name: metric.value for metric in packets[-1].metrics}
    assert last["tamiyo.telemetry.dropped_total"] == 1.0
    live.close()


def test_a_bus_that_is_down_for_hours_loses_nothing_and_keeps_nothing_back_afterwards() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    bus.fail()
    assert not any(go_on(live, bus, turns=300))
    bus.heal()
    assert go_on(live, bus)[-1]
    assert dropped(live) == []
    assert set(told(live)) == set(got(bus))
    assert live.service.state.breakers["publishing"].state == CLOSED
    live.check()
    live.close()


def test_a_bus_that_comes_and_goes_loses_nothing() -> None:
    """Each outage may begin and end between any two messages."""

    class Fitful(MemoryBus):
        asked = 0

        async def publish(self, stream: str, *rest: object) -> None:
            self.asked += 1
            if self.asked % 11 in self.away:
                raise OSError("gone for a moment")
            await super().publish(stream, *rest)

    live, bus = Live(policy=FixedPolicy(1)), Fitful()
    for away in ({1}, {1, 2}, {1, 3, 5, 7, 9}, {0, 1, 2, 3, 4, 5}, set(range(10))):
        bus.away = away
        go_on(live, bus, turns=40)
    bus.away = set()
    assert go_on(live, bus)[-1]
    assert dropped(live) == []
    assert set(told(live)) == set(got(bus))
    live.check()
    live.close()


def test_a_packet_that_is_refused_for_a_while_goes_in_the_end() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    live.step(packet())
    (late,) = told(live)
    bus.refuse(late)
    for _ in range(2):
        live.step(packet())
        assert not publish(live, bus)
        live.clock.advance(2)
    assert got(bus) == told(live)[1:], "the others went meanwhile, once each"
    bus.heal()
    live.step(packet())
    assert publish(live, bus)
    assert dropped(live) == []
    assert sorted(got(bus)) == sorted(told(live)), "and none of them twice"
    live.check()
    live.close()


def test_a_run_of_refused_packets_longer_than_the_breaker_is_patient_gets_out_of_the_way_too() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    for _ in range(10):
        live.step(packet())
    poison = told(live)
    bus.refuse(*poison)
    go_on(live, bus, turns=120)
    assert sorted(dropped(live)) == sorted(poison)
    assert publish(live, bus) or publish(live, bus)
    assert set(told(live)) - set(got(bus)) == set(poison)
    live.check()
    live.close()


def test_a_stream_without_a_later_packet_holds_up_no_more_than_a_portion_of_the_other() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    live.step(packet(training_loss=float("nan")))
    (urgent,) = told(live)
    bus.refuse(urgent)
    live.clock.advance(10)
    while not publish(live, bus) and len(got(bus)) < 3 * PORTION_MAX:
        live.step(packet())
        live.clock.advance(2)
    assert dropped(live) == [urgent]
    assert live.service.state.outbox.telemetry_lsn > int(urgent.rpartition("-")[2])
    live.check()
    live.close()


def test_a_bus_that_takes_no_telemetry_at_all_is_down_and_waits() -> None:
    class Deaf(MemoryBus):
        async def publish(self, stream: str, *rest: object) -> None:
            if stream != NORMAL and self.deaf:
                raise OSError("not this one")
            await super().publish(stream, *rest)

    live, bus = Live(policy=FixedPolicy(1)), Deaf()
    bus.deaf = True
    go_on(live, bus, turns=200)
    assert dropped(live) == []
    bus.deaf = False
    assert go_on(live, bus)[-1]
    assert set(told(live)) == set(got(bus))
    live.check()
    live.close()


def test_what_was_refused_before_a_restart_is_refused_and_dropped_after_it() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    live.step(packet())
    (poison,) = told(live)
    bus.refuse(poison)
    go_on(live, bus, turns=2)
    live.crash()
    go_on(live, bus)
    assert dropped(live) == [poison]
    assert set(told(live)) - set(got(bus)) == {poison}
    live.crash()
    before = len(bus.messages)
    assert publish(live, bus)
    assert poison not in bus.ids()
    assert len(bus.messages) == before, "nothing is tried again"
    live.check()
    live.close()


@settings(max_examples=4, deadline=None)
@given(st.data())
def test_whatever_is_refused_everything_else_goes_and_is_said(data: st.DataObject) -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    nan, turns = float("nan"), data.draw(st.integers(1, 12))
    kinds = data.draw(st.lists(st.booleans(), min_size=turns, max_size=turns))
    for urgent in kinds:
        live.step(packet(training_loss=nan) if urgent else packet())
    poison = set(data.draw(st.lists(st.sampled_from(told(live)), unique=True)))
    bus.refuse(*poison)
    go_on(live, bus, turns=PORTION_MAX + 10 * len(poison))
    missing = set(told(live)) - set(got(bus))
    assert poison <= missing
    assert set(dropped(live)) == poison
    assert missing - poison <= set(told(live)[-4:]), "but for what came last"
    live.check()
    live.close()
