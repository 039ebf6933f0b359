"""A rebuild beside the rows in use, and the swap: readers see the old rows or the new ones, a crash leaves the old.

    <dir>/projection.rebuild-<random>/    a database of its own, locked by the process that fills it
    <dir>/projection.sqlite               what everybody reads: its contents change in one transaction of SQLite's

The file itself is never renamed over. Another process may have it open, and in WAL mode what it knows of the database
is spread over three files that find each other by name: it would go on in the old file, beside the write-ahead log of
the new one, which is how SQLite databases are lost. SQLite's own backup writes the new pages as one transaction under
the write lock instead. Readers keep what they have begun to read, writers wait, and until the commit nothing counts.
"""

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine

from tamiyo.projections import database

__all__ = ["beside", "copy_over"]

_PREFIX = "projection.rebuild-"
_ALL_PAGES = -1
_ASK_AGAIN_S = 0.01


@contextmanager
def beside(engine: Engine) -> Iterator[Engine]:
    """An engine for a new database of the same kind, near the one given; gone when the block is left.

    What rebuilds that died have left there is removed.

    Raises:
        OSError: nothing can be made there.
    """
    if database.path_of(engine) is None:
        shadow = database.memory_engine()
        try:
            yield shadow
        finally:
            shadow.dispose()
        return
    with _folder(Path(str(engine.url.database)).parent) as folder:
        shadow = database.sqlite_engine(folder / "shadow.sqlite")
        try:
            yield shadow
        finally:
            shadow.dispose()


def copy_over(source: Engine, target: Engine) -> None:
    """Replace everything in `target` by what is in `source`, in one transaction.

    Raises:
        ProjectionUnusable: the target stayed locked for `BUSY_TIMEOUT_MS`, or cannot be written.
    """
    deadline_s = time.monotonic() + database.BUSY_TIMEOUT_MS / 1000

    def give_up_when_locked(status: int, _remaining: int, _total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() >= deadline_s:
            raise sqlite3.OperationalError("database is locked")

    with database.translated(target, "write"), source.connect() as from_, target.connect() as to:
        _driver(from_).backup(_driver(to), pages=_ALL_PAGES, progress=give_up_when_locked, sleep=_ASK_AGAIN_S)
        _driver(to).execute("PRAGMA wal_checkpoint(TRUNCATE)")  # its write-ahead log holds every page just now


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError(f"{connection.engine.url} is no SQLite database: it needs a swap of its own")
    return driver


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """A new folder, locked while it is in use, so that others can tell it from one whose process died."""
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # gone meanwhile, or no folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if any(folder.iterdir()):  # an empty one is just being made, by a process that has not locked it yet
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # another process is at work in it
        finally:
            os.close(lock)
