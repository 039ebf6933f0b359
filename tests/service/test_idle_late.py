"""A host that flushes and takes no more steps: what the log was not told of the last ones is told, and published."""

import asyncio

import pytest
from live import NO_ROOM, LateClock, Live, reason, without_room
from rig import packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.testing import FixedPolicy, MemoryBus


def quiet() -> Live:
    """A service whose upkeep does nothing, as one between two of its turns."""
    return Live(policy=FixedPolicy(1), clock=LateClock(), upkeep_period_ms=600_000)


def late_step(live: Live) -> str:
    """A step whose commit misses its budget, and then becomes durable; the PAUSE's id."""
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    command = live.step(packet())
    live.clock.late.clear()
    live.disk.release()
    live.durable()
    assert reason(command) == "timeout_wal"
    return command.command_id


def test_the_last_step_was_late_and_a_publish_tells_all_of_it() -> None:
    live, bus = quiet(), MemoryBus()
    released = late_step(live)
    decided = live.service.state.decisions
    assert asyncio.run(live.service.publish_history(bus))
    assert bus.ids("oona.normal") == [f"fr-{released}"], "and no report of the command that was superseded"
    assert live.service.state.decisions == decided
    assert live.service.state.reports_pending == 0
    live.durable()
    before = live.service.state.last_lsn
    assert asyncio.run(live.service.publish_history(bus))
    assert live.service.state.last_lsn == before, "an idle flush writes nothing"
    live.check()
    live.close()


def test_a_flush_tells_of_a_late_commit() -> None:
    live = quiet()
    released = late_step(live)
    assert live.service.flush()
    (told,) = live.events(journal.CommitLate)
    assert told.released_command_id == released
    live.crash()
    assert live.service.state.commits_late == 1, "and a process that dies then loses nothing of it"
    live.check()
    live.close()


def test_a_flush_tells_of_steps_that_were_not_recorded() -> None:
    live = quiet()
    with without_room(live):
        assert [reason(live.step(packet())) for _ in range(3)] == ["log_full"] * 3
        assert not live.service.flush(), "there is still no room"
    assert live.service.flush()
    (told,) = live.events(journal.StepsUnrecorded)
    assert (told.count, told.cause) == (3, "log_full")
    live.check()
    live.close()


def test_a_log_that_is_closed_while_it_is_full_says_what_it_was_never_told(caplog: pytest.LogCaptureFixture) -> None:
    live = quiet()
    first = live.step(packet())
    with without_room(live):
        assert [reason(live.step(packet())) for _ in range(3)] == ["log_full"] * 3
        live.service.record_delivery(first.command_id, "applied")
        live.service.close()
    said = [record.getMessage() for record in caplog.records if record.name == "tamiyo.journal"]
    assert said == [
        f"the log is closed without word of 3 steps answered with a safe PAUSE, and of 1 event between steps: {NO_ROOM}"
    ]


def test_a_step_that_the_log_holds_without_its_pause_counts_when_a_full_log_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = quiet()
    live.step(packet())
    with without_room(live, "submit"):
        assert reason(live.step(packet())) == "log_full"
        live.service.close()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "tamiyo.journal"]
    assert "without word of 1 step answered with a safe PAUSE, and of 0 events" in said


def test_a_log_that_was_told_all_is_closed_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    live = quiet()
    live.step(packet())
    live.service.close()
    assert not [record for record in caplog.records if record.name == "tamiyo.journal"]


def test_what_is_certain_is_published_while_the_disk_still_hangs() -> None:
    """What is owed of the late step could only wait behind it, and the steps before it need not."""
    live, bus = quiet(), MemoryBus()
    first = live.step(packet())
    live.durable()
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    assert reason(live.step(packet())) == "timeout_wal"
    asyncio.run(live.service.publish_history(bus))
    assert bus.ids("oona.normal") == [f"fr-{first.command_id}"]
    live.clock.late.clear()
    live.disk.release()
    live.durable()
    assert asyncio.run(live.service.publish_history(bus))
    live.check()
    live.close()
