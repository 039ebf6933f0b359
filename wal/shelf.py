"""The segments of a log side by side: which there are, and that each follows from the one before.

Rule: a segment's successor is named in the directory before its seal is written, and the seal is
durable before the successor takes a frame. So a seal without a successor means that a segment is
missing, and only an empty successor excuses a missing seal.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from wal.disk import Disk, read_fully
from wal.errors import LogCorrupt
from wal.frames import CONTROL_BYTES, SEAL, Frame
from wal.scan import Window, frame_at
from wal.segment import HEADER_BYTES, Header, decode_header, genesis, parse_name


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment whose header is sound: its header and its file."""

    header: Header
    path: Path


@contextmanager
def opened(disk: Disk, path: Path, *, write: bool = False) -> Iterator[int]:
    """Open a file for the length of a `with` block."""
    fd = disk.open(path, write=write)
    try:
        yield fd
    finally:
        disk.close(fd)


def segment_paths(path: Path, disk: Disk) -> list[Path]:
    """Return the segment files in order; raise LogCorrupt when one is missing, doubled or misnamed."""
    found: list[tuple[int, int, str]] = []
    for name in disk.list_dir(path):
        if name.endswith(".wal"):
            numbers = parse_name(name)
            if numbers is None:
                raise LogCorrupt(f"{name} is not a segment's name", segment=0, offset_bytes=0)
            found.append((*numbers, name))
    found.sort()
    for expected, (segment, _, name) in enumerate(found, 1):
        if segment > expected:
            raise LogCorrupt(f"the segment is missing: the next file is {name}", segment=expected, offset_bytes=0)
        if segment < expected:
            raise LogCorrupt(f"two files claim to be this segment; one is {name}", segment=segment, offset_bytes=0)
    return [path / name for _, _, name in found]


def read_segment(path: Path, disk: Disk) -> Segment:
    """Read a segment's header and check it against the file's name and length. Raises LogCorrupt."""
    numbers = parse_name(path.name)
    if numbers is None:
        raise LogCorrupt(f"{path.name} is not a segment's name", segment=0, offset_bytes=0)
    with opened(disk, path) as fd:
        header = decode_header(read_fully(disk, fd, HEADER_BYTES, 0), numbers[0], path)
        size = disk.size(fd)
    if numbers != (header.segment, header.first_lsn):
        raise _refusal(
            header, f"{path.name} holds segment {header.segment}: a copy or a renamed file", segment=numbers[0]
        )
    if size != header.limits.segment_bytes:
        raise _refusal(header, f"the file has {size} bytes instead of {header.limits.segment_bytes}", offset=size)
    return Segment(header, path)


def check_first(header: Header) -> None:
    """Check the header of a log's first segment. Raises LogCorrupt."""
    if (header.first_lsn, header.prev_end, header.chain) != (1, 0, genesis(header.log_id)):
        raise _refusal(header, "the first segment does not begin a log")


def check_successor(before: Header, after: Header) -> None:
    """Check that two neighbouring headers belong to one log, in this order. Raises LogCorrupt."""
    if after.log_id != before.log_id:
        raise _refusal(after, "the segment belongs to another log")
    fits = HEADER_BYTES + CONTROL_BYTES <= after.prev_end <= before.limits.segment_bytes
    if not fits or after.first_lsn < before.first_lsn or after.epoch < before.epoch:
        raise _refusal(after, "the segment does not follow from the one before it")


def read_segments(path: Path, disk: Disk) -> list[Segment]:
    """Read every header and check each against its neighbour. Raises LogCorrupt."""
    segments = [read_segment(place, disk) for place in segment_paths(path, disk)]
    if segments:
        check_first(segments[0].header)
    for before, after in pairwise(segments):
        check_successor(before.header, after.header)
    return segments


def seal_of(window: Window, before: Header, after: Header) -> Frame | None:
    """Return the seal that `after` says ends its predecessor, or None when it is not there."""
    frame = frame_at(window, after.prev_end - CONTROL_BYTES)
    if frame is None or frame.type != SEAL:
        return None
    named = (frame.log_id, frame.segment, frame.end, frame.first_lsn, frame.prev)
    wanted = (before.log_id, before.segment, after.prev_end, after.first_lsn, after.chain)
    return frame if named == wanted else None


def is_sealed(disk: Disk, before: Segment, after: Header) -> bool:
    """Whether a segment ends in the seal that its successor records."""
    with opened(disk, before.path) as fd:
        return seal_of(Window(disk, fd), before.header, after) is not None


def _refusal(header: Header, problem: str, *, segment: int | None = None, offset: int = 0) -> LogCorrupt:
    number = header.segment if segment is None else segment
    return LogCorrupt(problem, segment=number, offset_bytes=offset, lsn=header.first_lsn)
