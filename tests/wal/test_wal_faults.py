"""A disk that fails, fills up or hangs while the log is open."""

import errno
import itertools
import os
import signal
import threading
from pathlib import Path

import pytest
from log_rig import (
    NEVER_MS,
    PATH,
    abandon,
    contents,
    entries,
    numbered,
    open_log,
    overwrite,
    segment,
    segments,
    wait_until,
    written,
)

import wal
from wal.testing import FaultDisk, MemoryDisk

LONG_S = 30


def faulty() -> tuple[FaultDisk, MemoryDisk]:
    memory = MemoryDisk()
    return FaultDisk(memory), memory


# Errors: the first one ends the writer.


@pytest.mark.parametrize("op", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("error_no", [errno.EIO, errno.ENOSPC])
def test_the_first_error_of_a_write_or_sync_ends_the_writer(op: str, error_no: int) -> None:
    disk, memory = faulty()
    log = open_log(disk)
    log.append([(1, b"kept")])
    disk.fail(op, error_no)
    with pytest.raises(wal.OutcomeUnknown, match=r"LSN 2\.\.3"):
        log.append([(2, b"lost?"), (3, b"lost?")])
    calls = disk.calls.copy()
    for attempt in (lambda: log.append([(4, b"")]), lambda: log.submit([(4, b"")]), lambda: log.stage(4, b"")):
        with pytest.raises(wal.LogFailed, match="Close the log and open it again"):
            attempt()
    assert isinstance(log.failure, wal.LogFailed)
    assert isinstance(log.failure.__cause__, OSError)
    log.close()
    assert disk.calls[op] == calls[op], "nothing is tried again"
    with open_log(memory) as log:
        assert entries(memory)[:1] == numbered([(1, b"kept")])
        assert log.append([(5, b"on")]).first_lsn in (2, 4)


@pytest.mark.parametrize("op", ["rename", "fsync_dir"])
def test_an_error_while_a_segment_is_added_ends_the_writer(op: str) -> None:
    disk, memory = faulty()
    log = open_log(disk)
    acked = [log.append([(n, bytes(1500))]).last_lsn for n in range(3)]
    disk.fail(op, errno.EIO)
    with pytest.raises(wal.OutcomeUnknown):
        append_for_ever(log, acked)
    with pytest.raises(wal.LogFailed):
        log.append([(9, b"")])
    log.close()
    with open_log(memory) as log:
        assert log.recovery.last_lsn >= acked[-1]
        log.append([(1, bytes(3000))])
    assert wal.verify(PATH, disk=memory).status == "intact"


def test_everything_queued_behind_an_error_has_an_unknown_outcome() -> None:
    disk, _ = faulty()
    log = open_log(disk, segment_bytes=1 << 20)
    log.append([(0, b"")])
    disk.fail("fdatasync", errno.EIO)
    disk.hang("fdatasync")
    first = log.submit([(1, b"")])
    assert disk.wait_until_hung("fdatasync")
    behind, staged = log.submit([(2, b"")]), log.stage(3, b"")
    disk.release()
    for pending in (first, behind):
        with pytest.raises(wal.OutcomeUnknown):
            pending.result(LONG_S)
    with pytest.raises(wal.OutcomeUnknown):
        staged.wait(LONG_S)
    log.close()


def test_an_error_while_closing_is_reported_and_the_lock_is_given_up() -> None:
    disk, memory = faulty()
    log = open_log(disk)
    log.append([(1, b"")])
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(wal.LogFailed):
        log.close()
    open_log(memory).close()


@pytest.mark.parametrize("op", ["fdatasync", "fsync_dir", "rename", "pwrite", "open", "lock", "list_dir", "pread"])
def test_an_error_while_opening_is_the_logs_own_and_costs_nothing(op: str) -> None:
    memory = written([[(1, b"kept")]], close=False)
    before = [memory.peek(place) for place in segments(memory)]
    disk = FaultDisk(memory)
    disk.fail(op, errno.EIO, nth=2 if op == "pwrite" else 1)  # the first write names the lock's holder: no matter
    with pytest.raises(wal.LogFailed, match="Input/output error"):
        open_log(disk)
    assert entries(memory) == numbered([(1, b"kept")])
    if op in ("lock", "list_dir", "pread"):
        assert [memory.peek(place) for place in segments(memory)] == before
    with open_log(memory) as log:
        assert log.recovery.last_lsn == 1


def test_short_writes_are_completed() -> None:
    disk, memory = faulty()
    with open_log(disk) as log:
        disk.shorten(50)
        for n in range(6):
            log.append([(n, bytes([n]) * 1500)])
    assert entries(memory) == numbered((n, bytes([n]) * 1500) for n in range(6))


def test_an_unexpected_exception_in_the_writer_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: seen.append(hook.exc_type))
    disk, _ = faulty()
    log = open_log(disk)
    log.append([(1, b"")])

    def broken(fd: int, data: bytes, offset: int) -> int:
        raise MemoryError

    monkeypatch.setattr(disk, "pwrite", broken)
    with pytest.raises(wal.OutcomeUnknown):
        log.append([(2, b"")])
    with pytest.raises(wal.LogFailed):
        log.append([(3, b"")])
    log.close()
    assert seen == [MemoryError]


# A full disk: met before anything is written.


def fill(log: wal.Log, length: int = 1500) -> list[int]:
    """Append until the log is full; return the LSNs that it acknowledged."""
    acked: list[int] = []
    with pytest.raises(wal.LogFull, match="nothing was written"):
        append_for_ever(log, acked, length)
    return acked


def append_for_ever(log: wal.Log, acked: list[int], length: int = 1500) -> None:
    while True:
        acked.append(log.append([(1, bytes(length))]).last_lsn)


def test_a_full_disk_refuses_the_batch_and_the_log_goes_on_when_there_is_room() -> None:
    disk, memory = faulty()
    with open_log(disk) as log:
        log.append([(1, bytes(1500))])  # the spare is made by now
        disk.no_space()
        acked = fill(log)
        full = contents(memory)
        assert len(acked) >= 3, "a whole spare segment was left"
        assert log.next_lsn == acked[-1] + 1
        for _ in range(3):
            with pytest.raises(wal.LogFull):
                log.append([(1, bytes(1500))])
            with pytest.raises((wal.LogFull, wal.LogBusy)):
                log.submit([(1, bytes(1500))])
        assert (contents(memory), log.failure) == (full, None)
        disk.free_space()
        assert log.append([(2, b"again")]).first_lsn == acked[-1] + 1
    assert wal.verify(PATH, disk=memory).records == acked[-1] + 1


def test_a_smaller_batch_still_fits_where_a_larger_one_did_not() -> None:
    disk, memory = faulty()
    with open_log(disk) as log:
        log.append([(1, b"")])
        disk.no_space()
        fill(log, 2200)
        log.append([(2, b"small")])
    assert entries(memory)[-1].payload == b"small"


def test_a_log_that_is_full_to_the_brim_reads_and_opens_again_once_there_is_room() -> None:
    disk, memory = faulty()
    log = open_log(disk)
    log.append([(1, b"")])
    disk.no_space()
    acked = fill(log)
    log.close()
    before = contents(memory)
    with pytest.raises(wal.LogFull, match="Nothing was changed"):
        open_log(disk)
    assert contents(memory) == before
    assert entries(disk)[-1].lsn == acked[-1]
    disk.free_space()
    with open_log(disk) as log:
        assert (log.recovery.last_lsn, log.recovery.clean_close) == (acked[-1], True)
        log.append([(2, b"on")])
    assert wal.verify(PATH, disk=memory).status == "intact"


def test_a_log_cannot_be_begun_on_a_full_disk_and_nothing_is_left_of_the_attempt() -> None:
    disk, memory = faulty()
    disk.no_space()
    with pytest.raises(wal.LogFull, match="free space and open again"):
        open_log(disk)
    assert contents(memory) == {}
    disk.free_space()
    open_log(disk).close()


@pytest.mark.parametrize("torn", [False, True])
def test_a_crashed_log_is_left_alone_by_a_full_disk_and_opens_once_there_is_room(torn: bool) -> None:
    memory = written([[(1, b"kept")], [(2, b"last")]], close=False)
    memory.unlink(PATH / "spare.tmp")
    if torn:
        overwrite(memory, segment(), 1536 + 200, b"\xff")
    before, disk = contents(memory), FaultDisk(memory)
    disk.no_space()
    with pytest.raises(wal.LogFull):
        open_log(disk)
    assert contents(memory) == before
    assert len(entries(disk)) == 2 - torn, "it still reads"
    disk.free_space()
    with open_log(disk) as log:
        assert log.recovery.last_lsn == 2 - torn


def test_too_many_open_files_are_a_lack_of_room_and_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, memory = faulty()
    spares, few = itertools.count(1), True

    def refuse(path: Path, *, write: bool = False, create: bool = False) -> int:
        if path.name == "spare.tmp" and next(spares) > 1 and few:  # the first one became the first segment
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return memory.open(path, write=write, create=create)

    monkeypatch.setattr(disk, "open", refuse)
    with open_log(disk) as log:
        with pytest.raises(wal.LogFull, match="Too many open files"):
            append_for_ever(log, [])
        few = False
        assert log.append([(1, bytes(1500))]), "append waits for the next attempt, which works"
    assert wal.verify(PATH, disk=memory).status == "intact"


def test_space_that_was_freed_is_found_before_it_is_needed() -> None:
    disk, memory = faulty()
    with open_log(disk) as log:
        log.append([(1, bytes(1500))])  # the spare is made by now
        disk.no_space()
        fill(log, 2200)
        disk.free_space()
        log.append([(2, b"small")])  # has a place all the same, and asks for the next segment again
        wait_until(lambda: any(place.name == "spare.tmp" for place in memory.files()))
        log.submit([(1, bytes(1500))]).result(LONG_S)  # it does not wait, and must not be told of a disk that was full
    assert wal.verify(PATH, disk=memory).status == "intact"


def test_an_error_while_the_spare_is_made_ends_the_writer() -> None:
    disk, _ = faulty()
    disk.fail("fallocate", errno.EIO, nth=3)  # BASE, the segment, and then the spare
    log = open_log(disk)
    with pytest.raises((wal.LogFailed, wal.OutcomeUnknown)):
        log.append([(1, b"")])
    log.close()


# A disk that does not answer.


def test_a_hung_disk_blocks_neither_submit_nor_stage() -> None:
    disk, memory = faulty()
    log = open_log(disk, segment_bytes=1 << 20, queue_batches=4)
    log.append([(0, b"")])
    disk.hang("fdatasync")
    first = log.submit([(1, b"")])
    assert disk.wait_until_hung("fdatasync")
    queued = [log.submit([(2, b"")]), log.submit([(3, b"")])]
    staged = log.stage(4, b"")
    assert (staged.lsn, staged.wait(0), first.done(), log.durable_lsn) == (4 + 1, False, False, 1)
    queued.append(log.submit([(5, b"")]))
    with pytest.raises(wal.LogBusy, match="nothing was written"):
        log.submit([(6, b"")])
    with pytest.raises(wal.LogBusy, match="has not answered"):
        log.close(timeout_s=0)
    disk.release()
    assert [p.result(LONG_S).first_lsn for p in [first, *queued]] == [2, 3, 4, 6]
    assert staged.wait(LONG_S)
    log.close()
    assert len(entries(memory)) == 6


def test_append_waits_for_a_place_in_the_queue() -> None:
    disk, _ = faulty()
    log = open_log(disk, segment_bytes=1 << 20, queue_batches=1)
    log.append([(0, b"")])
    disk.hang("fdatasync")
    log.submit([(1, b"")])
    assert disk.wait_until_hung("fdatasync")
    log.submit([(2, b"")])
    waiting = threading.Thread(target=log.append, args=([(3, b"")],))
    waiting.start()
    disk.release()
    waiting.join(LONG_S)
    assert not waiting.is_alive()
    assert log.durable_lsn == 4
    log.close()


def test_batches_queued_together_share_one_sync() -> None:
    disk, _ = faulty()
    log = open_log(disk, segment_bytes=1 << 20)
    log.append([(0, b"")])
    disk.hang("fdatasync")
    first = log.submit([(1, b"")])
    assert disk.wait_until_hung("fdatasync")
    before = disk.calls["fdatasync"]
    rest = [log.submit([(n, b"")]) for n in range(20)]
    writes = disk.calls["pwrite"]
    disk.release()
    assert [p.result(LONG_S).first_lsn for p in [first, *rest]] == list(range(2, 23))
    assert disk.calls["fdatasync"] == before + 1
    assert disk.calls["pwrite"] == writes + 1, "no byte of the next group goes before this group is durable"
    log.close()


def test_a_batch_queued_during_a_sync_promises_what_that_sync_made_durable() -> None:
    disk, memory = faulty()
    log = open_log(disk, segment_bytes=1 << 20, heartbeat_ms=NEVER_MS)
    log.append([(0, b"")])
    disk.hang("fdatasync")
    first = log.submit([(1, b"acknowledged before the second is written")])
    assert disk.wait_until_hung("fdatasync")
    second = log.submit([(2, b"")])
    disk.release()
    first.result(LONG_S)
    second.result(LONG_S)
    image = memory.kill()
    abandon(log)
    overwrite(image, segment(), 1536 + 130, b"\xff")
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        open_log(image, segment_bytes=1 << 20)


def test_the_head_is_that_of_all_that_was_acknowledged_at_any_moment_beside_a_working_writer() -> None:
    disk, memory = faulty()
    log = open_log(disk, segment_bytes=1 << 20)
    heads: list[wal.Head] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            heads.append(log.head())

    asking = threading.Thread(target=ask)
    asking.start()
    for n in range(600):
        before = log.append([(n % 7, b"%d" % n)] * (n % 3 + 1)).last_lsn
        assert log.head().size == before
    done.set()
    asking.join(LONG_S)
    log.close()
    assert [head.size for head in heads] == sorted(head.size for head in heads)
    for head in {head.size: head for head in heads[:: len(heads) // 10 + 1]}.values():
        assert wal.verify(PATH, head, disk=memory).expected == "confirmed"


def test_a_slow_sync_is_told_while_it_lasts_and_once() -> None:
    disk, _ = faulty()
    told: list[float] = []
    heard = threading.Event()

    def tell(elapsed_ms: float) -> None:
        told.append(elapsed_ms)
        heard.set()

    log = open_log(disk, slow_sync_ms=5, on_slow_sync=tell)
    disk.hang("fdatasync")
    pending = log.submit([(1, b"")])
    assert heard.wait(LONG_S)
    assert not pending.done()
    assert told[0] >= 5
    disk.release()
    pending.result(LONG_S)
    log.close()


def test_a_heartbeat_proves_the_last_batch_when_nothing_follows() -> None:
    disk, memory = faulty()
    log = open_log(disk, heartbeat_ms=1)
    log.append([(1, b"only")])
    wait_until(lambda: entries(disk) == numbered([(1, b"only")]))  # a reader elsewhere sees it once it is proven
    image = memory.kill()
    abandon(log)
    overwrite(image, segment(), 1024 + 130, b"\xff")
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        open_log(image)


# One writer.


def test_a_second_writer_is_refused_and_told_who_holds_the_log(tmp_path: Path) -> None:
    with wal.Log.open(tmp_path, segment_bytes=65536):
        with pytest.raises(wal.LogLocked, match=f"process {os.getpid()}") as caught:
            wal.Log.open(tmp_path, segment_bytes=65536)
        assert caught.value.holder_pid == os.getpid()
    wal.Log.open(tmp_path, segment_bytes=65536).close()


def test_a_forked_child_can_neither_write_nor_keep_the_lock(tmp_path: Path) -> None:
    log = wal.Log.open(tmp_path, segment_bytes=65536)
    log.append([(1, b"parent")])
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LONG_S)  # a child that could append would wait for ever: let the test fail instead
        os.close(from_parent)
        refused = 0
        for attempt in (lambda: log.append([(2, b"")]), lambda: log.submit([(2, b"")]), lambda: log.stage(2, b"")):
            try:
                attempt()
            except wal.LogClosed:
                refused += 1
        log.close()  # does nothing: neither does it wait for a thread that is not here
        os.write(from_child, b"%d" % refused)
        os.read(to_child, 1)  # lives on until the parent has opened the log again
        os._exit(0)
    assert os.read(to_parent, 1) == b"3"
    log.append([(2, b"parent still writes")])
    log.close()
    with wal.Log.open(tmp_path, segment_bytes=65536) as log:
        assert log.recovery.last_lsn == 2
    os.write(from_parent, b"x")
    os.waitpid(child, 0)
    for fd in (to_child, from_parent, to_parent, from_child):
        os.close(fd)


def test_nothing_but_segments_base_and_the_lock_is_left_after_closing() -> None:
    disk = written([[(n, bytes(1500))] for n in range(6)])
    assert {place.name for place in disk.files()} == {"BASE", "LOCK", *(place.name for place in segments(disk))}
