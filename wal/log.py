"""The log as its owner sees it: open, append, close."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from wal.base import beside_prunes, create_base, first_base, write_base
from wal.batch import pack
from wal.disk import NO_ROOM, Disk, OsDisk
from wal.entries import Commit, Entry, Pending, Staged
from wal.errors import LogBusy, LogError, LogFailed, LogFull, of_log
from wal.frames import CONTROL_BYTES
from wal.head import Head, standing
from wal.listing import SegmentInfo, segments
from wal.lock import Lock
from wal.prune import Pruned, drop_segments
from wal.reader import Reader
from wal.redact import Redaction, Span, redact, unhurried
from wal.repair import NEW_LOG, Recovered, Recovery, recover
from wal.scan import start_of
from wal.segment import SECTOR_BYTES, SPARE_NAME, Limits
from wal.shelf import read_segment, segment_paths
from wal.tail import Tail, allocate, first_header, install, make_limits
from wal.tree import Tree, bag
from wal.writer import Options, Writer

SEGMENT_BYTES_MIN = 16 * SECTOR_BYTES
LOG_ID_BYTES = 16


class Log:
    """An open log: its one writer. Use `Log.open`; every method may be called from any thread."""

    def __init__(self, path: Path, disk: Disk, lock: Lock, writer: Writer, limits: Limits, recovery: Recovery,
                 entropy: Callable[[int], bytes]) -> None:  # fmt: skip
        """Assemble what `open` made."""
        self.path = path
        self.recovery = recovery
        self.limits = limits
        self._disk = disk
        self._lock = lock
        self._writer = writer
        self._entropy = entropy
        self._maintenance = threading.Lock()

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        segment_bytes: int = 64 * 2**20,
        max_record_bytes: int = 16 * 2**20,
        max_batch_bytes: int = 32 * 2**20,
        queue_batches: int = 1024,
        heartbeat_ms: float = 500,
        slow_sync_ms: float = 1000,
        on_slow_sync: Callable[[float], None] | None = None,
        expect_head: Head | None = None,
        disk: Disk | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Create or recover the log in directory `path`, and take its lock.

        `segment_bytes` is a multiple of 512, at least 8192; `max_record_bytes` (one payload) and
        `max_batch_bytes` (all payloads, and 24 bytes for each record) are lowered to what one segment holds.
        A heartbeat proves the last batch `heartbeat_ms` after it, when nothing else does. `on_slow_sync` is
        called once, on a thread of its own and with the milliseconds so far, for each piece of disk work that
        takes longer than `slow_sync_ms`. `expect_head` is a head kept elsewhere: all that it covers was acknowledged,
        so nothing of it is taken for a torn write, and a log that contradicts it is refused. `entropy(n)` returns n
        random bytes, for identities and salts.

        Raises LogLocked, LogCorrupt, LogTampered, UnsupportedFormat, LogFull (no room to begin; nothing was changed),
        LogFailed (any other I/O error) or ValueError.
        """
        if segment_bytes < SEGMENT_BYTES_MIN or segment_bytes % SECTOR_BYTES:
            raise ValueError(f"segment_bytes is {segment_bytes}: use a multiple of 512, at least {SEGMENT_BYTES_MIN}")
        limits = make_limits(segment_bytes, max_record_bytes, max_batch_bytes)
        options = Options(queue_batches, heartbeat_ms / 1000, slow_sync_ms / 1000, on_slow_sync)
        disk = OsDisk() if disk is None else disk
        directory = Path(path)
        with _translated(directory), contextlib.ExitStack() as undo:
            disk.make_dir(directory)
            lock = Lock(disk, directory)
            undo.callback(lock.release)
            lock.take()
            recovered = recover(directory, disk, expect_head)
            tail = (
                _begin(directory, disk, limits, entropy) if recovered is None else _resume(directory, disk, recovered)
            )
            undo.callback(tail.release)
            _start_epoch(directory, disk, tail, limits)
            writer = Writer(disk, directory, tail, limits, options, _size_bytes(directory, disk))
            undo.callback(writer.give_up)
            report = NEW_LOG if recovered is None else recovered.report
            log = cls(directory, disk, lock, writer, limits, report, entropy)
            writer.start()
            undo.pop_all()
        return log

    def append(
        self, batch: Sequence[tuple[int, bytes]], *, emergency: bool = False, timeout_s: float | None = None
    ) -> Commit:
        """Append (kind, payload) records as one batch, and return once they are durable.

        Waits while the queue is full, and never longer than `timeout_s` in all. An `emergency` may use the room that
        each segment keeps at its end (64 KiB, or a sixty-fourth of a smaller one), so that the reason for a stop has a
        place on a full disk.

        Raises RecordTooLarge, BatchTooLarge, LogFull, LogFailed, LogClosed, LogBusy (no place in the queue in that
        time); nothing was written then. Raises Late when the batch was queued and is not known durable in that time
        (it keeps its place, and the error has its `pending`), or OutcomeUnknown.
        """
        packed = pack(batch, self.limits, self._entropy)
        packed.emergency = emergency
        return self._writer.handover.append(packed, timeout_s)

    def submit(self, batch: Sequence[tuple[int, bytes]], *, emergency: bool = False) -> Pending:
        """Queue a batch and return at once, its LSNs fixed; never waits for the disk. `emergency` is as for `append`.

        Raises LogBusy (the queue is full) and what `append` raises; OutcomeUnknown comes from the result.
        """
        packed = pack(batch, self.limits, self._entropy)
        packed.emergency = emergency
        return self._writer.handover.submit(packed)

    def stage(self, kind: int, payload: bytes) -> Staged:
        """Queue one record to be written at once and synced with the batch that follows it. Raises as `submit`."""
        return self._writer.handover.stage(pack([(kind, payload)], self.limits, self._entropy))

    def read(self, after: int | None = 0) -> Iterator[Entry]:
        """Yield the durable entries past LSN `after`, up to the last batch acknowledged so far; None for all left."""
        reader = self.reader(after)
        while entries := reader.poll():
            yield from entries

    def reader(self, after: int | None = 0) -> Reader:
        """Return a follower of this log that sees each batch as soon as it is durable."""
        return Reader(self.path, after, durable_lsn=lambda: self.durable_lsn, disk=self._disk)

    def segments(self) -> list[SegmentInfo]:
        """Return the segments in order. Raises as `wal.segments`."""
        return segments(self.path, disk=self._disk)

    def head(self) -> Head:
        """Return the head of all that is acknowledged. Keep it elsewhere: it is what the log can be checked against."""
        size, nodes, chain = self._writer.durable_head
        return Head(self._writer.log_id, size, bag(nodes), chain)

    def standing(self, head: Head) -> str:
        """Say what this log makes of a head kept elsewhere: "confirmed", "contradicted" or "unprovable".

        The last is for one whose records were pruned and that was not kept. Raises LogError when the log has not come
        so far, LogCorrupt, LogTampered or OSError.
        """
        ask = partial(standing, self.path, self._disk, head, self._writer.log_id)
        return beside_prunes(self.path, self._disk, ask)

    def prune(self, before_lsn: int, *, keep_heads: Iterable[Head] = ()) -> Pruned:
        """Drop the segments all of whose records are below `before_lsn`; takes no free space.

        Every head of this log that covers what is left can be checked as before. One that is older can only when it
        was in `keep_heads`, of this or an earlier prune, also one that had nothing to drop: its proof is then kept.

        Raises LogError when a head to keep is not one of this log or its proof has no place, LogClosed, LogFailed
        (TakenOver when another writer has the log now), or LogCorrupt; nothing was pruned then. Interrupted at any
        moment, it leaves the log as before or pruned.
        """
        with self._maintained():
            ours = self._writer.refuse_if_taken_over
            pruned = drop_segments(
                self.path, self._disk, before_lsn, list(keep_heads), in_use=self._writer.segment, still_ours=ours
            )
            self._writer.shrink(pruned.freed_bytes)
            return pruned

    def redact(
        self,
        which: Callable[[Entry], bool],
        *,
        after_lsn: int = 0,
        upto_lsn: int | None = None,
        pace: Callable[[], None] = unhurried,
    ) -> Redaction:
        """Replace the payloads of the records that `which` names by stubs, in finished segments up to `upto_lsn`.

        Records up to `after_lsn` stay as they are, and segments that hold no other are not read. `pace` is called for
        each frame that is read: it may rest, and what it raises ends the work as an interrupt does.

        Numbers and kinds stay, and every proof and head holds as before. One segment at a time is written anew,
        checked, and put in the old one's place; what stands in the segment in use is left for a later run.

        Raises LogFull when there is no room for one segment, LogClosed, LogFailed (TakenOver when another writer has
        the log now), or LogCorrupt. Interrupted at any moment, it leaves each segment as before or redacted.
        """
        with self._maintained():
            upto_lsn = self.durable_lsn if upto_lsn is None else upto_lsn
            ours = self._writer.refuse_if_taken_over
            return redact(
                self.path, self._disk, which, Span(after_lsn, upto_lsn), in_use=self._writer.segment,
                freed=self._writer.shrink, still_ours=ours, pace=pace,
            )  # fmt: skip

    @contextlib.contextmanager
    def _maintained(self) -> Iterator[None]:
        """One prune or redaction at a time, and only while the log is this process's to change."""
        with self._maintenance:
            self._writer.handover.refuse_unless_open()
            try:
                with of_log(self.path):
                    yield
            except OSError as error:
                if error.errno in NO_ROOM:
                    raise LogFull(
                        f"no room to write a segment of {self.path} anew: {error}. Nothing was changed; free space,"
                        " or prune, which needs none."
                    ) from error
                raise LogFailed(
                    f"maintenance of {self.path} failed: {error}. Nothing acknowledged was changed, and the log goes"
                    " on; look at the disk, then try again."
                ) from error

    @property
    def next_lsn(self) -> int:
        """The LSN that the next record will get."""
        return self._writer.handover.next_lsn

    @property
    def durable_lsn(self) -> int:
        """The last LSN known durable; 0 for an empty log."""
        return self._writer.durable_lsn

    @property
    def failure(self) -> LogError | None:
        """Why the log takes nothing more, or None while it works."""
        return self._writer.failure

    @property
    def segment(self) -> int:
        """The number of the segment in use; it only grows."""
        return self._writer.segment

    @property
    def size_bytes(self) -> int:
        """The length of all segments together, allocated space included."""
        return self._writer.size_bytes

    def close(self, timeout_s: float | None = None) -> None:
        """Write what is queued, mark the log as closed, and give up the lock; doing it again does nothing.

        A log that had failed is only let go. Raises LogFailed when closing fails, and LogBusy when the disk has
        not answered for `timeout_s`: the lock is then still held, and close may be called again. In a forked child it
        does nothing: the log is the parent's.
        """
        if self._writer.handover.in_child:
            return
        failed_before = self._writer.failure
        if not self._maintenance.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise LogBusy(f"cannot close {self.path}: a prune or redaction is at work. Close again later.")
        try:
            stopped = self._writer.stop(timeout_s)
        finally:
            self._maintenance.release()
        if not stopped:
            raise LogBusy(f"cannot close {self.path}: the disk has not answered for {timeout_s} s. Close again later.")
        self._lock.release()
        failure = self._writer.failure
        if failure is not None and failed_before is None:
            raise type(failure)(str(failure)) from failure

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self.close()


def _begin(directory: Path, disk: Disk, limits: Limits, entropy: Callable[[int], bytes]) -> Tail:
    """Create the first segment of a new log, then say in BASE that the log begins with it."""
    header = first_header(entropy(LOG_ID_BYTES), limits)
    create_base(directory, disk)
    fd = allocate(disk, directory / SPARE_NAME, limits.segment_bytes)
    with contextlib.ExitStack() as undo:
        undo.callback(disk.close, fd)
        install(disk, directory, fd, header)
        write_base(directory, disk, first_base(header))
        undo.pop_all()
    return Tail(disk, directory, fd, header, start_of(header), Tree())


def _resume(directory: Path, disk: Disk, recovered: Recovered) -> Tail:
    fd = disk.open(recovered.last.path, write=True)
    return Tail(disk, directory, fd, recovered.last.header, recovered.cursor, recovered.tree)


def _start_epoch(directory: Path, disk: Disk, tail: Tail, limits: Limits) -> None:
    """Begin this opening's epoch, in a new segment when the limits changed or the old one is full."""
    if tail.header.limits != limits or not tail.fits(CONTROL_BYTES):
        tail.rotate(allocate(disk, directory / SPARE_NAME, limits.segment_bytes), limits)
    tail.begin_epoch()


def _size_bytes(directory: Path, disk: Disk) -> int:
    return sum([read_segment(path, disk).header.limits.segment_bytes for path in segment_paths(directory, disk)])


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Give an OSError met while opening the log's own name, and damage the log's."""
    try:
        with of_log(path):
            yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise LogFull(
                f"no room to open {path}: {error}. Nothing was changed; free space and open again, or prune the log:"
                " wal.prune needs no room."
            ) from error
        raise LogFailed(
            f"opening {path} failed: {error}. Nothing acknowledged was changed; look at the path, its permissions and"
            " its disk, then open it again."
        ) from error
