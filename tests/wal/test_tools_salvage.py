"""Salvage: what is sound is saved, and what is lost is named, exactly, whatever was done to the files."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rig import (
    PATH,
    SEGMENT_BYTES,
    contents,
    entries,
    frames_of,
    numbered,
    open_log,
    overwrite,
    segment,
    segments,
    written,
)

import wal
from wal.disk import opened
from wal.frames import MAGIC, Frame
from wal.salvage import Damage, Loss, SalvageReport, salvage
from wal.segment import BASE_NAME
from wal.shelf import read_segment
from wal.testing import MemoryDisk

RECORDS = [(n, bytes([n]) * (300 + 150 * n)) for n in range(14)]
BATCHES = [RECORDS[:2], RECORDS[2:3], RECORDS[3:6], *[[record] for record in RECORDS[6:]]]
COUNT = len(RECORDS)


def several() -> MemoryDisk:
    """A closed log of four segments: batches of 2, 1, 3 and then of 1 record."""
    return written(BATCHES)


def lsns(frame: Frame) -> range:
    return range(frame.first_lsn, frame.first_lsn + frame.records)


def saved(disk: wal.Disk) -> tuple[SalvageReport, list[wal.Entry]]:
    found = salvage(PATH, disk=disk)
    return found.report, list(found)


def lost_lsns(report: SalvageReport) -> set[int]:
    return {
        lsn for loss in report.lost for lsn in range(loss.first_lsn, (loss.last_lsn or max(COUNT, loss.first_lsn)) + 1)
    }


def test_an_undamaged_log_is_saved_whole_and_nothing_is_said_to_be_lost() -> None:
    disk = several()
    before = contents(disk)
    report, found = saved(disk)
    assert found == numbered(RECORDS) == entries(disk)
    assert (report.records, report.first_lsn, report.last_lsn, report.files) == (COUNT, 1, COUNT, len(segments(disk)))
    assert (report.lost, report.damage, report.torn, report.breaks, report.stale_records) == ((), (), None, (), 0)
    assert report.complete
    assert report.lost_records == 0
    assert report.log_id == read_segment(segment(), disk).header.log_id
    assert contents(disk) == before


DAMAGE = st.tuples(
    st.sampled_from(["flip", "zero", "garbage", "truncate", "remove"]),
    st.integers(0, 3),
    st.integers(0, SEGMENT_BYTES - 1),
)


def harm(disk: MemoryDisk, kind: str, place: Path, offset: int) -> None:
    if place not in disk.files():
        return
    image = bytearray(disk.peek(place))
    sector = slice(offset // 512 * 512, offset // 512 * 512 + 512)
    length = len(image[sector])
    if kind == "remove":
        disk.unlink(place)
        return
    if kind == "truncate":
        del image[offset:]
    elif offset < len(image):
        image[sector] = {
            "flip": bytes([*image[sector.start : offset], image[offset] ^ 0x20, *image[offset + 1 : sector.stop]]),
            "zero": bytes(length),
            "garbage": (b"\xa5\x5a" * 256)[:length],
        }[kind]
    disk.poke(place, bytes(image))


@given(harms=st.lists(DAMAGE, min_size=1, max_size=4))
@settings(deadline=None, max_examples=150)
def test_exactly_the_records_of_touched_frames_are_lost_wherever_the_damage_falls(
    harms: list[tuple[str, int, int]],
) -> None:
    disk = several()
    places = segments(disk)
    layout = {place: list(frames_of(disk, place)) for place in places}
    before = contents(disk)
    for kind, number, offset in harms:
        harm(disk, kind, places[number], offset)
    after = {place: image for place, image in contents(disk).items() if place.suffix == ".wal"}

    def survives(place: Path, frame: Frame) -> bool:
        span = slice(frame.offset, frame.end)
        return place in after and after[place][span] == before[place][span]

    sound = [frame for place, all_frames in layout.items() for frame in all_frames if survives(place, frame)]
    expected = {lsn for frame in sound for lsn in lsns(frame)}

    report, found = saved(disk)
    assert found == [entry for entry in numbered(RECORDS) if entry.lsn in expected]
    assert report.records == len(expected)
    lost = lost_lsns(report)
    assert lost & expected == set()
    assert all(loss.last_lsn is None or loss.last_lsn <= COUNT for loss in report.lost)
    unsaid = set(range(1, COUNT + 1)) - expected - lost
    if unsaid:  # only what opening, too, would take for the end of the log, or for a write that was never acknowledged
        last = places[-1]
        end = max([frame.end for frame in layout[last] if survives(last, frame)], default=512)
        assert min(unsaid) > max(expected | lost, default=0)
        assert (report.torn is not None and report.torn.offset_bytes == end) or not after[last][end:].strip(b"\0")


def test_a_record_s_loss_is_placed_where_it_stood() -> None:
    disk = several()
    place = segments(disk)[1]
    victim = list(frames_of(disk, place))[1]
    overwrite(disk, place, victim.offset + 200, b"\xff\xff")
    report, found = saved(disk)
    assert [entry.lsn for entry in found] == [lsn for lsn in range(1, COUNT + 1) if lsn not in lsns(victim)]
    assert report.lost == (Loss(victim.first_lsn, lsns(victim)[-1], 2, victim.offset),)
    assert report.damage == (
        Damage(place.name, victim.offset, victim.end, f"a frame whose checksum is wrong, LSN {victim.first_lsn}"),
    )
    assert report.lost_records == victim.records
    assert not report.complete


def test_a_batch_in_the_middle_is_lost_whole() -> None:
    disk = several()
    victim = next(frame for frame in frames_of(disk, segment()) if frame.records == 3)
    overwrite(disk, segment(), victim.end - 1, b"\x00\x01")
    report, _ = saved(disk)
    assert [(loss.first_lsn, loss.last_lsn) for loss in report.lost] == [(victim.first_lsn, victim.first_lsn + 2)]


def test_what_fills_a_damaged_frame_s_place_is_one_damage() -> None:
    disk = several()
    victim = next(frame for frame in frames_of(disk, segment()) if frame.records == 3)
    overwrite(disk, segment(), victim.offset, b"\xa5" * 512 + bytes(victim.length - 512))
    report, _ = saved(disk)
    assert report.damage == (Damage(segment().name, victim.offset, victim.end, "bytes that are no frame"),)


def test_a_frame_s_beginning_inside_a_payload_is_no_frame() -> None:
    disk = written([[(1, b"x" * 613 + MAGIC + b"y" * 900)], *BATCHES[1:3]])
    victim = next(frame for frame in frames_of(disk, segment()) if frame.records)
    overwrite(disk, segment(), victim.offset + 4, b"\xff")
    report, _ = saved(disk)
    assert report.damage == (Damage(segment().name, victim.offset, victim.end, "a frame whose head is damaged"),)
    assert lost_lsns(report) == {1}


def test_the_records_before_an_empty_segment_are_known_to_its_header() -> None:
    disk = several()
    before, last = segments(disk)[-2:]
    disk.poke(last, disk.peek(last)[:512].ljust(SEGMENT_BYTES, b"\0"))
    data, seal = list(frames_of(disk, before))[-2:]
    overwrite(disk, before, data.offset, bytes(seal.end - data.offset))
    report, _ = saved(disk)
    assert report.lost == (Loss(data.first_lsn, lsns(data)[-1], seal.segment, data.offset),)


def test_a_damaged_header_costs_no_record() -> None:
    for number in range(len(segments(several()))):
        disk = several()
        place = segments(disk)[number]
        overwrite(disk, place, 40, b"\xff\xff")
        report, found = saved(disk)
        assert found == numbered(RECORDS)
        assert report.damage == (Damage(place.name, 0, 512, "the segment header's checksum is wrong"),)
        assert report.complete


def test_a_missing_segment_costs_its_own_records_alone() -> None:
    for missing in range(len(segments(several()))):
        disk = several()
        places = segments(disk)
        gone = [lsn for frame in frames_of(disk, places[missing]) for lsn in lsns(frame)]
        disk.unlink(places[missing])
        report, found = saved(disk)
        assert [entry.lsn for entry in found] == [lsn for lsn in range(1, COUNT + 1) if lsn not in gone]
        last = missing == len(places) - 1
        assert report.lost == (Loss(gone[0], None if last else gone[-1], missing + 1, 512),)
        assert report.lost_records == (None if last else len(gone))
        assert [damage.problem for damage in report.damage] == [] if last else ["the segment's file is missing"]


@pytest.mark.parametrize(("pruned_to", "begins"), [(1, 1), (10, 9)])
def test_a_log_whose_segments_are_all_gone_has_lost_everything(pruned_to: int, begins: int) -> None:
    disk = written([[(n, bytes(2000))] for n in range(12)])
    with open_log(disk) as log:
        assert log.prune(pruned_to).first_lsn == begins
    for place in segments(disk):
        disk.unlink(place)
    report, found = saved(disk)
    assert [(loss.first_lsn, loss.last_lsn) for loss in report.lost] == [(begins, None)]
    assert not report.complete
    assert report.lost_records is None
    assert found == []


def test_a_segment_under_another_name_is_saved_all_the_same() -> None:
    disk = several()
    place = segments(disk)[1]
    disk.rename(place, PATH / "backup.wal")
    report, found = saved(disk)
    assert found == numbered(RECORDS)
    assert report.complete
    problem = f"the file holds segment 2, from LSN {int(place.name[9:29])}: a copy or a renamed file"
    assert [damage.problem for damage in report.damage] == [problem]


def test_a_renamed_segment_with_a_damaged_header_is_known_by_its_frames() -> None:
    disk = several()
    place = segments(disk)[1]
    overwrite(disk, place, 40, b"\xff\xff")
    disk.rename(place, segment(9, 1000))
    report, found = saved(disk)
    assert found == numbered(RECORDS)
    assert "segment's file is missing" not in str(report.damage)


def test_two_damaged_copies_of_a_segment_make_one_sound_one() -> None:
    disk = several()
    place = segments(disk)[0]
    frames = [frame for frame in frames_of(disk, place) if frame.records]
    disk.poke(PATH / "copy.wal", disk.peek(place))
    overwrite(disk, place, frames[0].offset + 130, b"\xff")
    overwrite(disk, PATH / "copy.wal", frames[2].offset + 130, b"\xff")
    report, found = saved(disk)
    assert found == numbered(RECORDS)
    assert report.complete
    assert len(report.damage) == 3  # both places, and the copy's name


def test_frames_of_another_log_are_no_records_of_this_one() -> None:
    disk = several()
    other = written(BATCHES, entropy=bytes)
    place = segments(disk)[1]
    gone = [lsn for frame in frames_of(disk, place) for lsn in lsns(frame)]
    disk.poke(place, other.peek(place))
    report, found = saved(disk)
    assert [entry.lsn for entry in found] == [lsn for lsn in range(1, COUNT + 1) if lsn not in gone]
    assert [(loss.first_lsn, loss.last_lsn) for loss in report.lost] == [(gone[0], gone[-1])]
    assert "frames of another log" in {damage.problem for damage in report.damage}


def test_a_frame_at_the_wrong_place_is_damage_there() -> None:
    disk = several()
    frames = list(frames_of(disk, segment()))
    image = disk.peek(segment())
    overwrite(disk, segment(), frames[2].offset, image[frames[1].offset : frames[1].offset + 512])
    report, _ = saved(disk)
    assert (
        Damage(segment().name, frames[2].offset, frames[2].end, f"a frame that belongs to segment 1, offset {512 * 2}")
        in report.damage
    )
    assert lost_lsns(report) == set(lsns(frames[2]))


def test_records_that_a_recovery_had_cut_are_left_out_when_they_reappear() -> None:
    disk = written([[record] for record in RECORDS[:3]], close=False)
    image = disk.peek(segment())
    frames = list(frames_of(disk, segment()))
    overwrite(disk, segment(), frames[3].offset + 130, b"\xff")
    with open_log(disk) as log:
        assert log.recovery.last_lsn == 2
        log.append([(9, b"instead")])
    disk.poke(PATH / "old.wal", image)
    report, found = saved(disk)
    assert found == numbered([*RECORDS[:2], (9, b"instead")])
    assert report.stale_records == 1
    assert report.complete


def test_two_histories_under_one_log_id_are_told_apart_by_the_chain() -> None:
    """A copy was written to as well: each record is sound, in the same epoch, and they do not fit together."""
    base = written(BATCHES[:2])
    one, two = base.copy(), base.copy()
    for disk, entropy in ((one, lambda length: b"1" * length), (two, lambda length: b"2" * length)):
        with open_log(disk, entropy=entropy) as log:
            for n in range(3):
                log.append([(n, b"later")])
    lsn_of = {frame.first_lsn: frame for frame in frames_of(one, segment()) if frame.records}
    overwrite(one, segment(), lsn_of[5].offset + 125, b"\xff")
    overwrite(two, segment(), lsn_of[4].offset + 125, b"\xff")
    one.poke(PATH / "other.wal", two.peek(segment()))
    report, found = saved(one)
    assert [entry.lsn for entry in found] == [1, 2, 3, 4, 5, 6]
    assert (report.lost, report.breaks) == ((), (5,))
    assert not report.complete


def test_histories_that_part_inside_a_batch_are_told_apart_too() -> None:
    base = written(BATCHES[:2])
    one, two = base.copy(), base.copy()
    with open_log(one) as log:
        for payload in (b"one 4", b"one 5"):
            log.append([(1, payload)])
    with open_log(two) as log:
        log.append([(1, b"two 4")])
        log.append([(1, b"two 5"), (1, b"two 6")])
    fourth = next(frame for frame in frames_of(two, segment()) if frame.first_lsn == 4 and frame.records)
    overwrite(two, segment(), fourth.offset + 125, b"\xff")
    one.poke(PATH / "other.wal", two.peek(segment()))
    report, found = saved(one)
    assert [entry.payload for entry in found[3:]] == [b"one 4", b"one 5", b"two 6"]
    assert report.breaks == (6,)


def test_an_interrupted_write_is_not_called_a_loss() -> None:
    disk = written([[record] for record in RECORDS[:3]], close=False)
    last = list(frames_of(disk, segment()))[-1]
    overwrite(disk, segment(), last.offset + 130, b"\xff")
    report, found = saved(disk)
    assert found == numbered(RECORDS[:2])
    assert report.complete
    assert report.torn == Damage(
        segment().name, last.offset, last.end, "an interrupted write that nothing proves acknowledged, LSN 3"
    )
    with open_log(disk) as log:
        assert log.recovery.last_lsn == 2


def test_bytes_that_no_torn_write_leaves_may_have_been_records() -> None:
    disk = written([[(1, b"x")]], segment_bytes=2 << 20, max_batch_bytes=256)
    overwrite(disk, segment(), (2 << 20) - 600, b"\x01")
    report, found = saved(disk)
    assert len(found) == 1
    assert report.torn is None
    assert [(loss.first_lsn, loss.last_lsn) for loss in report.lost] == [(2, None)]
    assert report.lost_records is None


class Failing:
    """A disk whose medium does not give back some sectors of one file, or refuses to open it."""

    def __init__(self, disk: MemoryDisk, place: Path, sectors: set[int], error: int = errno.EIO) -> None:
        self._disk = disk
        self._place = place
        self._sectors = sectors
        self._error = error
        self._fds: set[int] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._disk, name)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        if path == self._place and not self._sectors:
            raise OSError(self._error, os.strerror(self._error))
        fd = self._disk.open(path, write=write, create=create)
        if path == self._place:
            self._fds.add(fd)
        return fd

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        if fd in self._fds and self._sectors & set(range(offset // 512, -(-(offset + length) // 512))):
            raise OSError(self._error, os.strerror(self._error))
        return self._disk.pread(fd, length, offset)


def test_a_sector_that_the_medium_does_not_give_back_costs_its_frame_alone() -> None:
    disk = several()
    place = segments(disk)[1]
    victim = list(frames_of(disk, place))[1]
    assert victim.length > 1024
    sector = victim.offset // 512 + 1
    report, found = saved(Failing(disk, place, {sector, sector + 1}))  # type: ignore[arg-type]
    assert {entry.lsn for entry in found} == set(range(1, COUNT + 1)) - set(lsns(victim))
    assert lost_lsns(report) == set(lsns(victim))
    assert Damage(place.name, sector * 512, (sector + 2) * 512, "the medium cannot be read here") in report.damage


@pytest.mark.parametrize("frame_number", [-2, -1])
def test_an_unreadable_end_is_never_taken_for_a_torn_write_or_for_the_end(frame_number: int) -> None:
    disk = written([[record] for record in RECORDS[:3]], close=False)
    last = list(frames_of(disk, segment()))[-1]
    sector = last.offset // 512 + 2 + frame_number  # the frame's first sector, or its second
    report, found = saved(Failing(disk, segment(), {sector}))  # type: ignore[arg-type]
    assert found == numbered(RECORDS[:2])
    assert report.torn is None
    assert report.lost == (Loss(3, None, 1, last.offset),)


def test_a_file_that_cannot_be_opened_is_damage_and_the_rest_is_saved() -> None:
    disk = several()
    place = segments(disk)[1]
    gone = [lsn for frame in frames_of(disk, place) for lsn in lsns(frame)]
    report, found = saved(Failing(disk, place, set(), errno.EACCES))  # type: ignore[arg-type]
    assert [entry.lsn for entry in found] == [lsn for lsn in range(1, COUNT + 1) if lsn not in gone]
    assert report.damage == (Damage(place.name, 0, 0, "the file cannot be read: Permission denied"),)


def test_any_other_error_of_a_medium_makes_the_file_unreadable() -> None:
    disk = several()
    place = segments(disk)[1]
    report, _ = saved(Failing(disk, place, {3}, errno.ENXIO))  # type: ignore[arg-type]
    assert "the file cannot be read: No such device or address" in {damage.problem for damage in report.damage}


def test_a_medium_that_goes_while_its_bad_sectors_are_looked_for_makes_the_file_unreadable() -> None:
    disk = several()
    place = segments(disk)[1]

    class Going(Failing):
        def pread(self, fd: int, length: int, offset: int) -> bytes:
            if length == 512 and offset > 2048 and fd in self._fds:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return super().pread(fd, length, offset)

    report, _ = saved(Going(disk, place, {3}))  # type: ignore[arg-type]
    assert "the file cannot be read: No such device or address" in {damage.problem for damage in report.damage}


def test_a_directory_without_a_sound_byte_says_that_nothing_can_be_told() -> None:
    disk = MemoryDisk()
    disk.poke(segment(), b"\xff" * SEGMENT_BYTES)
    report, found = saved(disk)
    assert found == []
    assert (report.log_id, report.records, report.lost_records) == (None, 0, None)
    assert report.lost == (Loss(1, None, 1, 512),)


def test_a_directory_without_segments_has_nothing_to_lose(tmp_path: Path) -> None:
    report = salvage(tmp_path).report
    assert (report.files, report.records, report.complete) == (0, 0, True)
    with pytest.raises(FileNotFoundError):
        salvage(tmp_path / "nowhere")


def test_a_frame_of_a_later_format_is_not_guessed_at() -> None:
    import google_crc32c

    disk = several()
    victim = list(frames_of(disk, segment()))[1]
    image = bytearray(disk.peek(segment()))
    image[victim.offset + 4] = 77  # a type unknown here, under right checksums
    crc = google_crc32c.value(bytes(image[victim.offset : victim.offset + 116]))
    image[victim.offset + 116 : victim.offset + 120] = crc.to_bytes(4, "little")
    crc = google_crc32c.value(bytes(image[victim.offset : victim.end - 4]))
    image[victim.end - 4 : victim.end] = crc.to_bytes(4, "little")
    disk.poke(segment(), bytes(image))
    report, _ = saved(disk)
    assert lost_lsns(report) == set(lsns(victim))
    assert "frame type 77" in report.damage[0].problem


def test_a_header_of_a_later_format_hides_no_frame() -> None:
    import google_crc32c

    disk = several()
    image = bytearray(disk.peek(segment()))
    image[8:10] = (99).to_bytes(2, "little")
    image[508:512] = google_crc32c.value(bytes(image[:508])).to_bytes(4, "little")
    disk.poke(segment(), bytes(image))
    report, found = saved(disk)
    assert found == numbered(RECORDS)
    assert "format 99" in report.damage[0].problem


def test_records_that_do_not_hash_to_their_chain_are_not_saved() -> None:
    """Someone changed a payload, and mended the checksums."""
    import google_crc32c

    disk = several()
    victim = list(frames_of(disk, segment()))[1]
    image = bytearray(disk.peek(segment()))
    image[victim.offset + 160] ^= 1
    crc = google_crc32c.value(bytes(image[victim.offset : victim.end - 4]))
    image[victim.end - 4 : victim.end] = crc.to_bytes(4, "little")
    disk.poke(segment(), bytes(image))
    report, _ = saved(disk)
    assert lost_lsns(report) == set(lsns(victim))
    assert report.damage[0].problem == "a frame whose records do not hash to its chain, LSN 1..2"


def pruned() -> tuple[MemoryDisk, int]:
    """A log that begins later, and the LSN it begins at."""
    disk = MemoryDisk()
    with open_log(disk) as log:
        for batch in BATCHES:
            log.append(batch)
        return disk, log.prune(9).first_lsn


def test_what_was_pruned_is_not_lost() -> None:
    disk, first_lsn = pruned()
    assert first_lsn > 1
    report, found = saved(disk)
    assert found == numbered(RECORDS)[first_lsn - 1 :]
    assert (report.first_lsn, report.lost, report.damage, report.breaks) == (first_lsn, (), (), ())
    first = segments(disk)[0]
    gone = [lsn for frame in frames_of(disk, first) for lsn in lsns(frame)]
    disk.unlink(first)
    report, _ = saved(disk)
    assert report.lost == (Loss(gone[0], gone[-1], int(first.name[:8]), 512),)
    assert [damage.file for damage in report.damage] == [f"{first.name[:8]}-*.wal"]


def test_what_an_interrupted_prune_left_stays_pruned() -> None:
    whole = several()
    disk, first_lsn = pruned()
    place = segments(whole)[0]
    disk.poke(place, whole.peek(place))
    report, found = saved(disk)
    assert found == numbered(RECORDS)[first_lsn - 1 :]
    assert report.complete


@pytest.mark.parametrize("damage", [lambda disk, place: disk.unlink(place), lambda disk, place: disk.poke(place, b"x")])
def test_without_its_base_a_pruned_log_s_beginning_counts_as_lost(damage: Callable[[MemoryDisk, Path], None]) -> None:
    disk, first_lsn = pruned()
    damage(disk, PATH / BASE_NAME)
    report, found = saved(disk)
    assert found == numbered(RECORDS)[first_lsn - 1 :]
    assert report.lost == (Loss(1, first_lsn - 1, 1, 512),)
    assert report.damage[0].file == BASE_NAME
    assert "was pruned, or lost" in report.damage[0].problem


def test_a_base_that_cannot_be_read_is_damage_too() -> None:
    disk, first_lsn = pruned()
    report, found = saved(Failing(disk, PATH / BASE_NAME, set(), errno.EACCES))  # type: ignore[arg-type]
    assert found == numbered(RECORDS)[first_lsn - 1 :]
    assert "the file cannot be read" in report.damage[0].problem


def test_a_redacted_record_is_saved_as_one() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        for batch in BATCHES:
            log.append(batch)
        assert log.redact(lambda entry: entry.lsn in {1, 3}).records == 2
    report, found = saved(disk)
    assert [entry.lsn for entry in found if isinstance(entry, wal.Redacted)] == [1, 3]
    assert len(found) == COUNT
    assert report.complete
    assert report.damage == ()


def test_progress_is_told_in_bytes_and_reaches_the_whole() -> None:
    disk = several()
    told: list[tuple[int, int]] = []
    salvage(PATH, disk=disk, progress=lambda done, total: told.append((done, total)))
    total = SEGMENT_BYTES * len(segments(disk))
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_a_file_that_changes_between_finding_and_saving_is_refused() -> None:
    disk = several()
    found = salvage(PATH, disk=disk)
    overwrite(disk, segment(), 1024 + 130, b"\xff")
    with pytest.raises(wal.LogCorrupt, match="no longer sound") as caught:
        list(found)
    assert caught.value.path == PATH


def test_a_writer_that_goes_on_behind_damage_does_not_keep_salvage_from_ending() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=2**20) as log:
        for batch in BATCHES:
            log.append(batch)
        damaged = frames_of(disk, segment())[3]
        with opened(disk, segment(), write=True) as fd:  # in the file that the writer has open
            disk.pwrite(fd, b"\xff", damaged.offset + damaged.length - 5)
        busy = GoesOn(disk, log)
        report = salvage(PATH, disk=busy).report  # type: ignore[arg-type]
    assert [loss[:2] for loss in report.lost] == [(lsns(damaged).start, lsns(damaged).stop - 1)]
    assert report.last_lsn > COUNT


class GoesOn:
    """A disk on which a writer appends a record whenever a file is opened."""

    def __init__(self, disk: MemoryDisk, log: wal.Log) -> None:
        self._disk, self._log, self._opened = disk, log, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._disk, name)

    def open(self, path: Path, **options: bool) -> int:
        self._opened += 1
        assert self._opened < 100, "it does not end"
        self._log.append([(1, b"goes on")])
        return self._disk.open(path, **options)
