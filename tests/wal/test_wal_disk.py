"""The real disk, and the two that stand in for it."""

import errno
import os
from pathlib import Path

import pytest

from wal.disk import Disk, OsDisk, read_fully, write_fully, write_zeros
from wal.testing import FaultDisk, MemoryDisk


@pytest.fixture(params=[OsDisk, MemoryDisk, FaultDisk])
def disk(request: pytest.FixtureRequest) -> Disk:
    made: Disk = request.param()
    return made


def test_every_disk_keeps_what_it_is_given(disk: Disk, tmp_path: Path) -> None:
    disk.make_dir(tmp_path / "a" / "b")
    place, other = tmp_path / "a" / "b" / "file", tmp_path / "a" / "b" / "other"
    fd = disk.open(place, write=True, create=True)
    disk.fallocate(fd, 3000)
    assert (disk.size(fd), read_fully(disk, fd, 5000, 0)) == (3000, bytes(3000))
    write_fully(disk, fd, b"abc", 10)
    disk.fdatasync(fd)
    disk.drop_cache(fd)
    assert disk.pread(fd, 5, 9) == b"\0abc\0"
    disk.close(fd)
    disk.rename(place, other)
    disk.fsync_dir(other.parent)
    assert disk.list_dir(other.parent) == ["other"]
    with pytest.raises(FileExistsError):
        disk.open(other, write=True, create=True)
    disk.unlink(other)
    for missing in (lambda: disk.open(other), lambda: disk.unlink(other), lambda: disk.rename(other, place)):
        with pytest.raises(FileNotFoundError):
            missing()


def test_every_disk_lets_one_hold_a_lock(disk: Disk, tmp_path: Path) -> None:
    place = tmp_path / "LOCK"
    assert not disk.locked(place)
    fd = disk.lock(place)
    assert disk.locked(place)
    with pytest.raises(BlockingIOError):
        disk.lock(place)
    disk.close(fd)
    assert not disk.locked(place)
    disk.close(disk.lock(place))


def test_a_file_opened_for_reading_cannot_be_written(disk: Disk, tmp_path: Path) -> None:
    disk.close(disk.open(tmp_path / "file", write=True, create=True))
    fd = disk.open(tmp_path / "file")
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.pwrite(fd, b"x", 0)
    disk.close(fd)


def test_a_file_system_that_cannot_allocate_is_given_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    disk = OsDisk()
    fd = disk.open(tmp_path / "file", write=True, create=True)
    disk.fallocate(fd, (1 << 20) + 700)
    assert (tmp_path / "file").read_bytes() == bytes((1 << 20) + 700)
    disk.close(fd)


def test_a_full_disk_is_not_taken_for_one_that_cannot_allocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    disk = OsDisk()
    fd = disk.open(tmp_path / "file", write=True, create=True)
    with pytest.raises(OSError, match="full"):
        disk.fallocate(fd, 4096)
    assert disk.size(fd) == 0
    disk.close(fd)


def test_a_lock_that_cannot_be_taken_leaks_no_descriptor(tmp_path: Path) -> None:
    disk = OsDisk()
    held = disk.lock(tmp_path / "LOCK")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(BlockingIOError):
        disk.lock(tmp_path / "LOCK")
    assert disk.locked(tmp_path / "LOCK")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    disk.close(held)


class Stubborn(MemoryDisk):
    """Takes seven bytes at a time, and gives five."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return super().pwrite(fd, bytes(data)[:7], offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return super().pread(fd, min(length, 5), offset)


def test_short_reads_and_writes_are_completed(tmp_path: Path) -> None:
    disk = Stubborn()
    fd = disk.open(tmp_path / "file", write=True, create=True)
    write_fully(disk, fd, bytes(range(100)), 3)
    assert read_fully(disk, fd, 200, 0) == bytes(3) + bytes(range(100))
    write_zeros(disk, fd, 10, 95)
    assert read_fully(disk, fd, 200, 0) == bytes(3) + bytes(range(7)) + bytes(85) + bytes(range(92, 100))


def test_a_write_that_takes_nothing_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    class Dead(MemoryDisk):
        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            return 0

    disk = Dead()
    fd = disk.open(tmp_path / "file", write=True, create=True)
    with pytest.raises(OSError, match="took no bytes"):
        write_fully(disk, fd, b"x", 0)


def test_lost_power_keeps_what_was_synced_and_mixes_what_was_not(tmp_path: Path) -> None:
    disk = MemoryDisk()
    place = tmp_path / "file"
    fd = disk.open(place, write=True, create=True)
    disk.pwrite(fd, b"a" * 2048, 0)
    disk.fdatasync(fd)
    disk.fsync_dir(tmp_path)
    disk.pwrite(fd, b"b" * 2048, 0)
    choices = iter([0, 0, 1, 2, 3])  # no unsynced name; then old, new, zero, garbage
    after = disk.crash(lambda _: next(choices)).peek(place)
    assert after[:1536] == b"a" * 512 + b"b" * 512 + bytes(512)
    assert after[1536:] not in (b"a" * 512, b"b" * 512, bytes(512))
    with pytest.raises(OSError, match="Input/output error"):
        disk.fdatasync(fd)


def test_a_name_that_was_not_synced_may_go_with_the_power(tmp_path: Path) -> None:
    def made(keep: int) -> list[Path]:
        disk = MemoryDisk()
        disk.open(tmp_path / "one", write=True, create=True)
        disk.rename(tmp_path / "one", tmp_path / "two")
        return disk.crash(lambda _: keep).files()

    assert [made(keep) for keep in range(3)] == [[], [tmp_path / "one"], [tmp_path / "two"]]


def test_faults_come_when_they_were_asked_for(tmp_path: Path) -> None:
    disk = FaultDisk(MemoryDisk())
    fd = disk.open(tmp_path / "file", write=True, create=True)
    disk.fail("fdatasync", errno.EIO, nth=2)
    disk.fdatasync(fd)
    with pytest.raises(OSError, match="Input/output error"):
        disk.fdatasync(fd)
    disk.fdatasync(fd)
    disk.fail("fdatasync", errno.EROFS, forever=True)
    for _ in range(3):
        with pytest.raises(OSError, match="Read-only"):
            disk.fdatasync(fd)
    disk.heal()
    disk.fdatasync(fd)
    assert disk.calls["fdatasync"] == 7


def test_a_full_disk_lets_files_be_overwritten_but_not_grow(tmp_path: Path) -> None:
    disk = FaultDisk(MemoryDisk())
    fd = disk.open(tmp_path / "file", write=True, create=True)
    disk.fallocate(fd, 512)
    disk.no_space()
    assert disk.pwrite(fd, b"x" * 512, 0) == 512
    for growing in (lambda: disk.pwrite(fd, b"x", 512), lambda: disk.fallocate(fd, 1024)):
        with pytest.raises(OSError, match="No space left"):
            growing()
    disk.free_space()
    disk.fallocate(fd, 1024)
    assert disk.size(fd) == 1024
