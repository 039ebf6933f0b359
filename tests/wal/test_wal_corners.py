"""Turns that only bad luck takes: a thread that does not start, an interrupt between two steps, a word said twice."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from log_rig import PATH, entries, frames_of, numbered, open_log, overwrite, segments, written

import wal
from wal.base import read_base, write_base
from wal.batch import Batch
from wal.entries import Appended, Pending
from wal.frames import HEAD_BYTES, RECORD_HEAD_BYTES, encode, leaves_of, stub
from wal.handover import Handover
from wal.leaves import tree_at
from wal.segment import HEADER_BYTES, decode_header, encode_header
from wal.testing import FaultDisk, MemoryDisk
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
    assert not log._writer.handover.place_heartbeat()
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


# What is read.


def test_records_that_reach_past_their_body_and_stubs_that_are_no_digest_hash_to_nothing() -> None:
    disk = written([RECORDS])
    frame = frames_of(disk, segments(disk)[0])[1]
    image = disk.peek(segments(disk)[0])[frame.offset : frame.end]
    body = image[HEAD_BYTES : HEAD_BYTES + frame.body_bytes]
    first = RECORD_HEAD_BYTES + 1
    short_stub = stub(1, bytes(32))[:-1].replace((32).to_bytes(4, "little"), (31).to_bytes(4, "little"), 1)
    for other in (body[:first] + body[first : first + 10], short_stub + body[first:]):
        changed = frame._replace(body_bytes=len(other))
        assert leaves_of(encode(changed, other), 0, changed) is None
    assert leaves_of(image, 0, frame) is not None


def test_a_tree_larger_than_the_log_is_refused() -> None:
    with pytest.raises(wal.LogError, match="has 2 records, not 3"):
        tree_at(PATH, written([RECORDS]), 3)


def test_a_proof_out_of_a_log_whose_segments_do_not_meet_is_refused() -> None:
    disk = written([[(n, bytes(1500))] for n in range(12)])
    place = segments(disk)[1]
    header = decode_header(disk.peek(place)[:HEADER_BYTES], 2, place)
    overwrite(disk, place, 0, encode_header(replace(header, chain=b"c" * 32)))
    with pytest.raises(wal.LogCorrupt, match="does not end where the next one says"):
        wal.prove_inclusion(PATH, 1, disk=disk)


def test_a_kept_proof_that_does_not_hold_confirms_nothing() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        heads = []
        for n in range(12):
            log.append([(n, bytes(1500))])
            heads.append(log.head())
        log.prune(9, keep_heads=heads[1:2])
    base = read_base(PATH, disk)
    assert base is not None
    step = base.steps[0]
    assert wal.verify(PATH, heads[1], disk=disk).expected == "confirmed"
    forged = replace(step, path=(*reversed(step.path), b"x" * 32))
    write_base(PATH, disk, replace(base, number=base.number + 1, steps=(forged,)))
    assert wal.verify(PATH, heads[1], disk=disk).expected == "contradicted"


def test_progress_of_a_proof_is_told_in_records() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=4 << 20) as log:
        for _ in range(3):
            log.append([(1, b"")] * 4096)
    told: list[tuple[int, int]] = []
    proof = wal.prove_inclusion(PATH, 5, disk=disk, progress=lambda done, total: told.append((done, total)))
    assert proof.holds(wal.head(PATH, disk=disk))
    assert told == [(4096, 3 * 4096), (8192, 3 * 4096), (12288, 3 * 4096)]


def test_a_lock_file_that_names_nobody_is_told_without_a_name() -> None:
    disk = MemoryDisk()
    fd = disk.lock(PATH / "LOCK")
    disk.pwrite(fd, b"nobody", 0)
    with pytest.raises(wal.LogLocked, match="another writer") as caught:
        open_log(disk)
    assert caught.value.holder_pid is None
    disk.close(fd)


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
    attempts: list[Callable[[], object]] = [lambda: disk.links(fd)]
    for attempt in attempts:
        with pytest.raises(OSError, match="Input/output"):
            attempt()
    assert disk.wait_for_calls("size", 1, 0)
    assert not disk.wait_for_calls("size", 99, 0)
