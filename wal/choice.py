"""Which of the sound frames found in a directory make up its log: one for each LSN, of the newest history.

Rule: an epoch begins after recovery cut what it did not keep. So from the LSN at which an epoch begins, no
record of an older epoch is the log's, however sound it is.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wal.disk import Disk, opened
from wal.entries import Entry
from wal.errors import LogCorrupt, of_log
from wal.frames import Frame, entries
from wal.pieces import PatientWindow, piece_at
from wal.runs import Run


class Range(NamedTuple):
    """The records `first_lsn`..`last_lsn` of a run."""

    run: Run
    first_lsn: int
    last_lsn: int


class Choice(NamedTuple):
    """The ranges that make up the log, in order of LSN, and how many records of older histories were left out."""

    ranges: list[Range]
    stale_records: int


def choose(runs: Sequence[Run], first_lsn: int) -> Choice:
    """Choose among the runs of one log that begins at `first_lsn`; copies of a record count once."""
    ranges: list[Range] = []
    stale = 0
    horizon: int | None = None
    for epoch in sorted({run.epoch for run in runs}, reverse=True):
        mine = sorted([run for run in runs if run.epoch == epoch], key=lambda run: (run.first_lsn, -run.next_lsn))
        next_lsn = first_lsn
        for run in mine:
            end = run.next_lsn if horizon is None else min(run.next_lsn, horizon)
            stale += max(run.next_lsn - max(end, run.first_lsn), 0)
            first = max(run.first_lsn, next_lsn)
            if first < end:
                ranges.append(Range(run, first, end - 1))
                next_lsn = end
        horizon = mine[0].first_lsn if horizon is None else min(horizon, mine[0].first_lsn)
    return Choice(sorted(ranges, key=lambda part: part.first_lsn), stale)


def breaks(ranges: Sequence[Range], last_lsn: int, chain: bytes, disk: Disk) -> Iterator[int]:
    """Yield the LSNs that do not follow, by the chain, from the record before them, though both are there.

    The log begins after `last_lsn`, with that chain.
    """
    for part in ranges:
        if part.first_lsn == last_lsn + 1 and _chain_before(part.run, part.first_lsn, disk) != chain:
            yield part.first_lsn
        last_lsn = part.last_lsn
        chain = _chain_before(part.run, last_lsn + 1, disk)


def _chain_before(run: Run, lsn: int, disk: Disk) -> bytes:
    """Return the chain just before an LSN of the run; nothing (`b""`) when it stands inside a batch."""
    if lsn in {run.first_lsn, run.next_lsn}:
        return run.prev if lsn == run.first_lsn else run.chain
    return next((frame.prev for frame, _ in frames(run, disk) if frame.first_lsn == lsn), b"")


def records(part: Range, disk: Disk) -> Iterator[Entry]:
    """Yield a range's records. Raises LogCorrupt when the file is no longer as it was found."""
    for frame, found in frames(part.run, disk):
        if frame.first_lsn > part.last_lsn:
            return
        yield from [entry for entry in found if part.first_lsn <= entry.lsn <= part.last_lsn]


def frames(run: Run, disk: Disk) -> Iterator[tuple[Frame, list[Entry]]]:
    """Yield a run's frames with their records, read again. Raises LogCorrupt when one is no longer there."""
    with of_log(run.place.parent):
        try:
            yield from _frames(run, disk)
        except FileNotFoundError as error:
            problem = "the file is gone: the log changed since it was looked at, by a prune perhaps"
            raise LogCorrupt(problem, segment=run.segment, offset_bytes=run.start) from error


def _frames(run: Run, disk: Disk) -> Iterator[tuple[Frame, list[Entry]]]:
    with opened(disk, run.place) as fd:
        window = PatientWindow(disk, fd)
        offset = run.start
        while offset < run.end:
            piece = piece_at(window, offset)
            if piece is None or piece.frame is None:
                problem = "the frame that stood here is no longer sound: the file changed, or its medium fails"
                raise LogCorrupt(problem, segment=run.segment, offset_bytes=offset)
            frame = piece.frame
            at = window.locate(offset, frame.length)
            yield frame, entries(window.buffer, at, frame) if frame.records else []
            offset = frame.end
