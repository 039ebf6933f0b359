"""What only SQLite needs: the engine, its transactions, and what its errors mean.

A database for those who outgrow a file is another module like this one; nothing else but `shadow` knows which it is.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from tamiyo.core.paced import Pace
from tamiyo.errors import ProjectionUnusable

__all__ = [
    "BUSY_TIMEOUT_MS",
    "DatabaseDamaged",
    "Identity",
    "has_wal_reset_bug",
    "identity",
    "is_alone",
    "is_connected",
    "memory_engine",
    "path_of",
    "reading",
    "rest_after_statements",
    "sensible",
    "set_aside",
    "sqlite_engine",
    "temporary_engine",
    "translated",
    "unusable",
    "wal_reset_advice",
    "warn_of_wal_reset_bug",
    "writing",
]

logger = logging.getLogger(__name__)

Identity = tuple[tuple[int, int] | None, ...]
"""Device and inode of a database's file, then of its side files: they tell it from others of the same names."""

BUSY_TIMEOUT_MS = 5_000
"""How long a transaction waits for another process's; catching up in batches holds the lock far shorter."""

_ASK_AGAIN_S = 0.005  # a switch takes about a millisecond
_BEGIN = "tamiyo_begin"
_SIDE_FILES = ("-wal", "-shm")

_DAMAGED = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # a table or column that its revision promises is not there
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,  # rows are there already that the applied LSN says are not
        sqlite3.SQLITE_MISMATCH,
    }
)
"""Primary result codes that say the file is not the projection it should be. Others may pass: a lock, a full disk."""


_NO_TEXT = "Could not decode to UTF-8"  # what the driver says of it, without a code

_ADVICE_ELSE = "try again, and when that fails move the file and its side files (-wal, -shm) away"
_NEEDS_RIGHTS = "this process needs to read and write the file, its side files (-wal, -shm) and their directory"
_NEEDS_SPACE = "free space there, or look whether the disk fails"
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds it: wait for that one, or end it",
    sqlite3.SQLITE_FULL: _NEEDS_SPACE,
    sqlite3.SQLITE_IOERR: _NEEDS_SPACE,
    sqlite3.SQLITE_READONLY: _NEEDS_RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _NEEDS_RIGHTS,
    sqlite3.SQLITE_PERM: _NEEDS_RIGHTS,
}
"""What helps, by primary result code."""


class DatabaseDamaged(ProjectionUnusable):
    """The file does not hold what it should; it can be set aside and made again from the log."""


WAL_RESET_ADVICE = (
    "SQLite {version} may in rare cases damage the projection where two processes write to it at once; the log is not "
    "touched by that, `tamiyo doctor` finds it, and 3.44.6, 3.50.7 and 3.51.3 are cured of it"
)

_warned: list[bool] = []


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Whether a version of SQLite has the bug of 3.7.0 to 3.51.2, of which 3.44.6 and 3.50.7 are cured."""
    if version[:2] in ((3, 44), (3, 50)):
        return version[2] < {44: 6, 50: 7}[version[1]]
    return (3, 7, 0) <= version < (3, 51, 3)


def wal_reset_advice() -> str:
    """What to know and do about the SQLite that is linked here, "" where it is sound. Whoever asks tells it."""
    if not has_wal_reset_bug(sqlite3.sqlite_version_info[:3]):
        return ""
    _warned.append(True)
    return WAL_RESET_ADVICE.format(version=sqlite3.sqlite_version)


def warn_of_wal_reset_bug() -> None:
    """Log what is to be known about the SQLite that is linked here, unless this process was told before."""
    if not _warned and (advice := wal_reset_advice()):
        logger.warning("%s", advice)


def path_of(engine: Engine) -> Path | None:
    """The file of an engine; None for one in memory, or without a name."""
    name = engine.url.database
    return Path(name) if name and name != ":memory:" else None


def identity(engine: Engine) -> Identity | None:
    """Which files the engine's path leads to now; None for an engine in memory.

    The side files belong to it as long as a connection is open: they are the same ones, or somebody took them away.
    """
    path = path_of(engine)
    return None if path is None else tuple(_inode(f"{path}{suffix}") for suffix in ("", *_SIDE_FILES))


def _inode(name: str) -> tuple[int, int] | None:
    try:
        found = Path(name).stat()
    except OSError:  # deleted, or its directory is
        return None
    return found.st_dev, found.st_ino


def is_alone(path: Path) -> bool:
    """Whether all rows of a database are in its file: nothing waits beside it to be moved there."""
    try:
        return Path(f"{path}-wal").stat().st_size == 0
    except FileNotFoundError:
        return True


def is_connected(engine: Engine) -> bool:
    """Whether this process keeps a connection open, and so the side files in their places."""
    return isinstance(engine.pool, QueuePool) and engine.pool.checkedin() + engine.pool.checkedout() > 0


def sqlite_engine(path: Path) -> Engine:
    """An engine for the file at `path`, made when missing. Every thread gets connections of its own."""
    _unlock_side_files(path)
    return _prepared(create_engine(URL.create("sqlite", database=str(path))))


def _unlock_side_files(path: Path) -> None:
    """Let side files be written as the file is.

    SQLite makes them with the file's mode. Where that was read-only then, they would lock everybody out after it has
    been put right.
    """
    with suppress(OSError):  # one is missing, or another user's: whoever opens it hears what is wrong
        mode = path.stat().st_mode & 0o777
        for suffix in _SIDE_FILES:
            side = Path(f"{path}{suffix}")
            if mode & ~side.stat().st_mode & 0o222:
                side.chmod(mode)


def memory_engine() -> Engine:
    """An engine whose one connection is the database; for one thread at a time."""
    return _prepared(create_engine("sqlite://", poolclass=StaticPool))


def temporary_engine() -> Engine:
    """An engine whose one connection is the database, on disk and without a name; for one thread at a time.

    SQLite puts it where `SQLITE_TMPDIR` or `TMPDIR` says, or into /var/tmp, and removes it at once, so that it is gone
    with the process however that ends. It takes as much memory as any file does: 2 MB of pages.
    """
    return _prepared(
        create_engine(
            URL.create("sqlite", database=""),
            creator=lambda: sqlite3.connect("", check_same_thread=False),
            poolclass=StaticPool,
        )
    )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state of the database and takes no lock that stops a writer.

    Raises:
        ProjectionUnusable: the database cannot be read.
    """
    with translated(engine, "read"), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that holds the write lock from its first statement, so that it never has to be repeated.

    Raises:
        ProjectionUnusable: the database cannot be written, or stayed locked for `BUSY_TIMEOUT_MS`.
    """
    immediate = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
    with translated(engine, "write"), immediate.connect() as connection, connection.begin():
        yield connection


def set_aside(engine: Engine) -> Path:
    """Rename the database file to `<name>.damaged`, over an earlier one, with its side files; return the new name."""
    engine.dispose()
    path = Path(str(engine.url.database))
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in _SIDE_FILES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.replace(aside)
    return aside


def _prepared(engine: Engine) -> Engine:
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def rest_after_statements(engine: Engine, pace: Pace) -> None:
    """Have `pace` called after each statement: handing rows over takes longer than making them."""
    event.listen(engine, "after_cursor_execute", lambda *_: pace())


def _on_connect(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver would begin transactions of its own, and deferred ones
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last rows: the log has them


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode, waiting for others that do the same to a new file: SQLite refuses that at once."""
    deadline_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline_s:
                raise
            time.sleep(_ASK_AGAIN_S)
        else:
            return


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


@contextmanager
def translated(engine: Engine, doing: str) -> Iterator[None]:
    """Turn the database's errors into ours; `doing` is "read" or "write".

    Raises:
        ProjectionUnusable: in the place of what the block raised; DatabaseDamaged where it says that the file is.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes damage, whatever bytes it has
        raise unusable(engine, doing, error) from error


@contextmanager
def sensible(connection: Connection) -> Iterator[None]:
    """What the block makes of rows that it reads makes sense, or the file is damaged: SQLite itself checks no value.

    Raises:
        DatabaseDamaged: in the place of what Python says of a value, or of a row that is missing.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, InvalidRequestError) as error:
        cause = f"it holds what nobody wrote ({error!r:.200})"
        raise DatabaseDamaged(f"cannot read {_what_to_do(connection.engine, cause, _ADVICE_ELSE)}") from error


def unusable(
    engine: Engine, doing: str, error: SQLAlchemyError | sqlite3.Error | UnicodeDecodeError
) -> ProjectionUnusable:
    """Our error for one of the database's; `doing` is "read" or "write". A DatabaseDamaged where that says so."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    kind = DatabaseDamaged if _is_damage(cause) else ProjectionUnusable
    advice = _ADVICE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, _ADVICE_ELSE)
    return kind(f"cannot {doing} {_what_to_do(engine, str(cause), advice)}")


def _what_to_do(engine: Engine, cause: str, advice: str) -> str:
    """Which database it is, what happened to it, and what helps."""
    name = engine.url.database
    if name == "":
        return (
            f"a projection in a temporary file: {cause}; SQLite puts that into the directory that SQLITE_TMPDIR or"
            " TMPDIR names, else into /var/tmp: name one with room for another projection or two"
        )
    return f"the projection {name}: {cause}; it is made from the log, so nothing is lost; {advice}"


def _is_damage(cause: BaseException | None) -> bool:
    if isinstance(cause, UnicodeDecodeError) or str(cause).startswith(_NO_TEXT):
        return True
    code = getattr(cause, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED
