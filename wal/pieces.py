"""What stands in a segment's file, piece by piece, in whatever state the file is.

Rule 1: nothing is left out: the pieces follow each other from the first frame's place to the file's end.
Rule 2: nothing is believed on the word of a neighbour: a frame is sound when its checksums are right, it
stands where it says it does, and its chain follows from its own records.
"""

import errno
from collections.abc import Iterator
from typing import NamedTuple

from wal.disk import Disk, read_fully
from wal.errors import UnsupportedFormat
from wal.frames import MAGIC, Frame, read_head
from wal.scan import CHUNK_BYTES, Window, frame_at, leaves_at
from wal.segment import HEADER_BYTES, SECTOR_BYTES

HOLE = "zeros where frames were"


class Piece(NamedTuple):
    """A stretch of a segment's file, from `offset` to `end`, in bytes.

    `frame` is the sound frame that fills it, or None; then `problem` says what is wrong with the bytes, and is
    HOLE for nothing but zeros. `claim` is what a frame with a sound head, but an unsound rest, said of itself.
    """

    offset: int
    end: int
    frame: Frame | None = None
    problem: str = ""
    claim: Frame | None = None

    @property
    def is_zero(self) -> bool:
        """Whether nothing but zeros stands here: never written, or wiped out."""
        return self.problem == HOLE


class PatientWindow(Window):
    """A window on a file of which some sectors cannot be read: those are taken for zeros, and listed.

    `unreadable` has their offsets, in bytes.
    """

    __slots__ = ("unreadable",)

    def __init__(self, disk: Disk, fd: int) -> None:
        """Look at the file open as `fd`."""
        super().__init__(disk, fd)
        self.unreadable: set[int] = set()

    def locate(self, offset: int, length: int) -> int:
        """Return where `offset` is in `buffer`, as `Window.locate` does. Raises OSError for anything but EIO."""
        try:
            return super().locate(offset, length)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        self.start = offset
        end = min(offset + max(length, CHUNK_BYTES), self.size)
        self.buffer = b"".join([self._sector(place) for place in range(offset, end, SECTOR_BYTES)])
        return 0

    def _sector(self, offset: int) -> bytes:
        length = min(SECTOR_BYTES, self.size - offset)
        try:
            return read_fully(self._disk, self._fd, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.unreadable.add(offset)
            return bytes(length)


def pieces(window: Window) -> Iterator[Piece]:
    """Yield what stands in a segment's file after its header."""
    offset = HEADER_BYTES
    while offset < window.size:
        found = piece_at(window, offset)
        for piece in [found] if found is not None else _wreck(window, offset):
            yield piece
            offset = piece.end


def piece_at(window: Window, offset: int) -> Piece | None:
    """Return the piece that a sound frame at `offset` fills, or None."""
    try:
        frame = frame_at(window, offset)
    except UnsupportedFormat:
        return None
    if frame is None or frame.offset != offset:
        return None
    if leaves_at(window, frame) is None:
        return None
    return Piece(offset, offset + frame.length, frame)


def _wreck(window: Window, offset: int) -> Iterator[Piece]:
    """Yield what stands between an offset without a sound frame and the next place where one may begin."""
    end = _next_magic(window, offset + SECTOR_BYTES)
    filled = _filled_end(window, offset, end)
    if filled > offset:
        problem, said = _explain(window, offset)
        filled = filled if said is None else min(max(filled, offset + said.length), end)
        yield Piece(offset, filled, problem=problem, claim=said)
    if filled < end:
        yield Piece(filled, end, problem=HOLE)


def _explain(window: Window, offset: int) -> tuple[str, Frame | None]:
    """Say what is wrong with the bytes at `offset`, and what they claim to be."""
    at = window.locate(offset, SECTOR_BYTES)
    head = read_head(window.buffer, at)
    if head is None:
        starts = window.buffer.startswith(MAGIC, at)
        return ("a frame whose head is damaged" if starts else "bytes that are no frame"), None
    try:
        frame = frame_at(window, offset)
    except UnsupportedFormat as error:
        return str(error), None
    said = Frame(head[1], *head[4:15], chain=b"")
    if said.offset != offset:
        return f"a frame that belongs to segment {said.segment}, offset {said.offset}", None
    if frame is None:
        return "a frame whose checksum is wrong", said
    return "a frame whose records do not hash to its chain", said


def _next_magic(window: Window, offset: int) -> int:
    """Return the first sector at or after `offset` that begins like a frame, or the file's length."""
    while offset < window.size:
        place = window.locate(offset, SECTOR_BYTES)
        while (place := window.buffer.find(MAGIC, place)) >= 0:
            if (window.start + place) % SECTOR_BYTES == 0:
                return window.start + place
            place += 1
        offset = max(window.start + len(window.buffer), offset + 1)
        offset += -offset % SECTOR_BYTES
    return window.size


def _filled_end(window: Window, offset: int, end: int) -> int:
    """Return the end of the last sector of a stretch that holds anything but zeros; `offset` when none does."""
    filled = offset
    for place in range(offset, end, CHUNK_BYTES):
        length = min(CHUNK_BYTES, end - place)
        at = window.locate(place, length)
        if used := len(window.buffer[at : at + length].rstrip(b"\0")):
            filled = min(place + used + -used % SECTOR_BYTES, end)
    return filled
