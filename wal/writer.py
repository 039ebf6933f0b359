"""The one thread that writes. Callers queue batches; the thread writes and syncs them, a group at a time.

Rule 1: nothing is acknowledged before the sync that covers it has returned.
Rule 2: a batch's place and LSNs are fixed when it is queued; the thread checks that it arrives there.
Rule 3: after the first error the thread is gone, and what it had not acknowledged has an unknown outcome.
"""

import contextlib
import errno
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wal.batch import Batch
from wal.disk import NO_ROOM, Disk
from wal.entries import Pending, Staged, make_commit
from wal.errors import LogBusy, LogClosed, LogError, LogFailed, LogFull, OutcomeUnknown
from wal.frames import CONTROL_BYTES, DATA, STAGED, frame_bytes
from wal.room import MAKING, READY, REFUSED, Room
from wal.segment import SPARE_NAME, Limits
from wal.tail import Tail, allocate, remove

# A spare that cannot be made now is no damage: the log stays usable up to the end of its segment.
_NO_SPARE = NO_ROOM | {errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS}
# The longest sleep: an interrupt between queueing and waking can cost this much, never the batch.
_SLEEP_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the writer works: queue length in batches, times in seconds, and whom to tell of a slow sync."""

    queue_batches: int
    heartbeat_s: float
    slow_sync_s: float
    on_slow_sync: Callable[[float], None] | None


class Writer:
    """The queue and its thread. Every method may be called from any thread, save those of the thread itself."""

    def __init__(
        self, disk: Disk, directory: Path, tail: Tail, limits: Limits, options: Options, size_bytes: int
    ) -> None:
        """Start the thread on a tail whose epoch has begun."""
        self._disk = disk
        self._directory = directory
        self._tail = tail
        self._limits = limits
        self._group_max_bytes = frame_bytes(limits.max_batch_bytes)
        self._options = options
        cursor = tail.cursor
        self._room = Room(cursor.segment, cursor.offset, cursor.lsn, tail.header.limits.segment_bytes, limits)
        self._mutex = threading.Lock()
        self._progress = threading.Condition(self._mutex)
        self._queue: deque[Batch] = deque()
        self._group: list[Batch] = []
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._idle = False
        self._stopping = False
        self._unproven = False
        self._busy_since: float | None = None
        self._last_write = 0.0
        self._spare_fd: int | None = None
        self._attempts = 0
        self._waiters = 0
        self._ended = threading.Event()
        self._pid = os.getpid()
        self.failure: LogFailed | None = None
        self.size_bytes = size_bytes
        self._thread = threading.Thread(target=self._run, name=f"wal-writer {directory}", daemon=True)
        self._thread.start()
        if options.on_slow_sync is not None:
            watch = threading.Thread(target=self._watch, args=(options.on_slow_sync,), name="wal-watch", daemon=True)
            watch.start()

    # For callers.

    @property
    def next_lsn(self) -> int:
        """The LSN that the next record will get."""
        return self._room.next_lsn

    @property
    def durable_lsn(self) -> int:
        """The last LSN known durable."""
        return self._tail.durable_lsn

    @property
    def log_id(self) -> bytes:
        """The log's identity."""
        return self._tail.header.log_id

    @property
    def durable_head(self) -> tuple[int, tuple[bytes, ...], bytes]:
        """What is durable: how many records, the frontier of the tree over them, and the chain."""
        return self._tail.durable_head

    def refuse_unless_open(self) -> None:
        """Raise LogFailed or LogClosed unless the writer takes batches."""
        self._refuse_in_child()
        if self.failure is not None:
            raise LogFailed(str(self.failure)) from self.failure
        if self._stopping:
            raise LogClosed("cannot work on the log: it is closed. Open it again.")

    def shrink(self, freed_bytes: int) -> None:
        """Count space that a prune or a redaction gave back."""
        with self._mutex:
            self.size_bytes -= freed_bytes

    def submit(self, batch: Batch) -> Pending:
        """Queue a batch without waiting. Raises LogBusy, LogFull, LogFailed or LogClosed; then nothing happened."""
        self._refuse_in_child()
        with self._mutex, self._all_or_nothing(batch):
            refusal = self._admit(batch)
            if refusal is not None:
                raise refusal
            return self._queue_batch(batch)

    def submit_patiently(self, batch: Batch) -> Pending:
        """Queue a batch, waiting while the queue is full or room is being made. Raises as `submit`, without LogBusy."""
        self._refuse_in_child()
        with self._mutex:
            asked = self._attempts
            while True:
                with self._all_or_nothing(batch):
                    refusal = self._admit(batch)
                    if refusal is None:
                        return self._queue_batch(batch)
                if isinstance(refusal, LogFull) and self._attempts > asked:
                    raise refusal
                self._wait_for_progress()

    def stage(self, batch: Batch) -> Staged:
        """Queue one record to be written ahead of its batch, unsynced. Raises as `submit`."""
        self._refuse_in_child()
        with self._mutex, self._all_or_nothing(batch):
            refusal = self._admit(batch)
            if refusal is not None:
                raise refusal
            staged = batch.waiter = Staged(batch.first_lsn)
            self._queue.append(batch)
            self._wake()
        return staged

    def stop(self, timeout_s: float | None) -> bool:
        """Write what is queued, end the log cleanly and wait for that; False when `timeout_s` passed first."""
        with self._mutex:
            self._stopping = True
            self._wake()
        return self._ended.wait(timeout_s)

    def _wait_for_progress(self) -> None:
        self._waiters += 1
        try:
            self._progress.wait()
        finally:
            self._waiters -= 1

    def _refuse_in_child(self) -> None:
        if os.getpid() != self._pid:
            raise LogClosed(
                "cannot append: this log belongs to the parent process. Open it here once that has closed it."
            )

    @contextlib.contextmanager
    def _all_or_nothing(self, batch: Batch) -> Iterator[None]:
        """An interrupt may come at any line: the batch is queued, or its place is given back. The mutex is held."""
        mark = self._room.mark()
        try:
            yield
        except (LogBusy, LogFull):
            raise  # nothing was taken, but a spare may have been asked for
        except BaseException:  # KeyboardInterrupt and MemoryError above all; nothing is swallowed
            if self._queue and self._queue[-1] is batch:
                self._wake()
            else:
                self._room.back_to(mark)
            raise

    def _admit(self, batch: Batch) -> LogBusy | LogFull | None:
        """Give the batch its place; return why there is none yet. The mutex is held."""
        if self.failure is not None:
            raise LogFailed(str(self.failure)) from self.failure
        if self._stopping:
            raise LogClosed("cannot append: the log is closed. Open it again.")
        if len(self._queue) >= self._options.queue_batches:
            return LogBusy(
                f"{len(self._queue)} batches are waiting for the disk; nothing was written. Try again later."
            )
        try:
            self._room.place(batch.length, len(batch.records), emergency=batch.emergency)
        except (LogBusy, LogFull) as refusal:
            self._wake()
            return refusal
        batch.segment = self._room.segment
        batch.offset = self._room.offset - batch.length
        batch.first_lsn = self._room.next_lsn - len(batch.records)
        return None

    def _queue_batch(self, batch: Batch) -> Pending:
        pending = batch.waiter = Pending(batch.first_lsn, batch.first_lsn + len(batch.records) - 1)
        self._queue.append(batch)
        self._wake()
        return pending

    def _wake(self) -> None:
        """Wake the thread if it sleeps. One token too many only costs it a look at the queue."""
        if self._idle:
            self._idle = False
            self._tokens.put(None)

    # The thread.

    def _run(self) -> None:
        cause: LogFailed | None = LogFailed(
            "the log's writer stopped on an unexpected error; close the log, open it again"
        )
        try:
            self._loop()
            cause = None
        except OSError as error:
            cause = LogFailed(f"writing to {self._directory} failed: {error}. Close the log and open it again.")
            cause.__cause__ = error
        finally:
            self._end(cause)

    def _loop(self) -> None:
        self._upkeep()
        while (group := self._take()) or not self._stopping:
            if group:
                self._write(group)
            else:
                self._rest()
            self._upkeep()
        self._tail.finish()

    def _take(self) -> list[Batch]:
        """Take what may share one sync: batches of one segment, together no longer than the longest frame."""
        with self._mutex:
            waiting = self._queue
            self._idle = not waiting
            group = self._group
            room = self._group_max_bytes
            while waiting and waiting[0].length <= room and (not group or waiting[0].segment == group[0].segment):
                room -= waiting[0].length
                group.append(waiting.popleft())
            return group

    def _write(self, group: list[Batch]) -> None:
        self._busy_since = time.monotonic()
        tail = self._tail
        if group[0].segment != tail.cursor.segment:
            self._rotate()
        if tail.unsynced_bytes + sum([batch.length for batch in group]) > self._group_max_bytes:
            tail.sync()  # staged frames alone must not outgrow what recovery allows to be in doubt
        tail.write(b"".join([self._frame(batch) for batch in group]))
        self._unproven = True
        for batch in group:
            if isinstance(batch.waiter, Staged):
                batch.waiter.settle()
        if any(isinstance(batch.waiter, Pending) for batch in group):
            tail.sync()
        self._acknowledge(group)

    def _frame(self, batch: Batch) -> bytes:
        cursor = self._tail.cursor
        if (cursor.segment, cursor.offset, cursor.lsn) != (batch.segment, batch.offset, batch.first_lsn):
            raise RuntimeError(f"batch for LSN {batch.first_lsn} has no place at {cursor}")
        kind = STAGED if isinstance(batch.waiter, Staged) else DATA
        return self._tail.frame(kind, batch.body, batch.inners, batch.length)

    def _acknowledge(self, group: list[Batch]) -> None:
        while group:
            batch = group[0]
            if isinstance(batch.waiter, Pending):
                batch.waiter.set_result(make_commit(batch.entries()))
            del group[0]
        self._last_write = time.monotonic()

    def _rotate(self) -> None:
        if self._spare_fd is None:
            raise RuntimeError("a batch was placed in a segment that was never allocated")
        spare, self._spare_fd = self._spare_fd, None
        self._tail.rotate(spare, self._limits)
        with self._mutex:
            self.size_bytes += self._limits.segment_bytes

    def _rest(self) -> None:
        self._busy_since = None
        due_s = self._last_write + self._options.heartbeat_s - time.monotonic()
        with contextlib.suppress(queue.Empty):
            self._tokens.get(timeout=max(due_s, 0.0) if self._unproven else _SLEEP_MAX_S)
        if self._unproven and time.monotonic() >= self._last_write + self._options.heartbeat_s:
            self._heartbeat()

    def _heartbeat(self) -> None:
        with self._mutex:
            if self._queue:
                return  # the batch that waits will prove the one before
            self._room.heartbeat(CONTROL_BYTES)
        self._busy_since = time.monotonic()
        self._tail.heartbeat()
        self._unproven = False

    def _upkeep(self) -> None:
        """Prepare what the next groups need, and tell those who wait for room. Usually there is nothing to do."""
        make_spare = self._room.spare == MAKING and self._spare_fd is None
        if make_spare or self._tail.low_on_zeros:
            self._busy_since = time.monotonic()
            if make_spare:
                self._make_spare()
            self._tail.zero_ahead()
        if self._waiters:
            with self._mutex:
                self._progress.notify_all()

    def _make_spare(self) -> None:
        state, refusal = READY, ""
        try:
            self._spare_fd = allocate(self._disk, self._directory / SPARE_NAME, self._limits.segment_bytes)
        except OSError as error:
            if error.errno not in _NO_SPARE:
                raise
            state, refusal = REFUSED, str(error)
        with self._mutex:
            self._room.spare, self._room.refusal = state, refusal
            self._attempts += 1

    def _end(self, cause: LogFailed | None) -> None:
        """Leave nobody waiting, and close the files; nothing is written or retried."""
        with self._mutex:
            self.failure = cause
            self._stopping = True
            waiting = [*self._group, *self._queue]
            self._group, self._queue = [], deque()
            self._busy_since = None
            self._progress.notify_all()
        for batch in waiting:
            _abandon(batch, str(cause))
        with contextlib.suppress(OSError):  # all that matters was synced, or has been reported as unknown
            self._close_files(keep_spare=cause is not None)
        self._ended.set()

    def _close_files(self, *, keep_spare: bool) -> None:
        self._tail.release()
        if self._spare_fd is not None:
            self._disk.close(self._spare_fd)
            if not keep_spare:
                remove(self._disk, self._directory / SPARE_NAME)

    # The watch, a thread of its own because the writer's may be the one that hangs.

    def _watch(self, tell: Callable[[float], None]) -> None:
        told: float | None = None
        while not self._ended.wait(self._options.slow_sync_s / 4):
            since = self._busy_since
            late_s = 0.0 if since is None else time.monotonic() - since
            if since != told and late_s >= self._options.slow_sync_s:
                told = since
                tell(late_s * 1000)


def _abandon(batch: Batch, cause: str) -> None:
    last_lsn = batch.first_lsn + len(batch.records) - 1
    error: LogError = OutcomeUnknown(batch.first_lsn, last_lsn, cause)
    if isinstance(batch.waiter, Pending):
        batch.waiter.set_exception(error)
    elif not batch.waiter.done():
        batch.waiter.settle(error)
