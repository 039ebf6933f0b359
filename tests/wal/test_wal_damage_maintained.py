"""Damage as a prune, a redaction and a rotation meet it: refused, named, and nothing made worse."""

from collections.abc import Callable
from pathlib import Path

import pytest
from log_rig import PATH, abandon, contents, entries, frames_of, numbered, open_log, overwrite, segments, written

import wal
from wal.segment import SECTOR_BYTES
from wal.testing import MemoryDisk

RECORDS = [(n, bytes([n + 1]) * (200 + 170 * n)) for n in range(12)]
BATCHES = [RECORDS[:3], RECORDS[3:4], RECORDS[4:6], *[[record] for record in RECORDS[6:]]]
SOURCE = written(BATCHES)
PLACES = segments(SOURCE)
FINISHED = PLACES[:-1]
FIRSTS = [int(place.name[9:29]) for place in PLACES]


def everything(_: wal.Entry) -> bool:
    return True


MAINTENANCE: dict[str, Callable[[wal.Log], object]] = {
    "prune": lambda log: log.prune(FIRSTS[-1]),
    "redact": lambda log: log.redact(everything),
}
each = pytest.mark.parametrize("what", MAINTENANCE)


def assert_refused(disk: MemoryDisk, log: wal.Log, what: str, *, number: int) -> None:
    """The harmed segment is named and stays as it is; what stands before it may have been redacted, and no more."""
    before = contents(disk)
    with pytest.raises(wal.LogCorrupt) as caught:
        MAINTENANCE[what](log)
    assert abs(caught.value.segment - number) <= 1, caught.value
    after = contents(disk)
    changed = {place for place in before if after.get(place) != before[place]}
    assert changed <= (set() if what == "prune" else set(PLACES[: number - 1]))
    assert after.keys() == before.keys()
    assert log.append([(99, b"the writer goes on")])


def test_a_redaction_meets_every_bit_flip_and_every_lost_sector_of_a_finished_segment() -> None:
    for place in FINISHED:
        image = SOURCE.peek(place)
        for frame in frames_of(SOURCE, place):
            changes = {
                offset: bytes([image[offset] ^ 1 << offset % 8]) for offset in range(frame.offset, frame.end, 61)
            } | {frame.end - 1: bytes([image[frame.end - 1] ^ 1])}
            lost = [(frame.offset, bytes(SECTOR_BYTES)), (frame.end - SECTOR_BYTES, b"\xa5" * SECTOR_BYTES)]
            for offset, data in (*changes.items(), *lost):
                disk = SOURCE.copy()
                log = open_log(disk)
                overwrite(disk, place, offset, data)
                assert_refused(disk, log, "redact", number=int(place.name[:8]))
                log.close()


@each
def test_a_segment_that_was_cut_short_at_any_length_is_refused(what: str) -> None:
    for place in FINISHED:
        image = SOURCE.peek(place)
        for length in (0, 1, 100, 511, *range(512, len(image), 512), len(image) - 1):
            disk = SOURCE.copy()
            log = open_log(disk)
            disk.poke(place, image[:length])
            assert_refused(disk, log, what, number=int(place.name[:8]))
            log.close()


def without(disk: MemoryDisk, place: Path) -> None:
    disk.unlink(place)


def doubled(disk: MemoryDisk, place: Path) -> None:
    disk.poke(place.with_name(f"{place.name[:8]}-{999:020d}.wal"), disk.peek(place))


def swapped(disk: MemoryDisk, place: Path) -> None:
    other = PLACES[PLACES.index(place) + 1]
    one, two = disk.peek(place), disk.peek(other)
    disk.poke(place, two)
    disk.poke(other, one)


def foreign(disk: MemoryDisk, place: Path) -> None:
    disk.poke(place, written(BATCHES, entropy=lambda length: b"o" * length).peek(place))


def headless(disk: MemoryDisk, place: Path) -> None:
    overwrite(disk, place, 90, b"\xff")


@each
@pytest.mark.parametrize("harm", [without, doubled, swapped, foreign, headless], ids=lambda harm: harm.__name__)
def test_segments_that_are_not_in_their_place_are_refused(harm: Callable[[MemoryDisk, Path], None], what: str) -> None:
    for place in FINISHED[:-1]:
        disk = SOURCE.copy()
        log = open_log(disk)
        harm(disk, place)
        assert_refused(disk, log, what, number=int(place.name[:8]))
        log.close()


def test_a_sound_frame_in_the_wrong_place_of_a_finished_segment_is_refused() -> None:
    for place in FINISHED:
        frames = frames_of(SOURCE, place)
        for at, from_where in ((0, 1), (1, 0)):
            disk = SOURCE.copy()
            log = open_log(disk)
            source = frames[from_where]
            overwrite(disk, place, frames[at].offset, SOURCE.peek(place)[source.offset : source.end])
            assert_refused(disk, log, "redact", number=int(place.name[:8]))
            log.close()


def test_a_seal_that_a_sync_lied_about_is_missed_once_its_successor_is_in_use() -> None:
    """No manifest: the header of the next segment says where the seal must end, and what the tree is there."""
    for place in FINISHED:
        seal = frames_of(SOURCE, place)[-1]
        disk = SOURCE.copy()
        log = open_log(disk)
        overwrite(disk, place, seal.offset, bytes(seal.length))
        for what in MAINTENANCE:
            assert_refused(disk, log, what, number=int(place.name[:8]))
        log.close()
        with pytest.raises(wal.LogCorrupt) as caught:
            open_log(disk)
        assert (caught.value.segment, caught.value.offset_bytes) == (int(place.name[:8]), seal.offset)


def test_a_rotation_never_goes_over_a_segment_that_is_there() -> None:
    for stray in (SOURCE.peek(PLACES[1]), b"a restored backup, or another writer's"):
        disk = MemoryDisk()
        log = open_log(disk)
        log.append([(1, bytes(3000))])
        place = PATH / f"{2:08d}-{999:020d}.wal"
        disk.poke(place, stray)
        with pytest.raises(wal.OutcomeUnknown, match="next segment is there already"):
            log.append([(2, bytes(3900))])
        abandon(log)
        assert disk.peek(place) == stray
        disk.unlink(place)
        with open_log(disk) as log:
            assert list(log.read()) == numbered([(1, bytes(3000))])
        assert wal.verify(PATH, disk=disk).status == "intact"


def test_payloads_of_every_kind_survive_a_rotation_a_redaction_and_a_prune() -> None:
    frame = frames_of(SOURCE, PLACES[0])[1]
    a_frame = SOURCE.peek(PLACES[0])[frame.offset : frame.end]
    payloads = [b"", bytes(700), a_frame, a_frame * 2, b"\xf3WAL" * 100, bytes(range(256))]
    records = [(n, payload) for n, payload in enumerate(payloads * 4)]
    disk = MemoryDisk()
    with open_log(disk) as log:
        for record in records:
            log.append([record])
        reader = wal.Reader(PATH, disk=disk)
        before = reader.poll(3)
        log.redact(lambda entry: entry.lsn % 5 == 0)
        while more := reader.poll(3):
            before += more
        first_lsn = log.prune(9).first_lsn
        assert first_lsn > 1
    expected = numbered(records)
    for found in (before, list(wal.read(PATH, None, disk=disk))):
        assert len(found) > 10
        for entry in found:
            assert entry.payload == (b"" if isinstance(entry, wal.Redacted) else expected[entry.lsn - 1].payload)
            assert not isinstance(entry, wal.Redacted) or entry.lsn % 5 == 0
    assert [entry.lsn for entry in before] == list(range(1, len(before) + 1))
    assert wal.verify(PATH, disk=disk).sound
    assert entries(disk, after=first_lsn - 1)[0].lsn == first_lsn
