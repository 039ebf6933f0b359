"""A disk in memory that loses power, kills its user, fails a sync as real file systems do, and tells what was done.

What was not synced is, after power loss, old, new, zero or garbage, sector by sector (`wal.testing.system`); names
survive in the order in which they were given, up to some point, as a journal keeps them.
"""

import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from wal.testing.syncs import SyncModel
from wal.testing.system import CachedFile, FileSystem, Operation, Trace, parent


class MemoryDisk:
    """A whole file system in memory, for one test. Thread-safe.

    `power_off_after(n)` lets n more operations that change something succeed, and fails every later one;
    `crash` cuts the power now, `kill` ends the process. All three leave this disk dead, so that a writer that
    still uses it fails. A file that is locked is no data: it is gone after either, and in no trace.

    `keeps_cache` makes `drop_cache` do nothing, as a kernel may: it is advice. `operations` counts what changed
    something.
    """

    def __init__(self, files: Mapping[Path, bytes] | None = None, *, record: bool = False) -> None:
        """Begin with these files, durable; `record` keeps a `trace`, for `wal.testing.crash_states`."""
        begin = {str(path): data for path, data in (files or {}).items()}
        self._mutex = threading.RLock()
        self._system = FileSystem(begin)
        self._trace = Trace(begin) if record else None
        self._open: dict[int, tuple[CachedFile, int, bool]] = {}
        self._lock_files: dict[str, CachedFile] = {}
        self._locks: dict[str, int] = {}
        self._next_fd = 1000
        self._operations_left: int | None = None
        self._failing_syncs: dict[int, tuple[SyncModel, Callable[[int], bool]]] = {}
        self._syncs = 0
        self.keeps_cache = False
        self.operations = 0

    # What a test does to it.

    @property
    def trace(self) -> Trace:
        """What was done so far. Raises ValueError for a disk that does not record."""
        if self._trace is None:
            raise ValueError("this disk kept no trace: make it with MemoryDisk(record=True)")
        return self._trace

    def note(self, what: object) -> None:
        """Put a word into the trace: what has been promised by now, say. Nothing happens on a dead disk."""
        with self._mutex:
            if self._operations_left != 0:
                self._do(Operation("note", note=what))

    def power_off_after(self, operations: int) -> None:
        """Fail every changing operation after this many more."""
        with self._mutex:
            self._operations_left = operations

    def fail_sync(self, model: SyncModel, nth: int = 1, lost: Callable[[int], bool] = lambda _: True) -> None:
        """Fail the `nth` fdatasync from now as the model says; `lost(sector)` picks the dirty sectors it loses."""
        with self._mutex:
            self._failing_syncs[self._syncs + nth] = (model, lost)

    def crash(self, choose: Callable[[int], int]) -> "MemoryDisk":
        """Cut the power, and return the disk as it comes up again. `choose(n)` picks one of 0..n-1."""
        with self._mutex:
            self._operations_left = 0
            system = self._system
            names = system.names_after(system.unsynced[: choose(len(system.unsynced) + 1)])
            return MemoryDisk({Path(path): system.files[names[path]].after_crash(choose) for path in sorted(names)})

    def kill(self) -> "MemoryDisk":
        """Kill the process, not the machine: return the same disk, cache and trace and all, with no lock held."""
        with self._mutex:
            self._operations_left = 0
            after = MemoryDisk()
            after._system, after._trace, after.keeps_cache = self._system, self._trace, self.keeps_cache
            return after

    def peek(self, path: Path) -> bytes:
        """Return a file's bytes."""
        with self._mutex:
            return bytes(self._find(path)[0].now)

    def poke(self, path: Path, data: bytes) -> None:
        """Replace a file's bytes, durably; it need not have been there. Raises ValueError for a recorded disk."""
        with self._mutex:
            if self._trace is not None:
                raise ValueError("a recorded disk changes by its own operations alone: poke before it records")
            self._system.put(str(path), data)

    def copy(self, *, record: bool = False) -> "MemoryDisk":
        """Return another disk with the same files, durable there; both live on."""
        with self._mutex:
            return MemoryDisk({path: self.peek(path) for path in self._paths(self._system.names)}, record=record)

    def files(self) -> list[Path]:
        """Return every file's path, in order."""
        with self._mutex:
            return self._paths({**self._system.names, **self._lock_files})

    # The disk.

    def make_dir(self, path: Path) -> None:
        """Directories need no making here."""

    def list_dir(self, path: Path) -> list[str]:
        """Return the names in the directory."""
        with self._mutex:
            here = str(path)
            names = (*self._system.names, *self._lock_files)
            return [name.rpartition("/")[2] for name in names if parent(name) == here]

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a file."""
        with self._mutex:
            if create:
                self._change()
                if str(path) in self._system.names:
                    raise _error(errno.EEXIST)
                self._do(Operation("names", names={str(path): self._system.next_number}))
            return self._descriptor(*self._find(path), write=write)

    def close(self, fd: int) -> None:
        """Close a descriptor, and drop its lock."""
        with self._mutex:
            self._opened(fd)
            del self._open[fd]
            self._locks = {place: holder for place, holder in self._locks.items() if holder != fd}

    def size(self, fd: int) -> int:
        """Return a file's length."""
        with self._mutex:
            return len(self._opened(fd)[0].now)

    def links(self, fd: int) -> int:
        """Return how many names a file has."""
        with self._mutex:
            return list(self._system.names.values()).count(self._open[fd][1])

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read."""
        with self._mutex:
            return bytes(self._opened(fd)[0].now[offset : offset + length])

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write."""
        with self._mutex:
            file, number, writable = self._opened(fd)
            if number == _LOCK_FILE:
                file.write(bytes(data), offset)
                return len(data)
            self._change()
            if not writable:
                raise _error(errno.EBADF)
            self._do(Operation("pwrite", number, offset, bytes(data)))
            return len(data)

    def fdatasync(self, fd: int) -> None:
        """Make a file's bytes durable, or fail as `fail_sync` was told."""
        with self._mutex:
            self._change()
            file, number, _ = self._opened(fd)
            self._syncs += 1
            if file.late_error:
                file.late_error = False
                raise _error(errno.EIO)
            fault = self._failing_syncs.pop(self._syncs, None)
            if fault is None:
                self._do(Operation("fdatasync", number))
                return
            model, is_lost = fault
            lost = frozenset(filter(is_lost, file.dirty))
            self._do(Operation("fdatasync", number, model=model, lost=lost))
            if not model.late:
                raise _error(errno.EIO)

    def fallocate(self, fd: int, length: int) -> None:
        """Grow a file with zeros."""
        with self._mutex:
            self._change()
            self._do(Operation("fallocate", self._opened(fd)[1], length))

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file."""
        with self._mutex:
            self._change()
            number = self._find(source)[1]
            self._do(Operation("names", names={str(target): number, str(source): None}))

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        with self._mutex:
            self._find(path)
            self._change()
            self._do(Operation("names", names={str(path): None}))

    def fsync_dir(self, path: Path) -> None:
        """Make the directory's names durable."""
        with self._mutex:
            self._change()
            self._do(Operation("fsync_dir", path=str(path)))

    def drop_cache(self, fd: int) -> None:
        """Show what is on the medium, where a failed sync left something else in the cache."""
        with self._mutex:
            file, number, _ = self._opened(fd)
            if file.lost and not self.keeps_cache:
                self._do(Operation("drop_cache", number))

    def lock(self, path: Path) -> int:
        """Take the lock."""
        with self._mutex:
            if str(path) in self._locks:
                raise _error(errno.EAGAIN)
            file = self._lock_files.setdefault(str(path), CachedFile())
            self._locks[str(path)] = fd = self._descriptor(file, _LOCK_FILE, write=True)
            return fd

    def locked(self, path: Path) -> bool:
        """Whether the lock is held."""
        with self._mutex:
            return str(path) in self._locks

    def _change(self) -> None:
        self.operations += 1
        if self._operations_left is not None:
            if self._operations_left <= 0:
                raise _error(errno.EIO)
            self._operations_left -= 1

    def _do(self, change: Operation) -> None:
        self._system.apply(change)
        if self._trace is not None:
            self._trace.operations.append(change)

    def _find(self, path: Path) -> tuple[CachedFile, int]:
        number = self._system.names.get(str(path))
        if number is not None:
            return self._system.files[number], number
        if str(path) in self._lock_files:
            return self._lock_files[str(path)], _LOCK_FILE
        raise _error(errno.ENOENT)

    def _opened(self, fd: int) -> tuple[CachedFile, int, bool]:
        if fd not in self._open:
            raise _error(errno.EBADF)
        return self._open[fd]

    def _descriptor(self, file: CachedFile, number: int, *, write: bool) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = (file, number, write)
        return self._next_fd

    @staticmethod
    def _paths(names: Mapping[str, object]) -> list[Path]:
        return sorted(map(Path, names))


_LOCK_FILE = -1


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
