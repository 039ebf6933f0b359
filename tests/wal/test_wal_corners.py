"""Turns that only bad luck takes: a thread that does not start, an interrupt between two steps, a word said twice."""

import threading

import pytest
from log_rig import PATH, contents, entries, numbered, open_log, segments, wait_until

import wal
from wal.base import SLOT_BYTES
from wal.batch import Batch, pack
from wal.entries import Appended, Pending
from wal.handover import Handover
from wal.testing import FaultDisk, MemoryDisk
from wal.tree import LazyTree, Tree
from wal.writer import Writer

LONG_S = 30
RECORDS = ((1, b"a"), (2, b"b"))


# Opening.


def test_a_log_whose_thread_cannot_be_started_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    disk = MemoryDisk()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            open_log(disk)
    assert not disk.locked(PATH / "LOCK")
    with open_log(disk) as log:
        log.append([(1, b"on")])
    assert len(entries(disk)) == 1


@pytest.mark.parametrize("started", [False, True], ids=["before it started", "after"])
def test_a_writer_that_is_given_up_writes_no_more_whenever_its_thread_comes(
    *, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Writer] = []
    start = Writer.start

    def interrupted(writer: Writer) -> None:
        made.append(writer)
        if started:
            start(writer)
        raise KeyboardInterrupt

    disk = MemoryDisk()
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_log(disk, on_slow_sync=lambda _: None)
    operations = disk.operations
    made[0]._run()  # its thread, at last
    assert disk.operations == operations
    assert not disk.locked(PATH / "LOCK")
    open_log(disk).close()


# The hand-over.


def test_an_interrupt_while_a_batch_is_built_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    disk = MemoryDisk()
    with open_log(disk) as log:
        log.append([(1, b"one")])
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "build", interrupted)
            with pytest.raises(KeyboardInterrupt):
                log.append([(2, b"two")])
        assert log.next_lsn == 2
        log.append([(3, b"three")])
    assert entries(disk) == numbered([(1, b"one"), (3, b"three")])


def test_an_interrupt_after_a_batch_was_queued_leaves_it_there_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    wake, calls = Handover._wake, []

    def interrupted(handover: Handover) -> None:
        calls.append(handover)
        if len(calls) == 1:
            raise KeyboardInterrupt
        wake(handover)

    disk = MemoryDisk()
    with open_log(disk) as log:
        with monkeypatch.context() as patch:
            patch.setattr(Handover, "_wake", interrupted)
            with pytest.raises(KeyboardInterrupt):
                log.append([(1, b"one")])
        log.append([(2, b"two")])
    assert entries(disk) == numbered([(1, b"one"), (2, b"two")])


def test_a_heartbeat_is_not_needed_where_a_batch_waits() -> None:
    disk = FaultDisk(MemoryDisk())
    log = open_log(disk, segment_bytes=1 << 20)
    log.append([(0, b"")])
    disk.hang("fdatasync")
    first = log.submit([(1, b"")])
    assert disk.wait_until_hung("fdatasync")
    second = log.submit([(2, b"")])
    log._writer._heartbeat()
    assert log._writer.handover.next_lsn == 4, "nothing was placed between them"
    disk.release()
    assert [first.result(LONG_S).last_lsn, second.result(LONG_S).last_lsn] == [2, 3]
    log.close()


def test_whoever_waits_hears_of_the_end_even_when_telling_fails_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: seen.append(hook.exc_type))
    end, calls = Handover.end, []

    def lacks_memory(handover: Handover, cause: wal.LogFailed | None) -> list[Batch]:
        calls.append(cause)
        if len(calls) == 1:
            raise MemoryError
        return end(handover, cause)

    monkeypatch.setattr(Handover, "end", lacks_memory)
    disk = FaultDisk(MemoryDisk())
    log = open_log(disk)
    disk.fail("fdatasync", 5)
    with pytest.raises(wal.OutcomeUnknown):
        log.append([(1, b"")])
    log.close()
    assert (len(calls), seen) == (2, [MemoryError])


def test_the_first_word_on_an_append_stands_also_for_the_pending_that_goes_on() -> None:
    unknown = wal.OutcomeUnknown(7, 8, "the disk")
    for before in (True, False):
        appended, pending = Appended(7, RECORDS), Pending(7, RECORDS)
        if before:
            appended.settle(unknown)
        appended.become(pending)
        assert pending.done() is before
        appended.settle(None if before else unknown)
        appended.settle()
        pending.settle()
        assert pending.exception(LONG_S) is unknown


def test_commits_are_equal_when_their_numbers_are_and_make_their_entries_once() -> None:
    with open_log(MemoryDisk()) as one, open_log(MemoryDisk()) as other:
        first, second = one.append(RECORDS), other.append(RECORDS)
        assert first == second
        assert hash(first) == hash(second)
        assert first != one.append(RECORDS)
        assert first.entries is first.entries


def test_closing_does_not_wait_for_maintenance_longer_than_it_is_told() -> None:
    log = open_log(MemoryDisk())
    with log._maintenance, pytest.raises(wal.LogBusy, match="a prune or redaction is at work"):
        log.close(timeout_s=0)
    log.close()


def test_a_batch_that_arrives_where_it_has_no_place_is_never_written() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        batch = pack([(1, b"")], log.limits, bytes)
        for segment, offset, first_lsn in ((2, 1024, 1), (1, 1536, 1), (1, 1024, 2)):
            batch.segment, batch.offset, batch.first_lsn = segment, offset, first_lsn
            with pytest.raises(RuntimeError, match="has no place at"):
                log._writer._tail.frame(batch)
    with pytest.raises(RuntimeError, match="never allocated"):
        log._writer._rotate()
    assert entries(disk) == []


def test_a_head_that_was_overtaken_while_it_was_taken_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at, calls = LazyTree.at, []

    def overtaken(tree: LazyTree, size: int) -> Tree | None:
        calls.append(size)
        return None if len(calls) == 1 else at(tree, size)

    with open_log(MemoryDisk()) as log:
        log.append([(1, b"")])
        expected = log.head()
        monkeypatch.setattr(LazyTree, "at", overtaken)
        assert log.head() == expected
    assert calls[:2] == [1, 1]


# Maintaining.


def several() -> tuple[MemoryDisk, list[wal.Head]]:
    disk, heads = MemoryDisk(), []
    with open_log(disk) as log:
        for n in range(12):
            log.append([(n, bytes([n]) * 1500)])
            heads.append(log.head())
    return disk, heads


def test_a_head_that_was_kept_may_be_asked_for_again() -> None:
    disk, heads = several()
    with open_log(disk) as log:
        for before_lsn in (5, 9):
            assert log.prune(before_lsn, keep_heads=heads[:2]).segments > 0
            for head in heads[:2]:
                assert wal.verify(PATH, head, disk=disk).expected == "confirmed"


def test_nothing_is_pruned_while_nothing_sound_says_where_the_log_begins() -> None:
    disk, _ = several()
    with open_log(disk) as log:
        disk.poke(PATH / "BASE", bytes(2 * SLOT_BYTES))
        before = segments(disk)
        with pytest.raises(wal.LogCorrupt, match="open the log again to mend it"):
            log.prune(9)
        assert segments(disk) == before
    with open_log(disk) as log:
        assert log.prune(9).segments > 0


class Swallowing(FaultDisk):
    """Says that it wrote, and did not, while it is told so."""

    swallows = False

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return len(data) if self.swallows else super().pwrite(fd, data, offset)


def test_nothing_is_pruned_when_the_new_beginning_does_not_read_back() -> None:
    memory, heads = several()
    disk = Swallowing(memory)
    with open_log(disk) as log:
        wait_until(lambda: log._writer.handover.quiet)
        disk.swallows, before = True, contents(memory)
        with pytest.raises(wal.LogFailed, match="does not read back"):
            log.prune(9)
        disk.swallows = False
        assert contents(memory) == before
        assert log.prune(9).segments > 0
    assert wal.verify(PATH, heads[-1], disk=memory).expected == "confirmed"


def test_a_redacted_form_that_lost_its_end_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, _ = several()
    monkeypatch.setattr("wal.redact._Anew._write", lambda *_: None)
    with open_log(disk) as log:
        before = contents(disk)
        with pytest.raises(wal.LogCorrupt, match="it was not used"):
            log.redact(lambda entry: entry.lsn == 1)
        assert contents(disk) == before


# The disk that fails on demand.


def test_only_the_faults_and_hangs_that_are_named_are_taken_back() -> None:
    disk = FaultDisk(MemoryDisk())
    disk.fail("size", 5, forever=True)
    disk.fail("links", 5, forever=True)
    disk.hang("drop_cache")
    assert disk.hanging == {"drop_cache"}
    disk.release("drop_cache")
    disk.heal("size")
    fd = disk.open(PATH / "x", write=True, create=True)
    assert disk.size(fd) == 0
    disk.drop_cache(fd)
    with pytest.raises(OSError, match="Input/output"):
        disk.links(fd)
    assert disk.wait_for_calls("size", 1, 0)
    assert not disk.wait_for_calls("size", 99, 0)


def test_a_dead_disk_takes_no_note_and_knows_no_descriptor_that_it_did_not_give() -> None:
    disk = MemoryDisk(record=True)
    disk.note("promised")
    disk.power_off_after(0)
    disk.note("never promised")
    assert [operation.note for operation in disk.trace.operations] == ["promised"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.pread(7, 1, 0)
