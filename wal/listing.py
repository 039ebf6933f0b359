"""Which segments a log has: what goes when records are pruned, and what a file holds without reading it."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from wal.base import beside_prunes
from wal.disk import Disk, OsDisk
from wal.shelf import Segment, read_segments, sealed_tree


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment: its records are `first_lsn` up to `last_lsn`, which is None where more may come.

    `finished` says that a sound seal ends it: only such a segment is pruned or redacted. `redacted` says that payloads
    were taken out of it. `size_bytes` is the length of its file, allocated space included.
    """

    number: int
    first_lsn: int
    last_lsn: int | None
    size_bytes: int
    finished: bool
    redacted: bool
    path: Path


def segments(path: Path | str, *, disk: Disk | None = None) -> list[SegmentInfo]:
    """Return the segments of a log in order, read-only, also beside a live writer; none for an empty directory.

    Reads headers and seals alone. Raises LogCorrupt when one is missing or does not follow from the one before it,
    UnsupportedFormat, or OSError.
    """
    directory, disk = Path(path), OsDisk() if disk is None else disk
    return beside_prunes(directory, disk, lambda: _segments(directory, disk))


def _segments(path: Path, disk: Disk) -> list[SegmentInfo]:
    found = read_segments(path, disk)
    finished = [
        _info(before, after.header.first_lsn - 1, finished=sealed_tree(disk, before, after.header) is not None)
        for before, after in pairwise(found)
    ]
    return finished + [_info(last, None, finished=False) for last in found[-1:]]


def _info(segment: Segment, last_lsn: int | None, *, finished: bool) -> SegmentInfo:
    header = segment.header
    return SegmentInfo(
        number=header.segment,
        first_lsn=header.first_lsn,
        last_lsn=last_lsn,
        size_bytes=header.limits.segment_bytes,
        finished=finished,
        redacted=header.redacted,
        path=segment.path,
    )
