"""What opening costs, what it needs of the system, and what it leaves alone."""

import errno
import os
import random
import time
from itertools import count
from pathlib import Path

import pytest
from log_rig import PATH, abandon, contents, entries, numbered, open_log, segments, written
from sim_rig import Player, held_by, recorded

import wal
from wal.disk import OsDisk
from wal.testing import FaultDisk, MemoryDisk

# How much is read.


class Counting(FaultDisk):
    """Counts the bytes that are read."""

    read_bytes = 0

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        data = super().pread(fd, length, offset)
        self.read_bytes += len(data)
        return data


def opening_reads_bytes(finished: int, in_last: int, *, close: bool, segment_bytes: int = 1 << 20) -> int:
    """How much opening reads of a log with so many finished segments, and so many batches of 50 kB in the last one."""
    records = [(1, bytes([n % 255 + 1]) * (segment_bytes - 80_000)) for n in range(finished)]
    records += [(2, bytes([n % 255 + 1]) * 50_000) for n in range(in_last)]
    memory = written([[record] for record in records], close=close, segment_bytes=segment_bytes)
    assert len(segments(memory)) == finished + 1
    disk = Counting(memory)
    open_log(disk, segment_bytes=segment_bytes).close()
    return disk.read_bytes


ways = pytest.mark.parametrize("close", [True, False], ids=["closed", "killed"])


@ways
def test_opening_reads_of_each_finished_segment_only_its_two_ends(*, close: bool) -> None:
    few, many = [opening_reads_bytes(finished, 2, close=close) for finished in (1, 9)]
    assert (many - few) / 8 < 200_000, "a header and a seal, and what little stands after it"


@ways
def test_what_opening_reads_of_the_last_segment_is_bounded_by_a_few_times_its_length(*, close: bool) -> None:
    for segment_bytes in (1 << 19, 1 << 20, 1 << 22):
        for in_last in (0, 1, 8):
            read_bytes = opening_reads_bytes(0, in_last, close=close, segment_bytes=segment_bytes)
            assert segment_bytes < read_bytes < 3 * segment_bytes + 65536


# What is made durable, on the real disk.


def test_a_new_directory_is_durable_with_the_name_of_every_parent_that_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), real(fd)))
    OsDisk().make_dir(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    synced.clear()
    OsDisk().make_dir(tmp_path / "a" / "b" / "c")
    assert synced == []


def test_an_append_returns_after_the_system_was_asked_to_sync_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, bytes] = {}
    real, real_dir = os.fdatasync, os.fsync
    names: list[set[str]] = []

    def fdatasync(fd: int) -> None:
        place = Path(f"/proc/self/fd/{fd}").readlink()
        synced[place.name] = place.read_bytes() if place.exists() else b""
        real(fd)

    def fsync(fd: int) -> None:
        names.append(set(os.listdir(fd)))
        real_dir(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(os, "fsync", fsync)
    with wal.Log.open(tmp_path, segment_bytes=8192) as log:
        for n in range(8):
            payload = b"payload %d " % n * 150
            log.append([(n, payload)])
            last = max(tmp_path.glob("*.wal"))
            assert payload in synced[last.name] or payload in synced.get("spare.tmp", b"")
            assert last.name in names[-1], "its name was synced with the directory"


# What the system may lack.


@pytest.mark.parametrize("error_no", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL], ids=errno.errorcode.get)
def test_a_log_works_where_files_cannot_be_allocated(
    error_no: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(fd: int, offset: int, length: int) -> None:
        raise OSError(error_no, os.strerror(error_no))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    records = [(n, bytes([n]) * 3000) for n in range(8)]
    with wal.Log.open(tmp_path, segment_bytes=16384) as log:
        for record in records:
            log.append([record])
        for place in tmp_path.glob("*.wal"):
            assert place.stat().st_blocks * 512 >= place.stat().st_size == 16384, "written, not a hole"
    assert list(wal.read(tmp_path)) == numbered(records)
    assert wal.verify(tmp_path).status == "intact"


class WithoutAllocation(MemoryDisk):
    """Grows files piece by piece, as zeros are written instead of allocating."""

    def fallocate(self, fd: int, length: int) -> None:
        for offset in range(0, length, 16384):
            self.pwrite(fd, bytes(min(16384, length - offset)), offset)


def test_power_lost_while_zeros_are_written_for_want_of_allocation_costs_nothing_acknowledged() -> None:
    for operations in count():
        for seed in range(3):
            disk = WithoutAllocation()
            disk.power_off_after(operations)
            acked, finished, log = 0, False, None
            try:
                log = open_log(disk, segment_bytes=65536)
                for n in range(5):
                    acked = log.append([(n, bytes([n]) * 30_000)]).last_lsn
                finished = True
            except wal.LogError:
                pass
            after = disk.crash(random.Random(seed).randrange)
            if log is not None:
                abandon(log)
            open_log(after, segment_bytes=65536).close()
            assert held_by(after).last_lsn >= acked
        if finished:
            assert operations > 25
            return


# What the clock says is nothing to the log.


def without_a_clock(player: Player) -> None:
    player.append(2300)
    player.stage(4)
    player.group([300], [1400], [7])
    player.append(2300)
    player.redact(1, 3)
    player.append(2300)
    player.prune(4)
    player.kill()
    player.open()
    player.append(5)
    player.close()


def test_a_clock_that_goes_back_changes_no_byte_of_what_is_written_pruned_or_redacted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = recorded(without_a_clock).digest()
    ticks = count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(ticks))
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 - 3600 * 10**9 * next(ticks))
    monkeypatch.setattr(time, "monotonic", lambda: 1e9 - 3600.0 * next(ticks))
    assert recorded(without_a_clock).digest() == expected
    monkeypatch.undo()
    assert next(ticks) > 0, "somebody asked"


# What is not the log's.


def test_files_that_the_log_did_not_make_are_left_alone() -> None:
    others = {
        PATH / name: name.encode()
        for name in ("notes.txt", "other.tmp", "BASE.bak", "quarantine-00000001-512-1.bin", "00000001.wal.old")
    }
    disk = MemoryDisk(others)
    records = [(n, bytes([n]) * 1500) for n in range(14)]
    with open_log(disk) as log:
        for record in records:
            log.append([record])
        log.redact(lambda entry: entry.lsn == 1)
        log.prune(5)
    open_log(disk).close()
    found = contents(disk)
    assert {place: found[place] for place in others} == others
    assert entries(disk, after=8) == numbered(records)[8:]
