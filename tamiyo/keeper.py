"""Looks back at the state of a running service now and then: a digest for audits, a base for retention, a snapshot.

Rule 1: nothing here is on a step's way. A step leaves its state, which is frozen, and goes on; the work is done on the
        upkeep's thread or a flush's, a fraction of a millisecond at a time.
Rule 2: all of it may fail without harm: what is missing is a digest fewer to compare, or a slower opening.
"""

import logging
import threading
from collections.abc import Callable

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.events import Event
from tamiyo.core.state import State
from tamiyo.errors import PacketRejected
from tamiyo.journal import Journal
from tamiyo.pace import Restful
from tamiyo.records import Checkpoint, JournalUnavailable
from tamiyo.snapshots import Snapshots

__all__ = ["Keeper"]

logger = logging.getLogger(__name__)

BASE_CONTENTS_MAX_BYTES = 1 << 20
"""Of blueprints' contents in a base that is written beside running steps, whose commits it must not hold up."""
EVERYTHING = 2**62


class Keeper:
    """The keeper of one journal. Its methods may be called from any thread but that of a step."""

    def __init__(self, journal_: Journal, snapshots: Snapshots | None) -> None:
        """`snapshots` is where they are written; None where none are."""
        self._journal = journal_
        self._snapshots = snapshots
        self._segment = 0  # of the log, that was in use when the last base was written; none was since it was opened
        self._stored_lsn = 0
        self._keeping = threading.Lock()

    def keep(self) -> None:
        """Look at the last checkpoint that a step has left, if there is one, unless another thread does just now."""
        if not self._keeping.acquire(blocking=False):
            return
        try:
            checkpoint = self._journal.take_checkpoint()
            if checkpoint is not None:
                self._look_at(checkpoint)
        finally:
            self._keeping.release()

    def _look_at(self, checkpoint: Checkpoint) -> None:
        pace = Restful()
        whole = base_of(checkpoint.state, checkpoint.contents, 0, contents_max_bytes=EVERYTHING, pace=pace)
        stored = self._store(whole, checkpoint)
        segment = checkpoint.log.segment
        if segment != self._segment:  # the log was opened since the last base, or a segment begun
            base = base_of(
                checkpoint.state,
                checkpoint.contents,
                0,
                contents_max_bytes=BASE_CONTENTS_MAX_BYTES,
                digest=whole.digest,
                pace=pace,
            )
            if self._record(checkpoint, base):
                self._segment = segment
                return
        taken = journal.SnapshotTaken(at_lsn=whole.at_lsn, digest=whole.digest, stored=stored)
        self._journal.ride(_told(self._journal, checkpoint, taken))

    def finish(self) -> None:
        """A snapshot of the last state, the log being closed: the next opening has nothing to fold."""
        try:
            checkpoint = self._journal.last_checkpoint()
        except (wal.LogError, OSError) as error:
            logger.warning("the log is closed, and no snapshot of its end was taken: %s", str(error))
            return
        if checkpoint is not None and checkpoint.state.last_lsn != self._stored_lsn:
            self._store(base_of(checkpoint.state, checkpoint.contents, 0, contents_max_bytes=EVERYTHING), checkpoint)

    def _record(self, checkpoint: Checkpoint, base: journal.StateBase) -> bool:
        """Write a base in a batch of its own; False where the log does not take it now."""
        try:
            self._journal.record_aside(_told(self._journal, checkpoint, base))
        except (JournalUnavailable, PacketRejected) as error:
            logger.info("no base was written of LSN %d: %s", base.at_lsn, str(error))
            return False
        return True

    def _store(self, base: journal.StateBase, checkpoint: Checkpoint) -> bool:
        """Write a snapshot, where there is a place for it."""
        if self._snapshots is None:
            return False
        try:
            self._snapshots.write(base, checkpoint.log.head().log_id, checkpoint.record)
        except OSError as error:
            logger.warning("no snapshot was written in %s: %s", self._snapshots.path, str(error))
            return False
        self._stored_lsn = base.at_lsn
        return True


def _told(
    journal_: Journal, checkpoint: Checkpoint, event: journal.StateBase | journal.SnapshotTaken
) -> Callable[[State, int], tuple[Event, ...]]:
    """The event in its place; nothing where the log was reopened meanwhile and may have lost what it speaks of."""

    def make(_: State, now_ns: int) -> tuple[Event, ...]:
        if journal_.log is not checkpoint.log:
            return ()
        event.event_time_ns = now_ns
        return (event,)

    return make
