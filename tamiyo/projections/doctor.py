"""Holds a projection against its log: what is wrong with it, and where its rows are not those that a rebuild gives.

The projection is copied into a temporary file and brought up to the log's end there; another one is made beside it from
the log alone; the two are read side by side, in the order of their keys. So memory is the same for a log of any length.
No row of the projection changes, and nobody is held up.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select

from tamiyo.errors import ProjectionUnusable
from tamiyo.probe import words_of_a_log_ahead
from tamiyo.projections import database
from tamiyo.projections.migrate import REVISION, revision_of
from tamiyo.projections.models import Applied, Base, Decision
from tamiyo.projections.projection import DATABASE_NAME, Projection, position_of
from tamiyo.projections.projectors import VERSION
from tamiyo.projections.queries import exact
from tamiyo.projections.tail import AHEAD, FOREIGN, GONE, LogSource, Tail

__all__ = ["DIFFERENCES_MAX", "Diagnosis", "Difference", "diagnose"]

DIFFERENCES_MAX = 1_000
"""How many differences are kept; all are counted."""

_ROWS_AT_A_TIME = 1_000

_NO_RIGHTS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

_VERDICTS = {
    AHEAD: "it is ahead of the log: the log was cut, or restored from a backup",
    FOREIGN: "its rows come from another log",
    GONE: "the log has been pruned or redacted past the record that it stands at",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a projection is not what its log says.

    `column` is "" where a whole row is missing (`found` is None) or too many (`expected` is None).
    """

    table: str
    key: dict[str, Any]
    column: str
    found: Any
    expected: Any

    def __str__(self) -> str:
        """Return a sentence."""
        place = f"{self.table} {', '.join(f'{name} {value!r}' for name, value in self.key.items())}"
        if self.column:
            return f"{place}: {self.column} is {self.found!r}, and the log says {self.expected!r}"
        return f"{place}: the row is missing" if self.found is None else f"{place}: the log has no such row"


@dataclass(slots=True)
class Diagnosis:
    """What was found. It is sound when there is neither a `problem` nor a difference.

    `problem` says why the rows could not be compared at all. `differences` are the first `DIFFERENCES_MAX` of
    `differences_total`. `notes` are worth knowing and nothing wrong.
    """

    applied_lsn: int = 0
    compared_at_lsn: int = 0
    rows: int = 0
    problem: str = ""
    differences: list[Difference] = field(default_factory=list)
    differences_total: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether the projection is what its log says."""
        return not self.problem and not self.differences_total


def diagnose(
    directory: Path | str, log: LogSource | None = None, *, wall_ns: Callable[[], int] = time.time_ns
) -> Diagnosis:
    """Hold the projection of a directory against its log. Both may be in use.

    Args:
        directory: where `projection.sqlite` lies.
        log: the log, `<directory>/wal` when None.
        wall_ns: the wall clock, that the log's time is held against.

    Raises:
        JournalUnreadable: a record does not parse, or is of a newer version.
        ProjectionUnusable: there is no room for the two copies where temporary files lie.
        wal.LogError: the log is damaged.
        OSError: the log is missing or cannot be read.
    """
    source = Path(directory) / "wal" if log is None else log
    path = Path(directory) / DATABASE_NAME
    found = _diagnosed(path, source, wall_ns())
    # What retention takes between the two readings shows once, and not again.
    return found if found.sound or not found.compared_at_lsn else _diagnosed(path, source, wall_ns())


def _diagnosed(path: Path, log: LogSource, wall_ns: int) -> Diagnosis:
    diagnosis = Diagnosis()
    advice = database.wal_reset_advice()
    if advice:
        diagnosis.notes.append(advice)
    with closing(_Copy(path)) as copy:
        try:
            diagnosis.problem = copy.problem or _unusable(copy.engine, diagnosis) or _misplaced(copy.engine, log)
            if not diagnosis.problem:
                _compare_with_log(copy.engine, log, diagnosis, wall_ns)
        except database.DatabaseDamaged as error:  # a table, an index, a column or a value that none looks at first
            diagnosis.problem = f"the file is damaged: {error.__cause__}"
            diagnosis.differences, diagnosis.differences_total = [], 0
    return diagnosis


class _Copy:
    """The projection in a temporary file; `problem` says why it could not be copied, "" where it was."""

    def __init__(self, path: Path) -> None:
        self.engine = database.temporary_engine()
        try:
            self.problem = _copied(path, self.engine)
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_FULL:  # that is the copy: the projection is only read
                raise database.unusable(self.engine, "write", error) from error
            self.problem = _in_words(error)
        except UnicodeDecodeError as error:  # SQLite quotes what is damaged, whatever bytes it has
            self.problem = f"the file is damaged: {error}"

    def close(self) -> None:
        self.engine.dispose()


def _copied(path: Path, engine: Engine) -> str:
    if not path.is_file():
        return "there is none" if not path.exists() else f"{path.name} is no file"
    try:
        # Nothing is written; but closed after reading alone, SQLite leaves its side files behind.
        return _copied_as(path, "mode=rw", engine)
    except sqlite3.Error as error:
        if _code(error) not in _NO_RIGHTS or not database.is_alone(path):
            raise
    # Who may not write there cannot make the side files, and needs none: all rows are in the file.
    return _copied_as(path, "mode=ro&immutable=1", engine)


def _copied_as(path: Path, how: str, engine: Engine) -> str:
    with (
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as source,
        engine.connect() as connection,
    ):
        source.execute(f"PRAGMA busy_timeout = {database.BUSY_TIMEOUT_MS}")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # a lock or a stranger shows here
        driver = connection.connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            raise TypeError(f"{engine.url} is no SQLite database")
        source.backup(driver)
        trouble = [row[0] for row in driver.execute("PRAGMA integrity_check(3)")]
    return "" if trouble == ["ok"] else f"the file is damaged: {'; '.join(trouble)}"


def _code(error: sqlite3.Error) -> int:
    """The primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _in_words(error: sqlite3.Error) -> str:
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process has it locked for itself: {error}"
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"the file is damaged: {error}"
    return f"it cannot be read: {error}"


def _unusable(engine: Engine, diagnosis: Diagnosis) -> str:
    """Why its tables are not this version's, "" where they are."""
    try:
        with database.reading(engine) as connection:
            revision = revision_of(connection)
            if revision != REVISION:
                return _other_revision(revision)
            projectors = connection.execute(select(Applied.projectors)).scalar_one_or_none()
    except ProjectionUnusable as error:
        return f"the file is damaged: {error.__cause__}"
    if projectors != VERSION:
        made_by = "nobody" if projectors is None else f"version {projectors} of the projectors"
        return f"its rows were made by {made_by}, and this is version {VERSION}: opening it makes them anew"
    with database.reading(engine) as connection:
        diagnosis.applied_lsn = position_of(connection).lsn
    return ""


def _notes_of_time(engine: Engine, wall_ns: int) -> list[str]:
    with database.reading(engine) as connection:
        last_ns = connection.execute(select(func.max(Decision.event_time_ns))).scalar_one() or 0
    words = words_of_a_log_ahead(last_ns, wall_ns)
    return [words] if words else []


def _other_revision(revision: str | None) -> str:
    if revision is None:
        return "it is empty: opening it makes it"
    known = f"is of revision {revision!r}" if revision else "says of no revision that it is of it"
    return f"it {known}, and this version is at {REVISION!r}: opening it migrates it, or makes it anew"


def _misplaced(engine: Engine, log: LogSource) -> str:
    with database.reading(engine) as connection:
        position = position_of(connection)
    return _VERDICTS.get(Tail(log, position).verdict, "")


def _compare_with_log(engine: Engine, log: LogSource, diagnosis: Diagnosis, wall_ns: int) -> None:
    with Projection.temporary() as expected:
        expected.catch_up(log)
        diagnosis.notes += _notes_of_time(expected.engine, wall_ns)
        lsn = max(expected.applied_lsn, diagnosis.applied_lsn)
        expected.catch_up(log, upto_lsn=lsn)
        with Projection.over(engine) as copy:
            copy.catch_up(log, upto_lsn=lsn)
            diagnosis.compared_at_lsn = lsn
            if expected.applied_lsn < lsn:
                diagnosis.notes.append("the log's last batch does not show yet: compare again in a second")
                return
            if copy.rebuilt_because:
                diagnosis.problem = copy.rebuilt_because
                return
            found = differences(copy.engine, expected.engine, diagnosis)
            diagnosis.differences = list(islice(found, DIFFERENCES_MAX))
            diagnosis.differences_total = len(diagnosis.differences) + sum(1 for _ in found)


def differences(found: Engine, expected: Engine, diagnosis: Diagnosis) -> Iterator[Difference]:
    """Every place where two databases of this revision are not the same, table by table, by primary key."""
    with database.reading(found) as ours, database.reading(expected) as theirs, database.sensible(ours):
        for table in Base.metadata.sorted_tables:
            yield from _of_table(table, ours, theirs, diagnosis)


def _of_table(table: Table, ours: Connection, theirs: Connection, diagnosis: Diagnosis) -> Iterator[Difference]:
    names = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    found, expected = _rows(table, ours), _rows(table, theirs)
    left, right = next(found, None), next(expected, None)
    while left is not None or right is not None:
        diagnosis.rows += 1
        order = _order(left, right, keys)
        row = right if left is None or order > 0 else left
        key = {name: row[name] for name in keys} if row is not None else {}
        if order > 0:
            yield Difference(table.name, key, "", None, right)
            right = next(expected, None)
        elif order < 0:
            yield Difference(table.name, key, "", left, None)
            left = next(found, None)
        elif left is not None and right is not None:
            for name in names:
                if exact(left[name]) != exact(right[name]):
                    yield Difference(table.name, key, name, left[name], right[name])
            left, right = next(found, None), next(expected, None)


def _rows(table: Table, connection: Connection) -> Iterator[dict[str, Any]]:
    names = [column.name for column in table.columns]
    rows = connection.execution_options(yield_per=_ROWS_AT_A_TIME).execute(select(table).order_by(*table.primary_key))
    return (dict(zip(names, row, strict=True)) for row in rows)


def _order(left: dict[str, Any] | None, right: dict[str, Any] | None, keys: list[str]) -> int:
    """-1 where only the left row is there, 1 where only the right one is, 0 where both have the same key."""
    if left is None or right is None:
        return 1 if left is None else -1
    ours, theirs = [left[name] for name in keys], [right[name] for name in keys]
    return (ours > theirs) - (ours < theirs)
