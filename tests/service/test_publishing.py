"""`publish_history`: what the journal holds goes to a bus, at least once, and the bus can only degrade itself."""

import asyncio
import contextlib
import errno
import threading

import pytest
from live import LateClock, Live, reason, recover
from rig import packet

from tamiyo.audit import replay
from tamiyo.backlog import PORTION_MAX
from tamiyo.bus import EMERGENCY, NORMAL, TELEMETRY, report_letter, telemetry_letter
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.events import KINDS, decode
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.errors import ServiceClosed
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FailingPolicy, FixedPolicy, MemoryBus


def publish(live: Live, bus: MemoryBus) -> bool:
    went = asyncio.run(live.service.publish_history(bus))
    if not live.disk._hanging:
        live.durable()
    return went


def drain(live: Live, bus: MemoryBus) -> None:
    """Publish until everything went; time passes, so that breakers and retries are let through."""
    for _ in range(200):
        if publish(live, bus):
            return
        live.clock.advance(10)
    raise AssertionError("it never went")


def told(live: Live) -> list[str]:
    """The telemetry packets that the log makes, by id, up to what was drained."""
    reader, found = TelemetryReader(), []
    for entry in live.entries():
        made = reader.take(entry.lsn, decode(entry.kind, entry.payload))
        if made is not None and entry.lsn <= live.service.state.outbox.telemetry_lsn:
            found.append(made.packet_id)
    return found


def reports(live: Live) -> list[str]:
    """Every report in the log that was not superseded, by id."""
    found: dict[str, int] = {}
    for event in live.events():
        if isinstance(event, journal.FieldReportIssued):
            found[pb.FieldReport.FromString(event.report).report_id] = event.step_lsn
        if isinstance(event, journal.CommitLate):
            found = {report_id: lsn for report_id, lsn in found.items() if lsn != event.step_lsn}
        if isinstance(event, journal.CommitLate | journal.StepPaused):
            continue
    return list(found)


def once(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


@pytest.mark.parametrize(
    ("priority", "stream"),
    [
        (pb.MESSAGE_PRIORITY_LOW, "oona.telemetry"),
        (pb.MESSAGE_PRIORITY_NORMAL, "oona.telemetry"),
        (pb.MESSAGE_PRIORITY_HIGH, "oona.emergency"),
        (pb.MESSAGE_PRIORITY_CRITICAL, "oona.emergency"),
    ],
    ids=["low", "normal", "high", "critical"],
)
def test_a_packet_goes_where_its_priority_says(priority: int, stream: str) -> None:
    name = pb.MessagePriority.Name(priority)
    made = pb.TelemetryPacket(packet_id="p", system_health=pb.SystemHealth(indicators={"priority": name}))
    letter = telemetry_letter(made)
    assert (letter.stream, letter.message_id) == (stream, "p")
    assert letter.attributes == {"message_type": "BUS_MESSAGE_TYPE_TELEMETRY", "priority": name}


def test_a_report_goes_to_the_normal_stream() -> None:
    letter = report_letter("fr-1", b"report")
    assert (letter.stream, letter.message_id, letter.payload) == ("oona.normal", "fr-1", b"report")
    assert letter.attributes["message_type"] == "BUS_MESSAGE_TYPE_FIELD_REPORT"


def test_everything_goes_in_order_and_once_and_then_there_is_nothing() -> None:
    live, bus = Live(), MemoryBus()
    commands = [live.step(packet()).command_id for _ in range(3 * PORTION_MAX)]
    assert publish(live, bus)
    assert bus.ids(NORMAL) == [f"fr-{command_id}" for command_id in commands]
    assert bus.ids(TELEMETRY) + bus.ids(EMERGENCY) == told(live)
    last = live.service.log.next_lsn
    assert publish(live, bus)
    assert publish(live, bus)
    assert (live.service.log.next_lsn, len(bus.messages)) == (last, 6 * PORTION_MAX), "an idle flush writes nothing"
    assert live.service.state.reports_pending == 0
    live.check()
    live.close()


def test_what_is_published_is_what_the_journal_makes() -> None:
    live, bus = Live(), MemoryBus()
    live.step(packet(training_loss=0.5))
    publish(live, bus)
    telemetry = next(message for message in bus.messages if message.stream in (TELEMETRY, EMERGENCY))
    made = pb.TelemetryPacket.FromString(telemetry.payload)
    assert made.packet_id == telemetry.message_id
    assert made.packet_id.startswith(f"tamiyo-{live.service.state.log_id}-")
    assert telemetry.attributes["priority"] == made.system_health.indicators["priority"]
    assert telemetry.attributes["message_type"] == "BUS_MESSAGE_TYPE_TELEMETRY"
    report = next(message for message in bus.messages if message.stream == NORMAL)
    stored = live.events(journal.FieldReportIssued)[0]
    assert report.payload == stored.report
    assert report.attributes["message_type"] == "BUS_MESSAGE_TYPE_FIELD_REPORT"
    live.close()


def test_urgent_telemetry_goes_to_the_emergency_stream() -> None:
    live, bus = Live(policy=FixedPolicy(1)), MemoryBus()
    live.step(packet())
    live.step(packet(training_loss=float("nan")))
    publish(live, bus)
    (urgent,) = [message for message in bus.messages if message.stream == EMERGENCY]
    made = pb.TelemetryPacket.FromString(urgent.payload)
    assert made.system_health.indicators["priority"] == "MESSAGE_PRIORITY_CRITICAL"
    assert made.system_health.summary == "nonfinite_metric"
    live.close()


def test_a_bus_that_fails_loses_nothing_and_its_breaker_is_real() -> None:
    live, bus = Live(), MemoryBus()
    for _ in range(10):
        live.step(packet())
    bus.fail()
    assert not publish(live, bus)
    assert live.service.state.breakers["publishing"].state == OPEN
    calls = bus.calls["publish"]
    assert calls == 3
    for _ in range(5):
        assert not publish(live, bus)
    assert bus.calls["publish"] == calls, "an open breaker's bus is not called"
    assert not live.service.state.conservative.active
    assert reason(live.step(packet())) == "policy"
    live.clock.advance(1.5)
    assert not publish(live, bus)
    assert bus.calls["publish"] == calls + 1, "one trial"
    bus.heal()
    drain(live, bus)
    assert live.service.state.breakers["publishing"].state == CLOSED
    assert once(bus.ids(NORMAL)) == bus.ids(NORMAL)
    assert sorted(bus.ids(NORMAL)) == sorted(reports(live))
    assert sorted(bus.ids(TELEMETRY) + bus.ids(EMERGENCY)) == sorted(told(live))
    live.check()
    live.close()


def test_two_successes_close_the_publishing_breaker_and_each_is_journaled_before_the_next() -> None:
    live, bus = Live(), MemoryBus()
    for _ in range(10):
        live.step(packet())
    bus.fail(times=3)
    publish(live, bus)
    live.clock.advance(1.5)
    seen: list[int] = []
    take = bus.publish

    async def watched(*message: object) -> None:
        seen.append(live.service.state.breakers["publishing"].state)
        await take(*message)

    bus.publish = watched
    publish(live, bus)
    assert seen[:3] == [OPEN, HALF_OPEN, CLOSED]
    live.check()
    live.close()


def test_a_report_is_tried_again_with_backoff_and_dropped_after_its_retries() -> None:
    live, bus = Live(), MemoryBus()
    command = live.step(packet())
    report_id = f"fr-{command.command_id}"
    bus.refuse(report_id)
    attempts = []
    for wait_s in (0.0, 0.9, 0.2, 1.9, 0.2, 3.9, 0.2, 100.0):
        live.clock.advance(wait_s)
        before = bus.calls["publish"]
        publish(live, bus)
        attempts.append(bus.calls["publish"] - before - (1 if not attempts else 0))
    retried = [event.attempt for event in live.events(journal.PublishAttempted) if report_id in event.report_ids]
    assert retried == [1, 2, 3, 4]
    assert [event.report_ids[0] for event in live.events(journal.FieldReportsDropped)] == [report_id]
    outbox = live.service.state.outbox
    assert (live.service.state.reports_pending, outbox.retried, outbox.dropped) == (0, 3, 1)
    names = [e.description for m in bus.messages for e in _events(m)]
    assert names.count("field_report_retry") == 3
    assert names.count("field_report_drop") == 1
    assert report_id in reports(live), "it stays in the log"
    live.check()
    live.close()


def _events(message: object) -> list[pb.TelemetryEvent]:
    if message.stream == NORMAL:
        return []
    return list(pb.TelemetryPacket.FromString(message.payload).events)


def test_retries_survive_a_restart_with_their_schedule_and_payload() -> None:
    live, bus = Live(), MemoryBus()
    commands = [live.step(packet()) for _ in range(3)]
    refused = [f"fr-{command.command_id}" for command in commands[:2]]
    bus.refuse(*refused)
    assert not publish(live, bus)
    assert list(live.service.state.outbox.retries) == refused
    live.crash()
    bus.heal()
    assert not publish(live, bus), "they are not due yet"
    live.clock.advance(1.5)
    assert publish(live, bus)
    assert bus.ids(NORMAL)[-2:] == refused
    stored = {pb.FieldReport.FromString(e.report).report_id: e.report for e in live.events(journal.FieldReportIssued)}
    assert [m.payload for m in bus.messages if m.message_id in refused] == [stored[report_id] for report_id in refused]
    live.check()
    live.close()


def test_a_crash_before_the_word_is_durable_sends_it_again_under_the_same_ids() -> None:
    live, bus = Live(), MemoryBus()
    for _ in range(5):
        live.step(packet())
    image = live.memory.copy()
    assert publish(live, bus)
    first = [message.message_id for message in bus.messages]
    live.memory = image
    live.crash()
    assert publish(live, bus)
    again = [message.message_id for message in bus.messages][len(first) :]
    assert again[: len(first)] == first
    live.check()
    live.close()


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_bus_that_hangs_only_degrades_publishing(stubborn: bool) -> None:
    live, bus = Live(clock=LateClock()), MemoryBus(stubborn=stubborn)
    for _ in range(10):
        live.step(packet())
    bus.hang()
    live.clock.late.add("bus")

    async def flush() -> list[bool]:
        went = []
        for _ in range(10):
            went.append(await live.service.publish_history(bus))
            live.clock.advance(1.5)
            assert reason(await asyncio.to_thread(live.step, packet())) == "policy"
        bus.release()
        live.clock.late.clear()
        return went

    assert asyncio.run(flush()) == [False] * 10
    assert bus.calls["publish"] <= 4 if stubborn else bus.calls["publish"] >= 4
    causes = {event.cause for event in live.events(journal.PublishAttempted)}
    assert any(cause.startswith("no answer within") for cause in causes)
    assert any(cause.startswith("not attempted") for cause in causes) == stubborn
    drain(live, bus)
    assert sorted(once(bus.ids(NORMAL))) == sorted(reports(live))
    live.check()
    live.close()


def test_calls_that_never_returned_on_a_loop_that_is_gone_do_not_count_for_ever() -> None:
    live, bus = Live(clock=LateClock()), MemoryBus(stubborn=True)
    live.step(packet())
    bus.hang()
    live.clock.late.add("bus")
    for _ in range(6):
        loop = asyncio.new_event_loop()  # asyncio.run would wait for the calls
        assert not loop.run_until_complete(live.service.publish_history(bus))
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False
        loop.close()
        live.clock.advance(1.5)
    assert bus.calls["publish"] > 4
    bus.release()
    live.clock.late.clear()
    drain(live, bus)
    live.check()
    live.close()


@pytest.mark.parametrize("error", [RuntimeError("no"), ValueError(), asyncio.CancelledError(), OSError("\ud800")])
def test_whatever_a_bus_raises_is_an_outcome(error: BaseException) -> None:
    live, bus = Live(), MemoryBus()
    live.step(packet())
    bus.fail(error)
    assert not publish(live, bus)
    bus.heal()
    drain(live, bus)
    live.check()
    live.close()


def test_a_bus_that_is_none_is_an_outcome_too() -> None:
    live = Live()
    live.step(packet())
    assert not publish(live, object())
    assert "AttributeError" in live.events(journal.PublishAttempted)[0].cause
    live.check()
    live.close()


def test_a_step_runs_while_the_bus_is_awaited() -> None:
    live, bus = Live(), MemoryBus()
    live.step(packet())
    bus.hang()

    async def both() -> bool:
        flushing = asyncio.ensure_future(live.service.publish_history(bus))
        while not bus.calls["publish"]:
            await asyncio.sleep(0)
        for _ in range(5):
            assert live.step(packet()).command_id
        bus.release()
        return await flushing

    assert asyncio.run(both())
    assert len(bus.ids(NORMAL)) == 1, "what came after the flush began waits for the next"
    assert publish(live, bus)
    assert bus.ids(NORMAL) == reports(live)
    live.check()
    live.close()


def test_one_flush_at_a_time() -> None:
    live, bus = Live(), MemoryBus()
    live.step(packet())
    bus.hang()

    async def twice() -> tuple[bool, bool]:
        first = asyncio.ensure_future(live.service.publish_history(bus))
        while not bus.calls["publish"]:
            await asyncio.sleep(0)
        second = await live.service.publish_history(bus)
        bus.release()
        return await first, second

    assert asyncio.run(twice()) == (True, False)
    live.check()
    live.close()


def test_a_flush_that_is_cancelled_may_be_called_again() -> None:
    live, bus = Live(), MemoryBus()
    live.step(packet())
    bus.hang()

    async def give_up() -> None:
        flushing = asyncio.ensure_future(live.service.publish_history(bus))
        while not bus.calls["publish"]:
            await asyncio.sleep(0)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing

    asyncio.run(give_up())
    bus.release()
    assert publish(live, bus)
    assert bus.ids(NORMAL) == reports(live)
    live.check()
    live.close()


def test_the_report_of_a_step_under_way_waits_until_it_is_certain_what_was_released() -> None:
    """The decision is durable, and the step is about to time out: its report must not go."""
    bus = MemoryBus()
    published: list[bool] = []
    live = Live(clock=LateClock())
    live.step(packet())
    note_pause = live.service.journal.note_pause

    def meanwhile(released: object) -> None:
        live.disk.release()
        live.clock.late.clear()
        live.durable()
        published.append(publish(live, bus))
        note_pause(released)

    live.service.journal.note_pause = meanwhile
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    paused = live.step(packet())
    assert reason(paused) == "timeout_wal"
    assert published == [True]
    assert len(bus.ids(NORMAL)) == 1
    live.step(packet())
    drain(live, bus)
    assert sorted(bus.ids(NORMAL)) == sorted(reports(live))
    assert f"fr-{paused.command_id}" in bus.ids(NORMAL)
    assert live.service.state.outbox.superseded == 1
    live.check()
    live.close()


def test_requests_and_deliveries_are_written_before_anything_goes() -> None:
    live, bus = Live(), MemoryBus()
    command = live.step(packet())
    live.service.record_delivery(command.command_id, "applied")
    assert publish(live, bus)
    assert live.service.state.undelivered == {}
    live.check()
    live.close()


def test_while_the_log_takes_no_records_nothing_is_sent_that_could_not_be_said() -> None:
    live, bus = Live(), MemoryBus()
    live.step(packet())
    live.disk.fail("fdatasync", errno.EIO, forever=True)
    live.step(packet())
    assert not publish(live, bus)
    assert bus.messages == []
    live.disk.heal()
    recover(live)
    drain(live, bus)
    assert sorted(bus.ids(NORMAL)) == sorted(reports(live))
    live.check()
    live.close()


def test_a_word_that_the_log_lost_is_said_again_or_sent_again_and_the_audit_agrees() -> None:
    live, bus = Live(), MemoryBus()
    for _ in range(6):
        live.step(packet())
    live.disk.fail("pwrite", errno.EIO)  # the words about what goes out now
    publish(live, bus)
    while live.service.log.failure is None:
        pass
    recover(live)
    for _ in range(3):
        live.step(packet())
    drain(live, bus)
    assert set(bus.ids(NORMAL)) == set(reports(live))
    assert set(bus.ids(TELEMETRY) + bus.ids(EMERGENCY)) == set(told(live))
    decided = [entry.lsn for entry in live.entries() if entry.kind == KINDS[journal.DecisionMade]]
    assert live.service.state.outbox.telemetry_lsn > decided[-1]
    assert live.service.state.reports_pending == 0
    live.check()
    live.close()


@pytest.mark.parametrize("what", ["tried", "drained"])
def test_an_interrupt_after_the_word_says_nothing_twice(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live, bus = Live(), MemoryBus()
    command = live.step(packet())
    bus.refuse(f"fr-{command.command_id}")

    def interrupted(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    for turn in range(3):  # a first attempt that fails, a retry that fails, a retry that goes
        if turn == 2:
            bus.heal()
        monkeypatch.setattr(live.service._outbox._backlog, what, interrupted)
        with contextlib.suppress(KeyboardInterrupt):
            publish(live, bus)
        monkeypatch.undo()
        publish(live, bus)
        live.clock.advance(10)
        live.step(packet())
    drain(live, bus)
    attempts = [event.attempt for event in live.events(journal.PublishAttempted) if not event.succeeded]
    assert attempts == [1, 2]
    assert set(bus.ids(NORMAL)) == set(reports(live))
    live.check()
    live.close()


def test_a_disk_that_hangs_holds_up_publishing_and_no_step_s_answer() -> None:
    live, bus = Live(clock=LateClock()), MemoryBus()
    live.step(packet())
    live.clock.late.add("log")
    live.disk.hang("pread")
    live.disk.hang("fdatasync")
    before = threading.active_count()
    for _ in range(20):
        assert not publish(live, bus)
        assert live.step(packet()).command_id
        live.clock.advance(1.5)
    assert threading.active_count() <= before + 2, "one thread reads, and the log's trial is another"
    live.disk.release()
    live.clock.late.clear()
    recover(live)
    drain(live, bus)
    assert set(bus.ids(NORMAL)) == set(reports(live))
    live.check()
    live.close()


def test_a_backlog_of_thousands_goes_in_bounded_portions() -> None:
    live, bus = Live(policy=FailingPolicy(failing=False)), MemoryBus()
    bus.fail()
    for _ in range(6 * PORTION_MAX):
        live.step(packet())
    publish(live, bus)
    assert len(live.service._outbox._backlog._teller.pieces) <= PORTION_MAX + 1
    bus.heal()
    drain(live, bus)
    assert sorted(once(bus.ids(NORMAL))) == sorted(reports(live))
    live.check()
    live.close()


def test_windows_are_published_as_reports_of_their_own() -> None:
    live, bus = Live(fr_obs_window_epochs=3), MemoryBus()
    for _ in range(10):
        live.step(packet(validation_loss=0.5))
    assert publish(live, bus)
    assert sum(report_id.startswith("fr-synth-") for report_id in bus.ids(NORMAL)) >= 6
    assert bus.ids(NORMAL) == reports(live)
    live.check()
    live.close()


def test_after_close_nothing_is_published() -> None:
    live = Live()
    live.close()
    with pytest.raises(ServiceClosed):
        publish(live, MemoryBus())


def test_telemetry_after_a_restart_goes_on_where_it_was() -> None:
    live, bus = Live(), MemoryBus()
    for turn in range(6):
        for _ in range(4):
            live.step(packet())
        assert publish(live, bus)
        (live.reopen if turn % 2 else live.crash)()
    assert publish(live, bus)
    ids = bus.ids(TELEMETRY) + bus.ids(EMERGENCY)
    assert sorted(once(ids)) == sorted(ids) == sorted(told(live))
    found = replay(live.entries())
    assert found.divergence is None
    live.close()
