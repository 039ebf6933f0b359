"""A disk that does what another disk does, until it is told not to."""

import errno
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wal.disk import Disk, OsDisk


@dataclass(slots=True)
class _Fault:
    """An error to raise at the `wait`-th call from now; once, or from then on."""

    error_no: int
    wait: int
    forever: bool


def every_fault(calls: Mapping[str, int]) -> Iterator[tuple[str, int, bool]]:
    """Yield (op, nth, forever) for each of these calls to fail, once and from then on, as SQLite's tests do.

    Run your code once on a `FaultDisk`; then once more for each of these, given to `FaultDisk.fail`.
    """
    for op, number in sorted(calls.items()):
        for nth in range(1, number + 1):
            yield op, nth, False
            yield op, nth, True


class FaultDisk:
    """Wraps a disk. Operations are named as the methods of `wal.Disk`: "fdatasync", "pwrite", "rename"...

    `calls` counts every call by operation, those that failed or hang included.
    """

    def __init__(self, inner: Disk | None = None) -> None:
        """Wrap `inner`, or the real disk."""
        self._inner: Disk = OsDisk() if inner is None else inner
        self._changed = threading.Condition()
        self._faults: dict[str, list[_Fault]] = {}
        self._hanging: set[str] = set()
        self._inside: list[tuple[str, threading.Thread]] = []
        self._full = False
        self._short = 0
        self.calls: Counter[str] = Counter()

    # What to do wrong.

    def fail(self, op: str, error_no: int, nth: int = 1, *, forever: bool = False) -> None:
        """Raise OSError(`error_no`) at the `nth` call of `op` from now (1 is the next), or at all from there on."""
        with self._changed:
            self._faults.setdefault(op, []).append(_Fault(error_no, nth, forever))

    def heal(self, op: str | None = None) -> None:
        """Forget the faults programmed for `op`, or all of them."""
        with self._changed:
            for name in [op] if op is not None else list(self._faults):
                self._faults.pop(name, None)

    def hang(self, op: str) -> None:
        """Let every call of `op` wait until `release`."""
        with self._changed:
            self._hanging.add(op)

    def release(self, op: str | None = None) -> None:
        """Let the hanging calls of `op`, or of every operation, go on."""
        with self._changed:
            self._hanging -= {op} if op is not None else set(self._hanging)
            self._changed.notify_all()

    @property
    def hanging(self) -> frozenset[str]:
        """The operations whose calls wait."""
        with self._changed:
            return frozenset(self._hanging)

    @property
    def waiting(self) -> tuple[threading.Thread, ...]:
        """The threads whose calls wait now."""
        with self._changed:
            return tuple(thread for op, thread in self._inside if op in self._hanging)

    @property
    def is_full(self) -> bool:
        """Whether it refuses to allocate."""
        with self._changed:
            return self._full

    def wait_until_hung(self, op: str, timeout_s: float = 30) -> bool:
        """Wait until a call of `op` hangs; False when none did within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: any(op == name for name, _ in self._inside), timeout_s)

    def wait_for_calls(self, op: str, calls: int, timeout_s: float = 30) -> bool:
        """Wait until `op` was called `calls` times in all; False when it was not within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.calls[op] >= calls, timeout_s)

    def no_space(self) -> None:
        """Refuse, with ENOSPC, to allocate or to grow any file."""
        with self._changed:
            self._full = True

    def free_space(self) -> None:
        """Allocate again."""
        with self._changed:
            self._full = False

    def shorten(self, calls: int) -> None:
        """Let the next `calls` writes of more than one byte take only half of what they are given."""
        with self._changed:
            self._short = calls

    def _enter(self, op: str) -> None:
        with self._changed:
            self.calls[op] += 1
            call = op, threading.current_thread()
            self._inside.append(call)
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: op not in self._hanging)
            finally:
                self._inside.remove(call)
            due = self._due(op)
        if due is not None:
            raise OSError(due, os.strerror(due))

    def _due(self, op: str) -> int | None:
        due = None
        for fault in list(self._faults.get(op, ())):
            fault.wait -= 1
            if fault.wait <= 0:
                due = fault.error_no
                if not fault.forever:
                    self._faults[op].remove(fault)
        return due

    def _need_space(self) -> None:
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # The disk.

    def make_dir(self, path: Path) -> None:
        """Create a directory, durably."""
        self._enter("make_dir")
        self._inner.make_dir(path)

    def list_dir(self, path: Path) -> list[str]:
        """Return the names in the directory."""
        self._enter("list_dir")
        return self._inner.list_dir(path)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a file."""
        self._enter("open")
        return self._inner.open(path, write=write, create=create)

    def close(self, fd: int) -> None:
        """Close a descriptor, also when that fails: Linux lets go of it either way (close(2))."""
        try:
            self._enter("close")
        finally:
            self._inner.close(fd)

    def size(self, fd: int) -> int:
        """Return a file's length."""
        self._enter("size")
        return self._inner.size(fd)

    def links(self, fd: int) -> int:
        """Return how many names a file has."""
        self._enter("links")
        return self._inner.links(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Read."""
        self._enter("pread")
        return self._inner.pread(fd, length, offset)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write, when that needs no more space than there is."""
        self._enter("pwrite")
        if offset + len(data) > self._inner.size(fd):
            self._need_space()
        if self._short > 0 and len(data) > 1:
            self._short -= 1
            data = memoryview(data)[: len(data) // 2]
        return self._inner.pwrite(fd, data, offset)

    def fdatasync(self, fd: int) -> None:
        """Sync a file."""
        self._enter("fdatasync")
        self._inner.fdatasync(fd)

    def fallocate(self, fd: int, length: int) -> None:
        """Allocate, when there is space."""
        self._enter("fallocate")
        self._need_space()
        self._inner.fallocate(fd, length)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file."""
        self._enter("rename")
        self._inner.rename(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        self._enter("unlink")
        self._inner.unlink(path)

    def fsync_dir(self, path: Path) -> None:
        """Sync a directory."""
        self._enter("fsync_dir")
        self._inner.fsync_dir(path)

    def drop_cache(self, fd: int) -> None:
        """Drop a file's pages."""
        self._enter("drop_cache")
        self._inner.drop_cache(fd)

    def lock(self, path: Path) -> int:
        """Take the lock."""
        self._enter("lock")
        return self._inner.lock(path)

    def locked(self, path: Path) -> bool:
        """Whether the lock is held."""
        self._enter("locked")
        return self._inner.locked(path)
