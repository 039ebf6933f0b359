"""Files that appear whole: whoever looks, and whoever comes after a crash, finds the old one or the new one.

    <folder>/.tamiyo-<random>.tmp    a draft: written, synced, then renamed to its place, and the rename synced

A draft is locked while it is written. So one whose process died can be told from one that another process is writing:
the next file that is written in that folder takes it away.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

__all__ = ["sync_folder", "whole_file", "written_to"]

_PREFIX, _SUFFIX = ".tamiyo-", ".tmp"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def whole_file(path: Path, *, mode: int = 0o666, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write into, which stands at `path` as a whole, and durable, once the block has ended well.

    Several processes may write the same one at a time: the last to end is what stays.

    Args:
        path: in a folder that is there.
        mode: its permissions, less the process's umask.
        replace: take the place of one that is there.

    Raises:
        FileExistsError: one is there, and `replace` is off.
        OSError: it cannot be written, and what was there is as it was; or the folder cannot be synced, and the new
            file is there and may not outlast a power cut.
    """
    _remove_abandoned(path.parent)
    written = False
    while not written:
        draft = path.with_name(f"{_PREFIX}{uuid4().hex}{_SUFFIX}")
        try:
            with os.fdopen(os.open(draft, _NEW, mode), "wb") as file:
                with suppress(OSError):  # where there are no locks nobody takes a draft for one that was left
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not os.fstat(file.fileno()).st_nlink:
                    continue  # somebody was faster and took it for one that was left
                yield file
                file.flush()
                os.fsync(file.fileno())
                if replace:
                    draft.replace(path)  # while it is locked, so that nobody takes it for one that was left
                else:
                    path.hardlink_to(draft)
                    draft.unlink()
                written = True
        except BaseException:  # whatever stops the writing, an interrupt too, no draft stays behind
            with suppress(OSError):  # what is told is what went wrong first; the next writer looks for it again
                draft.unlink()
            raise
    sync_folder(path.parent)


@contextmanager
def written_to(path: Path) -> Iterator[BinaryIO]:
    """As `whole_file`, for a place that a user names. Open it first, so that a wrong one is told before the work.

    A link is followed. What is there and no regular file, a pipe or a device, is written to as it is.

    Raises:
        OSError: it cannot be written; a directory never can.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    try:
        with whole_file(path.resolve() if path.is_symlink() else path) as file:
            yield file
    except OSError as error:
        if not Path(str(error.filename)).name.startswith(_PREFIX):
            raise
        # a draft's name says nothing to who gave the place
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Take away the drafts of processes that died; what cannot be taken away harms nobody."""
    with suppress(OSError), os.scandir(folder) as found:
        drafts = [entry for entry in found if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)]
        for draft in drafts:
            with suppress(OSError):
                _remove_unless_locked(Path(draft))


def _remove_unless_locked(draft: Path) -> None:
    with os.fdopen(os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: somebody is at work
        draft.unlink()  # who has just made it and waits for the lock sees that it is gone, and makes another
