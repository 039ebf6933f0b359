"""Going over the leaves of the tree from any record on, without hashing what is before it.

Each seal has the tree's frontier at its end, so the walk begins at the segment that matters. Read-only.
"""

from collections.abc import Iterator
from pathlib import Path

from wal.checked import checked_frames, judge_end, opened_segment
from wal.disk import Disk
from wal.errors import LogCorrupt, LogError, Trimmed
from wal.frames import Frame
from wal.scan import Window, start_of
from wal.segment import first_lsn_of
from wal.shelf import Segment, check_successor, first_tree, read_segment, sealed_tree, segment_paths, successor
from wal.tree import Tree

LAST = 2**63  # more records than any log has


def beginning(path: Path, disk: Disk, size: int = LAST) -> tuple[Segment, Tree]:
    """Return the segment in which record `size` + 1 stands or would, and the tree over all before that segment.

    Where a crash has left a segment without its seal, it is the segment before. Raises Trimmed when record `size`
    was pruned (the tree after all that was pruned is still known), LogCorrupt, or LogError when there is no log.
    """
    paths = segment_paths(path, disk)
    if not paths:
        raise LogError(f"there is no log at {path}: no segment is there. Check the path.")
    if first_lsn_of(paths[0]) - 1 > size:
        raise Trimmed(size, first_lsn_of(paths[0]))
    chosen = max(number for number, place in enumerate(paths) if first_lsn_of(place) - 1 <= size)
    while chosen > 0:
        before, segment = read_segment(paths[chosen - 1], disk), read_segment(paths[chosen], disk)
        check_successor(before.header, segment.header)
        tree = sealed_tree(disk, before, segment.header)
        if tree is not None:
            return segment, tree
        chosen -= 1
    segment = read_segment(paths[0], disk)
    return segment, first_tree(path, disk, segment.header)


def frames_from(path: Path, disk: Disk, segment: Segment) -> Iterator[tuple[Frame, list[bytes]]]:
    """Yield every whole frame from a segment's beginning on, with its leaves, up to the end of the log.

    Raises LogCorrupt or LogTampered, also when the place where the frames end is not a log's end: a head of what
    stands before damage would say nothing of it.
    """
    place: Path | None = segment.path
    while place is not None:
        with opened_segment(place, disk) as (header, fd):
            window, cursor, last_type, stop = Window(disk, fd), start_of(header), None, None
            while stop is None:
                for frame, leaves in checked_frames(window, cursor):
                    last_type = frame.type
                    yield frame, leaves
                after = successor(path, disk, header.segment)
                stop = judge_end(window, cursor, header, disk, after=after, last_type=last_type)
        if after is not None and (after.header.first_lsn, after.header.chain) != (cursor.lsn, cursor.chain):
            problem = "the segment does not end where the next one says it does"
            raise LogCorrupt(problem, segment=cursor.segment, offset_bytes=cursor.offset, lsn=cursor.lsn)
        place = None if after is None else after.path


def tree_at(path: Path, disk: Disk, size: int) -> tuple[Tree, bytes | None]:
    """Return the tree over the first `size` records, and the chain there; None for the chain inside a batch.

    Raises Trimmed when they were pruned, LogError when the log is shorter, LogCorrupt or LogTampered.
    """
    segment, tree = beginning(path, disk, size)
    if tree.size == size:
        return tree, segment.header.chain
    for frame, leaves in frames_from(path, disk, segment):
        wanted = size - tree.size
        tree.extend(leaves[:wanted])
        if tree.size == size:
            return tree, frame.chain if len(leaves) == wanted else None
    raise shorter(path, tree.size, size)


def shorter(path: Path, records: int, size: int) -> LogError:
    """Return the error for a log that ends before the place asked for."""
    return LogError(f"the log at {path} has {records} records, not {size}: ask for a size that it has reached.")
