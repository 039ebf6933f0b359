"""What only SQLite needs: the engine, its transactions, and what its errors mean.

A database for those who outgrow a file is another module like this one; nothing else knows which it is.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from tamiyo.errors import ProjectionUnusable

__all__ = ["BUSY_TIMEOUT_MS", "DatabaseDamaged", "memory_engine", "reading", "set_aside", "sqlite_engine", "writing"]

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
    }
)
"""Primary result codes that say the file is not the projection it should be. Others may pass: a lock, a full disk."""


class DatabaseDamaged(ProjectionUnusable):
    """The file does not hold what it should; it can be set aside and made again from the log."""


def sqlite_engine(path: Path) -> Engine:
    """An engine for the file at `path`, made when missing. Every thread gets connections of its own."""
    return _prepared(create_engine(URL.create("sqlite", database=str(path))))


def memory_engine() -> Engine:
    """An engine whose one connection is the database; for one thread at a time."""
    return _prepared(create_engine("sqlite://", poolclass=StaticPool))


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state of the database and takes no lock that stops a writer.

    Raises:
        ProjectionUnusable: the database cannot be read.
    """
    with _translated(engine, "read"), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that holds the write lock from its first statement, so that it never has to be repeated.

    Raises:
        ProjectionUnusable: the database cannot be written, or stayed locked for `BUSY_TIMEOUT_MS`.
    """
    immediate = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
    with _translated(engine, "write"), immediate.connect() as connection, connection.begin():
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
def _translated(engine: Engine, doing: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        kind = DatabaseDamaged if _is_damage(cause) else ProjectionUnusable
        raise kind(
            f"cannot {doing} the projection {engine.url.database}: {cause}; it is made from the log, so nothing is lost"
            "; try again, and when that fails move the file away and open the directory once more"
        ) from error


def _is_damage(cause: BaseException | None) -> bool:
    code = getattr(cause, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED
