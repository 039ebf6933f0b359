"""Following a log while a service writes it, on a thread that no step waits for."""

import logging
import threading
from pathlib import Path

import wal
from tamiyo.core.paced import without_rest
from tamiyo.errors import TamiyoError
from tamiyo.pace import Restful
from tamiyo.projections.projection import BATCH_ENTRIES, Projection
from tamiyo.projections.tail import LogSource

__all__ = ["ProjectionFollower"]

logger = logging.getLogger(__name__)


class ProjectionFollower:
    """Keeps the projection of one directory current. `wake` says that there is more; it never waits and never raises.

    Where the log is open in this process it rests all along, so that a step gets the interpreter when it wants it.

    The database is opened on the follower's own thread. What goes wrong there is kept in `failure` and logged once;
    the next wake tries again, and `failure` is None once that has worked.

    How far it has come: `applied_lsn`, and `lag_records` behind the log where that is open in this process.
    """

    def __init__(self, directory: Path | str, log: LogSource | None = None, *, every_s: float | None = None) -> None:
        """Begin to follow.

        Args:
            directory: where the projection lies.
            log: what to read: the open log, which shows each batch as soon as it is durable, or the log's directory,
                where the last batch shows within a second; `<directory>/wal` when None.
            every_s: look by itself this many seconds after it last did; only when woken when None.
        """
        self._directory = Path(directory)
        self._log: LogSource = self._directory / "wal" if log is None else log
        self._pace = Restful() if isinstance(self._log, wal.Log) else without_rest  # whether steps are taken here
        self._every_s = every_s
        self._applied_lsn = 0
        self._due = threading.Event()
        self._closing = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="tamiyo-projection", daemon=True)
        self._due.set()
        self._thread.start()

    @property
    def failure(self) -> Exception | None:
        """What the last attempt ran into, None when it worked."""
        return self._failure

    @property
    def applied_lsn(self) -> int:
        """The LSN up to which the rows spoke when they were last written; 0 before that."""
        return self._applied_lsn

    @property
    def lag_records(self) -> int | None:
        """How many durable records have no rows yet; None where the log is not open in this process."""
        if not isinstance(self._log, wal.Log):
            return None
        return max(self._log.durable_lsn - self._applied_lsn, 0)

    def wake(self) -> None:
        """Say that the log may hold more; returns at once. Several wakes before an attempt are one."""
        self._due.set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Catch up once more and end. Doing it again does nothing more.

        Call it after the log is closed, when everything is visible.

        Returns:
            Whether the follower has ended; False when `timeout_s` passed first (it then ends by itself).
        """
        self._closing = True
        self._due.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        projection: Projection | None = None
        last = False
        while not last:
            self._due.wait(self._every_s)
            self._due.clear()
            last = self._closing  # read before the attempt, so that one follows every close
            projection = self._attempt(projection)
        if projection is not None:
            projection.close()

    def _attempt(self, projection: Projection | None) -> Projection | None:
        """Catch up; returns the projection to go on with, None where the next attempt must open it anew."""
        try:
            projection = projection or Projection.open(self._directory, pace=self._pace)
            while projection.catch_up(self._log, BATCH_ENTRIES) == BATCH_ENTRIES:
                self._applied_lsn = projection.applied_lsn
            self._applied_lsn = projection.applied_lsn
        except Exception as error:  # noqa: BLE001  whatever it is, nobody would notice a follower that has died of it
            self._note(error)
            if projection is not None:
                projection.close()
            return None
        self._failure = None
        return projection

    def _note(self, error: Exception) -> None:
        if repr(error) != repr(self._failure):
            words = error if isinstance(error, TamiyoError | wal.LogError | OSError) else repr(error)
            logger.warning("the projection of %s falls behind: %s", self._directory, words)
        self._failure = error
