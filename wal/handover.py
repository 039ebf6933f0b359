"""Where callers hand batches to the writer's thread, and how each side wakes the other. Knows no disk.

Rule 1: a batch gets its place and its LSNs when it is queued, under one mutex, so places and queue have one order.
Rule 2: an interrupt at any line leaves a batch queued whole with its place, or no trace of it.
Rule 3: a refusal changes nothing, and whoever waits here waits no longer than it said.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn, TypeVar

from wal.batch import Batch
from wal.entries import Appended, Commit, Pending, Records, Staged, lock_timeout, make_commit, ring
from wal.errors import Late, LogBusy, LogClosed, LogFailed, LogFull
from wal.frames import CONTROL_BYTES, STAGED
from wal.room import MAKING, Room
from wal.scan import Cursor

W = TypeVar("W", Appended, Pending, Staged)


class Handover:
    """The queue between callers and the writer's thread."""

    def __init__(self, room: Room, cursor: Cursor, queue_batches: int) -> None:
        """Begin with nothing queued, at the log's end; `queue_batches` may wait at a time."""
        self.promise = cursor.lsn - 1, cursor.offset  # durable LSN and offset, as the thread last knew them
        self._log_id = cursor.log_id
        self._epoch = cursor.epoch
        self._chain = cursor.chain
        self.failure: LogFailed | None = None
        self.closing = False
        self._room = room
        self._queue_batches = queue_batches
        self._queue: deque[Batch] = deque()
        self._mutex = threading.Lock()
        self._progress = threading.Condition(self._mutex)
        self._waiters = 0
        self._attempts = 0
        self._bell = threading.Lock()  # held, but between a caller's ringing and the thread's waking
        self._bell.acquire()
        self._rung = False
        self._more = False
        self._idle = False
        self._pid = os.getpid()

    # For callers.

    @property
    def next_lsn(self) -> int:
        """The LSN that the next record will get."""
        return self._room.next_lsn

    def submit(self, batch: Batch) -> Pending:
        """Queue a batch without waiting. Raises LogBusy, LogFull, LogFailed or LogClosed; then nothing happened."""
        self._refuse_in_child()
        with self._mutex:
            return self._enqueue(batch, Pending)

    def append(self, batch: Batch, timeout_s: float | None) -> Commit:
        """Queue a batch, waiting for a place while there is none, and return once it is durable.

        Raises Late when it was queued and `timeout_s` passed then, LogBusy when that passed before, LogFull when there
        is no room although the thread has tried again, else as `submit`, or OutcomeUnknown.
        """
        self._refuse_in_child()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._mutex:
            appended = self._enqueue_patiently(batch, deadline)
        commit = make_commit(batch.first_lsn, batch.records)  # while the thread wakes up; it is given out when true
        if deadline is None:
            appended.bell.acquire()
        elif not appended.bell.acquire(timeout=lock_timeout(deadline - time.monotonic())):
            pending = Pending(batch.first_lsn, batch.records)
            appended.become(pending)
            raise Late(pending, timeout_s or 0.0)
        if appended.error is not None:
            raise appended.error
        return commit

    def _enqueue_patiently(self, batch: Batch, deadline: float | None) -> Appended:
        asked = self._attempts
        while True:
            try:
                return self._enqueue(batch, Appended)
            except (LogBusy, LogFull) as refusal:
                left_s = None if deadline is None else deadline - time.monotonic()
                tried_in_vain = isinstance(refusal, LogFull) and self._attempts > asked
                if tried_in_vain or (left_s is not None and left_s <= 0):
                    raise
            self._wait_for_progress(left_s)

    def stage(self, batch: Batch) -> Staged:
        """Queue one record to be written ahead of its batch, unsynced. Raises as `submit`."""
        self._refuse_in_child()
        batch.kind = STAGED
        with self._mutex:
            return self._enqueue(batch, Staged)

    def close(self) -> None:
        """Take nothing more; what is queued is still written."""
        with self._mutex:
            self.closing = True
            self._wake()

    @property
    def quiet(self) -> bool:
        """Whether the thread has done all that could not wait, and waits for more."""
        return self._idle and not self._rung

    @property
    def in_child(self) -> bool:
        """Whether this is a forked copy, whose writer's thread stayed with the parent."""
        return os.getpid() != self._pid

    def refuse_unless_open(self) -> None:
        """Raise LogFailed or LogClosed unless batches are taken here."""
        self._refuse_in_child()
        if self.closing:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self.failure is not None:
            raise type(self.failure)(str(self.failure)) from self.failure
        raise LogClosed("the log is closed and takes nothing more. Open it again.")

    def _refuse_in_child(self) -> None:
        if os.getpid() != self._pid:
            raise LogClosed(
                "cannot append: this log belongs to the parent process. Open it here once that has closed it."
            )

    def _wait_for_progress(self, timeout_s: float | None) -> None:
        self._waiters += 1
        try:
            self._progress.wait(timeout_s)
        finally:
            self._waiters -= 1

    def _enqueue(self, batch: Batch, waiter: Callable[[int, Records], W]) -> W:
        """Give the batch its place and queue it; or raise, and nothing happened. The mutex is held."""
        if self.closing:
            self._refuse()
        if len(self._queue) >= self._queue_batches:
            raise LogBusy(f"{len(self._queue)} batches are waiting for the disk; nothing was written. Try again later.")
        room, prev = self._room, self._chain
        mark = room.mark()
        try:
            records = batch.records
            room.place(batch.length, len(records), emergency=batch.emergency)
            batch.segment = room.segment
            batch.offset = room.offset - batch.length
            batch.first_lsn = room.next_lsn - len(records)
            made = batch.waiter = waiter(batch.first_lsn, records)
            batch.build(self._log_id, self._epoch, prev, self.promise)
            self._chain = batch.chain
            self._queue.append(batch)
            self._wake()
        except (LogBusy, LogFull):
            self._wake()  # no place was taken, but a spare may have been asked for
            raise
        except BaseException:  # KeyboardInterrupt and MemoryError above all; nothing is swallowed
            if self._queue and self._queue[-1] is batch:
                self._wake()
            else:
                room.back_to(mark)
                self._chain = prev
            raise
        return made

    def _wake(self) -> None:
        """Ring for the thread, unless that was done since it last came to take. The mutex is held.

        Interrupted between the two lines, the bell stays silent: the batch waits for the thread to come by itself.
        """
        if not self._rung:
            self._rung = True
            self._bell.release()

    # For the writer's thread.

    def rest(self, timeout_s: float, bells: list[threading.Lock]) -> bool:
        """Wait until something was handed over, or nothing more will come; False when `timeout_s` passed first.

        `bells` are rung as the very last thing before that: a caller who wakes up while this thread still runs would
        have to wait for the interpreter, and be put to sleep and woken once more.
        """
        ring(bells)
        return self._more or self.closing or self._bell.acquire(timeout=timeout_s)

    def idle(self, timeout_s: float, bells: list[threading.Lock]) -> None:
        """Rest, with nothing left to do that cannot wait for the batch of a staged record."""
        self._idle = True
        self.rest(timeout_s, bells)
        self._idle = False

    def take(self, group: list[Batch], room_bytes: int) -> None:
        """Move to `group` what may share one sync: batches of one segment, together at most `room_bytes` long."""
        with self._mutex:
            if not self._more:
                self._bell.acquire(blocking=False)  # rung while nobody rested, or it was a timeout that ended the rest
            waiting = self._queue
            while waiting and waiting[0].length <= room_bytes and (not group or waiting[0].segment == group[0].segment):
                room_bytes -= waiting[0].length
                group.append(waiting.popleft())
            self._more = self._rung = bool(waiting)
            if self._waiters:
                self._progress.notify_all()

    def place_heartbeat(self) -> bool:
        """Take a heartbeat's place; False when a batch waits, which proves as much."""
        with self._mutex:
            if self._queue:
                return False
            self._room.heartbeat(CONTROL_BYTES)
        return True

    @property
    def wants_spare(self) -> bool:
        """Whether a file for the next segment is to be made."""
        return self._room.spare == MAKING

    def spare_made(self, state: str, refusal: str) -> None:
        """Tell how making one ended: READY, or REFUSED and why."""
        with self._mutex:
            self._room.spare, self._room.refusal = state, refusal
            self._attempts += 1
            self._progress.notify_all()

    def end(self, cause: LogFailed | None) -> list[Batch]:
        """Take nothing more, let everyone who waits look again, and return what is queued and never will be written."""
        with self._mutex:
            self.failure = cause
            self.closing = True
            self._progress.notify_all()
            return list(self._queue)
