"""One projection: its database, the rows written with their applied LSN, and what may be asked of it."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, delete, insert, select, update

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import decode
from tamiyo.core.norms import Norm
from tamiyo.core.paced import Pace, paced, without_rest
from tamiyo.core.registries import Registries
from tamiyo.core.state import State
from tamiyo.errors import ProjectionUnusable
from tamiyo.projections import database, queries, shadow
from tamiyo.projections.bases import base_past, lost_lsn
from tamiyo.projections.database import DatabaseDamaged
from tamiyo.projections.forgetting import forget, forget_before
from tamiyo.projections.migrate import REVISION, migrate, revision_of
from tamiyo.projections.models import Applied, Base
from tamiyo.projections.projectors import VERSION, project
from tamiyo.projections.queries import Summary
from tamiyo.projections.standing import FOLDS, Standing, write_empty
from tamiyo.projections.tail import AHEAD, FOLLOW, FOREIGN, GONE, LogSource, Position, Tail, first_lsn_of
from tamiyo.projections.writing import read_draft, write_draft

__all__ = ["BATCH_ENTRIES", "DATABASE_NAME", "Projection", "position_of"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE_NAME = "projection.sqlite"
BATCH_ENTRIES = 4_096
"""Records of one transaction: long enough that commits cost little, short enough that others get the lock."""
PACED_ENTRIES = 256
"""The same where somebody's steps wait for the interpreter while a batch is read, or its rows are handed to SQLite."""

_LSN_END = 2**63

_VERDICTS = {
    AHEAD: "it was ahead of the log, which ends before the applied LSN",
    FOREIGN: "its rows come from another log",
    GONE: "the log has been pruned or redacted past the applied LSN",
}


class Projection:
    """Tables made from a log. Several processes may have the same one open; each method is one transaction or more.

    `rebuilt_because` says why this object last made its rows anew, "" while it has not; it is logged as well.
    """

    def __init__(self, engine: Engine, pace: Pace = without_rest) -> None:
        """Made by `open`, `in_memory` and `temporary`."""
        self._engine = engine
        self._pace = pace
        if pace is not without_rest:
            database.rest_after_statements(engine, pace)
        self._identity: database.Identity | None = None
        self._tail: Tail | None = None
        self.rebuilt_because = ""

    @classmethod
    def open(cls, directory: Path | str, *, pace: Pace = without_rest) -> Self:
        """Open `<directory>/projection.sqlite`, made and migrated as needed.

        A file that is no usable database is renamed to `projection.sqlite.damaged` and a new one begun.

        Args:
            directory: where the file lies.
            pace: called after each record and each statement; `tamiyo.pace.Restful()` in a process that takes steps.

        Raises:
            ProjectionUnusable: the file cannot be opened or written, or stayed locked.
        """
        database.warn_of_wal_reset_bug()
        return cls.over(database.sqlite_engine(Path(directory) / DATABASE_NAME), pace)

    @classmethod
    def in_memory(cls) -> Self:
        """A projection that leaves nothing behind, for one thread: to look at a directory that cannot be written."""
        return cls.over(database.memory_engine())

    @classmethod
    def temporary(cls) -> Self:
        """The same on disk, in a file without a name, for a log of any length.

        Raises:
            ProjectionUnusable: nothing can be written where temporary files lie.
        """
        return cls.over(database.temporary_engine())

    @classmethod
    def over(cls, engine: Engine, pace: Pace = without_rest) -> Self:
        """A projection in the database of an engine that `tamiyo.projections.database` made.

        Raises:
            ProjectionUnusable: it cannot be opened or written, or stayed locked.
        """
        projection = cls(engine, pace)
        try:
            projection._healed(projection._prepare)
        except ProjectionUnusable:
            projection.close()
            raise
        projection._identity = database.identity(engine)
        return projection

    @property
    def engine(self) -> Engine:
        """The engine of its database, for questions of one's own; see `tamiyo.projections.database.reading`."""
        return self._engine

    @property
    def applied_lsn(self) -> int:
        """The LSN up to which the rows speak. Raises ProjectionUnusable."""
        return self._asked(lambda connection: position_of(connection).lsn)

    def catch_up(self, log: LogSource, limit: int | None = None, *, upto_lsn: int | None = None) -> int:
        """Apply what the log holds past the applied LSN, in batches; rows that are not of this log are made anew.

        Args:
            log: the log's directory, or the log where it is open in this process.
            limit: how many records to apply at most; all there are when None.
            upto_lsn: the last record to apply; the last there is when None.

        Returns:
            How many records were applied.

        Raises:
            ProjectionUnusable: the database cannot be written, or stayed locked.
            JournalUnreadable: a record does not parse or is of a newer version; its batch is not applied.
            wal.LogError: the log is damaged.
            OSError: the log is missing or cannot be read.
        """
        return self._healed(lambda: self._caught_up(log, limit, upto_lsn))

    def rebuild(self, log: LogSource) -> int:
        """Make the rows from the first record on, beside those that are there, and put them in their place at once.

        Others see the old rows until then. Interrupted at any moment, it leaves those. Returns and raises as
        `catch_up`, OSError also where nothing can be written beside the database.
        """
        return self._healed(lambda: self._rebuilt(log)) + self.catch_up(log)

    def summary(self) -> Summary:
        """The directory at a glance. Raises ProjectionUnusable."""
        return self._asked(queries.summary)

    def registries(self) -> Registries:
        """The registries at the applied LSN. Raises ProjectionUnusable."""
        return self._asked(queries.registries)

    def norms(self) -> tuple[Norm, ...]:
        """The norms at the applied LSN, one for each row of NORM_INPUTS. Raises ProjectionUnusable."""
        return self._asked(queries.norms)

    def contents(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row by table, in the order of the primary keys. Raises ProjectionUnusable."""
        return self._asked(queries.contents)

    def canonical(self) -> bytes:
        """The same as one byte string, to compare two projections by. Raises ProjectionUnusable."""
        return self._asked(queries.canonical)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Return the projection itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _prepare(self) -> None:
        """Bring tables and rows to this version; a database that is there already is only read."""
        with database.reading(self._engine) as connection:
            if _is_current(connection):
                return
        with database.writing(self._engine) as connection:
            is_new = revision_of(connection) is None
            dropped = migrate(connection)  # looks again: another process may have been faster
            if not _is_current(connection):
                _clear(connection)
                dropped = dropped or "its rows were made by another version of the projectors"
                if not is_new:
                    self._report(dropped)

    def _healed(self, action: Callable[[], T]) -> T:
        """Do it; where the file turns out to be damaged, set it aside and do it once more with a new one."""
        self._notice_deletion()
        try:
            return action()
        except DatabaseDamaged as damage:
            if database.path_of(self._engine) is None:
                raise
            self._replace_file(damage)
        return action()

    def _replace_file(self, damage: DatabaseDamaged) -> None:
        aside = self._set_aside("is damaged and cannot be moved away")
        self._report(f"the file was damaged and is now {aside.name}: {damage.__cause__}")
        self._tail = None
        self._prepare()
        self._identity = database.identity(self._engine)

    def _set_aside(self, what: str) -> Path:
        try:
            return database.set_aside(self._engine)
        except OSError as error:
            raise ProjectionUnusable(
                f"{self._engine.url.database} {what}: {error}; it is made from the log: delete it"
            ) from error

    def _notice_deletion(self) -> None:
        """Where the files are no longer those that were opened, go on in those that are there, or in new ones.

        An open file outlives its name: without a look nobody would ever see the rows that are written to it. Where only
        a side file has gone, others may have written beside what this process has in the old one: nobody can tell what
        the file is worth.
        """
        was = self._identity
        if was is None or (now := database.identity(self._engine)) is None or now == was:
            return
        if now[0] == was[0] and not database.is_connected(self._engine):  # whoever leaves last takes them away
            self._identity = now
            return
        self._engine.dispose()
        self._tail = None
        self._report("its file, or its write-ahead log, was deleted or replaced while it was in use")
        if now[0] == was[0]:
            self._set_aside("cannot be told from one that is damaged, and cannot be moved away")
        self._prepare()
        self._identity = database.identity(self._engine)

    def _rebuilt(self, log: LogSource) -> int:
        self._report("a rebuild was asked for")
        with shadow.beside(self._engine) as engine, type(self).over(engine, self._pace) as made:
            done = made.catch_up(log)
            shadow.copy_over(engine, self._engine)
        self._tail = None
        return done

    def _begin_again(self, reason: str) -> None:
        self._report(reason)
        self._tail = None
        with database.writing(self._engine) as connection:
            _clear(connection)

    def _report(self, reason: str) -> None:
        self.rebuilt_because = reason
        logger.warning("the projection %s is made anew: %s", self._engine.url.database, reason)

    def _caught_up(self, log: LogSource, limit: int | None, upto_lsn: int | None) -> int:
        self._prepare()  # another version of this program may have been at it since it was opened
        done, batch = 0, BATCH_ENTRIES if self._pace is without_rest else PACED_ENTRIES
        while limit is None or done < limit:
            tail, stood = self._tail_of(log)
            left = None if limit is None else limit - done
            try:
                entries = tail.poll(batch if left is None else min(batch, left), left)
                wanted = entries if upto_lsn is None else [entry for entry in entries if entry.lsn <= upto_lsn]
                if tail.verdict != FOLLOW or not wanted:
                    break
                base = self._base_for(log, stood, wanted)
            except wal.Trimmed:  # pruned under our eyes
                self._begin_again(_VERDICTS[GONE])
                continue
            done += self._apply(tail.log_id, stood, wanted, base)
        self._forget_what_is_gone(log)
        return done

    def _forget_what_is_gone(self, log: LogSource) -> None:
        """Rows say nothing of records that were pruned without a word in the log, as can be done on a full disk."""
        first_lsn = first_lsn_of(log)
        position = self._read(position_of)
        if not position.first_lsn < first_lsn <= position.lsn + 1 or self._tail is None:
            return
        with database.writing(self._engine) as connection:
            if position_of(connection).log_id == self._tail.log_id:
                forget_before(connection, first_lsn)
                connection.execute(update(Applied).values(first_lsn=first_lsn))

    def _tail_of(self, log: LogSource) -> tuple[Tail, Position]:
        """Where to read on, and where the rows stand: the tail of the last time, as long as the rows end there."""
        position = self._read(position_of)
        tail = self._tail
        if tail is not None and tail.follows(log, position):
            return tail, position
        tail = Tail(log, position)
        if tail.verdict in _VERDICTS:
            self._begin_again(_VERDICTS[tail.verdict])
            position = Position()
            tail = Tail(log, position)
        self._tail = tail
        return tail, position

    def _base_for(self, log: LogSource, stood: Position, entries: Sequence[wal.Entry]) -> State | None:
        """The base that is needed to go on; it is looked for before the lock is taken, so that nobody waits for it."""
        lost = lost_lsn(stood, entries)
        return base_past(log, lost) if lost else None

    def _apply(self, log_id: str, stood: Position, entries: Sequence[wal.Entry], base: State | None) -> int:
        """Write the rows of `entries` and the new applied LSN, all or nothing; returns how many were new."""
        with database.writing(self._engine) as connection:
            position = position_of(connection)
            fresh = [entry for entry in entries if entry.lsn > position.lsn]
            if not fresh or not _continues(position, stood, fresh):
                return 0  # another process was faster, or has just begun again: look once more
            folded_lsn = position.folded_lsn if base is None else max(position.folded_lsn, base.last_lsn)
            if lost_lsn(position, fresh) > folded_lsn:
                return 0
            _project(connection, paced(fresh, self._pace), position, base)
            _move(connection, position.after(fresh, log_id, folded_lsn))
            return len(fresh)

    def _asked(self, question: Callable[[Connection], T]) -> T:
        """The answer to somebody else's question."""
        self._notice_deletion()
        return self._read(question)

    def _read(self, question: Callable[[Connection], T]) -> T:
        with database.reading(self._engine) as connection, database.sensible(connection):
            return question(connection)


def _is_current(connection: Connection) -> bool:
    if revision_of(connection) != REVISION:
        return False
    return connection.execute(select(Applied.projectors)).scalar_one_or_none() == VERSION


def _clear(connection: Connection) -> None:
    """The rows of an empty log."""
    for table in Base.metadata.sorted_tables:
        connection.execute(delete(table))
    write_empty(connection)
    start = {"id": 1, "lsn": 0, "log_id": "", "record_digest": "", "projectors": VERSION, "folded_lsn": 0}
    connection.execute(insert(Applied), {**start, "first_lsn": 1})


def position_of(connection: Connection) -> Position:
    """Where the rows stand. Raises DatabaseDamaged where that makes no sense."""
    columns = Applied.lsn, Applied.log_id, Applied.record_digest, Applied.folded_lsn, Applied.first_lsn
    with database.sensible(connection):
        row: Sequence[Any] = connection.execute(select(*columns)).one()
        lsn, log_id, digest, folded_lsn, first_lsn = row
        if not all(isinstance(number, int) and 0 <= number < _LSN_END for number in (lsn, folded_lsn, first_lsn)):
            raise ValueError(f"the applied LSN is {lsn!r} of {first_lsn!r} on, folded to {folded_lsn!r}")
    return Position(lsn, log_id, digest, folded_lsn, first_lsn)


def _move(connection: Connection, position: Position) -> None:
    connection.execute(
        update(Applied).values(
            lsn=position.lsn,
            log_id=position.log_id,
            record_digest=position.record_digest,
            folded_lsn=position.folded_lsn,
        )
    )


def _continues(position: Position, stood: Position, fresh: Sequence[wal.Entry]) -> bool:
    """Whether the entries follow the rows. What is left of a log follows those of an empty one, whatever its LSN."""
    return fresh[0].lsn == position.lsn + 1 or position.lsn == stood.lsn == 0


def _project(connection: Connection, fresh: Iterable[wal.Entry], position: Position, base: State | None) -> None:
    """Write what follows from the entries: rows of all of them, and of those past the base what stands as well."""
    folded_lsn = position.folded_lsn
    if base is not None and base.last_lsn > folded_lsn:
        standing, folded_lsn = Standing.of(base), base.last_lsn
    else:
        standing = Standing.read(connection)
    with database.sensible(connection):
        draft = read_draft(connection)
    for entry in fresh:
        event = decode(entry.kind, entry.payload)
        if isinstance(entry, wal.Redacted):
            continue
        if entry.lsn > folded_lsn and (fold := FOLDS.get(type(event))) is not None:
            fold(standing, event)
        project(draft, entry.lsn, event)
        if isinstance(event, journal.RetentionPlanned):
            write_draft(connection, draft)
            forget(connection, event)
            draft = read_draft(connection)
    write_draft(connection, draft)
    standing.write(connection)
