"""Following a log while a service writes it, on a thread that no step waits for."""

import logging
import threading
from pathlib import Path

import wal
from tamiyo.errors import TamiyoError
from tamiyo.projections.projection import Projection
from tamiyo.projections.tail import LogSource

__all__ = ["ProjectionFollower"]

logger = logging.getLogger(__name__)


class ProjectionFollower:
    """Keeps the projection of one directory current. `wake` says that there is more; it never waits and never raises.

    The database is opened on the follower's own thread. What goes wrong there is kept in `failure` and logged once;
    the next wake tries again, and `failure` is None once that has worked.
    """

    def __init__(self, directory: Path | str, log: LogSource | None = None) -> None:
        """Begin to follow.

        Args:
            directory: where the projection lies.
            log: what to read: the open log, which shows each batch as soon as it is durable, or the log's directory,
                where the last batch shows within a second; `<directory>/wal` when None.
        """
        self._directory = Path(directory)
        self._log: LogSource = self._directory / "wal" if log is None else log
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
            self._due.wait()
            self._due.clear()
            last = self._closing  # read before the attempt, so that one follows every close
            projection = self._attempt(projection)
        if projection is not None:
            projection.close()

    def _attempt(self, projection: Projection | None) -> Projection | None:
        """Catch up; returns the projection to go on with, None where the next attempt must open it anew."""
        try:
            projection = projection or Projection.open(self._directory)
            projection.catch_up(self._log)
        except (TamiyoError, wal.LogError, OSError) as error:
            self._note(error)
            if projection is not None:
                projection.close()
            return None
        self._failure = None
        return projection

    def _note(self, error: Exception) -> None:
        if str(error) != str(self._failure):
            logger.warning("the projection of %s falls behind: %s", self._directory, error)
        self._failure = error
