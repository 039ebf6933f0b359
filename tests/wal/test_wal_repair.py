"""What opening writes: exactly what recovery decided, again what may be in memory alone, and nothing when it fails."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from log_rig import PATH, contents, entries, numbered, open_log, overwrite, segment, segments, written

import wal
from wal.base import SLOT_BYTES, SLOTS, read_base, write_base
from wal.frames import SEAL
from wal.recovery import examine
from wal.repair import recover
from wal.segment import HEADER_BYTES, decode_header
from wal.testing import FaultDisk, MemoryDisk

BATCHES = [[(n, bytes([n]) * 1500)] for n in range(12)]
RECORDS = numbered([record for batch in BATCHES for record in batch])


def used_bytes(disk: MemoryDisk, number: int = 1) -> int:
    return len(disk.peek(segments(disk)[number - 1]).rstrip(b"\0"))


def writes(disk: MemoryDisk) -> list[tuple[int, bytes]]:
    """What recovery writes, in order: offsets and bytes."""
    recorded = disk.copy(record=True)
    assert recover(PATH, recorded) is not None
    return [(op.offset, op.data) for op in recorded.trace.operations if op.op == "pwrite"]


# Settled: what is read is what the medium has.


class Settling(FaultDisk):
    """Remembers which files were synced and dropped from the cache, in order."""

    def __init__(self, inner: wal.Disk) -> None:
        super().__init__(inner)
        self._names: dict[int, str] = {}
        self.settled: list[str] = []
        self._synced = ""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        fd = super().open(path, write=write, create=create)
        self._names[fd] = path.name
        return fd

    def fdatasync(self, fd: int) -> None:
        self._synced = self._names[fd]
        super().fdatasync(fd)

    def drop_cache(self, fd: int) -> None:
        assert self._names[fd] == self._synced
        self.settled.append(self._synced)
        super().drop_cache(fd)


@pytest.mark.parametrize("batches", [1, 4, 12], ids=["one segment", "two segments", "several"])
def test_base_and_the_two_segments_that_may_have_been_written_last_are_settled(batches: int) -> None:
    disk = Settling(written(BATCHES[:batches]))
    places = segments(written(BATCHES[:batches]))
    assert recover(PATH, disk) is not None
    assert disk.settled == ["BASE", *(place.name for place in places[-2:])]


# Written again: a sync that failed may have left it in memory, and no error tells of that any more.


def test_after_a_clean_close_its_frame_alone_is_written_again() -> None:
    disk = written(BATCHES[:2])
    end = used_bytes(disk)
    assert writes(disk) == [(end - 512, disk.peek(segment())[end - 512 : end])]


def empty_last(batches: int) -> MemoryDisk:
    """A log that was killed before its last segment took a frame."""
    disk = written(BATCHES[:batches])
    overwrite(disk, segments(disk)[-1], HEADER_BYTES, bytes(8192 - HEADER_BYTES))
    return disk


@pytest.mark.parametrize("batches", [4, 12], ids=["two segments", "several"])
def test_when_the_last_segment_has_no_frame_the_seal_before_it_is_written_again_and_then_its_header(
    batches: int,
) -> None:
    disk = empty_last(batches)
    assert (len(segments(disk)) == 2) == (batches == 4)
    findings = examine(PATH, disk)
    assert findings is not None
    assert (findings.stop.last_type, findings.unsealed) == (None, None)
    before, last = segments(disk)[-2:]
    end = decode_header(disk.peek(last)[:HEADER_BYTES], len(segments(disk)), last).prev_end
    seal = disk.peek(before)[end - 512 : end]
    assert seal[4] == SEAL
    assert writes(disk) == [(end - 512, seal), (0, disk.peek(last)[:HEADER_BYTES])]


def test_a_log_whose_first_segment_has_no_frame_has_no_seal_to_write_and_no_record() -> None:
    disk = empty_last(1)
    assert writes(disk) == [(0, disk.peek(segment())[:HEADER_BYTES])]
    recovered = recover(PATH, disk)
    assert recovered is not None
    assert recovered.report == wal.Recovery(0, 0, 0, 1, 0, None, None, None, clean_close=False)


def test_a_frame_in_the_last_segment_proves_the_seal_before_it_which_is_left_alone() -> None:
    disk = written(BATCHES, close=False)
    last = segments(disk)[-1]
    assert writes(disk) == [(0, disk.peek(last).rstrip(b"\0").ljust(used_bytes(disk, len(segments(disk))), b"\0"))]


def test_a_sound_log_is_reported_with_nothing_cut() -> None:
    for close in (False, True):
        recovered = recover(PATH, written(BATCHES, close=close))
        assert recovered is not None
        assert recovered.report == wal.Recovery(12, 1, 12, 5, 0, None, None, None, clean_close=close)


# Cut: the bytes are saved, and then there is nothing in their place.


def torn() -> tuple[MemoryDisk, int]:
    """A log of two records with a torn write behind them, and where that begins."""
    disk = written(BATCHES[:2], close=False)
    disk.unlink(PATH / "spare.tmp")
    begin = used_bytes(disk)
    overwrite(disk, segment(), begin + 600, b"torn")
    return disk, begin


def test_the_very_first_batch_is_in_doubt_like_any_other() -> None:
    disk = written(BATCHES[:1], close=False)
    end = used_bytes(disk)
    overwrite(disk, segment(), end - 4, b"torn")
    recovered = recover(PATH, disk)
    assert recovered is not None
    assert (recovered.report.records, recovered.report.first_lsn, recovered.report.last_lsn) == (0, 0, 0)
    assert (recovered.report.cut_offset_bytes, recovered.report.cut_bytes) == (1024, end - 1024)


def test_a_log_of_one_segment_is_held_against_its_head() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        log.append([(1, b"a")])
        head = log.head()
    assert recover(PATH, disk, head) is not None
    with pytest.raises(wal.LogTampered):
        recover(PATH, disk, replace(head, log_id=b"o" * 16))


def test_what_is_kept_stays_byte_for_byte_and_zeros_stand_where_a_torn_write_was() -> None:
    disk, begin = torn()
    before = contents(disk)
    image = before[segment()]
    recovered = recover(PATH, disk)
    assert recovered is not None
    saved = PATH / f"quarantine-00000001-{begin}-1.bin"
    assert recovered.report == wal.Recovery(2, 1, 2, 1, 604, 1, begin, saved, clean_close=False)
    assert contents(disk) == before | {
        segment(): image[:begin].ljust(len(image), b"\0"),
        saved: image[begin : begin + 604],
    }


def test_a_torn_write_is_cut_from_files_as_from_memory(tmp_path: Path) -> None:
    disk, begin = torn()
    for place, data in contents(disk).items():
        (tmp_path / place.name).write_bytes(data)
    assert recover(PATH, disk) is not None
    recovered = recover(tmp_path, wal.disk.OsDisk())
    assert recovered is not None
    assert recovered.report.quarantine == tmp_path / f"quarantine-00000001-{begin}-1.bin"
    assert {place.name: place.read_bytes() for place in tmp_path.iterdir()} == {
        place.name: data for place, data in contents(disk).items()
    }


# An error in the middle of it.


@pytest.mark.parametrize("op", ["open", "pread", "pwrite", "fdatasync", "fallocate"])
def test_an_error_in_mid_recovery_leaves_the_log_as_it_was_and_a_whole_quarantine_or_none(op: str) -> None:
    sound, begin = torn()
    cut = sound.peek(segment())[begin:].rstrip(b"\0")
    counting = FaultDisk(sound)
    assert recover(PATH, counting) is not None
    assert counting.calls[op] > 0
    for nth in range(1, counting.calls[op] + 1):
        memory, _ = torn()
        before = contents(memory)
        disk = FaultDisk(memory)
        disk.fail(op, errno.EIO, nth)
        with pytest.raises(OSError, match="Input/output error"):
            recover(PATH, disk)
        after = contents(memory)
        saved = {place: after.pop(place) for place in set(after) - set(before)}
        assert after == before
        assert saved in ({}, {PATH / f"quarantine-00000001-{begin}-1.bin": cut})
        assert disk.calls["close"] == disk.calls["open"] - (op == "open"), "what was opened is closed"
        again = recover(PATH, memory)
        assert again is not None
        assert (again.report.last_lsn, again.report.cut_offset_bytes) == (2, begin)


# Where the log begins.


def test_a_log_whose_first_opening_died_before_it_wrote_base_gets_one() -> None:
    disk = written(BATCHES)
    whole = contents(disk)
    for length in (SLOTS * SLOT_BYTES, 512, 0):  # reserved and never written, or not even reserved
        disk.poke(PATH / "BASE", bytes(length))
        assert recover(PATH, disk) is not None
        assert contents(disk) == whole
    disk.unlink(PATH / "BASE")
    assert recover(PATH, disk) is not None
    assert contents(disk) == whole


def base_at(disk: MemoryDisk, number: int) -> int:
    """Let BASE say that the log begins with this segment, as a prune does before it removes anything; its first LSN."""
    with open_log(disk.copy()) as log:
        place = segments(disk)[number - 1]
        log.prune(int(place.name[9:29]))
        base = read_base(PATH, log._disk)
    assert base is not None
    write_base(PATH, disk, base)
    return base.first_lsn


def test_segments_that_an_interrupted_prune_has_given_up_are_removed_and_no_others() -> None:
    for number in range(1, len(segments(written(BATCHES))) + 1):
        disk = written(BATCHES)
        kept = segments(disk)[number - 1 :]
        first_lsn = base_at(disk, number)
        recovered = recover(PATH, disk)
        assert recovered is not None
        assert segments(disk) == kept
        assert (recovered.report.first_lsn, recovered.report.segments) == (first_lsn, len(kept))
        assert entries(disk, after=first_lsn - 1) == RECORDS[first_lsn - 1 :]


@pytest.mark.parametrize(
    ("lost", "problem"),
    [(True, "the segment is missing, and so is all that followed"), (False, "not where the pruned log begins")],
    ids=["the segments are gone", "they are another log's"],
)
def test_a_log_that_ends_before_its_base_begins_is_named_by_the_segment_that_is_missing(
    lost: bool, problem: str
) -> None:
    disk = written(BATCHES)
    base_at(disk, 3)
    if lost:
        for place in segments(disk):
            disk.unlink(place)
        disk.poke(segment(), written(BATCHES[:1]).peek(segment()))
    else:
        other = written(BATCHES, entropy=bytes)
        for place in segments(disk):
            disk.poke(place, other.peek(place))
    before = contents(disk)
    with pytest.raises(wal.LogCorrupt, match=problem) as caught:
        recover(PATH, disk)
    assert (caught.value.segment, caught.value.offset_bytes) == (3, 0)
    assert contents(disk) == before


def test_a_log_beside_another_one_s_base_is_refused_and_named_by_where_that_one_begins() -> None:
    disk = written(BATCHES[:1])
    disk.poke(PATH / "BASE", written(BATCHES[:1], entropy=bytes).peek(PATH / "BASE"))
    before = contents(disk)
    with pytest.raises(wal.LogCorrupt) as caught:
        recover(PATH, disk)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (1, 0, 1)
    assert caught.value.problem == "BASE says that a log begins here, and this is another one's segment"
    assert contents(disk) == before
