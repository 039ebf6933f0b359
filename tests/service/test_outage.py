"""What a host's log says while steps go without a record."""

import pytest
from live import NO_ROOM, Live, reason, without_room
from rig import packet

import wal
from tamiyo.errors import PacketRejected
from tamiyo.outage import Outage
from tamiyo.records import JournalUnavailable


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tamiyo.outage"]


def full(cause: Exception) -> JournalUnavailable:
    unavailable = JournalUnavailable("log_full")
    unavailable.__cause__ = cause
    return unavailable


BEGIN = "the log takes no records, steps are answered with a safe PAUSE: "


def test_an_outage_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.end()
    for steps, words in ((1, "1 step was"), (1_200, "1,200 steps were")):
        caplog.clear()
        for _ in range(steps):
            outage.meet(full(wal.LogFull("no room for another segment; prune, or free space")))
        outage.end()
        outage.end()
        assert said(caplog) == [
            f"{BEGIN}no room for another segment; prune, or free space",
            f"the log takes records again: {words} answered with a safe PAUSE meanwhile",
        ]


def test_a_step_that_the_log_was_late_for_or_that_is_too_large_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.meet(JournalUnavailable("timeout_wal"))
    outage.meet(full(wal.BatchTooLarge(2**21, 2**20)))
    outage.meet(full(PacketRejected("a record does not fit the log")))
    outage.end()
    assert said(caplog) == []


def test_a_breaker_that_is_open_is_one(caplog: pytest.LogCaptureFixture) -> None:
    Outage().meet(JournalUnavailable("log_failed"))
    assert said(caplog) == [f"{BEGIN}it failed, or was late three times running, and is tried again beside the steps"]


def test_a_service_tells_of_a_full_log(caplog: pytest.LogCaptureFixture) -> None:
    live = Live()
    with without_room(live):
        assert [reason(live.step(packet())) for _ in range(3)] == ["log_full"] * 3
        assert said(caplog) == [f"{BEGIN}{NO_ROOM}"]
    assert reason(live.step(packet())) == "policy"
    assert said(caplog)[1:] == ["the log takes records again: 3 steps were answered with a safe PAUSE meanwhile"]
    live.check()
    live.close()
