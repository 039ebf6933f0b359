"""One writer: a lock on the LOCK file, which names the process that holds it.

flock belongs to the open file, which fork shares: a child that kept its copy of the descriptor would
keep the lock after its parent's death. So a forked child closes its copies at once.
"""

import contextlib
import os
import time
import weakref
from pathlib import Path

from wal.disk import Disk, opened, read_fully
from wal.errors import LogLocked
from wal.segment import LOCK_NAME

# A reader asks whether a writer lives by taking a shared lock for an instant; a writer that opens in that
# instant tries again. 20 times 5 ms is far longer than the instant, and short for a human.
_TRIES = 20
_TRY_AGAIN_S = 0.005
_PID_BYTES = 20


class Lock:
    """The lock of one directory: first made, so that somebody answers for releasing it, and then taken."""

    def __init__(self, disk: Disk, path: Path) -> None:
        """Take nothing yet."""
        self._disk = disk
        self._path = path
        self._fd: int | None = None
        _held.add(self)

    def take(self) -> None:
        """Take the lock, or raise LogLocked."""
        self._fd = _take(self._disk, self._path)
        with contextlib.suppress(OSError):  # the name is a help for humans; a full disk must not keep the log shut
            self._disk.pwrite(self._fd, str(os.getpid()).ljust(_PID_BYTES).encode(), 0)

    def release(self) -> None:
        """Let go; doing it again does nothing."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # the descriptor is gone either way, and the lock with it: close(2)
                self._disk.close(fd)


def is_locked(disk: Disk, path: Path) -> bool:
    """Whether a writer has the log open."""
    return disk.locked(path / LOCK_NAME)


def _take(disk: Disk, path: Path) -> int:
    for _ in range(_TRIES):
        try:
            return disk.lock(path / LOCK_NAME)
        except BlockingIOError:
            time.sleep(_TRY_AGAIN_S)
    raise LogLocked(path, _holder(disk, path))


def _holder(disk: Disk, path: Path) -> int | None:
    with opened(disk, path / LOCK_NAME) as fd:
        text = read_fully(disk, fd, _PID_BYTES, 0).strip()
    return int(text) if text.isdigit() else None


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
