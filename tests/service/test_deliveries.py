"""Deliveries: what became of a command rides with the next batch, or goes alone when nothing else does."""

import threading
from pathlib import Path

import pytest
from live import LateClock, Live, recover
from rig import packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import decode
from tamiyo.errors import DeliveryRejected, ServiceClosed
from tamiyo.riders import RIDERS_MAX, RIDERS_PER_BATCH
from tamiyo.testing import FixedPolicy
from tamiyo.upkeep import Upkeep


@pytest.fixture
def no_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Riders wait for a step, a flush or the end."""
    monkeypatch.setattr(Upkeep, "start", lambda _: None)


def told(live: Live) -> list[tuple[str, str, str]]:
    return [(e.command_id, e.outcome, e.detail) for e in live.events(journal.CommandDelivered)]


@pytest.mark.usefixtures("no_upkeep")
def test_a_delivery_rides_with_the_next_step_s_batch() -> None:
    live = Live(policy=FixedPolicy(1))
    command = live.step(packet())
    assert list(live.service.state.undelivered) == [command.command_id]
    last = live.service.log.next_lsn
    assert live.service.record_delivery(command.command_id, "applied", "COMMAND_OPTIMIZER")
    assert live.service.log.next_lsn == last, "it waits"
    following = live.step(packet())
    assert told(live) == [(command.command_id, "applied", "COMMAND_OPTIMIZER")]
    assert list(live.service.state.undelivered) == [following.command_id]
    kinds = [type(decode(entry.kind, entry.payload)) for entry in live.entries() if entry.lsn >= last]
    assert kinds[:2] == [journal.StepReceived, journal.CommandDelivered], "first in the batch of the decision"
    live.check()
    live.close()


def test_a_delivery_goes_alone_when_no_step_takes_it_along() -> None:
    live = Live()
    command = live.step(packet())
    live.service.record_delivery(command.command_id, "applied")
    while live.service.state.undelivered:
        threading.Event().wait(0.001)
    live.check()
    live.close()


@pytest.mark.usefixtures("no_upkeep")
@pytest.mark.parametrize("how", ["flush", "reopen"])
def test_a_delivery_is_durable_after_a_flush_and_after_close(how: str) -> None:
    live = Live()
    command = live.step(packet())
    live.service.record_delivery(command.command_id, "refused", "no such seed")
    if how == "flush":
        assert live.service.flush()
        live.crash()
    else:
        live.reopen()
    assert told(live) == [(command.command_id, "refused", "no such seed")]
    live.check()
    live.close()


def test_what_nobody_delivered_stays_to_be_seen_across_restarts() -> None:
    live = Live()
    ids = [live.step(packet()).command_id for _ in range(5)]
    live.service.record_delivery(ids[1], "applied")
    live.service.flush()
    live.reopen()
    assert list(live.service.state.undelivered) == [ids[0], *ids[2:]]
    assert live.service.state.undelivered_total == 4
    live.check()
    live.close()


@pytest.mark.usefixtures("no_upkeep")
def test_the_released_pause_of_a_late_commit_is_what_is_delivered() -> None:
    live = Live(clock=LateClock())
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    paused = live.step(packet())
    live.disk.release()
    live.clock.late.clear()
    live.service.record_delivery(paused.command_id, "applied", "COMMAND_PAUSE")
    following = live.step(packet())
    assert list(live.service.state.undelivered) == [following.command_id]
    live.check()
    live.close()


@pytest.mark.usefixtures("no_upkeep")
def test_deliveries_that_the_disk_lost_ride_again_in_their_order() -> None:
    live = Live()
    ids = [live.step(packet()).command_id for _ in range(3)]
    for command_id in ids:
        live.service.record_delivery(command_id, "applied")
    live.disk.fail("pwrite", 5, nth=2)
    live.step(packet())
    assert told(live) == []
    recover(live)
    live.step(packet())
    assert [command_id for command_id, _, _ in told(live)] == ids
    live.check()
    live.close()


@pytest.mark.usefixtures("no_upkeep")
def test_deliveries_wait_while_the_log_takes_no_records_and_past_their_room_are_refused() -> None:
    live = Live()
    command = live.step(packet())
    live.disk.fail("fdatasync", 5, forever=True)
    live.step(packet())
    taken = [live.service.record_delivery(command.command_id, "applied") for _ in range(RIDERS_MAX + 5)]
    assert taken == [True] * RIDERS_MAX + [False] * 5
    assert not live.service.flush()
    live.disk.heal()
    recover(live)
    assert live.service.flush()
    assert len(told(live)) == RIDERS_MAX
    live.check()
    live.close()


@pytest.mark.usefixtures("no_upkeep")
def test_a_step_takes_a_bounded_number_along() -> None:
    live = Live()
    command = live.step(packet())
    for _ in range(3 * RIDERS_PER_BATCH):
        live.service.record_delivery(command.command_id, "applied")
    live.step(packet())
    assert len(told(live)) == RIDERS_PER_BATCH
    live.close()


@pytest.mark.parametrize(
    ("command_id", "outcome"),
    [("", "applied"), ("id", ""), (7, "applied"), ("id", None), ("i" * 129, "x"), ("id", "o" * 65), ("\ud800", "x")],
)
def test_a_delivery_that_cannot_be_recorded_is_refused(command_id: object, outcome: object) -> None:
    live = Live()
    with pytest.raises(DeliveryRejected):
        live.service.record_delivery(command_id, outcome)
    live.close()


def test_any_detail_is_cut_to_what_can_be_recorded() -> None:
    live = Live()
    live.service.record_delivery("id", "applied", "\ud800" + "x" * 5_000)
    live.service.flush()
    assert told(live) == [("id", "applied", "?" + "x" * 299)]
    live.check()
    live.close()


def test_after_close_nothing_is_delivered(tmp_path: Path) -> None:
    live = Live()
    live.close()
    with pytest.raises(ServiceClosed):
        live.service.record_delivery("id", "applied")


@pytest.mark.usefixtures("no_upkeep")
def test_many_threads_may_deliver_while_steps_run() -> None:
    live = Live()
    ids = [live.step(packet()).command_id for _ in range(40)]

    def deliver(mine: list[str]) -> None:
        for command_id in mine:
            live.service.record_delivery(command_id, "applied")

    threads = [threading.Thread(target=deliver, args=(ids[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        live.step(packet())
    for thread in threads:
        thread.join()
    assert live.service.flush()
    assert sorted(command_id for command_id, _, _ in told(live)) == sorted(ids)
    assert len(live.service.state.undelivered) == 20
    live.check()
    live.close()
