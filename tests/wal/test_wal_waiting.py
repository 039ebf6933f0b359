"""What callers wait for, and for how long: `append` with a time limit, and a Pending as the Future that it is."""

import asyncio
import concurrent.futures
import errno
import threading

import pytest
from log_rig import PATH, entries, numbered, open_log, wait_until

import wal
from wal.handover import Handover
from wal.testing import FaultDisk, MemoryDisk
from wal.writer import _LULL_S

LONG_S = 30


def hung(**options: object) -> tuple[wal.Log, FaultDisk, wal.Pending]:
    """A log whose disk hangs in the sync of its first batch."""
    disk = FaultDisk(MemoryDisk())
    log = open_log(disk, segment_bytes=1 << 20, **options)
    wait_until(lambda: log._writer.handover.quiet)  # else it may hang in a sync of preparing its segment
    disk.hang("fdatasync")
    first = log.submit([(1, b"first")])
    assert disk.wait_until_hung("fdatasync")
    return log, disk, first


# The writer's thread.


def test_behind_a_staged_record_the_thread_sleeps_until_its_batch_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller is in the middle of a step; a thread that wakes up beside it takes the interpreter from it."""
    rests: list[float] = []
    rest = Handover.rest

    def noted(self: Handover, timeout_s: float, bells: list[threading.Lock]) -> bool:
        rests.append(timeout_s)
        return rest(self, timeout_s, bells)

    monkeypatch.setattr(Handover, "rest", noted)
    with open_log(MemoryDisk(), segment_bytes=1 << 20) as log:
        wait_until(lambda: log._writer.handover.quiet)
        rests.clear()
        assert log.stage(1, b"packet").wait(LONG_S)
        wait_until(lambda: log._writer.handover.quiet)
        assert _LULL_S not in rests
        log.append([(2, b"decision")])
        wait_until(lambda: log._writer.handover.quiet)
        assert _LULL_S in rests  # what could wait is done then


# Time limits.


def test_an_append_that_is_late_keeps_its_place_and_says_so() -> None:
    log, disk, _ = hung()
    with pytest.raises(wal.Late, match=r"LSN 2\.\.3 .* do not append it again") as late:
        log.append([(2, b"second"), (3, b"third")], timeout_s=0)
    pending = late.value.pending
    assert (late.value.first_lsn, late.value.last_lsn, log.next_lsn, pending.done()) == (2, 3, 4, False)
    disk.release()
    commit = pending.result(LONG_S)
    assert commit.entries == (wal.Entry(2, 2, b"second"), wal.Entry(3, 3, b"third"))
    log.close()
    assert len(entries(disk)) == 3


def test_an_append_in_time_returns_its_commit() -> None:
    with open_log(MemoryDisk()) as log:
        assert log.append([(1, b"a")], timeout_s=LONG_S).entries == (wal.Entry(1, 1, b"a"),)


def test_an_append_that_finds_no_place_in_its_time_wrote_nothing() -> None:
    log, disk, first = hung(queue_batches=1)
    second = log.submit([(2, b"")])
    for timeout_s in (0, 0.001):
        with pytest.raises(wal.LogBusy, match="nothing was written"):
            log.append([(9, b"")], timeout_s=timeout_s)
    assert log.next_lsn == 3
    disk.release()
    assert [first.result(LONG_S).last_lsn, second.result(LONG_S).last_lsn] == [1, 2]
    assert log.append([(3, b"")], timeout_s=LONG_S).first_lsn == 3
    log.close()


def test_the_outcome_of_a_late_append_can_still_become_unknown() -> None:
    log, disk, _ = hung()
    with pytest.raises(wal.Late) as late:
        log.append([(2, b"")], timeout_s=0)
    disk.fail("fdatasync", errno.EIO, forever=True)
    disk.release()
    with pytest.raises(wal.OutcomeUnknown, match=r"LSN 2\.\.2"):
        late.value.pending.result(LONG_S)
    log.close()


def test_the_log_closes_after_a_late_append_was_forgotten() -> None:
    log, disk, _ = hung()
    with pytest.raises(wal.Late):
        log.append([(2, b"")], timeout_s=0)
    disk.release()
    log.close()
    assert entries(disk) == numbered([(1, b"first"), (2, b"")])


# A Pending is a Future.


def test_a_pending_cannot_be_cancelled_and_runs_until_it_is_done() -> None:
    log, disk, pending = hung()
    assert (pending.cancel(), pending.cancelled(), pending.running(), pending.done()) == (False, False, True, False)
    with pytest.raises(TimeoutError, match=r"LSN 1\.\.1 .* keeps its place"):
        pending.result(0)
    with pytest.raises(TimeoutError):
        pending.exception(0)
    disk.release()
    assert pending.exception(LONG_S) is None
    assert (pending.cancel(), pending.running(), pending.done()) == (False, False, True)
    assert pending.result() is pending.result()
    log.close()


def test_callbacks_wait_and_asyncio_take_a_pending_for_any_other_future() -> None:
    log, disk, pending = hung()
    called = threading.Event()
    pending.add_done_callback(lambda done: called.set() if done is pending and done.done() else None)

    async def wrapped() -> wal.Commit:
        future = asyncio.wrap_future(pending)
        disk.release()
        return await future

    assert asyncio.run(wrapped()).last_lsn == 1
    assert called.wait(LONG_S)
    others = [log.submit([(n, b"")]) for n in range(5)]
    done, rest = concurrent.futures.wait([pending, *others], LONG_S)
    assert (done, rest) == ({pending, *others}, set())
    assert {future.result().first_lsn for future in concurrent.futures.as_completed(others)} == {2, 3, 4, 5, 6}
    late: list[wal.Pending] = []
    pending.add_done_callback(late.append)
    assert late == [pending], "a callback that comes after the fact is called at once"
    log.close()


def test_a_failed_pending_gives_its_error_to_everyone_who_asks() -> None:
    log, disk, pending = hung()
    seen: list[BaseException | None] = []
    pending.add_done_callback(lambda done: seen.append(done.exception()))
    disk.fail("fdatasync", errno.EIO)
    disk.release()
    error = pending.exception(LONG_S)
    assert isinstance(error, wal.OutcomeUnknown)
    with pytest.raises(wal.OutcomeUnknown):
        pending.result()
    concurrent.futures.wait([pending], LONG_S)
    assert seen == [error]
    log.close()


def test_any_number_of_threads_may_wait_for_one_pending() -> None:
    log, disk, pending = hung()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(pending.result, LONG_S) for _ in range(8)]
        disk.release()
        assert {found.result(LONG_S).last_lsn for found in waiting} == {1}
    log.close()


def test_asking_again_and_again_leaves_nothing_behind() -> None:
    log, disk, pending = hung()
    staged = log.stage(2, b"")
    for _ in range(100):
        with pytest.raises(TimeoutError):
            pending.result(0)
        assert not staged.wait(0)
    assert (len(pending._bells), len(staged._bells)) == (0, 0)
    disk.release()
    log.close()


def test_a_commit_numbers_what_was_logged_even_when_the_caller_changes_its_batch_later() -> None:
    with open_log(MemoryDisk(), path=PATH) as log:
        batch = [[1, b"a"], [2, b"b"]]
        pending = log.submit(batch)  # type: ignore[arg-type]
        batch[0][1] = b"changed"
        assert pending.result(LONG_S).entries == (wal.Entry(1, 1, b"a"), wal.Entry(2, 2, b"b"))
