"""Verifying finished segments again, a little at a time, so that damage is found before the data is needed.

Finished segments are what opening does not read. A host calls `scrub` now and then from a worker of its own and
keeps `next_segment` for the next time; going round once is worth a `wal.verify` of all but the last segment.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wal.base import read_base
from wal.checked import check_end, checked_frames, judge_end, opened_segment
from wal.disk import Disk, OsDisk, opened
from wal.errors import LogCorrupt, named
from wal.frames import SEAL
from wal.progress import STEP_BYTES, Meter, Progress
from wal.scan import Cursor, Window, start_of
from wal.segment import HEADER_BYTES, Header, number_of
from wal.shelf import first_tree, read_segment, sealed_tree, segment_paths
from wal.tree import Tree


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What one call of `scrub` did.

    `segments` were read, `first_segment`..`last_segment` (0 and 0 for none), with `records` in `read_bytes`.
    `problems` are what was found in them, each with its place; empty when all is sound. Go on with `next_segment`;
    `went_round` says that this call read the last finished segment, so that the next begins at the first again.
    """

    first_segment: int
    last_segment: int
    segments: int
    records: int
    read_bytes: int
    next_segment: int
    went_round: bool
    problems: tuple[LogCorrupt, ...]


def scrub(
    path: Path | str,
    *,
    first_segment: int = 1,
    budget_bytes: int | None = None,
    bytes_per_s: float | None = None,
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    disk: Disk | None = None,
    progress: Progress | None = None,
) -> Scrubbed:
    """Verify finished segments from number `first_segment` on: every checksum, digest, chain and tree.

    Stops after the segment in which `budget_bytes` are reached, so a call reads at least one; None reads all to the
    last. At most `bytes_per_s` are read: `pause(seconds)` is called in between, and a true answer stops the scrub,
    as `threading.Event.wait` gives it. `clock` tells the seconds. Reads come from the medium as far as the system
    can be asked, and leave nothing in its cache. Takes no lock; a writer may be at work, and prune or redact.

    Damage is not raised but returned. Raises OSError when the directory or BASE cannot be read, UnsupportedFormat.
    """
    directory, disk = Path(path), OsDisk() if disk is None else disk
    try:
        places = segment_paths(directory, disk)
    except LogCorrupt as error:
        return Scrubbed(0, 0, 0, 0, 0, first_segment, went_round=False, problems=(named(error, directory),))
    round_of = [_Due(*three) for three in zip([None, *places], places, places[1:], strict=False)]
    due = [one for one in round_of if number_of(one.place) >= first_segment] or round_of
    work = _Scrub(directory, disk, _Pace(bytes_per_s, pause, clock), progress)
    return work.run(due, number_of(places[0]) if places else 1, budget_bytes)


class _Due(NamedTuple):
    """A finished segment, between its neighbours; `before` is None for the first that is left."""

    before: Path | None
    place: Path
    after: Path


class _Stopped(Exception):
    """Whoever paces the scrub wants it to end."""


class _Pace:
    """Waits as long as it takes not to read faster than allowed."""

    def __init__(self, bytes_per_s: float | None, pause: Callable[[float], object], clock: Callable[[], float]) -> None:
        self._rate = bytes_per_s
        self._pause = pause
        self._clock = clock
        self._began = clock()
        self._ahead_bytes = 0
        self.read_bytes = 0

    def count(self, length: int) -> None:
        """Count bytes that were read, and wait once a step is full. Raises _Stopped."""
        self.read_bytes += length
        self._ahead_bytes += length
        if self._rate is None or self._ahead_bytes < min(STEP_BYTES, self._rate):
            return
        self._ahead_bytes = 0
        early_s = self.read_bytes / self._rate - (self._clock() - self._began)
        if early_s > 0 and self._pause(early_s):
            raise _Stopped


class _Scrub:
    """One call of `scrub`."""

    def __init__(self, path: Path, disk: Disk, pace: _Pace, progress: Progress | None) -> None:
        self._path = path
        self._disk = disk
        self._pace = pace
        self._progress = progress
        self._meter = Meter(None, 0)
        self._records = 0
        self._problems: list[LogCorrupt] = []

    def run(self, due: Sequence[_Due], round_begins: int, budget_bytes: int | None) -> Scrubbed:
        if self._progress is not None:
            total = sum([self._length(one.place) for one in due])
            self._meter = Meter(self._progress, total if budget_bytes is None else min(total, budget_bytes))
        done: list[int] = []
        for one in due:
            if done and budget_bytes is not None and self._pace.read_bytes >= budget_bytes:
                break
            try:
                self._scrub(one)
            except _Stopped:
                break
            done.append(number_of(one.place))
        went_round = len(done) == len(due)
        return Scrubbed(
            done[0] if done else 0, done[-1] if done else 0, len(done), self._records, self._pace.read_bytes,
            round_begins if went_round else number_of(due[len(done)].place), went_round, tuple(self._problems),
        )  # fmt: skip

    def _length(self, place: Path) -> int:
        with contextlib.suppress(FileNotFoundError), opened(self._disk, place) as fd:
            return self._disk.size(fd)
        return 0

    def _scrub(self, one: _Due) -> None:
        """Verify one segment; what is wrong with it goes to the problems."""
        number, at = number_of(one.place), HEADER_BYTES
        try:
            with opened_segment(one.place, self._disk) as (header, fd):
                cursor = start_of(header)
                tree = self._tree_before(one, header)
                self._disk.drop_cache(fd)
                self._count(HEADER_BYTES)
                try:
                    self._walk(Window(self._disk, fd), cursor, header, tree, one.after)
                finally:
                    at = cursor.offset
                    self._disk.drop_cache(fd)
        except LogCorrupt as error:
            self._report(number, error)
        except FileNotFoundError:
            self._report(number, LogCorrupt("the segment is missing", segment=number, offset_bytes=0))
        except OSError as error:
            problem = f"the medium cannot be read here or further on: {error.strerror}"
            self._report(number, LogCorrupt(problem, segment=number, offset_bytes=at))

    def _report(self, number: int, problem: LogCorrupt) -> None:
        base = read_base(self._path, self._disk)
        if base is None or number >= base.segment:  # else it was pruned meanwhile
            self._problems.append(named(problem, self._path))

    def _tree_before(self, one: _Due, header: Header) -> Tree | None:
        """Return the tree at the segment's beginning; None when the one before is damaged, which is its own problem."""
        try:
            if one.before is not None:
                return sealed_tree(self._disk, read_segment(one.before, self._disk), header)
            return first_tree(self._path, self._disk, header)
        except FileNotFoundError:  # pruned meanwhile, perhaps just up to here
            base = read_base(self._path, self._disk)
            return base.tree() if base is not None and base.precedes(header) else None
        except (LogCorrupt, OSError):
            return None

    def _walk(self, window: Window, cursor: Cursor, header: Header, tree: Tree | None, after_place: Path) -> None:
        last_type = None
        while True:
            for frame, _ in checked_frames(window, cursor, tree):
                last_type = frame.type
                self._records += frame.records
                self._count(frame.length)
            after = read_segment(after_place, self._disk)
            if judge_end(window, cursor, header, self._disk, after=after, last_type=last_type) is not None:
                break
        if last_type == SEAL:  # else a crash, or a writer at this moment, has yet to write it
            check_end(header, cursor, tree, after.header)
        self._count(window.size - cursor.offset)

    def _count(self, length: int) -> None:
        self._meter.add(length)
        self._pace.count(length)
