"""What a crash leaves in doubt, to the byte: which bytes are cut, which seal is written again, and what is refused."""

import pytest
from log_rig import PATH, abandon, entries, numbered, open_log, overwrite, segment, segments, written

import wal
from wal.recovery import ACCEPT, CUT, END, examine, judge
from wal.scan import Window, next_frame, start_of
from wal.segment import HEADER_BYTES, Header, decode_header
from wal.testing import MemoryDisk


def header(disk: MemoryDisk, number: int) -> Header:
    place = segments(disk)[number - 1]
    return decode_header(disk.peek(place)[:HEADER_BYTES], number, place)


# The last sync group.


def group_of_two() -> tuple[MemoryDisk, int, int]:
    """A log whose last sync wrote two frames, one staged and one of a batch; where the two begin."""
    disk = MemoryDisk()
    log = open_log(disk)
    log.append([(1, b"acknowledged")])
    staged = len(disk.peek(segment()).rstrip(b"\0"))
    assert log.stage(2, b"staged").wait(30)
    batch = len(disk.peek(segment()).rstrip(b"\0"))
    log.append([(3, b"with its batch")])
    after = disk.kill()
    abandon(log)
    return after, staged, batch


def test_a_sound_frame_behind_a_torn_one_of_its_own_group_proves_nothing_and_is_cut_with_it() -> None:
    disk, staged, batch = group_of_two()
    overwrite(disk, segment(), staged + 130, b"\xff")
    end = len(disk.peek(segment()).rstrip(b"\0"))
    with open_log(disk) as log:
        report = log.recovery
    assert (report.last_lsn, report.cut_offset_bytes, report.cut_bytes) == (1, staged, end - staged)
    assert report.cut_bytes > batch - staged
    assert entries(disk) == numbered([(1, b"acknowledged")])


def test_a_flipped_bit_is_looked_for_in_what_is_refused_and_not_in_what_is_cut() -> None:
    disk = written([[(1, b"kept")], [(2, b"in doubt")]], close=False)
    overwrite(disk, segment(), 1536 + 200, bytes([disk.peek(segment())[1536 + 200] ^ 4]))
    findings = examine(PATH, disk)
    assert findings is not None
    assert (findings.stop.case.action, findings.stop.cursor.offset, findings.stop.flipped) == (CUT, 1536, None)
    with pytest.raises(wal.LogCorrupt, match="bit 2 of the byte at offset 1736 is flipped"):
        examine(PATH, disk, durable_lsn=2)


@pytest.mark.parametrize(("beyond", "action"), [(0, "cut"), (1, "refused")])
def test_a_torn_write_reaches_exactly_as_far_as_the_header_allows(beyond: int, action: str) -> None:
    disk = written([[(1, b"kept")]], close=False, segment_bytes=2 << 20, max_batch_bytes=256)
    offset = len(disk.peek(segment()).rstrip(b"\0"))
    end = offset + header(disk, 1).limits.in_doubt_bytes + beyond
    assert end < 2 << 20
    overwrite(disk, segment(), end - 1, b"\x01")
    if action == "refused":
        with pytest.raises(wal.LogCorrupt, match="more bytes stand here than a torn write can leave"):
            open_log(disk)
        return
    with open_log(disk) as log:
        assert (log.recovery.cut_offset_bytes, log.recovery.cut_bytes) == (offset, end - offset)
        assert log.recovery.last_lsn == 1


def test_a_sound_frame_at_the_log_s_end_that_does_not_belong_there_is_refused() -> None:
    disk = written([[(1, b"a")], [(2, b"b")], [(3, b"c")]], close=False)
    end = len(disk.peek(segment()).rstrip(b"\0"))
    for stale in (1024, 1536):
        overwrite(disk, segment(), end, disk.peek(segment())[stale : stale + 512])
        with pytest.raises(wal.LogCorrupt) as caught:
            open_log(disk)
        assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (1, end, 4)
        assert caught.value.problem == "a sound frame stands here that does not belong here"


def test_a_place_that_a_writer_has_filled_meanwhile_is_no_end() -> None:
    disk = written([[(1, b"a")], [(2, b"b")]], close=False)
    with wal.disk.opened(disk, segment()) as fd:
        window, begin = Window(disk, fd), header(disk, 1)
        cursor = start_of(begin)
        while cursor.offset < 2048:
            stop = judge(window, cursor, begin, after=None, after_empty=False, last_type=None)
            assert (stop.case.label, stop.case.action) == ("@A", ACCEPT)
            frame = next_frame(window, cursor)
            assert frame is not None
            cursor.advance(frame)
        assert judge(window, cursor, begin, after=None, after_empty=False, last_type=None).case.action == END


# The seal of the segment before an empty last one.


def seal_owed(records: int, segment_bytes: int) -> tuple[MemoryDisk, bytes]:
    """A log of three segments, the last one empty, as a crash leaves it before the second is sealed; and that sealed.

    The first two have `records` records together.
    """
    disk = MemoryDisk()
    room = segment_bytes - 4096
    with open_log(disk, segment_bytes=segment_bytes) as log:
        log.append([(1, bytes(room // 2))])
        log.append([(2, bytes(room // 2))])
        log.append([(3, b"")] * (records - 2))
        log.append([(4, bytes(room // 2))])
    assert [header(disk, number).first_lsn for number in (1, 2, 3)] == [1, 2, records + 1]
    sealed = disk.peek(segments(disk)[1])
    overwrite(disk, segments(disk)[2], HEADER_BYTES, bytes(segment_bytes - HEADER_BYTES))
    return disk, sealed


# The tree's frontier has two hashes for 3 records, and for 4095 it has twelve, which make the seal two sectors long.
SIZES = pytest.mark.parametrize(("records", "seal_bytes"), [(3, 512), (4095, 1024)])


@SIZES
def test_a_seal_that_was_written_is_found_however_long_it_is(records: int, seal_bytes: int) -> None:
    disk, sealed = seal_owed(records, 1 << 18)
    end = header(disk, 3).prev_end
    assert sealed[end - seal_bytes :][:4] == b"\xf3WAL"
    findings = examine(PATH, disk)
    assert findings is not None
    assert (findings.unsealed, findings.tree.size) == (None, records)


@SIZES
@pytest.mark.parametrize("torn", [b"\0", b"\xff"], ids=["zeros", "garbage"])
def test_a_seal_that_a_crash_kept_from_being_written_is_written_as_it_was_due(
    records: int, seal_bytes: int, torn: bytes
) -> None:
    disk, sealed = seal_owed(records, 1 << 18)
    end = header(disk, 3).prev_end
    assert len(sealed.rstrip(b"\0")) == end
    overwrite(disk, segments(disk)[1], end - seal_bytes, torn * seal_bytes)
    with open_log(disk, segment_bytes=1 << 18) as log:
        assert (log.recovery.records, log.recovery.cut_bytes, log.recovery.segments) == (records, 0, 3)
    assert disk.peek(segments(disk)[1]) == sealed
    assert wal.verify(PATH, disk=disk).status == "intact"


@SIZES
def test_a_byte_behind_the_place_of_an_owed_seal_is_no_crash_s_doing(records: int, seal_bytes: int) -> None:
    disk, _ = seal_owed(records, 1 << 18)
    end = header(disk, 3).prev_end
    overwrite(disk, segments(disk)[1], end - seal_bytes, bytes(seal_bytes) + b"\x01")
    with pytest.raises(wal.LogCorrupt, match="a frame of a finished segment is damaged") as caught:
        open_log(disk, segment_bytes=1 << 18)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (2, end - seal_bytes, records + 1)


def test_a_seal_is_owed_only_while_nothing_stands_in_the_segment_after_it() -> None:
    disk, _ = seal_owed(3, 1 << 18)
    end = header(disk, 3).prev_end
    overwrite(disk, segments(disk)[1], end - 512, bytes(512))
    overwrite(disk, segments(disk)[2], (1 << 18) - 1, b"\x01")
    with pytest.raises(wal.LogCorrupt, match="a frame of a finished segment is damaged") as caught:
        open_log(disk, segment_bytes=1 << 18)
    assert (caught.value.segment, caught.value.offset_bytes) == (2, end - 512)
