"""A disk in memory that can lose power: what was not synced is then old, new, zero or garbage, by sector.

Rule: only `fdatasync` makes bytes and length durable, and only `fsync_dir` makes names durable. Names that
were not synced survive in the order in which they were given, up to some point, as a journal keeps them.
"""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

SECTOR_BYTES = 512
_GARBAGE = bytes(range(255, 0, -1)) * 3


class _File:
    """A file: its bytes now, its bytes on the medium, and the sectors in which they may differ."""

    def __init__(self, data: bytes = b"") -> None:
        self.now = bytearray(data)
        self.durable = bytes(data)
        self.dirty: set[int] = set()

    def write(self, data: bytes, offset: int) -> None:
        end = offset + len(data)
        self.now.extend(bytes(max(end - len(self.now), 0)))
        self.now[offset:end] = data
        self.dirty.update(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)))

    def sync(self) -> None:
        self.durable = bytes(self.now)
        self.dirty.clear()

    def after_crash(self, choose: Callable[[int], int]) -> "_File":
        """Return the file as power loss leaves it."""
        image = bytearray(self.durable)
        if len(self.now) != len(image) and choose(2):
            image.extend(bytes(max(len(self.now) - len(image), 0)))
        for sector in sorted(self.dirty):
            span = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            length = len(image[span])
            old, new = bytes(image[span]), bytes(self.now[span])[:length]
            image[span] = (old, new, bytes(length), _GARBAGE[:length])[choose(4)]
        return _File(bytes(image))


class MemoryDisk:
    """A whole file system in memory, for one test. Thread-safe.

    `power_off_after(n)` lets n more operations that change something succeed, and fails every later one;
    `crash` cuts the power now. Both leave this disk dead, so that a writer that still uses it fails.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._mutex = threading.RLock()
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._unsynced_names: list[dict[Path, _File | None]] = []
        self._open: dict[int, tuple[_File, bool]] = {}
        self._locks: dict[Path, int] = {}
        self._next_fd = 1000
        self._operations_left: int | None = None
        self.operations = 0

    # What a test does to it.

    def power_off_after(self, operations: int) -> None:
        """Fail every changing operation after this many more."""
        with self._mutex:
            self._operations_left = operations

    def crash(self, choose: Callable[[int], int]) -> "MemoryDisk":
        """Cut the power, and return the disk as it comes up again. `choose(n)` picks one of 0..n-1."""
        with self._mutex:
            self._operations_left = 0
            after = MemoryDisk()
            names = dict(self._durable_names)
            for change in self._unsynced_names[: choose(len(self._unsynced_names) + 1)]:
                _apply(names, change)
            kept = {place: file.after_crash(choose) for place, file in sorted(names.items())}
            after._names, after._durable_names = dict(kept), dict(kept)
            return after

    def kill(self) -> "MemoryDisk":
        """Kill the process, not the machine: return a disk with all that was written, and no lock held."""
        with self._mutex:
            self._operations_left = 0
            after = MemoryDisk()
            kept = {place: _File(bytes(file.now)) for place, file in self._names.items()}
            after._names, after._durable_names = dict(kept), dict(kept)
            return after

    def peek(self, path: Path) -> bytes:
        """Return a file's bytes."""
        with self._mutex:
            return bytes(self._names[path].now)

    def poke(self, path: Path, data: bytes) -> None:
        """Replace a file's bytes, durably; it need not have been there."""
        with self._mutex:
            self._names[path] = self._durable_names[path] = _File(data)

    def copy(self) -> "MemoryDisk":
        """Return another disk with the same files, both alive."""
        with self._mutex:
            after = MemoryDisk()
            for place, file in self._names.items():
                after.poke(place, bytes(file.now))
            return after

    def files(self) -> list[Path]:
        """Return every file's path, in order."""
        with self._mutex:
            return sorted(self._names)

    # The disk.

    def make_dir(self, path: Path) -> None:
        """Directories need no making here."""

    def list_dir(self, path: Path) -> list[str]:
        """Return the names in the directory."""
        with self._mutex:
            return [place.name for place in self._names if place.parent == path]

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a file."""
        with self._mutex:
            if create:
                self._change()
                if path in self._names:
                    raise _error(errno.EEXIST)
                self._rename({path: _File()})
            elif path not in self._names:
                raise _error(errno.ENOENT)
            return self._descriptor(self._names[path], write=write)

    def close(self, fd: int) -> None:
        """Close a descriptor, and drop its lock."""
        with self._mutex:
            del self._open[fd]
            self._locks = {place: holder for place, holder in self._locks.items() if holder != fd}

    def size(self, fd: int) -> int:
        """Return a file's length."""
        with self._mutex:
            return len(self._open[fd][0].now)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read."""
        with self._mutex:
            return bytes(self._open[fd][0].now[offset : offset + length])

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write."""
        with self._mutex:
            self._change()
            file, writable = self._open[fd]
            if not writable:
                raise _error(errno.EBADF)
            file.write(bytes(data), offset)
            return len(data)

    def fdatasync(self, fd: int) -> None:
        """Make a file's bytes durable."""
        with self._mutex:
            self._change()
            self._open[fd][0].sync()

    def fallocate(self, fd: int, length: int) -> None:
        """Grow a file with zeros."""
        with self._mutex:
            self._change()
            file = self._open[fd][0]
            file.now.extend(bytes(max(length - len(file.now), 0)))

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file."""
        with self._mutex:
            self._change()
            if source not in self._names:
                raise _error(errno.ENOENT)
            self._rename({target: self._names[source], source: None})

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        with self._mutex:
            if path not in self._names:
                raise _error(errno.ENOENT)
            self._change()
            self._rename({path: None})

    def fsync_dir(self, path: Path) -> None:
        """Make the directory's names durable."""
        with self._mutex:
            self._change()
            elsewhere = {place: file for place, file in self._durable_names.items() if place.parent != path}
            here = {place: file for place, file in self._names.items() if place.parent == path}
            self._durable_names = elsewhere | here
            self._unsynced_names = [c for c in self._unsynced_names if any(place.parent != path for place in c)]

    def drop_cache(self, fd: int) -> None:
        """Memory has no cache."""

    def lock(self, path: Path) -> int:
        """Take the lock."""
        with self._mutex:
            if path in self._locks:
                raise _error(errno.EAGAIN)
            if path not in self._names:
                self._change()
                self._rename({path: _File()})
            self._locks[path] = fd = self._descriptor(self._names[path], write=True)
            return fd

    def locked(self, path: Path) -> bool:
        """Whether the lock is held."""
        with self._mutex:
            return path in self._locks

    def _change(self) -> None:
        self.operations += 1
        if self._operations_left is not None:
            if self._operations_left <= 0:
                raise _error(errno.EIO)
            self._operations_left -= 1

    def _rename(self, change: dict[Path, _File | None]) -> None:
        _apply(self._names, change)
        self._unsynced_names.append(change)

    def _descriptor(self, file: _File, *, write: bool) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = (file, write)
        return self._next_fd


def _apply(names: dict[Path, _File], change: dict[Path, _File | None]) -> None:
    for place, file in change.items():
        if file is None:
            names.pop(place, None)
        else:
            names[place] = file


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
