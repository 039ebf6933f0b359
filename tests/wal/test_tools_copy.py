"""Copies: of quiet logs, of logs at work, interrupted at every operation. A copy opens clean or is refused."""

import contextlib
import errno
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from log_rig import (
    NEVER_MS,
    PATH,
    SEGMENT_BYTES,
    abandon,
    contents,
    numbered,
    open_log,
    overwrite,
    segment,
    segments,
    wait_until,
    written,
)

import wal
from wal.copy import MARK_NAME, Copied, copy
from wal.segment import BASE_NAME
from wal.testing import FaultDisk, MemoryDisk

TARGET = Path("/copy")
RECORDS = [(n, bytes([n]) * (300 + 150 * n)) for n in range(14)]
BATCHES = [RECORDS[:2], RECORDS[2:3], RECORDS[3:6], *[[record] for record in RECORDS[6:]]]


def entries(disk: wal.Disk, path: Path = PATH) -> list[wal.Entry]:
    return list(wal.read(path, None, disk=disk))


FEWER = BATCHES[:7]


def copied_files(disk: MemoryDisk) -> dict[str, bytes]:
    return {place.name: disk.peek(place) for place in disk.files() if place.parent == TARGET}


def assert_opens_clean(disk: wal.Disk, copied: Copied, path: Path = TARGET) -> None:
    verdict = wal.verify(path, disk=disk)
    assert verdict.status in {"intact", "pruned", "redacted"}
    assert verdict.clean_close
    assert verdict.head == copied.head
    assert (verdict.records, verdict.first_lsn, verdict.last_lsn, verdict.segments) == (
        copied.records, copied.first_lsn, copied.last_lsn, copied.segments,
    )  # fmt: skip
    with open_log(disk, path) as log:
        assert log.recovery.clean_close
        assert log.recovery.cut_bytes == 0
        assert log.head() == copied.head
        assert log.append([(1, b"a fork")]).first_lsn == copied.last_lsn + 1


def test_a_closed_log_is_copied_byte_for_byte() -> None:
    disk = written(BATCHES)
    before = contents(disk)
    copied = copy(PATH, TARGET, disk=disk)
    source = {place.name: image for place, image in before.items()}
    found = copied_files(disk)
    assert {name: image for name, image in found.items() if name != BASE_NAME} == {
        name: image for name, image in source.items() if name != BASE_NAME
    }
    assert BASE_NAME in found
    assert copied == Copied(14, 1, 14, len(segments(disk)) // 2, wal.head(PATH, disk=disk))
    assert contents(disk).items() >= before.items(), "the source is as it was"
    assert entries(disk, TARGET) == numbered(RECORDS)
    assert_opens_clean(disk, copied)


def test_beside_a_live_writer_what_is_proven_durable_is_copied_and_closed() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        for count, record in enumerate(RECORDS, 1):
            log.append([record])
            target = TARGET / str(count)
            copied = copy(PATH, target, disk=disk)
            assert copied.last_lsn in {count - 1, count}, "only the newest batch may be missing"
            assert entries(disk, target) == numbered(RECORDS[: copied.last_lsn])
            assert_opens_clean(disk, copied, target)
            assert wal.verify(PATH, copied.head, disk=disk).expected == "confirmed"


def test_a_log_of_which_nothing_is_proven_yet_has_an_empty_copy() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        copied = copy(PATH, TARGET, disk=disk)
        assert (copied.records, copied.first_lsn, copied.last_lsn) == (0, 0, 0)
        assert copied.head == log.head()
    assert_opens_clean(disk, copied)


def test_of_a_dead_writer_s_log_everything_whole_is_copied_and_what_was_torn_is_not() -> None:
    disk = written(BATCHES[:3], close=False)
    last = segments(disk)[-1]
    end = len(disk.peek(last).rstrip(b"\0")) + 511 & ~511
    overwrite(disk, last, end, b"torn")
    faults = FaultDisk(disk)
    copied = copy(PATH, TARGET, disk=faults)
    assert entries(disk, TARGET) == numbered(RECORDS[:6])
    assert disk.peek(TARGET / last.name).rstrip(b"\0")[-4:] != b"torn"
    assert_opens_clean(disk, copied)


def test_a_segment_that_a_crash_left_without_its_seal_ends_the_copy() -> None:
    disk = written(BATCHES, close=False)
    places = segments(disk)
    image = disk.peek(places[1])
    seal = image.rstrip(b"\0")
    start = (len(seal) - 1) // 512 * 512
    overwrite(disk, places[1], start, bytes(512))
    for place in places[2:]:
        disk.poke(place, disk.peek(place)[:512].ljust(SEGMENT_BYTES, b"\0"))
    for place in places[3:]:
        disk.unlink(place)
    copied = copy(PATH, TARGET, disk=disk)
    assert copied.segments == 2
    assert entries(disk, TARGET) == entries(disk)
    assert_opens_clean(disk, copied)


def test_a_live_log_whose_last_segment_has_no_frame_yet_is_copied_up_to_it() -> None:
    disk = written(BATCHES)
    last = segments(disk)[-1]
    disk.poke(last, disk.peek(last)[:512].ljust(SEGMENT_BYTES, b"\0"))
    expected = entries(disk)
    fd = disk.lock(PATH / "LOCK")
    copied = copy(PATH, TARGET, disk=disk)
    disk.close(fd)
    assert entries(disk, TARGET) == expected
    assert_opens_clean(disk, copied)


def pruned_and_redacted() -> tuple[MemoryDisk, wal.Head]:
    disk = MemoryDisk()
    with open_log(disk) as log:
        for batch in BATCHES[:2]:
            log.append(batch)
        early = log.head()
        for batch in BATCHES[2:]:
            log.append(batch)
        log.prune(7, keep_heads=[early])
        log.redact(lambda entry: entry.lsn == 9)
    return disk, early


def test_a_pruned_and_redacted_log_is_copied_with_what_proves_it() -> None:
    disk, early = pruned_and_redacted()
    copied = copy(PATH, TARGET, disk=disk)
    assert copied.first_lsn == entries(disk)[0].lsn > 1
    assert entries(disk, TARGET) == entries(disk)
    assert any(isinstance(entry, wal.Redacted) for entry in entries(disk, TARGET))
    assert wal.verify(TARGET, early, disk=disk).expected == "confirmed"
    assert_opens_clean(disk, copied)


class Meddled:
    """A disk on which something else happens at one moment: just before the `at`-th call."""

    def __init__(self, disk: MemoryDisk, at: int, meddle: Callable[[], None]) -> None:
        self._disk = disk
        self._left = at
        self._meddle = meddle

    def __getattr__(self, name: str) -> Callable[..., object]:
        real = getattr(self._disk, name)

        def call(*args: object, **options: object) -> object:
            self._left -= 1
            if self._left == 0:
                self._meddle()
            return real(*args, **options)

        return call

    @property
    def happened(self) -> bool:
        return self._left <= 0


def append_until_it_rotates(log: wal.Log) -> None:
    for _ in range(3):
        log.append([(7, b"meanwhile" * 200)])


MEDDLING: dict[str, Callable[[wal.Log], object]] = {
    "an append": lambda log: log.append([(7, b"meanwhile")]),
    "a rotation": append_until_it_rotates,
    "a prune": lambda log: log.prune(8),
    "a prune of all but the last": lambda log: log.prune(log.durable_lsn + 1),
    "a redaction": lambda log: log.redact(lambda entry: entry.lsn % 2 == 0),
    "a redaction, then a prune": lambda log: (log.redact(lambda entry: entry.lsn % 2 == 0), log.prune(8)),
    "a close": lambda log: log.close(),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_whatever_the_writer_does_at_any_moment_the_copy_opens_clean(what: str) -> None:
    at = 0
    while True:
        at += 1
        disk = MemoryDisk()
        log = open_log(disk)
        for batch in FEWER:
            log.append(batch)
        meddled = Meddled(disk, at, lambda log=log: MEDDLING[what](log))  # type: ignore[misc]
        copied = copy(PATH, TARGET, disk=meddled)  # type: ignore[arg-type]
        log.close()
        if not meddled.happened:
            break
        records = sum([len(batch) for batch in FEWER])
        assert copied.last_lsn >= records - 1
        for entry in entries(disk, TARGET):
            if not isinstance(entry, wal.Redacted) and entry.lsn <= records:
                assert (entry.kind, entry.payload) == RECORDS[entry.lsn - 1]
        assert wal.verify(PATH, copied.head, disk=disk).expected == "confirmed"
        assert_opens_clean(disk, copied)
    assert at > 40, "every moment was tried"


WRITER = """
import os, sys, wal
os.set_blocking(0, False)
with wal.Log.open(sys.argv[1], segment_bytes=32768, heartbeat_ms=5) as log:
    done = 0
    while True:
        log.append([(1, done.to_bytes(8, "little") * 200)])
        done += 1
        if done % 50 == 0:
            log.prune(max(done - 60, 1))
        try:
            if os.read(0, 1) == b"":
                break
        except BlockingIOError:
            pass
"""


def test_copies_beside_a_writer_process_that_rotates_and_prunes_open_clean(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE) as writer:
        try:
            wait_until(lambda: len(list(path.glob("*.wal"))) > 1)
            for number in range(12):
                copied = copy(path, tmp_path / str(number))
                found = list(wal.read(tmp_path / str(number), None))
                assert [entry.lsn for entry in found] == list(range(copied.first_lsn, copied.last_lsn + 1))
                assert all(entry.payload[:8] == (entry.lsn - 1).to_bytes(8, "little") for entry in found)
                assert wal.verify(tmp_path / str(number)).clean_close
        finally:
            assert writer.stdin is not None
            writer.stdin.close()
            assert writer.wait(60) == 0


def outcome(disk: MemoryDisk) -> str:
    """What the target is worth to whoever finds it."""
    names = [place.name for place in disk.files() if place.parent == TARGET]
    if not any(name.endswith(".wal") for name in names):
        return "nothing"
    verdict = wal.verify(TARGET, disk=disk)
    if verdict.status == "intact":
        assert verdict.records == len(RECORDS)
        assert verdict.clean_close
        return "copy"
    assert MARK_NAME in str(verdict.problem)
    with pytest.raises(wal.LogCorrupt, match=MARK_NAME):
        open_log(disk, TARGET)
    return "refused"


def test_power_loss_at_any_operation_leaves_a_whole_copy_or_what_nobody_takes_for_one() -> None:
    source = written(BATCHES)
    whole = source.copy()
    before = whole.operations
    copy(PATH, TARGET, disk=whole)
    seen = set()
    for operations in range(whole.operations - before + 1):
        for seed in range(6):
            disk = source.copy()
            disk.power_off_after(operations)
            with contextlib.suppress(wal.CopyFailed):
                copy(PATH, TARGET, disk=disk)
            after = disk.crash(random.Random(seed).randrange)
            seen.add(outcome(after))
            assert entries(after) == numbered(RECORDS)
    assert seen == {"nothing", "refused", "copy"}


@pytest.mark.parametrize(
    "op", ["make_dir", "list_dir", "open", "pread", "pwrite", "fdatasync", "fallocate", "unlink", "fsync_dir"]
)
def test_an_error_of_either_disk_leaves_nothing_or_what_is_refused_and_says_which(op: str) -> None:
    source = written(BATCHES)
    counting = FaultDisk(source.copy())
    copy(PATH, TARGET, disk=counting)
    assert counting.calls[op] > 0
    for nth in range(1, counting.calls[op] + 1):
        for forever in (False, True):
            disk = source.copy()
            faults = FaultDisk(disk)
            faults.fail(op, errno.EIO, nth, forever=forever)
            with pytest.raises(wal.CopyFailed, match="cannot copy the log at /log to /copy"):
                copy(PATH, TARGET, disk=faults)
            left = outcome(disk)
            assert left in {"nothing", "refused", "copy"}
            if not forever and op in {"pread", "pwrite", "fdatasync", "fallocate"}:
                assert left == "nothing"
            if left == "copy":
                assert op in {"unlink", "fsync_dir"}, "all was durable; only the mark was left to go"


def test_an_error_of_closing_costs_a_copy_only_where_a_file_was_written() -> None:
    """What was only read, or synced before, is closed either way."""
    source = written(BATCHES)
    counting = FaultDisk(source.copy())
    copy(PATH, TARGET, disk=counting)
    outcomes = set()
    for nth in range(1, counting.calls["close"] + 1):
        disk = source.copy()
        faults = FaultDisk(disk)
        faults.fail("close", errno.EIO, nth)
        try:
            copy(PATH, TARGET, disk=faults)
        except wal.CopyFailed:
            assert outcome(disk) in {"nothing", "refused"}
            outcomes.add("failed")
        else:
            assert outcome(disk) == "copy"
            assert list(wal.read(TARGET, disk=disk)) == numbered(RECORDS)
            outcomes.add("copied")
    assert outcomes == {"failed", "copied"}


def test_a_full_disk_leaves_nothing_behind() -> None:
    disk = written(BATCHES)
    faults = FaultDisk(disk)
    faults.no_space()
    with pytest.raises(wal.CopyFailed, match="No space left"):
        copy(PATH, TARGET, disk=faults)
    assert copied_files(disk) == {}


def test_an_interrupt_leaves_nothing_behind() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    disk = written(BATCHES)
    with pytest.raises(KeyboardInterrupt):
        copy(PATH, TARGET, disk=Meddled(disk, 60, interrupt))  # type: ignore[arg-type]
    assert copied_files(disk) == {}


def test_a_damaged_log_has_no_copy() -> None:
    for place_number in range(3):
        disk = written(BATCHES)
        place = segments(disk)[place_number]
        overwrite(disk, place, 1024 + 130, b"\xff")
        with pytest.raises(wal.LogCorrupt) as caught:
            copy(PATH, TARGET, disk=disk)
        assert caught.value.segment == place_number + 1
        assert copied_files(disk) == {}


def test_a_log_whose_seal_states_another_tree_has_no_copy() -> None:
    import google_crc32c

    disk = written(BATCHES)
    place = segments(disk)[0]
    image = bytearray(disk.peek(place))
    end = len(image.rstrip(b"\0"))
    start = (end - 1) // 512 * 512
    image[start + 130] ^= 1
    image[start + 508 : start + 512] = google_crc32c.value(bytes(image[start : start + 508])).to_bytes(4, "little")
    disk.poke(place, bytes(image))
    with pytest.raises(wal.LogTampered, match="seal"):
        copy(PATH, TARGET, disk=disk)


def test_a_segment_that_is_not_the_one_its_successor_describes_has_no_copy() -> None:
    """Another history of the same log, sound in itself, with the successor of this one."""
    base = written(BATCHES[:2])
    one, two = base.copy(), base.copy()
    with open_log(one) as log:
        for record in RECORDS[6:]:
            log.append([record])
    with open_log(two, entropy=lambda length: b"2" * length) as log:
        for record in RECORDS[6:]:
            log.append([record])
    places = segments(one)
    one.poke(places[0], two.peek(places[0]))
    with pytest.raises(wal.LogCorrupt, match="does not end where its header says"):
        copy(PATH, TARGET, disk=one)


def test_a_log_with_the_base_of_another_has_no_copy() -> None:
    disk, _ = pruned_and_redacted()
    other = written(BATCHES, entropy=bytes)
    disk.poke(PATH / BASE_NAME, other.peek(PATH / BASE_NAME))
    with pytest.raises(wal.LogCorrupt):
        copy(PATH, TARGET, disk=disk)
    whole = written(BATCHES)
    whole.poke(PATH / BASE_NAME, other.peek(PATH / BASE_NAME))
    with pytest.raises(wal.LogCorrupt, match="is not where BASE says"):
        copy(PATH, TARGET, disk=whole)


def test_a_log_that_lost_its_base_but_nothing_else_is_copied_with_a_new_one() -> None:
    disk = written(BATCHES)
    base = disk.peek(PATH / BASE_NAME)
    disk.unlink(PATH / BASE_NAME)
    assert_opens_clean(disk, copy(PATH, TARGET, disk=disk))
    assert disk.peek(TARGET / BASE_NAME)[:200] == base[:200]


def test_a_copy_goes_only_where_nothing_is(tmp_path: Path) -> None:
    disk = written(BATCHES)
    disk.poke(TARGET / "notes.txt", b"")
    with pytest.raises(wal.CopyFailed, match=r"not empty: notes\.txt is there"):
        copy(PATH, TARGET, disk=disk)
    with pytest.raises(wal.CopyFailed, match="not empty"):
        copy(PATH, PATH, disk=disk)
    marked = Path("/marked")
    disk.poke(marked / MARK_NAME, b"")
    with pytest.raises(wal.CopyFailed, match="interrupted copy stands there"):
        copy(PATH, marked, disk=disk)
    with pytest.raises(wal.CopyFailed, match="no segment is there"):
        copy(tmp_path, tmp_path / "copy")
    with pytest.raises(wal.CopyFailed, match="No such file"):
        copy(tmp_path / "nowhere", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_progress_reaches_the_whole() -> None:
    disk = written(BATCHES)
    told: list[tuple[int, int]] = []
    copy(PATH, TARGET, disk=disk, progress=lambda done, total: told.append((done, total)))
    total = SEGMENT_BYTES * len([place for place in segments(disk) if place.parent == PATH])
    assert told[-1] == (total, total)
    assert segment() in disk.files()


def test_a_real_directory_is_made_and_filled(tmp_path: Path) -> None:
    log = wal.Log.open(tmp_path / "log", segment_bytes=32768, heartbeat_ms=NEVER_MS)
    for record in RECORDS:
        log.append([record])
    copied = copy(tmp_path / "log", tmp_path / "a" / "b")
    abandon(log)
    assert {place.name for place in (tmp_path / "a" / "b").iterdir()} == {
        BASE_NAME, *[place.name for place in (tmp_path / "log").glob("*.wal")],
    }  # fmt: skip
    with wal.Log.open(tmp_path / "a" / "b") as opened:
        assert opened.recovery.clean_close
        assert opened.recovery.last_lsn == copied.last_lsn == len(RECORDS) - 1
