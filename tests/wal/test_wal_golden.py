"""A log of every released format stays readable, and today's writer still writes its bytes.

tests/golden/wal-v2 was written by `write` below; a golden log is added, never edited. The one in wal-v1 is of a
format that was never released.
"""

import shutil
from pathlib import Path

import pytest
from log_rig import PATH, Record, counting_entropy, entries, numbered, open_log, segments, wait_until

import wal
from wal.testing import MemoryDisk

GOLDEN = Path(__file__).parent.parent / "golden" / "wal-v2"
UNRELEASED = GOLDEN.parent / "wal-v1"
RECORDS: list[Record] = [
    (1, b"the first record"), (2, b""), (65535, bytes(range(256))),
    (7, b"staged"), (8, b"its batch"),
    (0, b"\0" * 700), (3, b"long " * 600),
    (4, b"after the rotation"),
    (5, b"proven by a heartbeat"),
]  # fmt: skip


def write(disk: wal.Disk) -> None:
    """Every kind of frame: three openings, a staged record, a rotation, a heartbeat, closes."""
    entropy = counting_entropy()
    with open_log(disk, entropy=entropy) as log:
        log.append(RECORDS[:3])
        assert log.stage(*RECORDS[3]).wait(30)
        log.append(RECORDS[4:5])
    with open_log(disk, entropy=entropy) as log:
        log.append(RECORDS[5:7])
        log.append(RECORDS[7:8])
    with open_log(disk, entropy=entropy, heartbeat_ms=1) as log:
        log.append(RECORDS[8:])
        wait_until(lambda: len(entries(disk)) == len(RECORDS))


def test_the_golden_log_reads_as_it_was_written() -> None:
    assert list(wal.read(GOLDEN)) == numbered(RECORDS)
    verdict = wal.verify(GOLDEN)
    assert (verdict.status, verdict.records, verdict.segments, verdict.clean_close) == ("intact", 9, 2, True)


def test_today_s_writer_writes_the_golden_log_byte_for_byte() -> None:
    disk = MemoryDisk()
    write(disk)
    written = {place.name: disk.peek(place) for place in kept(disk)}
    assert written == {place.name: place.read_bytes() for place in GOLDEN.iterdir()}


def kept(disk: MemoryDisk) -> list[Path]:
    return [*segments(disk), PATH / "BASE"]


def test_a_log_of_the_unreleased_format_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(UNRELEASED, copy)
    with pytest.raises(wal.UnsupportedFormat, match="segment format 1"):
        wal.Log.open(copy)
    with pytest.raises(wal.UnsupportedFormat, match="segment format 1"):
        list(wal.read(copy))
    assert wal.verify(copy).status == "unsupported"
    assert {place.name: place.read_bytes() for place in copy.glob("*.wal")} == {
        place.name: place.read_bytes() for place in UNRELEASED.glob("*.wal")
    }


def test_the_golden_log_can_be_appended_to(tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(GOLDEN, copy)
    with open_log(wal.OsDisk(), copy) as log:
        assert log.recovery.records == 9
        log.append([(1, b"today")])
    assert list(wal.read(copy)) == numbered([*RECORDS, (1, b"today")])


if __name__ == "__main__":
    memory = MemoryDisk()
    write(memory)
    GOLDEN.mkdir(exist_ok=True)
    for source in kept(memory):
        (GOLDEN / source.relative_to(PATH)).write_bytes(memory.peek(source))
