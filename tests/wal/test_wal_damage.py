"""Damage at rest: every bit, every length, every segment. Refused or repaired, never unnoticed."""

import multiprocessing
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import google_crc32c
import pytest
from every_bit_rig import LOG_BYTES, FullLog, check, shares
from log_rig import PATH, SEGMENT_BYTES, contents, entries, numbered, open_log, overwrite, segment, segments, written
from sim_rig import Tell, tell_all

import wal
from wal.recovery import examine
from wal.repair import recover
from wal.segment import HEADER_BYTES, SECTOR_BYTES
from wal.testing import MemoryDisk

RECORDS = [(1, b"first"), (2, b"second"), (3, b"third")]
TIGHT = {"segment_bytes": 8192, "max_batch_bytes": 256}


def small(*, close: bool) -> MemoryDisk:
    """One segment: header, open frame, three data frames, and a close frame when closed. Eight sectors in all."""
    return written([[record] for record in RECORDS], close=close, **TIGHT)


def used_bytes(disk: MemoryDisk, place: Path) -> int:
    return len(disk.peek(place).rstrip(b"\0"))


def outcome(disk: MemoryDisk) -> tuple[str, int]:
    """What opening would do, and how many records it would keep."""
    try:
        findings = examine(PATH, disk)
    except wal.LogCorrupt:
        return "corrupt", 0
    assert findings is not None
    return findings.stop.case.action, findings.stop.cursor.lsn - 1


def test_no_bit_of_a_closed_log_flips_unnoticed() -> None:
    disk, place = small(close=True), segment()
    image = disk.peek(place)
    close_frame = (1 + 1 + len(RECORDS)) * SECTOR_BYTES
    assert outcome(disk) == ("end", 3)
    seen = set()
    for bit in range(len(image) * 8):
        damaged = bytearray(image)
        damaged[bit // 8] ^= 1 << bit % 8
        disk.poke(place, bytes(damaged))
        action, records = outcome(disk)
        seen.add(action)
        # The close frame proves all before it. A flip in it, or in the zeros behind, costs no record.
        assert (action, records) == (("corrupt", 0) if bit // 8 < close_frame else ("cut", 3)), bit
    assert seen == {"corrupt", "cut"}


def test_without_a_close_only_the_last_batch_is_in_doubt() -> None:
    disk, place = small(close=False), segment()
    last_frame = (1 + 1 + 2) * SECTOR_BYTES
    image = disk.peek(place)
    for byte in range(used_bytes(disk, place)):
        damaged = bytearray(image)
        damaged[byte] ^= 0x10
        disk.poke(place, bytes(damaged))
        assert outcome(disk) == (("corrupt", 0) if byte < last_frame else ("cut", 2)), byte


def test_a_segment_shorter_than_it_was_allocated_is_refused_at_every_length() -> None:
    disk, place = small(close=True), segment()
    image = disk.peek(place)
    for length in range(len(image)):
        disk.poke(place, image[:length])
        assert outcome(disk) == ("corrupt", 0), length
    disk.poke(place, image + b"\0")
    assert outcome(disk) == ("corrupt", 0)


def test_a_tail_torn_at_any_byte_is_repaired_and_what_was_cut_is_kept() -> None:
    disk, place = small(close=False), segment()
    image = disk.peek(place)
    last_frame, end = (1 + 1 + 2) * SECTOR_BYTES, used_bytes(disk, place)
    for length in range(last_frame + 1, end):
        torn = disk.copy()
        torn.poke(place, image[:length].ljust(len(image), b"\0"))
        kept = image[last_frame:length].rstrip(b"\0")
        with open_log(torn, **TIGHT) as log:
            report = log.recovery
        assert (report.last_lsn, report.cut_bytes, report.clean_close) == (2, len(kept), False)
        assert (report.cut_segment, report.cut_offset_bytes) == (1, last_frame)
        assert report.quarantine is not None
        assert torn.peek(report.quarantine) == kept
        assert entries(torn) == numbered(RECORDS[:2])


def test_the_verdict_on_a_torn_log_says_what_stands_there_and_changes_nothing() -> None:
    disk, place = small(close=False), segment()
    overwrite(disk, place, 2048 + 130, b"\xff")
    before = contents(disk)
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.records, verdict.segment, verdict.offset_bytes) == ("torn", 2, 1, 2048)
    assert "never acknowledged" in str(verdict.problem)
    assert entries(disk) == numbered(RECORDS[:2])
    assert contents(disk) == before


def test_the_verdict_on_a_corrupt_log_names_the_place() -> None:
    disk, place = small(close=True), segment()
    overwrite(disk, place, 1024 + 130, b"\xff")
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.records, verdict.segment, verdict.offset_bytes) == ("corrupt", 0, 1, 1024)
    with pytest.raises(wal.LogCorrupt, match="segment 1, offset 1024, LSN 1: a frame that was acknowledged") as caught:
        open_log(disk, **TIGHT)
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (1, 1024, 1)


def test_a_reader_hands_over_what_is_sound_before_it_refuses() -> None:
    disk, place = small(close=True), segment()
    overwrite(disk, place, 1536 + 130, b"\xff")
    found = []
    with pytest.raises(wal.LogCorrupt):
        found += wal.read(PATH, disk=disk)
    reader = wal.Reader(PATH, disk=disk)
    assert reader.poll() == numbered(RECORDS[:1])
    with pytest.raises(wal.LogCorrupt):
        reader.poll()


@pytest.mark.parametrize("sector", [1, 2, 3])
def test_a_zeroed_sector_before_the_proven_end_is_refused(sector: int) -> None:
    disk = small(close=True)
    overwrite(disk, segment(), sector * SECTOR_BYTES, bytes(SECTOR_BYTES))
    assert outcome(disk) == ("corrupt", 0)
    assert wal.verify(PATH, disk=disk).status == "corrupt"


def test_recovering_twice_changes_nothing_more() -> None:
    disk = small(close=False)
    overwrite(disk, segment(), 2048 + 200, b"\xff\xff")
    first = recover(PATH, disk)
    after_once = contents(disk)
    second = recover(PATH, disk)
    assert contents(disk) == after_once
    assert first is not None
    assert second is not None
    assert first.report.cut_bytes > 0
    assert (second.report.cut_bytes, second.report.last_lsn) == (0, first.report.last_lsn)


def test_what_was_cut_never_comes_back() -> None:
    disk = written([[record] for record in RECORDS], close=False)
    image = disk.peek(segment())
    overwrite(disk, segment(), 2048 + 130, b"\xff")
    with open_log(disk) as log:
        assert log.append([(9, b"instead")]).first_lsn == 3
    assert entries(disk) == numbered([*RECORDS[:2], (9, b"instead")])
    # The old frame of LSN 3 reappears at its old place, sound as ever: it is from an older epoch.
    overwrite(disk, segment(), 2048, image[2048:2560])
    assert outcome(disk) == ("corrupt", 0)


def test_bytes_too_far_behind_the_end_for_a_torn_write_are_refused() -> None:
    disk = written([[(1, b"x")]], segment_bytes=2 << 20, max_batch_bytes=256)
    overwrite(disk, segment(), (2 << 20) - 1, b"\x01")
    with pytest.raises(wal.LogCorrupt, match="more bytes stand here"):
        open_log(disk)


def test_a_foreign_frame_at_the_end_is_refused() -> None:
    disk = small(close=False)
    other = written([[record] for record in [*RECORDS, (4, b"fourth")]], close=False, entropy=bytes, **TIGHT)
    overwrite(disk, segment(), 2560, other.peek(segment())[2560:3072])
    with pytest.raises(wal.LogCorrupt, match="does not belong here"):
        open_log(disk, **TIGHT)


def test_a_frame_written_to_the_wrong_place_is_refused() -> None:
    disk = small(close=False)
    overwrite(disk, segment(), 2560, disk.peek(segment())[1024:1536])
    with pytest.raises(wal.LogCorrupt, match="does not belong here"):
        open_log(disk, **TIGHT)


def test_a_torn_batch_that_carries_an_old_frame_of_this_log_is_still_torn() -> None:
    old = small(close=False).peek(segment())[512:2560]
    disk = written([[(1, b"x")], [(2, old)]], close=False, segment_bytes=16384)
    overwrite(disk, segment(), 1536 + 4, b"\xff")
    with open_log(disk, segment_bytes=16384) as log:
        assert log.recovery.last_lsn == 1


# A full log of 64 KiB, and every way to flip a bit of it, cut it, or lose its end.


def by_class(counts: Counter[str]) -> dict[str, int]:
    """How many cases there were of each damage and class, wherever they were."""
    found: Counter[str] = Counter()
    for name, number in counts.items():
        found[name.split(" ")[0] + name[-3:]] += number
    return dict(found)


def test_a_full_log_has_a_frame_of_each_type_that_the_last_segment_can_have() -> None:
    log = FullLog()
    assert {region.name for region in log.regions} == {
        "header", "open", "data", "staged", "close", "heartbeat", "zeros",
    }  # fmt: skip
    assert [region.name for region in log.regions[-2:]] == ["heartbeat", "zeros"]
    assert log.regions[-1].end == len(log.image) == LOG_BYTES
    assert {len(entry.payload) for entry in log.entries} >= {0, 1, 600, 4000, 12000}
    assert bytes(600) in [entry.payload for entry in log.entries]


@pytest.mark.parametrize("damage", ["flip", "cut", "blank"])
def test_damage_to_a_full_log_is_told_apart_by_everyone_who_looks(damage: str) -> None:
    log = FullLog()
    for cases in shares(LOG_BYTES, stride=997):
        if cases.damage == damage:
            check(cases, log)
    assert log.violations == []
    assert set(by_class(log.counts)) == CLASSES[damage]


CLASSES = {
    "flip": {"flipped: C", "flipped: T"},
    "cut": {"cut: C"},
    "blank": {"blanked: C", "blanked: L", "blanked: T"},
}


@pytest.mark.parametrize(("name", "taken_for"), [("data", "zeros"), ("heartbeat", "data"), ("header", "data")])
def test_a_case_that_is_taken_for_something_else_is_a_violation(name: str, taken_for: str) -> None:
    log = FullLog()
    log.regions = [region._replace(name=taken_for) if region.name == name else region for region in log.regions]
    wrong = [region for region in log.regions if region.name == taken_for]
    log.flip(8 * wrong[-1 if name == "heartbeat" else 0].start + 3)
    assert len(log.violations) == 1
    assert log.is_as_it_was


def in_two_processes(step: int) -> Iterable[tuple[Counter[str], list[str]]]:
    """Go through all cases, and yield what came of each share of them, in order."""
    work = list(shares(step))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for number, found in enumerate(pool.map(check, work), 1):
            yield found
            sys.stderr.write(f"{100 * number / len(work):.1f} % done, {work[number - 1].damage}\n")


@pytest.mark.long
def test_every_flipped_bit_and_every_lost_byte_of_a_full_log_is_told_apart(record_property: Tell) -> None:
    counts: Counter[str] = Counter()
    violations: list[str] = []
    for counted, violated in in_two_processes(step=2048):
        counts += counted
        violations += violated
    tell_all(record_property, counts)
    assert violations == []
    unproven = LOG_BYTES - FullLog().regions[-2].start
    assert by_class(counts) == {
        "flipped: C": 8 * (LOG_BYTES - unproven), "flipped: T": 8 * unproven, "cut: C": LOG_BYTES,
        "blanked: C": HEADER_BYTES, "blanked: L": LOG_BYTES - HEADER_BYTES - unproven, "blanked: T": unproven,
    }  # fmt: skip


# Whole segments.


def several() -> MemoryDisk:
    return written([[(n, bytes([n]) * 1500)] for n in range(12)])


def test_every_missing_segment_is_noticed() -> None:
    for missing in range(len(segments(several()))):
        disk = several()
        disk.unlink(segments(disk)[missing])
        assert wal.verify(PATH, disk=disk).status == "corrupt", missing
        with pytest.raises(wal.LogCorrupt, match="missing"):
            open_log(disk)
        with pytest.raises(wal.LogCorrupt):
            entries(disk)


def test_a_segment_under_another_number_is_refused() -> None:
    disk = several()
    paths = segments(disk)
    number, first_lsn = len(paths) + 1, 13
    disk.poke(segment(number, first_lsn), disk.peek(paths[-1]))
    with pytest.raises(wal.LogCorrupt, match="a copy or a renamed file"):
        open_log(disk)
    assert wal.verify(PATH, disk=disk).status == "corrupt"


def test_two_files_for_one_segment_are_refused() -> None:
    disk = several()
    disk.poke(segment(2, 999), disk.peek(segments(disk)[1]))
    with pytest.raises(wal.LogCorrupt, match="two files"):
        open_log(disk)


def test_swapped_segments_are_refused() -> None:
    disk = several()
    one, two = segments(disk)[1:3]
    first, second = disk.peek(one), disk.peek(two)
    disk.poke(one, second)
    disk.poke(two, first)
    with pytest.raises(wal.LogCorrupt, match="a copy or a renamed file"):
        open_log(disk)


def test_a_segment_of_another_log_is_refused() -> None:
    disk = several()
    other = written([[(n, bytes([n]) * 1500)] for n in range(12)], entropy=bytes)
    place = segments(disk)[1]
    disk.poke(place, other.peek(place))
    with pytest.raises(wal.LogCorrupt, match="another log"):
        open_log(disk)
    assert wal.verify(PATH, disk=disk).status == "corrupt"


def test_a_stray_segment_name_is_refused() -> None:
    disk = several()
    disk.poke(PATH / "backup.wal", b"")
    with pytest.raises(wal.LogCorrupt, match=r"backup\.wal"):
        open_log(disk)


@pytest.mark.parametrize("byte", [600, 1200, SEGMENT_BYTES - 1])
def test_damage_inside_a_sealed_segment_is_met_by_reading_and_by_verifying(byte: int) -> None:
    disk = several()
    place = segments(disk)[1]
    overwrite(disk, place, byte, bytes([disk.peek(place)[byte] ^ 1]))
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.segment) == ("corrupt", 2)
    if byte < SEGMENT_BYTES - 1:  # bytes behind the seal are no reader's business
        with pytest.raises(wal.LogCorrupt):
            entries(disk)


def test_a_damaged_seal_is_refused_at_open() -> None:
    disk = several()
    place = segments(disk)[0]
    overwrite(disk, place, used_bytes(disk, place) - 1, b"\x00")
    with pytest.raises(wal.LogCorrupt, match="segment 1"):
        open_log(disk)


def test_a_header_of_a_later_format_is_refused_and_not_guessed() -> None:
    disk = small(close=True)
    image = bytearray(disk.peek(segment()))
    image[8:10] = (3).to_bytes(2, "little")
    image[508:512] = google_crc32c.value(bytes(image[:508])).to_bytes(4, "little")
    disk.poke(segment(), bytes(image))
    with pytest.raises(wal.UnsupportedFormat, match="format 3"):
        open_log(disk, **TIGHT)
    assert wal.verify(PATH, disk=disk).status == "unsupported"


def test_a_log_that_was_never_begun_is_empty(tmp_path: Path) -> None:
    assert wal.verify(tmp_path).status == "empty"
    assert list(wal.read(tmp_path)) == []
    with pytest.raises(FileNotFoundError):
        list(wal.read(tmp_path / "nowhere"))


def test_repair_works_on_a_real_file_system(tmp_path: Path) -> None:
    source = tmp_path / "log"
    log = wal.Log.open(source, segment_bytes=8192, heartbeat_ms=1e9)
    log.append([(1, b"kept")])
    log.append([(2, b"torn")])
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    log.close()
    place = next(copy.glob("*.wal"))
    image = bytearray(place.read_bytes())
    image[1536 + 120] ^= 1
    place.write_bytes(image)
    with wal.Log.open(copy, segment_bytes=8192) as log:
        assert log.recovery.last_lsn == 1
        assert log.recovery.quarantine is not None
        assert log.recovery.quarantine.read_bytes() == bytes(image[1536:2048]).rstrip(b"\0")
        assert log.append([(3, b"new")]).first_lsn == 2
    assert [entry.payload for entry in wal.read(copy)] == [b"kept", b"new"]
