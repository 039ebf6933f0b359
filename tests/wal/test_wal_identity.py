"""Who a frame is, where it may stand, and what it is evidence of: each condition alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from log_rig import PATH, numbered, open_log, overwrite, segment, written

import wal
from wal.frames import CLOSE, DATA, HEARTBEAT, OPEN, STAGED, Frame, encode, frame_bytes, link, pack_records
from wal.recovery import examine
from wal.scan import Cursor, Rest, Window, flip_at, frame_at, is_next, next_frame, start_of, survey
from wal.segment import HEADER_BYTES, decode_header
from wal.tail import control_frame
from wal.testing import FaultDisk, MemoryDisk
from wal.tree import leaf_hashes

CURSOR = Cursor(b"i" * 16, 3, 4096, 57, 5, b"c" * 32, 2048)


def data_frame(cursor: Cursor = CURSOR, kind: int = DATA, payload: bytes = b"payload") -> tuple[Frame, bytes]:
    body, inners = pack_records([(1, payload)], bytes(16))
    frame = Frame(
        kind, frame_bytes(len(body)), 1, cursor.log_id, cursor.segment, cursor.offset, cursor.epoch, cursor.lsn,
        cursor.lsn - 1, cursor.durable_offset, cursor.chain, len(body),
        link(cursor.chain, cursor.lsn, leaf_hashes(cursor.lsn, inners)),
    )  # fmt: skip
    return frame, encode(frame, body)


def test_the_frame_that_belongs_at_the_cursor_is_the_next() -> None:
    for kind in (DATA, STAGED):
        assert is_next(data_frame(kind=kind)[0], CURSOR)
    for kind in (OPEN, HEARTBEAT, CLOSE):
        assert is_next(control_frame(CURSOR, kind, 4096), CURSOR)


@pytest.mark.parametrize(
    "change",
    [
        {"log_id": b"j" * 16}, {"segment": 2}, {"segment": 4}, {"offset": 3584}, {"offset": 4608},
        {"epoch": 4}, {"epoch": 6}, {"first_lsn": 56}, {"first_lsn": 58}, {"prev": b"d" * 32},
        {"durable_offset": 4608}, {"durable_offset": 1536}, {"durable_lsn": 57},
    ],
    ids=lambda change: "-".join(map(str, *change.items())),
)  # fmt: skip
def test_a_frame_that_differs_in_one_fact_is_not_the_next(change: dict[str, object]) -> None:
    assert not is_next(data_frame()[0]._replace(**change), CURSOR)


@pytest.mark.parametrize("epoch", [5, 7])
def test_only_an_open_frame_begins_an_epoch_and_it_is_the_one_after(epoch: int) -> None:
    assert not is_next(control_frame(CURSOR, OPEN, 4096)._replace(epoch=epoch), CURSOR)


# Evidence: a frame further on that was built when what stood at the cursor was durable.

LATER = replace(CURSOR, offset=6144, lsn=60, durable_offset=5120)


def evidence(image: bytes, at: int = 6144, *, length: int = 16384) -> Rest:
    """Survey a segment that has these bytes at an offset, and zeros elsewhere past the cursor."""
    disk = MemoryDisk()
    disk.poke(PATH, bytes(at) + image + bytes(length - at - len(image)))
    return survey(Window(disk, disk.open(PATH)), CURSOR)


def test_a_later_frame_proves_what_it_says_was_durable() -> None:
    frame, image = data_frame(LATER)
    assert evidence(image) == Rest(6144 + len(image), frame.durable_offset, frame.durable_lsn, 60)


def test_a_sound_frame_that_stands_at_the_place_itself_or_goes_back_says_not_where_the_log_goes_on() -> None:
    for cursor in (replace(CURSOR, epoch=9), replace(LATER, lsn=CURSOR.lsn - 1)):
        _, image = data_frame(cursor)
        assert evidence(image, at=cursor.offset).next_lsn is None
    _, image = data_frame(replace(LATER, lsn=CURSOR.lsn))
    assert evidence(image).next_lsn == CURSOR.lsn


@pytest.mark.parametrize("change", [{"log_id": b"j" * 16}, {"segment": 2}], ids=["another log", "another segment"])
def test_a_frame_of_somewhere_else_proves_nothing(change: dict[str, object]) -> None:
    _, image = data_frame(replace(LATER, **change))
    assert evidence(image).durable_offset == 0


def test_a_copy_of_a_frame_at_another_place_proves_nothing() -> None:
    _, image = data_frame(LATER)
    assert evidence(image, at=6656).durable_offset == 0
    assert evidence(image, at=6144 + 8).durable_offset == 0


def test_a_frame_between_two_sectors_proves_nothing_though_it_says_that_it_stands_there() -> None:
    assert evidence(data_frame(replace(LATER, offset=6144 + 8))[1], at=6144 + 8).durable_offset == 0


def test_a_frame_whose_checksums_hold_and_whose_chain_does_not_proves_nothing() -> None:
    frame, _ = data_frame(LATER)
    body, _ = pack_records([(1, b"payloae")], bytes(16))
    assert evidence(encode(frame, body)).durable_offset == 0


def test_a_damaged_frame_proves_nothing() -> None:
    _, image = data_frame(LATER)
    assert evidence(image[:200] + b"\x01" + image[201:]).durable_offset == 0


def test_nothing_but_zeros_is_no_evidence_and_no_use() -> None:
    assert evidence(b"") == Rest(CURSOR.offset, 0, 0)


def test_whatever_byte_stands_last_is_counted_unless_it_is_zero() -> None:
    for last in range(1, 256):
        assert evidence(bytes([1, last, 0])).used_end == 6144 + 2


def test_evidence_is_found_between_damaged_frames() -> None:
    torn = data_frame(LATER)[1][:200].ljust(512, b"\xff")
    frame, image = data_frame(replace(LATER, offset=6144 + 1024))
    assert evidence(torn * 2 + image + torn * 2) == Rest(6144 + 2560, frame.durable_offset, frame.durable_lsn, 60)


def test_where_the_log_goes_on_is_past_the_place_asked_about_and_not_before_its_lsn() -> None:
    _, here = data_frame()
    assert evidence(here, at=4096) == Rest(4096 + 512, 2048, 56, None)
    _, stale = data_frame(replace(LATER, lsn=56))
    assert evidence(stale).next_lsn is None
    _, same = data_frame(replace(LATER, lsn=57))
    assert evidence(same).next_lsn == 57


def test_of_several_proofs_the_one_that_goes_furthest_counts() -> None:
    proofs = [
        (data_frame(LATER)[0]._replace(durable_offset=offset, durable_lsn=lsn))
        for offset, lsn in ((5120, 59), (4608, 58))
    ]
    body, _ = pack_records([(1, b"payload")], bytes(16))
    for first, second in (proofs, proofs[::-1]):
        image = encode(first, body) + encode(second._replace(offset=6656), body)
        assert evidence(image) == Rest(6144 + 1024, 5120, 59, 60)


def test_evidence_is_found_however_far_away_it_stands() -> None:
    far = replace(LATER, offset=3 << 20)
    frame, image = data_frame(far)
    assert evidence(image, at=3 << 20, length=4 << 20) == Rest((3 << 20) + len(image), frame.durable_offset, 59, 60)


def test_a_window_that_was_refreshed_reads_even_the_least_anew() -> None:
    disk = MemoryDisk()
    disk.poke(PATH, b"old")
    fd = disk.open(PATH, write=True)
    window = Window(disk, fd)

    def first_byte() -> bytes:
        at = window.locate(0, 1)
        return window.buffer[at : at + 1]

    assert first_byte() == b"o"
    disk.pwrite(fd, b"new", 0)
    assert first_byte() == b"o"
    window.refresh()
    assert first_byte() == b"n"


def test_a_long_frame_may_end_with_its_file() -> None:
    frame, image = data_frame(payload=bytes(1_500_000))
    for length, found in ((len(image), frame), (len(image) - 512, None)):
        disk = MemoryDisk()
        disk.poke(PATH, bytes(4096) + image[:length])
        assert frame_at(Window(disk, disk.open(PATH)), 4096) == found


def test_a_sound_frame_that_does_not_belong_at_the_cursor_is_not_read_there() -> None:
    frame, image = data_frame()
    disk = MemoryDisk()
    disk.poke(PATH, bytes(4096) + image)
    window = Window(disk, disk.open(PATH))
    assert next_frame(window, CURSOR) == frame
    for other in (replace(CURSOR, lsn=58), replace(CURSOR, chain=b"d" * 32), replace(CURSOR, segment=4)):
        assert next_frame(window, other) is None


def test_what_a_window_holds_is_not_read_again_to_its_last_byte() -> None:
    memory = MemoryDisk()
    memory.poke(PATH, bytes(range(250)) * 4)
    disk = FaultDisk(memory)
    window = Window(disk, disk.open(PATH))
    assert (window.locate(0, 1), window.buffer) == (0, bytes(range(250)) * 4)
    reads = disk.calls["pread"]
    assert [window.locate(offset, 1000 - offset) for offset in (0, 1, 500, 999)] == [0, 1, 500, 999]
    assert disk.calls["pread"] == reads
    assert (window.locate(500, 501), window.start, len(window.buffer)) == (0, 500, 500), "read anew: more may be there"
    assert (window.locate(499, 1), window.start) == (0, 499), "and what lies before it"
    assert disk.calls["pread"] > reads


def test_a_frame_that_begins_in_what_was_read_and_ends_beyond_is_read_whole() -> None:
    records = [[(n, bytes([n]) * 300_000)] for n in range(1, 6)]
    disk = written(records, segment_bytes=2 << 20)
    with wal.disk.opened(disk, segment()) as fd:
        window = Window(disk, fd)
        cursor = start_of(decode_header(disk.peek(segment())[:HEADER_BYTES], 1, segment()))
        found = []
        while (frame := next_frame(window, cursor)) is not None:
            found.append((frame.type, frame.records))
            cursor.advance(frame)
    assert found == [(OPEN, 0), *[(DATA, 1)] * 5, (CLOSE, 0)]


@pytest.mark.parametrize(
    "look", [lambda window: frame_at(window, 4096), lambda window: flip_at(window, CURSOR)], ids=["frame", "flip"]
)
def test_a_header_that_claims_more_than_the_file_has_is_no_frame_and_nothing_is_read_for_it(
    look: Callable[[Window], object],
) -> None:
    frame, image = data_frame()
    claims = encode(frame._replace(length=512 << 10), b"")[:512]
    memory = MemoryDisk()
    memory.poke(PATH, bytes(4096) + claims + image)
    disk = FaultDisk(memory)
    window = Window(disk, disk.open(PATH))
    assert look(window) is None
    assert disk.calls["pread"] == 2, "the window's first piece, to its end"


# What the caller knows, and what the medium knows.


def test_what_the_caller_knows_to_be_acknowledged_is_never_cut() -> None:
    disk = written([[(1, b"a")], [(2, b"b")]], close=False)
    overwrite(disk, segment(), 1536, bytes(512))
    findings = examine(PATH, disk)
    assert findings is not None
    assert findings.stop.cursor.lsn == 2
    assert examine(PATH, disk, durable_lsn=1) is not None
    with pytest.raises(wal.LogCorrupt, match="LSN 2: a frame that was acknowledged"):
        examine(PATH, disk, durable_lsn=2)


class Diary(FaultDisk):
    """Remembers what it was asked to do, in order."""

    def __init__(self, inner: wal.Disk) -> None:
        super().__init__(inner)
        self.done: list[str] = []

    def _enter(self, op: str) -> None:
        self.done.append(op)
        super()._enter(op)


def test_opening_syncs_and_drops_the_cache_before_it_reads() -> None:
    disk = Diary(written([[(1, b"a")]], close=False))
    open_log(disk).close()
    first_read = disk.done.index("pread")
    assert disk.done.index("fdatasync") < disk.done.index("drop_cache") < first_read


def test_after_a_crash_the_last_segment_is_written_anew_and_after_a_close_it_is_not() -> None:
    for close in (False, True):
        memory = written([[(1, b"a")]], close=close)
        disk = Diary(memory)
        open_log(disk).close()
        assert ("rename" in disk.done) is not close


def test_closing_proves_a_staged_record_that_no_batch_followed() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        assert log.stage(1, b"staged").wait(30)
    overwrite(disk, segment(), 1024 + 130, b"\xff")
    with pytest.raises(wal.LogCorrupt, match="LSN 1: a frame that was acknowledged"):
        examine(PATH, disk)


def test_a_quarantine_has_a_durable_name_before_the_segment_loses_the_bytes() -> None:
    memory = written([[(1, b"a")]], close=False)
    overwrite(memory, segment(), 1536, b"torn")
    disk = Diary(memory)
    open_log(disk).close()
    before_rename = disk.done[: disk.done.index("rename")]
    assert before_rename.count("fsync_dir") == 2  # once before anything is read, once for the quarantine


# A writer that goes on between two reads.


class Late(FaultDisk):
    """Shows a hole that the writer had not yet filled, and after it what the writer wrote since. Once."""

    def __init__(self, inner: wal.Disk, log: wal.Log, hole: int) -> None:
        super().__init__(inner)
        self._log = log
        self._hole = hole
        self._stale = True

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        if offset == 0 or not self._stale:
            return super().pread(fd, length, offset)
        self._stale = False
        for n in range(3):
            self._log.append([(n, b"x")])
        at = self._hole - offset
        fresh = super().pread(fd, length, offset)
        return fresh[:at] + bytes(512) + fresh[at + 512 :]


def test_a_reader_does_not_call_damage_what_was_filled_after_it_was_read() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        reader = wal.Reader(PATH, disk=Late(disk, log, hole=1024))
        found: list[wal.Entry] = []
        while more := reader.poll():
            found += more
        assert found == numbered([(0, b"x"), (1, b"x")])


def test_verify_does_not_call_damage_what_was_filled_after_it_was_read() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        verdict = wal.verify(PATH, disk=Late(disk, log, hole=1024))
    assert (verdict.status, verdict.records, verdict.live) == ("intact", 3, True)
