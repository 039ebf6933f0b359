"""The end of the log, where bytes are added. Used by one thread, except where it says so; knows no queue, no caller.

Rule 1: bytes of one sync group are issued only after the group before it is durable.
Rule 2: the first error leaves this object unusable; `wal.writer` sees to that.
"""

import contextlib
import errno
import threading
from dataclasses import replace
from pathlib import Path

from wal.batch import Batch
from wal.disk import Disk, opened, write_fully, write_zeros
from wal.errors import TakenOver
from wal.frames import (
    CLOSE,
    CONTROL_BYTES,
    HEARTBEAT,
    OPEN,
    RECORD_HEAD_BYTES,
    SEAL,
    Frame,
    body_room,
    encode,
    frame_bytes,
    seal_bytes,
)
from wal.scan import Cursor, start_of
from wal.segment import (
    HEADER_BYTES,
    SECTOR_BYTES,
    SPARE_NAME,
    Header,
    Limits,
    encode_header,
    file_name,
    genesis,
    parse_name,
)
from wal.tree import EMPTY_ROOT, LazyTree, Tree

# A sync into allocated but never written extents must also journal the extents' state: on ext4 that took
# 0.76 ms against 0.16 ms. So zeros are written a step ahead of the end, in between groups.
ZERO_STEP_BYTES = 512 << 10
ZERO_LOW_BYTES = 256 << 10
# How many records may wait to be hashed into the tree while batches keep coming: a third of a millisecond's work.
FOLD_LEAVES = 256
# The longest seal: a log of 2**48 records would take a year of them at ten million a second.
SEAL_BYTES_MAX = seal_bytes(2**48 - 1)
RESERVE_BYTES_MAX = 2 * CONTROL_BYTES + SEAL_BYTES_MAX
# A stop, its reason and a few reopenings, when there is no room for anything else; much less than one percent.
EMERGENCY_BYTES_MAX = 64 << 10
_EMERGENCY_SHARE = 64


def emergency_bytes(segment_bytes: int) -> int:
    """Return how much of a segment's end is kept for emergencies."""
    share = min(EMERGENCY_BYTES_MAX, segment_bytes // _EMERGENCY_SHARE)
    return share - share % SECTOR_BYTES


def reserve_bytes(size: int) -> int:
    """Return what a frame must leave free behind it: a heartbeat, a close, and the seal after `size` records."""
    return 2 * CONTROL_BYTES + seal_bytes(size)


def make_limits(segment_bytes: int, max_record_bytes: int, max_batch_bytes: int) -> Limits:
    """Clamp the limits to what one segment holds, so that no allowed batch is ever without a place.

    In doubt after a crash is one sync group, which is never longer than the longest frame, and the zeros written
    ahead of it.
    """
    kept = HEADER_BYTES + 3 * CONTROL_BYTES + SEAL_BYTES_MAX + emergency_bytes(segment_bytes)
    batch = min(max_batch_bytes, body_room(segment_bytes - kept))
    record = min(max_record_bytes, batch - RECORD_HEAD_BYTES)
    in_doubt = frame_bytes(batch) + ZERO_LOW_BYTES + ZERO_STEP_BYTES
    return Limits(segment_bytes, record, batch, in_doubt)


def allocate(disk: Disk, path: Path, length: int) -> int:
    """Create a file of `length` zeros whose space is reserved, and return its descriptor.

    An older file of that name is a leftover and is removed. On OSError nothing is left behind.
    """
    remove(disk, path)
    fd = disk.open(path, write=True, create=True)
    with contextlib.ExitStack() as undo:
        undo.callback(remove, disk, path)
        undo.callback(disk.close, fd)
        disk.fallocate(fd, length)
        undo.pop_all()
    return fd


def remove(disk: Disk, path: Path) -> None:
    """Remove a file that may not be there."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(path)


def install(disk: Disk, directory: Path, fd: int, header: Header) -> Path:
    """Make the spare file the segment with this header, durably. It has no name of a segment before that.

    Raises FileExistsError when a file of that segment is there, whoever put it there; OSError.
    """
    for name in disk.list_dir(directory):
        numbers = parse_name(name)
        if numbers is not None and numbers[0] == header.segment:
            raise FileExistsError(errno.EEXIST, "the next segment is there already, and not of this writer", name)
    write_fully(disk, fd, encode_header(header), 0)
    disk.fdatasync(fd)
    target = directory / file_name(header.segment, header.first_lsn)
    disk.rename(directory / SPARE_NAME, target)
    disk.fsync_dir(directory)
    return target


def first_header(log_id: bytes, limits: Limits) -> Header:
    """Return the header that begins a new log."""
    return Header(log_id, 1, 0, 1, limits, prev_end=0, prev_records=0, chain=genesis(log_id), root=EMPTY_ROOT)


def control_frame(cursor: Cursor, kind: int, durable_offset: int, body_bytes: int = 0) -> Frame:
    """Return a frame without records for the place at the cursor."""
    return Frame(
        type=kind, length=frame_bytes(body_bytes), records=0, log_id=cursor.log_id, segment=cursor.segment,
        offset=cursor.offset, epoch=cursor.epoch + (kind == OPEN), first_lsn=cursor.lsn, durable_lsn=cursor.lsn - 1,
        durable_offset=durable_offset, prev=cursor.chain, body_bytes=body_bytes, chain=cursor.chain,
    )  # fmt: skip


class Tail:
    """The open last segment. `cursor` is where the next frame goes; offsets are in bytes.

    `cursor.durable_offset` is the end of what is synced, `durable_lsn` its last record, `promise` both for the next
    frame.
    """

    def __init__(self, disk: Disk, directory: Path, fd: int, header: Header, cursor: Cursor, tree: Tree) -> None:
        """Take over the last segment, of which everything before `cursor` is durable."""
        self._disk = disk
        self._directory = directory
        self._fd = fd
        self._released = False
        self._fd_mutex = threading.Lock()  # held to exchange the descriptor, and to ask about it
        self.header = header
        self.cursor = cursor
        self._tree = LazyTree(tree)
        self._mark_durable()
        self._zeroed_to = cursor.offset

    @property
    def unsynced_bytes(self) -> int:
        """How many written bytes no sync has covered."""
        return self.cursor.offset - self.cursor.durable_offset

    def frame(self, batch: Batch) -> bytes:
        """Return a batch's frame and step over its place; `write` must follow, with no sync in between."""
        cursor = self.cursor
        if (batch.segment, batch.offset, batch.first_lsn) != (cursor.segment, cursor.offset, cursor.lsn):
            raise RuntimeError(f"batch for LSN {batch.first_lsn} has no place at {cursor}")
        self._tree.add(batch.leaves)
        cursor.offset += batch.length
        cursor.lsn += len(batch.leaves)
        cursor.chain = batch.chain
        return batch.frame_with(self.promise)

    def write(self, frames: list[bytes]) -> None:
        """Write built frames where they belong: just before the cursor. Nothing is synced."""
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        write_fully(self._disk, self._fd, data, self.cursor.offset - len(data))

    def sync(self) -> None:
        """Make everything written durable, and remember that it is. Raises TakenOver when that no longer counts."""
        self._disk.fdatasync(self._fd)
        self.refuse_if_taken_over()
        self._mark_durable()

    def refuse_if_taken_over(self) -> None:
        """Raise TakenOver when another writer opened the log meanwhile, which a lock that did not hold has let in.

        For any thread: pruning and redacting ask too, before they change a file that may be the other writer's.
        Recovery writes the last segment of a log that was not closed anew, under the same name, so this one's file
        has none any more: what is synced into it is lost.
        """
        with self._fd_mutex:
            nameless = not self._released and self._disk.links(self._fd) == 0
        if nameless:
            raise TakenOver(
                f"another writer has taken over {self._directory}: the file of segment {self.cursor.segment} that this"
                " one writes has no name any more, and nothing more is acknowledged here. Find out why the lock did not"
                " hold; then open the log again where it should be written."
            )

    def _mark_durable(self) -> None:
        cursor = self.cursor
        cursor.durable_offset = cursor.offset
        self.durable_lsn = cursor.lsn - 1
        self.promise = self.durable_lsn, cursor.offset
        self._durable = self.durable_lsn, cursor.chain

    def durable_head(self) -> tuple[int, tuple[bytes, ...], bytes]:
        """Return what is durable: the number of records, the tree's frontier over them, the chain. For any thread."""
        while True:
            size, chain = self._durable
            tree = self._tree.at(size)
            if tree is not None:  # else more became durable, and was folded, since the line before
                return size, tuple(tree.nodes), chain

    def fold(self, least: int = 1) -> None:
        """Fold the durable records into the tree, when at least so many wait."""
        if self._tree.waiting >= least:
            self._tree.fold(self.durable_lsn)

    def heartbeat(self) -> None:
        """Prove, durably, that everything before is durable."""
        self._control(HEARTBEAT)

    def begin_epoch(self) -> None:
        """Begin this opening's epoch durably, before it writes a record: what recovery cut has an older one."""
        self._control(OPEN)

    def finish(self) -> None:
        """End the log cleanly."""
        self._control(CLOSE)

    def fits(self, length: int) -> bool:
        """Whether a frame of that length, and what must follow it, has a place in this segment."""
        end = self.cursor.offset + length
        return end + reserve_bytes(self.cursor.lsn - 1) <= self.header.limits.segment_bytes

    def rotate(self, spare_fd: int, limits: Limits) -> None:
        """Go on in a new segment: name it durably first, then seal this one, and only then write there."""
        if self.unsynced_bytes:
            self.sync()
        self.refuse_if_taken_over()  # before a name is given away that may be the other writer's
        cursor, tree = self.cursor, self._tree.fold(self.durable_lsn)
        header = Header(
            cursor.log_id, cursor.segment + 1, cursor.epoch, cursor.lsn, limits,
            prev_end=cursor.offset + seal_bytes(tree.size),
            prev_records=cursor.lsn - self.header.first_lsn, chain=cursor.chain, root=tree.root(),
        )  # fmt: skip
        install(self._disk, self._directory, spare_fd, header)
        self._control(SEAL, b"".join(tree.nodes))
        with self._fd_mutex:
            full, self._fd = self._fd, spare_fd  # exchanged first: what is closed is never closed a second time
        self._disk.close(full)
        self.header = header
        self.cursor = start_of(header)
        self._mark_durable()
        self._zeroed_to = self.cursor.offset

    @property
    def low_on_zeros(self) -> bool:
        """Whether few written zeros are left past the end, and there is room for more."""
        return self._zeroed_to - self.cursor.offset < ZERO_LOW_BYTES and self._zeroed_to < self._segment_bytes

    @property
    def wants_care(self) -> bool:
        """Whether `zero_ahead` or `fold` have something to do that should not wait."""
        return self._tree.waiting >= FOLD_LEAVES or self.low_on_zeros

    def zero_ahead(self) -> None:
        """Write and sync zeros past the end when few are left, so that the next syncs are fast ones."""
        start = max(self._zeroed_to, self.cursor.offset)
        end = min(start + ZERO_STEP_BYTES, self._segment_bytes)
        if self.low_on_zeros:
            write_zeros(self._disk, self._fd, start, end)
            self.sync()
            self._zeroed_to = end

    @property
    def _segment_bytes(self) -> int:
        return self.header.limits.segment_bytes

    def release(self) -> None:
        """Close the file without writing; doing it again does nothing."""
        with self._fd_mutex:
            released, self._released = self._released, True
        if not released:
            self._disk.close(self._fd)

    def _control(self, kind: int, body: bytes = b"") -> None:
        if self.unsynced_bytes:
            self.sync()
        frame = control_frame(self.cursor, kind, self.cursor.durable_offset, len(body))
        self._step(frame)
        self.write([encode(frame, body)])
        self.sync()

    def _step(self, frame: Frame) -> None:
        synced = self.cursor.durable_offset  # what the frame promises; the cursor's own mark moves only on a sync
        self.cursor.advance(frame)
        self.cursor.durable_offset = synced


def reseal(disk: Disk, path: Path, cursor: Cursor, tree: Tree) -> None:
    """Write the seal that a crash kept from a finished segment; the same bytes that were due then."""
    body = b"".join(tree.nodes)
    frame = control_frame(replace(cursor), SEAL, cursor.offset, len(body))
    with opened(disk, path, write=True) as fd:
        write_fully(disk, fd, encode(frame, body), cursor.offset)
        disk.fdatasync(fd)
