"""The thread that does what no step should wait for: requests, riders that no step takes along, looking back."""

import logging
import threading

from tamiyo.directives import Directives
from tamiyo.errors import TamiyoError
from tamiyo.journal import Journal
from tamiyo.keeper import Keeper
from tamiyo.policies import PolicyDesk
from tamiyo.records import JournalUnavailable

__all__ = ["Upkeep"]

logger = logging.getLogger(__name__)


class Upkeep:
    """One thread for one service. A disk that hangs holds it up, and nothing else."""

    def __init__(
        self,
        journal: Journal,
        directives: Directives,
        keeper: Keeper,
        desk: PolicyDesk,
        *,
        period_ms: int,
    ) -> None:
        self._journal = journal
        self._directives = directives
        self._keeper = keeper
        self._desk = desk
        self._period_s = period_ms / 1e3
        self.ended = threading.Event()
        """Set, nothing more is begun."""
        self._thread = threading.Thread(target=self._run, name="tamiyo-upkeep", daemon=True)

    def start(self) -> None:
        """Begin. Without a thread to be had everything waits for steps and flushes."""
        try:
            self._thread.start()
        except RuntimeError as error:
            logger.warning("no thread for the upkeep of the journal (%s): requests wait for a flush", str(error))

    def stop(self) -> None:
        """Begin nothing more; returns at once."""
        self.ended.set()

    def _run(self) -> None:
        waited = None
        while not self.ended.wait(self._period_s):
            try:
                self._desk.watch()
                self._directives.take_up()
                waited = self._let_riders_go(waited)
                self._keeper.keep()
            except TamiyoError:
                logger.exception("the journal cannot be kept up; the next step says why")
                return

    def _let_riders_go(self, waited: object) -> object:
        """Flush alone what waited through a whole period: no step took it along."""
        first = self._journal.first_rider
        if first is None or first is not waited:
            return first
        try:
            self._journal.flush()
        except JournalUnavailable:
            return first  # they wait on, for a step or for the log
        return None
