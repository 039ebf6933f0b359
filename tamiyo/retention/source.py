"""A log to read from: an open one, or the files of one that somebody else may have open."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import wal
from tamiyo.core.paced import Pace

__all__ = ["Files", "Source", "entries_past", "entry_at", "last_lsn_of"]

PORTION = 64
"""Records read at a time: some hundred microseconds, so that a step that wants the interpreter waits no longer."""


class Source(Protocol):
    """What `wal.Log` and `Files` have in common."""

    def segments(self) -> list[wal.SegmentInfo]:
        """The segments in order."""

    def reader(self, after: int | None = 0) -> wal.Reader:
        """A reader of the durable entries past an LSN."""


@dataclass(frozen=True, slots=True)
class Files:
    """The log in a directory, read without its lock."""

    path: Path

    def segments(self) -> list[wal.SegmentInfo]:
        """The segments in order."""
        return wal.segments(self.path)

    def reader(self, after: int | None = 0) -> wal.Reader:
        """A reader of the durable entries past an LSN."""
        return wal.Reader(self.path, after)


def entries_past(source: Source, lsn: int, pace: Pace) -> Iterator[wal.Entry]:
    """The durable entries past an LSN, a small portion at a time; `pace` is called for each.

    Reading begins with the segment: a reader that begins within one goes over all before it at a stretch. Raises what
    reading raises.
    """
    first_lsn = max((info.first_lsn for info in source.segments() if info.first_lsn <= lsn + 1), default=lsn + 1)
    reader = source.reader(first_lsn - 1)
    while portion := reader.poll(PORTION):
        for entry in portion:
            pace()
            if entry.lsn > lsn:
                yield entry


def entry_at(source: Source, lsn: int, pace: Pace) -> wal.Entry | None:
    """The entry at an LSN, None where the log does not reach it. Raises what reading raises."""
    return next(entries_past(source, lsn - 1, pace), None)


def last_lsn_of(segment: wal.SegmentInfo) -> int:
    """The last LSN of a segment; of the one in use, one that no log reaches."""
    return 2**63 if segment.last_lsn is None else segment.last_lsn
