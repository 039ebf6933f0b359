"""Damage as a reader meets it: what is sound comes first, then the place is named, exactly. Never a silent end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from log_rig import PATH, entries, frames_of, numbered, open_log, overwrite, segments, written

import wal
from wal.frames import CLOSE, Frame
from wal.segment import SECTOR_BYTES
from wal.testing import MemoryDisk

RECORDS = [(n, bytes([n + 1]) * (200 + 170 * n)) for n in range(12)]
BATCHES = [RECORDS[:3], RECORDS[3:4], RECORDS[4:6], *[[record] for record in RECORDS[6:]]]
GARBAGE = bytes(range(255, -1, -1)) * 2


def several() -> MemoryDisk:
    return written(BATCHES)


SOURCE = several()
PLACES = segments(SOURCE)
FIRSTS = [int(place.name[9:29]) for place in PLACES]
SPOTS: dict[str, Callable[[Frame], tuple[int, bytes]]] = {
    "a bit of its head": lambda frame: (frame.offset + 57, b"\x40"),
    "a bit of its payload": lambda frame: (frame.offset + 150, b"\x01"),
    "a bit of its padding": lambda frame: (frame.end - 37, b"\x80"),
    "a bit of its end": lambda frame: (frame.end - 1, b"\x02"),
}
SECTORS: dict[str, bytes] = {"zeros": bytes(SECTOR_BYTES), "garbage": GARBAGE}


def read_on(reader: wal.Reader, found: list[wal.Entry]) -> wal.LogCorrupt | None:
    """Read to the end, and past it once more: what is refused stays refused."""
    refusal: wal.LogCorrupt | None = None
    for _ in range(2):
        try:
            while more := reader.poll(2):
                found += more
        except wal.LogCorrupt as error:
            refusal = error
    return refusal


def assert_stops_at(disk: MemoryDisk, frame: Frame) -> None:
    found: list[wal.Entry] = []
    refusal = read_on(wal.Reader(PATH, disk=disk), found)
    assert found == numbered(RECORDS)[: frame.first_lsn - 1]
    if frame.type == CLOSE:  # nothing proves it, and no record is lost with it
        assert refusal is None
        assert len(found) == len(RECORDS)
        return
    assert refusal is not None
    assert (refusal.segment, refusal.offset_bytes, refusal.lsn) == (frame.segment, frame.offset, frame.first_lsn)


@pytest.mark.parametrize("what", SPOTS)
def test_a_reader_stops_at_exactly_the_frame_in_which_a_bit_flipped(what: str) -> None:
    for place in PLACES:
        for frame in frames_of(SOURCE, place):
            disk = SOURCE.copy()
            offset, flip = SPOTS[what](frame)
            overwrite(disk, place, offset, bytes([disk.peek(place)[offset] ^ flip[0]]))
            assert_stops_at(disk, frame)


@pytest.mark.parametrize("what", SECTORS)
def test_a_reader_stops_at_exactly_the_frame_that_lost_a_sector(what: str) -> None:
    for place in PLACES:
        for frame in frames_of(SOURCE, place):
            for offset in range(frame.offset, frame.end, SECTOR_BYTES):
                disk = SOURCE.copy()
                overwrite(disk, place, offset, SECTORS[what])
                assert_stops_at(disk, frame)


@pytest.mark.parametrize("what", SECTORS)
def test_a_reader_stops_before_a_segment_whose_header_is_lost(what: str) -> None:
    for place, first_lsn in zip(PLACES, FIRSTS, strict=True):
        disk = SOURCE.copy()
        overwrite(disk, place, 0, SECTORS[what])
        found: list[wal.Entry] = []
        refusal = read_on(wal.Reader(PATH, disk=disk), found)
        assert refusal is not None
        assert (refusal.segment, refusal.offset_bytes) == (int(place.name[:8]), 0)
        assert found == numbered(RECORDS)[: first_lsn - 1]


@pytest.mark.parametrize("begun", [False, True], ids=["a new reader", "one that had begun"])
def test_a_reader_of_a_file_that_was_cut_short_never_takes_that_for_the_end(*, begun: bool) -> None:
    for place, first_lsn in zip(PLACES, FIRSTS, strict=True):
        image = SOURCE.peek(place)
        for cut in {*range(0, len(image), 173), *range(512, len(image), 512)}:
            disk = SOURCE.copy()
            reader = wal.Reader(PATH, disk=disk)
            found: list[wal.Entry] = []
            while begun and len(found) < first_lsn:
                found += reader.poll(1)
            disk.poke(place, image[:cut])
            refusal = read_on(reader, found)
            assert found == numbered(RECORDS)[: len(found)]
            if refusal is None:  # what was cut off stood behind the seal, and the reader was past the header
                assert begun
                assert cut >= frames_of(SOURCE, place)[-1].end
                assert len(found) == len(RECORDS)
                assert place != PLACES[-1]
            else:
                assert refusal.segment == int(place.name[:8])


@pytest.mark.parametrize("close", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("what", SECTORS)
def test_a_sector_lost_from_the_last_segment_is_refused_or_torn_when_the_log_is_opened(
    what: str, *, close: bool
) -> None:
    source = written(BATCHES, close=close)
    place = segments(source)[-1]
    newest = frames_of(source, place)[-1]
    for offset in range(0, newest.end, SECTOR_BYTES):
        disk = source.copy()
        overwrite(disk, place, offset, SECTORS[what])
        if offset < newest.offset:
            with pytest.raises(wal.LogCorrupt):
                open_log(disk)
            continue
        with open_log(disk) as log:
            assert log.recovery.last_lsn == newest.first_lsn - 1
            whole_frame_of_zeros = newest.length == SECTOR_BYTES and what == "zeros"
            assert (log.recovery.cut_bytes > 0) is not whole_frame_of_zeros, "the documented limit"


def without(disk: MemoryDisk, place: Path) -> None:
    disk.unlink(place)


def doubled(disk: MemoryDisk, place: Path) -> None:
    disk.poke(place.with_name(f"{place.name[:8]}-{999:020d}.wal"), disk.peek(place))


def swapped(disk: MemoryDisk, place: Path) -> None:
    other = PLACES[PLACES.index(place) - 1]
    one, two = disk.peek(place), disk.peek(other)
    disk.poke(place, two)
    disk.poke(other, one)


def foreign(disk: MemoryDisk, place: Path) -> None:
    disk.poke(place, written(BATCHES, entropy=lambda length: b"o" * length).peek(place))


def misdirected(disk: MemoryDisk, place: Path) -> None:
    """Its second frame was written over the first as well: right checksums, wrong place."""
    one, two = frames_of(SOURCE, place)[:2]
    overwrite(disk, place, one.offset, SOURCE.peek(place)[two.offset : two.end])


@pytest.mark.parametrize("begun", [False, True], ids=["a new reader", "one that had begun"])
@pytest.mark.parametrize("harm", [without, doubled, swapped, foreign, misdirected], ids=lambda harm: harm.__name__)
def test_a_reader_stops_with_an_error_at_segments_and_frames_that_are_not_in_their_place(
    harm: Callable[[MemoryDisk, Path], None], *, begun: bool
) -> None:
    for place in PLACES[1:]:
        disk = SOURCE.copy()
        reader = wal.Reader(PATH, disk=disk)
        found = reader.poll(1) if begun else []
        harm(disk, place)
        assert read_on(reader, found) is not None
        assert found == numbered(RECORDS)[: len(found)]
        assert len(found) < len(RECORDS)


# What is old and comes back.


def pruned() -> tuple[MemoryDisk, int]:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        return disk, log.prune(FIRSTS[2]).first_lsn


def test_segments_that_were_pruned_and_come_back_are_left_out_and_removed_by_opening() -> None:
    for back in ([0], [1], [0, 1]):
        disk, first_lsn = pruned()
        for number in back:
            disk.poke(PLACES[number], SOURCE.peek(PLACES[number]))
        expected = numbered(RECORDS)[first_lsn - 1 :]
        assert list(wal.read(PATH, None, disk=disk)) == expected
        with pytest.raises(wal.Trimmed):
            entries(disk)
        verdict = wal.verify(PATH, disk=disk)
        assert (verdict.status, verdict.first_lsn) == ("pruned", first_lsn)
        with open_log(disk) as log:
            assert log.recovery.first_lsn == first_lsn
        assert segments(disk)[0] == PLACES[2]


def test_a_frame_that_recovery_had_cut_and_that_comes_back_is_no_record_again() -> None:
    """At its old place it is from an epoch that is over, and contradicts what follows it: a close, or a batch."""
    records = [(n, b"%d" % n) for n in range(3)]
    for instead in (0, 1):
        disk = written([[record] for record in records], close=False)
        last = frames_of(disk, PLACES[0])[-1]
        cut = disk.peek(PLACES[0])[last.offset : last.end]
        overwrite(disk, PLACES[0], last.offset + 130, b"\xff")
        with open_log(disk) as log:
            assert log.recovery.last_lsn == 2
            for _ in range(instead):
                log.append([(9, bytes(2000))])
        overwrite(disk, PLACES[0], last.offset, cut)
        found: list[wal.Entry] = []
        assert read_on(wal.Reader(PATH, disk=disk), found) is not None
        assert found == numbered(records[:2])
        with pytest.raises(wal.LogCorrupt):
            open_log(disk)


def test_files_under_construction_that_come_back_are_written_anew() -> None:
    for name in ("spare.tmp", "repair.tmp", "redact.tmp"):
        disk = SOURCE.copy()
        disk.poke(PATH / name, SOURCE.peek(PLACES[1]))
        assert entries(disk) == numbered(RECORDS)
        with open_log(disk) as log:
            if name != "spare.tmp":  # which the writer has by now, and works with
                disk.poke(PATH / name, SOURCE.peek(PLACES[1]))
            log.redact(lambda entry: entry.lsn == 2)
            for record in RECORDS:
                log.append([record])
        found = entries(disk)
        assert found[2:] == numbered([*RECORDS, *RECORDS])[2:]
        assert found[1] == wal.Redacted(2, 1, b"")
        assert wal.verify(PATH, disk=disk).status == "redacted"


@pytest.mark.parametrize("also_base", [False, True])
def test_a_log_that_is_gone_while_a_reader_waits_past_a_seal_is_refused(also_base: bool) -> None:
    disk = several()
    reader = wal.Reader(PATH, disk=disk)
    found = reader.poll(1)
    while found[-1].lsn + 1 < FIRSTS[1]:
        found = reader.poll(1)
    for place in list(disk.files()):
        if also_base or place.suffix == ".wal":
            disk.unlink(place)
    for _ in range(2):
        with pytest.raises(wal.LogCorrupt, match="missing"):
            reader.poll()


FINDING: dict[str, Callable[[MemoryDisk], object]] = {
    "open": open_log,
    "read": lambda disk: list(wal.read(PATH, disk=disk)),
    "head": lambda disk: wal.head(PATH, disk=disk),
    "proof": lambda disk: wal.prove_inclusion(PATH, 1, disk=disk),
    "consistency": lambda disk: wal.prove_consistency(PATH, 1, disk=disk),
    "segments": lambda disk: wal.segments(PATH, disk=disk),
    "copy": lambda disk: wal.copy(PATH, PATH / "copy", disk=disk),
    "prune": lambda disk: wal.prune(PATH, 99, disk=disk),
}


@pytest.mark.parametrize("how", FINDING)
def test_damage_names_the_log_it_is_in(how: str) -> None:
    """A process may have several, a backup beside its own for instance."""
    disk = several()
    overwrite(disk, PLACES[0], frames_of(disk, PLACES[0])[0].offset + 57, b"\x55")
    for place in PLACES[1:]:
        overwrite(disk, place, 60, b"\x55")  # their headers
    with pytest.raises(wal.LogCorrupt) as caught:
        FINDING[how](disk)
    assert caught.value.path == PATH
    assert caught.value.__notes__ == [f"The log is {PATH}."]
