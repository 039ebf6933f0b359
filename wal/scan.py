"""Walking a segment frame by frame, and knowing each frame by where it claims to stand.

Rule 1: this file reads; it decides nothing. What an unsound place means is for `wal.recovery`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from wal.disk import Disk, read_fully
from wal.errors import LogTampered, UnsupportedFormat
from wal.flips import Flip, flipped_bit
from wal.frames import CONTROL_BYTES, HEAD_BYTES, MAGIC, OPEN, Frame, decode, leaves_of, read_head
from wal.segment import HEADER_BYTES, SECTOR_BYTES, Header

CHUNK_BYTES = 1 << 20
WINDOW_BYTES = 1 << 18  # stays in a processor's cache while its frames are checked
ZERO_CHUNK = bytes(CHUNK_BYTES)


class Window:
    """A stretch of one file held in memory; it moves forward as it is asked for more."""

    __slots__ = ("_disk", "_fd", "buffer", "size", "start")

    def __init__(self, disk: Disk, fd: int) -> None:
        """Look at the file open as `fd`; nothing is read yet."""
        self._disk = disk
        self._fd = fd
        self.size = disk.size(fd)
        self.start = 0
        self.buffer = b""

    def locate(self, offset: int, length: int) -> int:
        """Return where `offset` is in `buffer`, which then holds `length` bytes from there, or all there are."""
        at = offset - self.start
        if at < 0 or at + length > len(self.buffer):
            self.buffer = read_fully(self._disk, self._fd, max(length, WINDOW_BYTES), offset)
            self.start = offset
            return 0
        return at

    @property
    def is_nameless(self) -> bool:
        """Whether another file has this one's name by now, or none has."""
        return self._disk.links(self._fd) == 0

    def refresh(self) -> None:
        """Forget what was read: a writer may have gone on since."""
        self.buffer = b""


@dataclass(slots=True)
class Cursor:
    """Where the next frame must stand, and who it must be.

    `durable_offset` is how far the frames read so far prove their segment durable.
    """

    log_id: bytes
    segment: int
    offset: int
    lsn: int
    epoch: int
    chain: bytes
    durable_offset: int

    def copy(self) -> "Cursor":
        """Return another cursor at the same place."""
        return replace(self)

    def advance(self, frame: Frame) -> None:
        """Step over a frame that `next_frame` returned."""
        _, length, records, _, _, _, self.epoch, _, _, self.durable_offset, _, _, self.chain = frame
        self.offset += length
        self.lsn += records


def start_of(header: Header) -> Cursor:
    """Return the cursor at a segment's first frame."""
    return Cursor(
        header.log_id, header.segment, HEADER_BYTES, header.first_lsn, header.epoch, header.chain, HEADER_BYTES
    )


def next_frame(window: Window, cursor: Cursor) -> Frame | None:
    """Return the frame at the cursor; None when none stands there, or one that does not belong there."""
    frame = frame_at(window, cursor.offset)
    return frame if frame is not None and is_next(frame, cursor) else None


def frame_at(window: Window, offset: int) -> Frame | None:
    """Return the frame whose checksums are right at `offset`, whoever it is, or None."""
    at = window.locate(offset, CONTROL_BYTES)
    head = read_head(window.buffer, at)
    if head is None:
        return None
    length = head[4]
    if at + length > len(window.buffer):
        if offset + length > window.size:
            return None  # before it is read: a length may be as much as 4 GiB
        at = window.locate(offset, length)
    return decode(window.buffer, at, head)


def is_next(frame: Frame, cursor: Cursor) -> bool:
    """Whether a sound frame is the one that belongs at the cursor: not stale, foreign or misdirected."""
    kind, _, _, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset, prev, _, _ = frame
    return (
        log_id == cursor.log_id
        and segment == cursor.segment
        and offset == cursor.offset
        and first_lsn == cursor.lsn
        and epoch == (cursor.epoch + 1 if kind == OPEN else cursor.epoch)
        and prev == cursor.chain
        and cursor.durable_offset <= durable_offset <= offset
        and durable_lsn < first_lsn
    )


def leaves_at(window: Window, frame: Frame) -> list[bytes] | None:
    """Return the leaf hashes of a frame that was read, or None when its chain does not follow from its records."""
    return leaves_of(window.buffer, window.locate(frame.offset, frame.length), frame)


def checked_leaves(window: Window, frame: Frame) -> list[bytes]:
    """Return the leaf hashes of a frame that was read; raise LogTampered when its chain does not follow from them."""
    leaves = leaves_at(window, frame)
    if leaves is None:
        problem = "the records do not hash to the chain that the frame states"
        raise LogTampered(problem, segment=frame.segment, offset_bytes=frame.offset, lsn=frame.first_lsn)
    return leaves


@dataclass(frozen=True, slots=True)
class Rest:
    """What stands in a segment from some offset on. Offsets in bytes.

    `used_end` is the offset after the last byte that is not zero (the place asked about when all are);
    `durable_offset` is how far the sound frames found there prove the segment durable, 0 when none is;
    `last_lsn` is the last LSN they prove durable. `next_lsn` is where the first of them goes on that stands past the
    place asked about and does not go back behind its LSN, None when there is none.
    """

    used_end: int
    durable_offset: int
    last_lsn: int
    next_lsn: int | None = None


def survey(window: Window, cursor: Cursor) -> Rest:
    """Read everything from the cursor to the end of the segment, looking for evidence of acknowledged data."""
    used_end, durable_offset, last_lsn = cursor.offset, 0, 0
    next_lsn: int | None = None
    for offset, chunk in _chunks(window, cursor.offset):
        if chunk != ZERO_CHUNK[: len(chunk)]:
            filled = chunk.rstrip(b"\0")
            used_end = offset + len(filled)
            for proof in _proofs(window, cursor, offset, filled):
                durable_offset = max(durable_offset, proof.durable_offset)
                last_lsn = max(last_lsn, proof.durable_lsn)
                if next_lsn is None and proof.offset > cursor.offset and proof.first_lsn >= cursor.lsn:
                    next_lsn = proof.first_lsn
    return Rest(used_end, durable_offset, last_lsn, next_lsn)


def flip_at(window: Window, cursor: Cursor) -> Flip | None:
    """Return the bit of the file whose flip makes the frame at the cursor the one that belongs there, or None."""
    at = window.locate(cursor.offset, CONTROL_BYTES)
    head = window.buffer[at : at + HEAD_BYTES]
    flip = flipped_bit(head)
    fields = read_head(head if flip is None else _with(head, flip), 0)
    if fields is None or cursor.offset + fields[4] > window.size:
        return None  # before it is read, as in `frame_at`
    at = window.locate(cursor.offset, fields[4])
    image = window.buffer[at : at + fields[4]]
    flip = flip or flipped_bit(image)
    if flip is None:
        return None
    mended = _with(image, flip)
    try:
        frame = decode(mended, 0, fields)
    except UnsupportedFormat:
        return None
    if frame is None or not is_next(frame, cursor) or leaves_of(mended, 0, frame) is None:
        return None  # met by chance
    return Flip(cursor.offset + flip.offset_bytes, flip.bit)


def _with(data: bytes, flip: Flip) -> bytes:
    changed = bytearray(data)
    changed[flip.offset_bytes] ^= 1 << flip.bit
    return bytes(changed)


def is_blank(window: Window, offset: int) -> bool:
    """Whether nothing but zeros stands from `offset` to the end of the file; reads no further than the first byte."""
    return all(chunk == ZERO_CHUNK[: len(chunk)] for _, chunk in _chunks(window, offset))


def _chunks(window: Window, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield what stands from `offset` to the end of the file: pieces of at most CHUNK_BYTES, each with its offset."""
    for start in range(offset, window.size, CHUNK_BYTES):
        at = window.locate(start, CHUNK_BYTES)
        yield start, window.buffer[at : at + CHUNK_BYTES]


def _proofs(window: Window, cursor: Cursor, offset: int, chunk: bytes) -> Iterator[Frame]:
    """Yield the frames of this segment that are sound at their own place within the chunk, which begins a sector.

    A frame's copy inside a payload names another offset, so it proves nothing; and a frame must hold to its
    own chain, because a 32-bit checksum alone is met by chance once in some gigabytes of garbage.
    """
    for at in range(0, len(chunk), SECTOR_BYTES):
        if chunk.startswith(MAGIC, at):
            frame = frame_at(window, offset + at)
            if frame is not None and _is_of(frame, cursor, offset + at) and _holds(window, frame):
                yield frame


def _is_of(frame: Frame, cursor: Cursor, place: int) -> bool:
    return (frame.log_id, frame.segment, frame.offset) == (cursor.log_id, cursor.segment, place)


def _holds(window: Window, frame: Frame) -> bool:
    return leaves_at(window, frame) is not None
