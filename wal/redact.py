"""Taking payloads out of a log and leaving all that proves them.

Rule 1: chain and tree commit to each record's digest, so a stub that holds the digest stands for the record.
Rule 2: a finished segment is written anew beside the old one, read back and checked against what its neighbours say
of it, and only then renamed over it. A crash leaves the one or the other.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from wal.checked import checked_frames
from wal.disk import Disk, opened, sync_surely, write_fully
from wal.entries import Entry
from wal.errors import LogCorrupt
from wal.frames import HEAD_BYTES, RECORD_HEAD_BYTES, SEAL, Frame, encode, frame_bytes, records, stub
from wal.leaves import beginning
from wal.recovery import walk
from wal.scan import Window, start_of
from wal.segment import HEADER_BYTES, REDACT_NAME, Header, encode_header
from wal.shelf import Segment, finished_tree, read_segments
from wal.tail import remove
from wal.tree import HASH_BYTES

Which = Callable[[Entry], bool]


@dataclass(frozen=True, slots=True)
class Redaction:
    """What was redacted: `records` payloads in `segments` files, which are `freed_bytes` shorter together."""

    records: int
    segments: int
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class Span:
    """The records whose payloads may go: those past `after_lsn`, up to `upto_lsn`."""

    after_lsn: int
    upto_lsn: int


def unhurried() -> None:
    """The pace of work that nobody waits beside."""


def redact(
    path: Path,
    disk: Disk,
    which: Which,
    span: Span,
    *,
    in_use: int,
    freed: Callable[[int], None],
    still_ours: Callable[[], None],
    pace: Callable[[], None],
) -> Redaction:
    """Replace the payloads that `which` names by stubs, in finished segments, of the records in `span`.

    The segment `in_use`, which the writer has open, stays as it is also once its seal is there: between that and the
    next segment the writer still asks for the file's name. `freed` is told the bytes that each segment gave back;
    `still_ours` is called before each is written anew, and raises when the lock did not hold, which the caller has;
    `pace` is called for each frame. Raises LogCorrupt or OSError, with every segment as before or redacted.
    """
    records_done = segments_done = freed_bytes = 0
    segments = read_segments(path, disk)
    for before, after in pairwise(segments):
        if after.header.first_lsn - 1 <= span.after_lsn:
            continue
        if before.header.first_lsn > span.upto_lsn or before.header.segment >= in_use:
            break
        finished_tree(disk, before, after, may_lack=False)
        anew = _Anew(path, disk, before, after.header, pace)
        if anew.choose(which, span):
            still_ours()
            shorter_by = anew.replace()
            freed(shorter_by)
            freed_bytes += shorter_by
            records_done += len(anew.chosen)
            segments_done += 1
    return Redaction(records_done, segments_done, freed_bytes)


class _Anew:
    """One segment on its way to its redacted form. `chosen` are the LSNs whose payloads go."""

    def __init__(self, path: Path, disk: Disk, segment: Segment, after: Header, pace: Callable[[], None]) -> None:
        self._pace = pace
        self._path = path
        self._disk = disk
        self._segment = segment
        self._after = after
        self._length = HEADER_BYTES
        self.chosen: set[int] = set()

    def choose(self, which: Which, span: Span) -> bool:
        """Go over the segment once, and learn which payloads go and how long the new file is; whether any goes."""
        for frame, body in self._frames():
            length = len(body)
            for lsn, (kind, flags, _, payload) in enumerate(records(body, -HEAD_BYTES, frame), frame.first_lsn):
                if span.after_lsn < lsn <= span.upto_lsn and not flags and which(Entry(lsn, kind, payload)):
                    self.chosen.add(lsn)
                    length += HASH_BYTES - len(payload)
            self._length += frame_bytes(length)
        return bool(self.chosen)

    def replace(self) -> int:
        """Write the new file, check it, and put it in the old one's place; return by how many bytes it is shorter."""
        disk, place, old = self._disk, self._path / REDACT_NAME, self._segment.header
        limits = replace(old.limits, segment_bytes=self._length)
        header = replace(old, limits=limits, sealed_end=old.known_end(self._after.prev_end))
        remove(disk, place)
        fd = disk.open(place, write=True, create=True)
        with contextlib.ExitStack() as undo:
            undo.callback(remove, disk, place)
            undo.callback(disk.close, fd)
            disk.fallocate(fd, self._length)
            self._write(fd, header)
            sync_surely(disk, fd)
            disk.drop_cache(fd)
            self._check(fd, header)
            undo.pop_all()
        disk.close(fd)
        disk.rename(place, self._segment.path)
        disk.fsync_dir(self._path)
        return old.limits.segment_bytes - self._length

    def _frames(self) -> Iterator[tuple[Frame, bytes]]:
        """Yield the segment's frames, seal included, with their bodies."""
        with opened(self._disk, self._segment.path) as fd:
            window, cursor, last_type = Window(self._disk, fd), start_of(self._segment.header), None
            for frame, _ in checked_frames(window, cursor):
                self._pace()
                at_body = window.locate(frame.offset, frame.length) + HEAD_BYTES
                yield frame, window.buffer[at_body : at_body + frame.body_bytes]
                last_type = frame.type
            if last_type != SEAL:
                problem = "a frame of a finished segment is damaged"
                raise LogCorrupt(problem, segment=cursor.segment, offset_bytes=cursor.offset, lsn=cursor.lsn)

    def _write(self, fd: int, header: Header) -> None:
        write_fully(self._disk, fd, encode_header(header), 0)
        offset = HEADER_BYTES
        for frame, old_body in self._frames():
            body = self._without_chosen(frame, old_body)
            moved = frame._replace(
                length=frame_bytes(len(body)), offset=offset, durable_offset=offset, body_bytes=len(body)
            )
            write_fully(self._disk, fd, encode(moved, body), offset)
            offset += moved.length

    def _without_chosen(self, frame: Frame, body: bytes) -> bytes:
        if self.chosen.isdisjoint(range(frame.first_lsn, frame.first_lsn + frame.records)):
            return body
        parts: list[bytes] = []
        at = 0
        for lsn, (kind, _, salt, payload) in enumerate(records(body, -HEAD_BYTES, frame), frame.first_lsn):
            end = at + RECORD_HEAD_BYTES + len(payload)
            parts.append(stub(kind, hashlib.sha256(salt + payload).digest()) if lsn in self.chosen else body[at:end])
            at = end
        return b"".join(parts)

    def _check(self, fd: int, header: Header) -> None:
        """Read the new file back and hold it against what its successor says, before it takes the old one's place."""
        _, tree = beginning(self._path, self._disk, header.first_lsn - 1)
        window, cursor, after = Window(self._disk, fd), start_of(header), self._after
        last_type = walk(window, cursor, tree, self._pace)
        found = (last_type, cursor.offset, cursor.lsn, cursor.chain, tree.root())
        if found != (SEAL, self._length, after.first_lsn, after.chain, after.root):
            problem = "the redacted form of the segment does not hold what the segment held; it was not used"
            raise LogCorrupt(problem, segment=header.segment, offset_bytes=cursor.offset, lsn=cursor.lsn)
