"""The segments of a log side by side: which there are, and that each follows from the one before.

Rule: a segment's successor is named in the directory before its seal is written, and the seal is
durable before the successor takes a frame. So a seal without a successor means that a segment is
missing, and only an empty successor excuses a missing seal.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from wal.base import read_base
from wal.disk import Disk, opened, read_fully
from wal.errors import LogCorrupt
from wal.frames import CONTROL_BYTES, SEAL, Frame, frontier, seal_bytes
from wal.scan import Window, frame_at, next_frame, start_of
from wal.segment import BASE_NAME, HEADER_BYTES, Header, decode_header, genesis, number_of, parse_name
from wal.tree import EMPTY_ROOT, Tree


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment whose header is sound: its header and its file."""

    header: Header
    path: Path


def segment_paths(path: Path, disk: Disk) -> list[Path]:
    """Return the segment files in order; raise LogCorrupt when one is missing, doubled or misnamed.

    What a prune has given up is left out, whether it is not yet removed or has come back.
    """
    names = disk.list_dir(path)
    while True:
        try:
            return _in_order(path, disk, names)
        except LogCorrupt:  # or BASE is newer than the names: a writer went on and pruned all of them in between
            listed, names = names, disk.list_dir(path)
            if set(listed) == set(names):
                raise


def _in_order(path: Path, disk: Disk, names: list[str]) -> list[Path]:
    found = sorted([(*_numbers(name), name) for name in names if name.endswith(".wal")])
    base = read_base(path, disk) if BASE_NAME in names else None
    first = 1 if base is None else base.segment
    found = [entry for entry in found if entry[0] >= first]
    if base is not None and not found:
        raise LogCorrupt("the segment is missing, and so is all that followed", segment=first, offset_bytes=0)
    for expected, (segment, _, name) in enumerate(found, first):
        if segment > expected:
            raise LogCorrupt(f"the segment is missing: the next file is {name}", segment=expected, offset_bytes=0)
        if segment < expected:
            raise LogCorrupt(f"two files claim to be this segment; one is {name}", segment=segment, offset_bytes=0)
    return [path / name for _, _, name in found]


def _numbers(name: str) -> tuple[int, int]:
    numbers = parse_name(name)
    if numbers is None:
        raise LogCorrupt(f"{name} is not a segment's name", segment=0, offset_bytes=0)
    return numbers


def successor(path: Path, disk: Disk, segment: int) -> Segment | None:
    """Return the segment after this one, or None when it is the last. Raises LogCorrupt."""
    for place in segment_paths(path, disk):
        if number_of(place) == segment + 1:
            return read_segment(place, disk)
    return None


def read_segment(path: Path, disk: Disk) -> Segment:
    """Read a segment's header and check it against the file's name and length. Raises LogCorrupt."""
    numbers = _numbers(path.name)
    with opened(disk, path) as fd:
        header = decode_header(read_fully(disk, fd, HEADER_BYTES, 0), numbers[0], path)
        size = disk.size(fd)
    if numbers != (header.segment, header.first_lsn):
        raise _refusal(
            header, f"{path.name} holds segment {header.segment}: a copy or a renamed file", segment=numbers[0]
        )
    if size != header.limits.segment_bytes:
        problem = f"the file has {size} bytes instead of {header.limits.segment_bytes}"
        raise LogCorrupt(problem, segment=header.segment, offset_bytes=size, lsn=_end_of_frames(path, disk, header))
    return Segment(header, path)


def _end_of_frames(path: Path, disk: Disk, header: Header) -> int:
    """Return the LSN at which the frames end that a segment has."""
    with opened(disk, path) as fd:
        window, cursor = Window(disk, fd), start_of(header)
        while (frame := next_frame(window, cursor)) is not None:
            cursor.advance(frame)
    return cursor.lsn


def first_tree(path: Path, disk: Disk, header: Header) -> Tree:
    """Check the header of a log's first segment, and return the tree over what was before it. Raises LogCorrupt."""
    if header.segment == 1:
        if (header.first_lsn, header.prev_end, header.chain, header.root) != (1, 0, genesis(header.log_id), EMPTY_ROOT):
            raise _refusal(header, "the first segment does not begin a log")
        return Tree()
    base = read_base(path, disk)
    if base is None or not base.precedes(header):
        raise _refusal(header, "the first segment is not where the pruned log begins")
    return base.tree()


def check_successor(before: Header, after: Header) -> None:
    """Check that two neighbouring headers belong to one log, in this order. Raises LogCorrupt."""
    if after.log_id != before.log_id:
        raise _refusal(after, "the segment belongs to another log")
    if before.redacted:
        fits = after.prev_end == before.sealed_end
    else:
        fits = HEADER_BYTES + CONTROL_BYTES <= after.prev_end <= before.limits.segment_bytes
    counted = after.first_lsn - before.first_lsn == after.prev_records
    if not (fits and counted) or after.epoch < before.epoch:
        raise _refusal(after, "the segment does not follow from the one before it")


def read_segments(path: Path, disk: Disk) -> list[Segment]:
    """Read every header and check each against its neighbour. Raises LogCorrupt."""
    segments = [read_segment(place, disk) for place in segment_paths(path, disk)]
    for before, after in pairwise(segments):
        check_successor(before.header, after.header)
    return segments


def sealed_tree(disk: Disk, before: Segment, after: Header) -> Tree | None:
    """Return the tree at the seal that `after` says ends its predecessor, or None when that seal is not there."""
    with opened(disk, before.path) as fd:
        window, header = Window(disk, fd), before.header
        tree = seal_of(window, header, after)
        if tree is None:  # or a redaction has put a shorter file in its place since the header was read
            header = decode_header(read_fully(disk, fd, HEADER_BYTES, 0), header.segment, before.path)
            tree = None if header == before.header else seal_of(window, header, after)
        return tree


def finished_tree(disk: Disk, before: Segment, after: Segment, *, may_lack: bool) -> Tree | None:
    """Do the same for a segment whose seal must be there, unless it `may_lack` one: a crash can have come before it.

    Raises LogCorrupt.
    """
    tree = sealed_tree(disk, before, after.header)
    if tree is None and not may_lack:
        offset, _ = seal_span(before.header, after.header)
        problem = "the seal of a finished segment is damaged"
        raise LogCorrupt(
            problem, segment=before.header.segment, offset_bytes=offset, lsn=after.header.first_lsn,
            last_lsn=after.header.first_lsn - 1,
        )  # fmt: skip
    return tree


def seal_of(window: Window, before: Header, after: Header) -> Tree | None:
    """Do the same in a file that is open."""
    offset, end = seal_span(before, after)
    frame = frame_at(window, offset) if offset >= HEADER_BYTES else None
    if frame is None or frame.type != SEAL or not _ends(frame, end, before, after):
        return None
    nodes = frontier(window.buffer, window.locate(frame.offset, frame.length), frame)
    tree = None if nodes is None else Tree(after.first_lsn - 1, nodes)
    return tree if tree is not None and tree.root() == after.root else None


def seal_span(before: Header, after: Header) -> tuple[int, int]:
    """Return the offsets at which the seal begins and ends."""
    end = before.limits.segment_bytes if before.redacted else after.prev_end
    return end - seal_bytes(after.first_lsn - 1), end


def _ends(seal: Frame, end: int, before: Header, after: Header) -> bool:
    named = (seal.log_id, seal.segment, seal.end, before.known_end(end), seal.first_lsn, seal.prev)
    return named == (before.log_id, before.segment, end, after.prev_end, after.first_lsn, after.chain)


def _refusal(header: Header, problem: str, *, segment: int | None = None) -> LogCorrupt:
    number = header.segment if segment is None else segment
    return LogCorrupt(problem, segment=number, offset_bytes=0, lsn=header.first_lsn)
