"""Turns that only bad luck takes: a thread that does not start, an interrupt between two steps, a word said twice."""

import errno
import threading
from dataclasses import replace

import pytest
from log_rig import PATH, contents, entries, frames_of, numbered, open_log, overwrite, segments, written

import wal
from wal.base import SLOT_BYTES, read_base, write_base
from wal.batch import Batch, pack
from wal.entries import Appended, Pending
from wal.frames import HEAD_BYTES, RECORD_HEAD_BYTES, encode, leaves_of, stub
from wal.handover import Handover
from wal.leaves import tree_at
from wal.proofs import _record
from wal.segment import HEADER_BYTES, decode_header, encode_header
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
            log.prune(before_lsn, keep_heads=[heads[1]])
            assert wal.verify(PATH, heads[1], disk=disk).expected == "confirmed"


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


def test_a_redacted_form_that_lost_its_end_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, _ = several()
    monkeypatch.setattr("wal.redact._Anew._write", lambda *_: None)
    with open_log(disk) as log:
        before = contents(disk)
        with pytest.raises(wal.LogCorrupt, match="it was not used"):
            log.redact(lambda entry: entry.lsn == 1)
        assert contents(disk) == before


# What is read.


def test_a_segment_that_stays_away_though_it_is_listed_is_missing_at_last() -> None:
    memory, _ = several()
    disk = FaultDisk(memory)
    reader = wal.Reader(PATH, disk=disk)
    assert len(reader.poll(1)) == 1
    disk.fail("open", errno.ENOENT, forever=True)
    with pytest.raises(FileNotFoundError):
        reader.poll()
    disk.heal()
    assert next(iter(reader.poll())).lsn == 2


def test_the_log_s_own_reader_that_begins_at_the_durable_end_waits_for_what_is_staged() -> None:
    with open_log(MemoryDisk(), segment_bytes=1 << 20) as log:
        log.append([(1, b"")])
        assert log.stage(2, b"staged").wait(LONG_S)
        reader = log.reader(after=1)
        assert reader.poll() == []
        log.append([(3, b"")])
        assert [entry.lsn for entry in reader.poll()] == [2, 3]


def test_a_proof_for_a_size_within_a_batch_goes_no_further_than_it() -> None:
    disk = written([[(n, b"") for n in range(4)], [(n, b"") for n in range(5)]])
    whole = wal.prove_inclusion(PATH, 2, disk=disk)
    inside = wal.prove_inclusion(PATH, 2, 6, disk=disk)
    assert whole.holds(wal.head(PATH, disk=disk))
    tree, _ = tree_at(PATH, disk, 6)
    assert inside.holds(wal.Head(inside.log_id, 6, tree.root(), b""))


def test_a_record_that_moved_while_its_proof_was_made_is_asked_for_again() -> None:
    disk = written([RECORDS])
    frame = frames_of(disk, segments(disk)[0])[1]
    assert _record(PATH, disk, 1, frame.offset, 2)[0] == 2
    for offset, lsn in ((frame.offset, 3), (frame.offset + 512, 2), (0, 2)):
        with pytest.raises(wal.LogError, match="ask again"):
            _record(PATH, disk, 1, offset, lsn)


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
