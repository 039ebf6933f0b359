"""What is asked of an open file: its names and its length, and never its times."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import wal
from wal import status


@pytest.fixture
def fd(tmp_path: Path) -> Any:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def refusing(number: int) -> Any:
    """A statx that always fails in this way."""

    def statx(*_: Any) -> int:
        status.ctypes.set_errno(number)
        return -1

    return statx


@pytest.mark.parametrize("size", [0, 1, 4096, 2**32 - 1, 2**32, 5 * 2**32 + 7])
def test_length_and_names_are_those_that_fstat_gives(fd: int, tmp_path: Path, size: int) -> None:
    os.ftruncate(fd, size)
    os.link(tmp_path / "file", tmp_path / "second")
    assert (status.size(fd), status.links(fd)) == (size, 2)
    assert (os.fstat(fd).st_size, os.fstat(fd).st_nlink) == (size, 2)


def test_a_file_whose_name_another_took_has_none(fd: int, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").rename(tmp_path / "file")
    assert wal.OsDisk().links(fd) == 0


@pytest.mark.parametrize("way", [None, refusing(errno.ENOSYS), refusing(errno.EPERM)])
def test_where_statx_is_not_to_be_had_fstat_answers(monkeypatch: pytest.MonkeyPatch, fd: int, way: Any) -> None:
    os.ftruncate(fd, 5)
    monkeypatch.setattr(status, "_statx", way)
    assert (status.size(fd), status.links(fd)) == (5, 1)


def test_a_system_without_statx_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.ctypes, "CDLL", lambda *_, **__: object())
    assert status._find() is None


def test_any_other_error_is_raised_as_the_system_names_it(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        status.links(10**6)
    assert caught.value.errno == errno.EBADF
    monkeypatch.setattr(status, "_statx", refusing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        status.size(fd)


def test_the_times_are_not_asked_for(monkeypatch: pytest.MonkeyPatch, fd: int) -> None:
    """STATX_MTIME is 0x40 and STATX_CTIME 0x80: asked for, they would make the next sync a slow one."""
    masks: list[int] = []
    found = status._find()
    assert found is not None

    def statx(descriptor: int, path: bytes, flags: int, mask: int, answer: Any) -> int:
        masks.append(mask)
        return found(descriptor, path, flags, mask, answer)

    monkeypatch.setattr(status, "_statx", statx)
    disk = wal.OsDisk()
    assert (disk.links(fd), disk.size(fd)) == (1, 0)
    assert [mask & 0xC0 for mask in masks] == [0, 0]
