"""Copying a log, also while a writer is at work in it, so that the copy always opens clean.

Rule 1: until all of a copy is durable, its directory holds a file whose name no log may have: whatever a crash
leaves is refused by every reader, and names itself.
Rule 2: every byte that is copied was checked first. A damaged log has no copy; `wal.salvage` is for those.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from wal.base import Base, Replaced, create_base, first_base, read_base, write_base
from wal.checked import check_end, checked_frames, judge_end, opened_segment
from wal.disk import Disk, OsDisk, opened, read_fully, sync_surely, write_fully
from wal.errors import CopyFailed, LogCorrupt, of_log
from wal.frames import CLOSE, SEAL, encode
from wal.head import Head
from wal.lock import is_locked
from wal.progress import Meter, Progress
from wal.scan import CHUNK_BYTES, Cursor, Window, start_of
from wal.segment import BASE_NAME, Header, number_of
from wal.shelf import Segment, read_segment, segment_paths, successor
from wal.tail import control_frame, remove
from wal.tree import Tree

MARK_NAME = "incomplete-copy.wal"
_MARK = b"This directory is a copy of a log that was never finished. Remove the directory, and copy again.\n"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: `records`, `first_lsn`..`last_lsn` (`first_lsn` 0 for none), in `segments` files.

    `head` is the copy's head, which is one of the source's heads too.
    """

    records: int
    first_lsn: int
    last_lsn: int
    segments: int
    head: Head


def copy(
    source: Path | str, target: Path | str, *, disk: Disk | None = None, progress: Progress | None = None
) -> Copied:
    """Copy a log to the directory `target`, which must be empty or absent; return once the copy is durable.

    A writer may be at work, and may prune or redact meanwhile; takes no lock. Finished segments are copied byte for
    byte. The last one is copied as far as it is proven durable, and then closed: beside a live writer the newest batch
    may be missing, as it is for `wal.read`, and a redaction that is under way may be in the copy or not.

    The copy has the log's id. It is a backup: once it is opened for writing it is a fork, with other records under
    the same LSNs, and the two must never be mixed.

    Raises CopyFailed (also for any OSError, which is its cause), LogCorrupt, LogTampered or UnsupportedFormat.
    `progress(done_bytes, total_bytes)` is called about once for each MiB.
    """
    work = _Copy(Path(source), Path(target), OsDisk() if disk is None else disk, progress)
    try:
        with of_log(work.source):
            return work.run()
    except OSError as error:
        why = f"{error}. Remove what is left of the copy, look at both disks, then try again."
        raise CopyFailed(work.source, work.target, why) from error


class _Copy:
    """One copy under way."""

    def __init__(self, source: Path, target: Path, disk: Disk, progress: Progress | None) -> None:
        self.source = source
        self.target = target
        self._disk = disk
        self._progress = progress
        self._meter = Meter(None, 0)
        self._made: list[Path] = []

    def run(self) -> Copied:
        if not segment_paths(self.source, self._disk):
            raise CopyFailed(self.source, self.target, "no segment is there. Look at the path.")
        self._disk.make_dir(self.target)
        self._refuse_unless_empty()
        with contextlib.ExitStack() as undo:
            undo.callback(self._undo)
            self._mark()
            copied = self._consistently()
            self._disk.fsync_dir(self.target)
            undo.pop_all()
        self._disk.unlink(self.target / MARK_NAME)
        self._disk.fsync_dir(self.target)
        return copied

    def _refuse_unless_empty(self) -> None:
        names = self._disk.list_dir(self.target)
        if MARK_NAME in names:
            why = "an interrupted copy stands there. Remove the directory, and copy again."
            raise CopyFailed(self.source, self.target, why)
        if names:
            why = f"it is not empty: {min(names)} is there. Choose another directory."
            raise CopyFailed(self.source, self.target, why)

    def _mark(self) -> None:
        fd = self._disk.open(self.target / MARK_NAME, write=True, create=True)
        try:
            write_fully(self._disk, fd, _MARK, 0)
            self._disk.fdatasync(fd)
        finally:
            self._disk.close(fd)
        self._disk.fsync_dir(self.target)

    def _undo(self) -> None:
        """Leave nothing; the mark goes last, and stays when anything else does."""
        with contextlib.suppress(OSError):
            self._remove_made()
            self._disk.fsync_dir(self.target)
            remove(self._disk, self.target / MARK_NAME)

    def _remove_made(self) -> None:
        while self._made:
            remove(self._disk, self._made[-1])
            self._made.pop()

    def _consistently(self) -> Copied:
        """Copy the segments with the base they belong to; begin again when a prune or an opening came in between."""
        looks = 1
        while True:
            base = read_base(self.source, self._disk)
            try:
                return self._copy_from(base)
            except Replaced as replaced:
                looks = replaced.count(looks)
            except (FileNotFoundError, LogCorrupt):
                if read_base(self.source, self._disk) == base:
                    raise
            self._remove_made()

    def _copy_from(self, base: Base | None) -> Copied:
        places = segment_paths(self.source, self._disk)
        places = [place for place in places if base is None or number_of(place) >= base.segment]
        self._meter = Meter(self._progress, sum([self._length(place) for place in places]))
        first = read_segment(places[0], self._disk)
        if base is None and first.header.segment == 1:
            base = first_base(first.header)  # a log that was only just begun, or whose BASE is gone
        if base is None or not base.precedes(first.header):
            problem = f"the first segment is not where {BASE_NAME} says that the log begins"
            raise LogCorrupt(problem, segment=first.header.segment, offset_bytes=0, lsn=first.header.first_lsn)
        self._made.append(self.target / BASE_NAME)
        create_base(self.target, self._disk)
        write_base(self.target, self._disk, base)
        tree = base.tree()
        end, following = self._copy_segment(first.path, tree)
        segments = 1
        while following is not None:
            end, following = self._copy_segment(following, tree)
            segments += 1
        records = end.lsn - base.first_lsn
        return Copied(
            records, base.first_lsn if records else 0, end.lsn - 1, segments,
            Head(end.log_id, tree.size, tree.root(), end.chain),
        )  # fmt: skip

    def _length(self, place: Path) -> int:
        with opened(self._disk, place) as fd:
            return self._disk.size(fd)

    def _copy_segment(self, place: Path, tree: Tree) -> tuple[Cursor, Path | None]:
        """Copy one segment; return where it ends, and the path of the next. Its records are added to `tree`."""
        free = not is_locked(self._disk, self.source)  # asked before reading, never after
        with opened_segment(place, self._disk) as (header, fd):
            window, end, before = Window(self._disk, fd), start_of(header), tree.copy()
            last_type, after = self._walk(window, end, header, tree)
            if after is not None and last_type == SEAL:
                check_end(header, end, tree, after.header)
                self._write(place, header, fd, end.offset)
                return end, after.path
            if free:
                self._disk.fdatasync(fd)  # a writer that died may have left it in memory only
            elif end.durable_offset < end.offset:
                end, last_type = self._proven(window, header, end.durable_offset, before)
                tree.size, tree.nodes = before.size, before.nodes
            ending = b"" if last_type == CLOSE else encode(control_frame(end, CLOSE, end.offset), b"")
            self._write(place, header, fd, end.offset, ending)
            return end, None

    def _walk(self, window: Window, cursor: Cursor, header: Header, tree: Tree) -> tuple[int | None, Segment | None]:
        """Walk the segment to its end; return the last frame's type, and the segment that follows."""
        last_type = None
        while True:
            for frame, _ in checked_frames(window, cursor, tree):
                last_type = frame.type
            after = successor(self.source, self._disk, header.segment)
            if judge_end(window, cursor, header, self._disk, after=after, last_type=last_type) is not None:
                return last_type, after

    def _proven(self, window: Window, header: Header, upto: int, tree: Tree) -> tuple[Cursor, int | None]:
        """Walk the frames before an offset again; return the cursor there, and the last one's type."""
        cursor, last_type = start_of(header), None
        frames = checked_frames(window, cursor, tree)
        while cursor.offset < upto:
            last_type = next(frames)[0].type
        return cursor, last_type

    def _write(self, place: Path, header: Header, source_fd: int, end: int, ending: bytes = b"") -> None:
        """Write a segment's first `end` bytes and its ending to a file of the same name and length, durably."""
        disk, target = self._disk, self.target / place.name
        self._made.append(target)
        fd = disk.open(target, write=True, create=True)
        try:
            disk.fallocate(fd, header.limits.segment_bytes)
            for offset in range(0, end, CHUNK_BYTES):
                chunk = read_fully(disk, source_fd, min(CHUNK_BYTES, end - offset), offset)
                write_fully(disk, fd, chunk, offset)
                self._meter.add(len(chunk))
            write_fully(disk, fd, ending, end)
            sync_surely(disk, fd)
        finally:
            disk.close(fd)
        self._meter.add(header.limits.segment_bytes - end)
