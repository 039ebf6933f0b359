"""Every refusal says where: the segment, the offset in it, and the first record that is lost."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from log_rig import PATH, Record, abandon, entries, open_log, overwrite, segment, segments, written

import wal
from wal.frames import HEAD_BYTES, encode, frame_bytes, pack_records
from wal.recovery import examine
from wal.repair import recover
from wal.scan import Window, frame_at
from wal.segment import HEADER_BYTES, Header, decode_header, encode_header
from wal.testing import MemoryDisk

BATCHES: list[list[Record]] = [[(n, bytes([n]) * 900), (n + 100, b"%d" % n)] for n in range(1, 13)]


def several() -> MemoryDisk:
    return written(BATCHES)


def header(disk: MemoryDisk, number: int) -> Header:
    place = segments(disk)[number - 1]
    return decode_header(disk.peek(place)[:HEADER_BYTES], number, place)


def with_header(disk: MemoryDisk, number: int, change: Callable[[Header], Header]) -> None:
    overwrite(disk, segments(disk)[number - 1], 0, encode_header(change(header(disk, number))))


def refusal(disk: MemoryDisk) -> tuple[int, int, int | None, str]:
    """Where and why opening refuses; reading and verifying must name the same segment."""
    with pytest.raises(wal.LogCorrupt) as caught:
        open_log(disk)
    error = caught.value
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.sound, verdict.segment) == (False, error.segment)
    assert str(error).startswith(f"segment {error.segment}, offset {error.offset_bytes}")
    return error.segment, error.offset_bytes, error.lsn, error.problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda found: replace(found, log_id=b"o" * 16), "belongs to another log"),
        (lambda found: replace(found, prev_end=found.prev_end + 8192), "does not follow from the one before it"),
        (lambda found: replace(found, prev_end=512), "does not follow from the one before it"),
        (lambda found: replace(found, prev_records=found.prev_records + 1), "does not follow from the one before it"),
    ],
    ids=["log", "end past the segment", "end before any frame", "count"],
)
def test_a_header_that_does_not_follow_is_named(change: Callable[[Header], Header], problem: str) -> None:
    disk = several()
    first_lsn = header(disk, 2).first_lsn
    with_header(disk, 2, change)
    segment_number, offset, lsn, why = refusal(disk)
    assert (segment_number, offset, lsn) == (2, 0, first_lsn)
    assert problem in why


def test_an_epoch_that_goes_back_is_named() -> None:
    disk = MemoryDisk()
    for batch in BATCHES:
        with open_log(disk) as log:
            log.append(batch)
    assert len(segments(disk)) > 2
    with_header(disk, 3, lambda found: replace(found, epoch=0))
    assert refusal(disk)[:2] == (3, 0)


@pytest.mark.parametrize("field", ["first_lsn", "segment"])
def test_a_header_that_is_another_segment_s_is_named(field: str) -> None:
    disk = several()
    names = [place.name for place in segments(disk)]
    disk.poke(segments(disk)[1], disk.peek(segments(disk)[2]))
    place = PATH / names[1]
    if field == "first_lsn":
        disk.poke(place, encode_header(replace(header(several(), 2), first_lsn=2)) + disk.peek(place)[HEADER_BYTES:])
    number, offset, _, why = refusal(disk)
    assert (number, offset) == (2, 0)
    assert "a copy or a renamed file" in why


def test_a_file_of_another_length_is_named_with_its_length() -> None:
    disk = several()
    disk.poke(segments(disk)[1], disk.peek(segments(disk)[1])[:-512])
    lost = header(several(), 3).first_lsn  # of zeros alone, so no record of this segment is
    assert refusal(disk) == (2, 7680, lost, "the file has 7680 bytes instead of 8192")


def test_a_first_segment_that_begins_no_log_is_named() -> None:
    for change in (
        {"prev_end": 1024}, {"chain": b"c" * 32}, {"root": b"r" * 32},
    ):  # fmt: skip
        disk = written(BATCHES[:1])
        with_header(disk, 1, lambda found, change=change: replace(found, **change))
        assert refusal(disk) == (1, 0, 1, "the first segment does not begin a log")


@pytest.mark.parametrize(
    "change", [{"root": b"r" * 32}, {"chain": b"c" * 32}, {"prev_end": -512}], ids=lambda change: next(iter(change))
)
def test_a_segment_that_does_not_end_where_its_successor_says_is_named(change: dict[str, object]) -> None:
    disk = several()
    end, first_lsn = header(disk, 2).prev_end, header(disk, 2).first_lsn
    if "prev_end" in change:
        change = {"prev_end": end - 512}
    with_header(disk, 2, lambda found: replace(found, **change))
    with pytest.raises(wal.LogCorrupt) as caught:
        open_log(disk)
    error = caught.value
    assert (error.segment, error.offset_bytes, error.lsn) == (1, end, first_lsn)
    assert error.problem == "the segment does not end where the next one says it does"
    if "root" not in change:  # the tree is what opening and verifying compute; reading follows the chain
        with pytest.raises(wal.LogCorrupt):
            entries(disk)
    assert wal.verify(PATH, disk=disk).status == "corrupt"


def unsealed() -> MemoryDisk:
    """A log whose last segment is empty and whose seal before it was never written: a crash in a rotation."""
    for operations in range(60):
        disk = MemoryDisk()
        disk.power_off_after(operations)
        try:
            log = open_log(disk)
        except wal.LogError:
            continue
        with contextlib.suppress(wal.LogError):
            for batch in BATCHES * 3:
                log.append(batch)
        abandon(log)
        after = disk.kill()
        findings = examine(PATH, after)
        if findings is not None and findings.unsealed is not None:
            return after
    raise AssertionError("no crash left a seal owed")


def test_an_owed_seal_is_written_only_for_the_tree_that_the_successor_names() -> None:
    disk = unsealed()
    last = len(segments(disk))
    end, first_lsn = header(disk, last).prev_end, header(disk, last).first_lsn
    with_header(disk, last, lambda found: replace(found, root=b"r" * 32))
    before = [disk.peek(place) for place in segments(disk)]
    with pytest.raises(wal.LogCorrupt, match="does not end where the next one says") as caught:
        open_log(disk)
    assert (caught.value.segment, caught.value.lsn) == (last - 1, first_lsn)
    assert caught.value.offset_bytes < end
    assert [disk.peek(place) for place in segments(disk)] == before


def test_only_the_last_but_one_segment_may_owe_its_seal() -> None:
    disk = several()
    number = 1
    end = header(disk, 2).prev_end
    overwrite(disk, segments(disk)[0], end - 512, bytes(512))
    found = refusal(disk)
    assert found[0] == number
    assert found[1] == end - 512


def test_the_quarantine_s_name_says_where_its_bytes_were_and_is_never_used_twice() -> None:
    for taken in range(3):
        disk = written([[(1, b"kept")]], close=False)
        place = segment()
        end = len(disk.peek(place).rstrip(b"\0"))
        end += -end % 512
        for number in range(1, taken + 1):
            disk.poke(PATH / f"quarantine-00000001-{end}-{number}.bin", b"an older one")
        overwrite(disk, place, end + 3, b"torn")
        recovered = recover(PATH, disk)
        assert recovered is not None
        assert recovered.report.quarantine == PATH / f"quarantine-00000001-{end}-{taken + 1}.bin"
        assert disk.peek(recovered.report.quarantine) == b"\0\0\0torn"
        assert (recovered.report.cut_segment, recovered.report.cut_offset_bytes, recovered.report.cut_bytes) == (
            1,
            end,
            7,
        )
        for number in range(1, taken + 1):
            assert disk.peek(PATH / f"quarantine-00000001-{end}-{number}.bin") == b"an older one"


def test_every_record_has_its_own_salt() -> None:
    salts = bytes(range(80))
    body, inners = pack_records([(n, b"same") for n in range(5)], salts)
    step = 24 + 4
    assert [body[at + 8 : at + 24] for at in range(0, len(body), step)] == [
        salts[n * 16 : n * 16 + 16] for n in range(5)
    ]
    assert len({inner for _, inner in inners}) == 5


def test_unknown_flags_of_a_record_are_named_with_their_place(tmp_path: Path) -> None:
    disk = written([[(1, b"a"), (2, b"b")]], close=False)
    place = segment()
    with wal.disk.opened(disk, place) as fd:
        window = Window(disk, fd)
        frame = frame_at(window, 1024)
        assert frame is not None
        at = window.locate(1024, frame.length) + HEAD_BYTES
        body = bytearray(window.buffer[at : at + frame.body_bytes])
    body[25 + 2] = 0x80
    assert frame.length == frame_bytes(len(body))
    overwrite(disk, place, 1024, encode(frame, bytes(body)))
    with pytest.raises(wal.UnsupportedFormat, match="segment 1, LSN 2: a record with flags 0x80"):
        entries(disk)
