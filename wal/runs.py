"""What is sound in one segment's file, as runs of frames that follow each other, and what is not.

Rule: a file is taken as it is found. A damaged header, a wrong name or a missing neighbour hides no frame.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wal.disk import Disk, opened
from wal.errors import LogCorrupt, UnsupportedFormat
from wal.frames import SEAL, Frame
from wal.pieces import PatientWindow, Piece, pieces
from wal.scan import Window
from wal.segment import HEADER_BYTES, SECTOR_BYTES, Header, decode_header, parse_name


class Damage(NamedTuple):
    """A stretch of a file that is not as it was written, from `offset_bytes` to `end_bytes`, and how."""

    file: str
    offset_bytes: int
    end_bytes: int
    problem: str


@dataclass(slots=True)
class Run:
    """Frames of one epoch that stand side by side in one file, each the next of the one before.

    They hold the records `first_lsn` up to, not including, `next_lsn`; `prev` is the chain before them, `chain`
    the one after. `start` and `end` are offsets in bytes.
    """

    place: Path
    log_id: bytes
    segment: int
    epoch: int
    start: int
    end: int
    first_lsn: int
    next_lsn: int
    prev: bytes
    chain: bytes
    durable_lsn: int
    last_type: int

    @property
    def is_sealed(self) -> bool:
        """Whether the run ends in the segment's seal."""
        return self.last_type == SEAL

    def takes(self, frame: Frame) -> bool:
        """Whether the frame, found at the run's end, goes on with it."""
        return (frame.log_id, frame.segment, frame.epoch, frame.offset, frame.first_lsn, frame.prev) == (
            self.log_id, self.segment, self.epoch, self.end, self.next_lsn, self.chain,
        )  # fmt: skip

    def add(self, frame: Frame) -> None:
        """Take the frame in."""
        self.end = frame.end
        self.next_lsn = frame.first_lsn + frame.records
        self.chain = frame.chain
        self.durable_lsn = frame.durable_lsn
        self.last_type = frame.type


@dataclass(slots=True)
class SegmentFile:
    """One file: its header when that is sound, its runs in order, and the stretches between and after them.

    `number` is the segment it holds, as far as anything in it or its name says; `tail` is what stands after the
    last sound frame. `claims` are what damaged frames with a sound head say of themselves, `unreadable` the
    offsets of the sectors that the medium does not give back.
    """

    place: Path
    number: int | None
    size: int = 0
    header: Header | None = None
    runs: list[Run] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    tail: list[Piece] = field(default_factory=list)
    claims: list[Frame] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)

    @property
    def log_id(self) -> bytes | None:
        """The log that the file says it belongs to; None when nothing in it is sound."""
        if self.header is not None:
            return self.header.log_id
        return self.runs[-1].log_id if self.runs else None

    @property
    def is_sealed(self) -> bool:
        """Whether the last sound frame is a seal."""
        return bool(self.runs) and self.runs[-1].is_sealed

    @property
    def doubts(self) -> list[Damage | Piece]:
        """What a second reading might find otherwise: what is wrong in it, unless that is its medium."""
        return [] if self.unreadable else [*self.damage, *[piece for piece in self.tail if not piece.is_zero]]

    @property
    def is_short(self) -> bool:
        """Whether the file ends before it should, as far as can be told: room is always left after the last frame."""
        if self.header is not None:
            return self.size < self.header.limits.segment_bytes
        return not self.tail

    @property
    def end(self) -> int:
        """The offset after the last sound frame."""
        return self.runs[-1].end if self.runs else HEADER_BYTES

    def note(self, offset: int, end: int, problem: str) -> None:
        """List a stretch as damaged."""
        self.damage.append(Damage(self.place.name, offset, end, problem))


def read_file(place: Path, disk: Disk, on_bytes: Callable[[int], None]) -> SegmentFile:
    """Read a segment's file from end to end; `on_bytes` is told the length of each stretch that was read.

    A file that cannot be opened, and sectors that cannot be read, are damage like any other.
    """
    file = segment_file(place)
    for piece, _ in read_pieces(file, disk):
        on_bytes(piece.end - piece.offset)
    return file


def segment_file(place: Path) -> SegmentFile:
    """Return a file of which nothing is known but its name."""
    numbers = parse_name(place.name)
    return SegmentFile(place, None if numbers is None else numbers[0])


def read_pieces(file: SegmentFile, disk: Disk) -> Iterator[tuple[Piece, Window]]:
    """Yield the pieces that stand after the file's header, each once `file` has taken it in, in the window on it."""
    try:
        with opened(disk, file.place) as fd:
            window = PatientWindow(disk, fd)
            file.size = window.size
            _read_header(file, window)
            for piece in pieces(window):
                _sort(file, piece)
                yield piece, window
            _note_unreadable(file, window.unreadable)
    except OSError as error:
        file.note(0, file.size, f"the file cannot be read: {error.strerror}")
    if file.runs and (file.header is None or parse_name(file.place.name) is None):
        file.number = file.runs[-1].segment


def _read_header(file: SegmentFile, window: PatientWindow) -> None:
    at = window.locate(0, HEADER_BYTES)
    sector = window.buffer[at : at + HEADER_BYTES]
    try:
        header = decode_header(sector, file.number or 0, file.place)
    except LogCorrupt as error:
        file.note(0, min(HEADER_BYTES, file.size), error.problem)
        return
    except UnsupportedFormat as error:
        file.note(0, HEADER_BYTES, str(error))
        return
    if parse_name(file.place.name) != (header.segment, header.first_lsn):
        held = f"the file holds segment {header.segment}, from LSN {header.first_lsn}: a copy or a renamed file"
        file.note(0, HEADER_BYTES, held)
    if file.size != header.limits.segment_bytes:
        wanted = header.limits.segment_bytes
        file.note(min(file.size, wanted), max(file.size, wanted), f"the file has {file.size} bytes instead of {wanted}")
    file.header = header
    file.number = header.segment


def _sort(file: SegmentFile, piece: Piece) -> None:
    """Add a piece to the runs, or to what stands after them until a sound frame follows."""
    frame = piece.frame
    if frame is None:
        file.tail.append(piece)
        return
    _settle(file)
    if file.runs and file.runs[-1].takes(frame):
        file.runs[-1].add(frame)
        return
    if frame.segment != file.number and file.number is not None:
        file.note(piece.offset, piece.end, f"a frame that belongs to segment {frame.segment}")
    next_lsn = frame.first_lsn + frame.records
    run = Run(
        file.place, frame.log_id, frame.segment, frame.epoch, frame.offset, frame.end, frame.first_lsn, next_lsn,
        frame.prev, frame.chain, frame.durable_lsn, frame.type,
    )  # fmt: skip
    file.runs.append(run)


def _settle(file: SegmentFile) -> None:
    """A sound frame follows: what stands before it was written before it, so it is damage."""
    padding = False
    for piece in file.tail:
        if piece.is_zero and padding:
            file.damage[-1] = file.damage[-1]._replace(end_bytes=piece.end)
        else:
            file.note(piece.offset, piece.end, piece.problem + _lsns(piece.claim))
        padding = not piece.is_zero
        if piece.claim is not None:
            file.claims.append(piece.claim)
    file.tail.clear()


def settle_tail(file: SegmentFile) -> None:
    """What stands after the last sound frame was acknowledged too: it is damage, save for zeros at the end."""
    while file.tail and file.tail[-1].is_zero:
        file.tail.pop()
    _settle(file)


def torn_end(file: SegmentFile) -> Damage | None:
    """Return what an interrupted write left at the end of a log's last file; None when it is something else.

    As `wal.recovery.RECOVERY_CASES` has it: within the in-doubt length, and nothing later proves it acknowledged.
    The sound head of a damaged frame is proof too.
    """
    filled = [piece for piece in file.tail if not piece.is_zero]
    if not filled or file.header is None or file.is_sealed or file.is_short:
        return None
    end = filled[-1].end
    bounded = end - file.end <= file.header.limits.in_doubt_bytes
    readable = not any(file.end <= at < end for at in file.unreadable)
    proven = any(piece.claim is not None and piece.claim.durable_offset > file.end for piece in filled)
    if not bounded or not readable or proven:
        return None
    problem = f"an interrupted write that nothing proves acknowledged{_lsns(filled[0].claim)}"
    return Damage(file.place.name, file.end, end, problem)


def _lsns(said: Frame | None) -> str:
    if said is None or not said.records:
        return ""
    last_lsn = said.first_lsn + said.records - 1
    return f", LSN {said.first_lsn}" + (f"..{last_lsn}" if said.records > 1 else "")


def _note_unreadable(file: SegmentFile, offsets: set[int]) -> None:
    file.unreadable = offsets
    start = end = -1
    for offset in [*sorted(offsets), None]:
        if offset == end:
            end += SECTOR_BYTES
            continue
        if end > start:
            file.note(start, min(end, file.size), "the medium cannot be read here")
        if offset is not None:
            start, end = offset, offset + SECTOR_BYTES
