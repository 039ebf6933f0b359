"""The one door to the file system, so that a simulated or failing disk can stand in for the real one.

Files are named by descriptor once open. `pread` and `pwrite` may be short, as the system calls are;
`read_fully` and `write_fully` loop. Every method raises OSError as the system call does.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from wal import status

ZERO_CHUNK_BYTES = 1 << 20
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Disk(Protocol):
    """What the log needs of a file system."""

    def make_dir(self, path: Path) -> None:
        """Create the directory and its parents, durably; do nothing when it is there."""

    def list_dir(self, path: Path) -> list[str]:
        """Return the names in the directory, in any order."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a file and return its descriptor; `create` demands that it was not there."""

    def close(self, fd: int) -> None:
        """Close the descriptor, and drop the lock that it may hold."""

    def size(self, fd: int) -> int:
        """Return the file's length in bytes."""

    def links(self, fd: int) -> int:
        """Return how many names the file has; 0 once another file took its only one."""

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes at `offset`; empty at the end of the file."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset` and return how many bytes went, possibly fewer than given."""

    def fdatasync(self, fd: int) -> None:
        """Return once the file's bytes, and what is needed to read them, are on the medium."""

    def fallocate(self, fd: int, length: int) -> None:
        """Reserve and zero the first `length` bytes, growing the file to that length."""

    def rename(self, source: Path, target: Path) -> None:
        """Move a file over another name, atomically."""

    def unlink(self, path: Path) -> None:
        """Remove a file."""

    def fsync_dir(self, path: Path) -> None:
        """Return once the directory's names are on the medium."""

    def drop_cache(self, fd: int) -> None:
        """Ask that the next read come from the medium rather than from memory."""

    def lock(self, path: Path) -> int:
        """Create the file if needed, take the exclusive lock on it, and return the descriptor that holds it.

        Raises BlockingIOError when another holds it.
        """

    def locked(self, path: Path) -> bool:
        """Whether a writer holds the lock on this file."""


class OsDisk:
    """The real file system."""

    def make_dir(self, path: Path) -> None:
        """Create the directory and its parents, and sync each parent that gained a name."""
        missing = [place for place in (path, *path.parents) if not place.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for place in reversed(missing):
            self.fsync_dir(place.parent)

    def list_dir(self, path: Path) -> list[str]:
        """Return the names in the directory."""
        return [place.name for place in path.iterdir()]

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open close-on-exec, so that no child process started by exec inherits the log."""
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY)
        return os.open(path, flags | (os.O_CREAT | os.O_EXCL if create else 0), 0o644)

    def close(self, fd: int) -> None:
        """Close the descriptor."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """Return the file's length in bytes."""
        return status.size(fd)

    def links(self, fd: int) -> int:
        """Return how many names the file has."""
        return status.links(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read up to `length` bytes."""
        return os.pread(fd, length, offset)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write what the kernel takes."""
        return os.pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """Sync the file's data; the GIL is free meanwhile."""
        os.fdatasync(fd)

    def fallocate(self, fd: int, length: int) -> None:
        """Reserve space; file systems that cannot are given zeros to keep instead."""
        try:
            os.posix_fallocate(fd, 0, length)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            write_zeros(self, fd, 0, length)

    def rename(self, source: Path, target: Path) -> None:
        """Rename over `target`."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def fsync_dir(self, path: Path) -> None:
        """Sync the directory itself."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def drop_cache(self, fd: int) -> None:
        """Drop the file's clean pages."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def lock(self, path: Path) -> int:
        """Take flock(LOCK_EX) without waiting."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:  # an interrupt too: nobody else knows this descriptor, and it may hold the lock by now
            os.close(fd)
            raise
        return fd

    def locked(self, path: Path) -> bool:
        """Try a shared lock for an instant; `wal.lock` forgives a writer that meets it."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


@contextmanager
def opened(disk: Disk, path: Path, *, write: bool = False) -> Iterator[int]:
    """Open a file for the length of a `with` block.

    An error of closing is passed over: what was to be durable was synced before, and the descriptor is gone (close(2)).
    """
    fd = disk.open(path, write=write)
    try:
        yield fd
    finally:
        with suppress(OSError):
            disk.close(fd)


def settle(disk: Disk, path: Path) -> None:
    """Let the medium speak, not the page cache, before a file is read: sync what is dirty, then drop it.

    After a failed sync the cache can show bytes that are not on the medium, marked clean; these are dropped too.
    """
    with opened(disk, path) as fd:
        disk.fdatasync(fd)
        disk.drop_cache(fd)


def sync_surely(disk: Disk, fd: int) -> None:
    """Sync a file that is about to take another's place, and ask once more.

    A file system that fails late (ext4 with data=journal) says so at the sync after the one that failed, when the other
    file would be gone.
    """
    disk.fdatasync(fd)
    disk.fdatasync(fd)


def read_fully(disk: Disk, fd: int, length: int, offset: int) -> bytes:
    """Read `length` bytes, or fewer only when the file ends first."""
    parts: list[bytes] = []
    while length > 0 and (part := disk.pread(fd, length, offset)):
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_fully(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    """Write all of `data`; the kernel may take it in pieces. A piece of nothing is an error, not a wait."""
    rest: bytes | memoryview = data
    while rest:
        done = disk.pwrite(fd, rest, offset)
        if done == len(rest):
            return
        if done <= 0:
            raise OSError(errno.EIO, "pwrite took no bytes")
        rest = memoryview(rest)[done:]
        offset += done


def write_zeros(disk: Disk, fd: int, offset: int, end: int) -> None:
    """Write zeros from `offset` to `end`, a chunk at a time."""
    zeros = bytes(min(ZERO_CHUNK_BYTES, end - offset))
    while offset < end:
        piece = zeros[: end - offset]
        write_fully(disk, fd, piece, offset)
        offset += len(piece)
