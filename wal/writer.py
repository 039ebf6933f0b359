"""The one thread that writes. It takes what callers handed over, and writes and syncs it, a group at a time.

Rule 1: nothing is acknowledged before the sync that covers it has returned.
Rule 2: a batch's place and LSNs were fixed when it was queued; the thread checks that it arrives there.
Rule 3: after the first error the thread is gone, and what it had not acknowledged has an unknown outcome.
"""

import contextlib
import errno
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wal.batch import Batch
from wal.disk import NO_ROOM, Disk
from wal.entries import ring
from wal.errors import LogFailed, OutcomeUnknown, TakenOver
from wal.frames import STAGED, frame_bytes
from wal.handover import Handover
from wal.room import READY, REFUSED, Room
from wal.segment import SPARE_NAME, Limits
from wal.tail import FOLD_LEAVES, Tail, allocate, remove

# A spare that cannot be made now is no damage: the log stays usable up to the end of its segment.
_NO_SPARE = NO_ROOM | {errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EROFS}
# The longest sleep: an interrupt between queueing and waking can cost this much, never the batch.
_SLEEP_MAX_S = 1.0
# What need not be done at once waits until nothing came for so long: longer than a caller takes from one append to
# its next, and much shorter than anyone would notice.
_LULL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Options:
    """How the writer works: queue length in batches, times in seconds, and whom to tell of a slow sync."""

    queue_batches: int
    heartbeat_s: float
    slow_sync_s: float
    on_slow_sync: Callable[[float], None] | None


class Writer:
    """The thread and the end of the log, which is the thread's alone; callers meet it at `handover`."""

    def __init__(
        self, disk: Disk, directory: Path, tail: Tail, limits: Limits, options: Options, size_bytes: int
    ) -> None:
        """Take over a tail whose epoch has begun. Nothing is written before `start`."""
        self._disk = disk
        self._directory = directory
        self._tail = tail
        self._limits = limits
        self._group_max_bytes = frame_bytes(limits.max_batch_bytes)
        self._options = options
        cursor = tail.cursor
        room = Room(cursor.segment, cursor.offset, cursor.lsn, tail.header.limits.segment_bytes, limits)
        self.handover = Handover(room, cursor, options.queue_batches)
        self._group: list[Batch] = []
        self._bells: list[threading.Lock] = []
        self._unproven = False
        self._busy_since: float | None = None
        self._last_write = 0.0
        self._patience_s = min(options.heartbeat_s, _SLEEP_MAX_S)
        self._spare_fd: int | None = None
        self._unowned = threading.Lock()  # taken by whoever ends the log: the thread, unless it never came to run
        self._ended = threading.Event()
        self._size_bytes = size_bytes
        self._size_mutex = threading.Lock()

    def start(self) -> None:
        """Begin to write, on a thread of its own."""
        threading.Thread(target=self._run, name=f"wal-writer {self._directory}", daemon=True).start()
        tell = self._options.on_slow_sync
        if tell is not None:
            threading.Thread(target=self._watch, args=(tell,), name="wal-watch", daemon=True).start()

    def give_up(self) -> None:
        """Let go of the files, whether or not `start` came far enough; nothing was handed over yet."""
        self.handover.close()
        if self._unowned.acquire(blocking=False):
            self._end(None)
        self._ended.wait()

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
        return self._tail.durable_head()

    @property
    def failure(self) -> LogFailed | None:
        """Why the thread is gone, or None while it works or after it ended cleanly."""
        return self.handover.failure

    @property
    def segment(self) -> int:
        """The number of the segment in use."""
        return self._tail.cursor.segment

    @property
    def size_bytes(self) -> int:
        """The length of all segments together."""
        return self._size_bytes

    def shrink(self, freed_bytes: int) -> None:
        """Count space that a prune or a redaction gave back."""
        with self._size_mutex:
            self._size_bytes -= freed_bytes

    def refuse_if_taken_over(self) -> None:
        """Raise TakenOver when another writer has the log now. Raises OSError when that cannot be told."""
        self._tail.refuse_if_taken_over()

    def stop(self, timeout_s: float | None) -> bool:
        """Write what is queued, end the log cleanly and wait for that; False when `timeout_s` passed first."""
        self.handover.close()
        return self._ended.wait(timeout_s)

    # The thread.

    def _run(self) -> None:
        if not self._unowned.acquire(blocking=False):
            return  # given up already
        cause: LogFailed | None = LogFailed(
            "the log's writer stopped on an unexpected error; close the log, open it again"
        )
        try:
            self._loop()
            cause = None
        except (TakenOver, OSError) as error:
            cause = self._failure(error)
        finally:
            try:
                self._end(cause)
            except BaseException:
                self._end(cause)  # for want of memory, above all: whoever waits must hear, and all can be done again
                raise

    def _failure(self, error: TakenOver | OSError) -> LogFailed:
        """What the log says of itself from now on. It is kept, so what it tells of its way here holds on to nothing.

        A traceback holds on to its frames' variables: to batches, their errors, and so to whoever waited for them.
        """
        traceback.clear_frames(error.__traceback__)
        if isinstance(error, TakenOver):
            return error
        cause = LogFailed(f"writing to {self._directory} failed: {error}. Close the log and open it again.")
        cause.__cause__ = error
        return cause

    def _loop(self) -> None:
        handover, tail, group, bells = self.handover, self._tail, self._group, self._bells
        while True:
            if self._spare_fd is None or tail.wants_care:
                ring(bells)
                self._prepare()
            self._rest()
            handover.take(group, self._group_max_bytes)
            if group:
                self._write(group)
            elif handover.closing:
                break
            elif self._unproven and time.monotonic() >= self._last_write + self._options.heartbeat_s:
                self._heartbeat()
        tail.finish()

    def _rest(self) -> None:
        """Wait for more; once nothing came for a while, do first what could wait for that.

        But not behind a staged record: its batch is on its way, made by a thread that this one would only be in the
        way of.
        """
        if not self._tail.unsynced_bytes:
            if self.handover.rest(_LULL_S, self._bells):
                return
            self._tail.fold()
        self.handover.idle(self._patience_s if self._unproven else _SLEEP_MAX_S, self._bells)

    def _write(self, group: list[Batch]) -> None:
        """Write and sync a group and settle its batches. Those who wait are let go a little later, by `rest`."""
        self._busy_since = self._last_write = time.monotonic()
        tail = self._tail
        if group[0].segment != tail.cursor.segment:
            self._rotate()
        if tail.unsynced_bytes and tail.unsynced_bytes + sum([batch.length for batch in group]) > self._group_max_bytes:
            tail.sync()  # staged frames alone must not outgrow what recovery allows to be in doubt
        tail.write([tail.frame(batch) for batch in group])
        self._unproven = True
        staged = [batch for batch in group if batch.kind == STAGED]
        for batch in staged:
            ring(batch.waiter.settle())
        if len(staged) < len(group):
            tail.sync()
            self.handover.promise = tail.promise
        for batch in group:
            self._bells += batch.waiter.settle()
        group.clear()  # only now: nothing that stops this thread before may forget one
        self._busy_since = None

    def _rotate(self) -> None:
        if self._spare_fd is None:
            raise RuntimeError("a batch was placed in a segment that was never allocated")
        spare, self._spare_fd = self._spare_fd, None
        self._tail.rotate(spare, self._limits)
        self.shrink(-self._limits.segment_bytes)

    def _heartbeat(self) -> None:
        if self.handover.place_heartbeat():
            self._busy_since = time.monotonic()
            self._tail.heartbeat()
            self._unproven = False
            self._busy_since = None

    def _prepare(self) -> None:
        """Make what the next groups need: a file for the next segment, zeros to write on, a short way to the head."""
        self._busy_since = time.monotonic()
        if self._spare_fd is None and self.handover.wants_spare:
            self._make_spare()
        self._tail.zero_ahead()
        self._tail.fold(FOLD_LEAVES)
        self._busy_since = None

    def _make_spare(self) -> None:
        self._tail.refuse_if_taken_over()  # the name of the spare may be the other writer's
        state, refusal = READY, ""
        try:
            self._spare_fd = allocate(self._disk, self._directory / SPARE_NAME, self._limits.segment_bytes)
        except OSError as error:
            if error.errno not in _NO_SPARE:
                raise
            state, refusal = REFUSED, str(error)
        self.handover.spare_made(state, refusal)

    def _end(self, cause: LogFailed | None) -> None:
        """Leave nobody waiting, and close the files; nothing is written or retried. Doing it again does no more."""
        self._busy_since = None
        ring(self._bells)
        for batch in [*self._group, *self.handover.end(cause)]:
            _abandon(batch, str(cause))
        with contextlib.suppress(OSError):  # all that matters was synced, or has been reported as unknown
            self._close_files(keep_spare=cause is not None)
        self._group.clear()  # all of them were told; whoever waited is held on to no longer
        self._ended.set()

    def _close_files(self, *, keep_spare: bool) -> None:
        self._tail.release()
        spare, self._spare_fd = self._spare_fd, None
        if spare is not None:
            self._disk.close(spare)
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
    """Tell whoever waits for a batch that its outcome is unknown; what was told before stands."""
    last_lsn = batch.first_lsn + len(batch.records) - 1
    ring(batch.waiter.settle(OutcomeUnknown(batch.first_lsn, last_lsn, cause)))
