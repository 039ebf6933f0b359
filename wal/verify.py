"""Checking a whole log, read-only: every frame, every record's digest, every link between segments."""

from dataclasses import dataclass
from pathlib import Path

from wal.disk import Disk, OsDisk
from wal.errors import LogCorrupt, UnsupportedFormat
from wal.frames import CLOSE, SEAL, Frame, chain_holds
from wal.lock import is_locked
from wal.recovery import CUT, REFUSE, RESEAL, Stop, is_empty, judge, went_on
from wal.scan import Cursor, Window, next_frame, start_of
from wal.shelf import Segment, check_first, check_successor, opened, read_segment, segment_paths

INTACT, TORN, CORRUPT, UNSUPPORTED, EMPTY = "intact", "torn", "corrupt", "unsupported", "empty"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log is worth.

    `status` is "intact", "torn" (an interrupted write stands at the end, which opening will set aside), "corrupt",
    "unsupported" (another format's) or "empty" (no segments). `records` were found sound, `first_lsn`..`last_lsn`
    (0 and 0 for none), in `segments` files. `problem` says what is wrong, at offset `offset_bytes` of segment
    `segment`; all three are None for an intact log. `live` says whether a writer had the log open, `clean_close`
    whether the last one closed it.
    """

    status: str
    records: int
    first_lsn: int
    last_lsn: int
    segments: int
    problem: str | None = None
    segment: int | None = None
    offset_bytes: int | None = None
    live: bool = False
    clean_close: bool = False


def verify(path: Path | str, *, disk: Disk | None = None) -> Verdict:
    """Read the whole log and say what it is worth. Changes nothing, takes no lock, raises OSError alone.

    Beside a live writer the verdict covers what was written when each segment was read, and an unfinished write
    at the end is part of an intact log.
    """
    directory = Path(path)
    disk = OsDisk() if disk is None else disk
    survey = _Survey(directory, disk)
    try:
        return survey.run()
    except LogCorrupt as error:
        return survey.verdict(CORRUPT, error.problem, error.segment, error.offset_bytes)
    except UnsupportedFormat as error:
        return survey.verdict(UNSUPPORTED, str(error))


class _Survey:
    """One verification under way."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._live = is_locked(disk, path)
        self._last_lsn = 0
        self._segments = 0
        self._clean_close = False

    def run(self) -> Verdict:
        paths = segment_paths(self._path, self._disk)
        self._segments = len(paths)
        if not paths:
            return self.verdict(EMPTY)
        stop, before = None, None
        for place in paths:
            segment = self._checked(place, before, None if stop is None else stop.cursor)
            stop = self._walk(segment)
            if stop.case.action == RESEAL:
                break  # the successor is empty: this is the end
            before = segment
        return self._ending(stop)

    def verdict(
        self, status: str, problem: str | None = None, segment: int | None = None, offset_bytes: int | None = None
    ) -> Verdict:
        """Return the verdict on what was read so far."""
        records = self._last_lsn
        return Verdict(
            status, records, 1 if records else 0, records, self._segments, problem, segment, offset_bytes,
            live=self._live, clean_close=self._clean_close,
        )  # fmt: skip

    def _checked(self, place: Path, before: Segment | None, end: Cursor | None) -> Segment:
        """Read a segment's header and check that it follows from what was read before."""
        segment = read_segment(place, self._disk)
        header = segment.header
        if before is None or end is None:
            check_first(header)
            return segment
        check_successor(before.header, header)
        if (end.offset, end.lsn, end.chain) != (header.prev_end, header.first_lsn, header.chain):
            problem = "the segment before this one does not end where its header says"
            raise LogCorrupt(problem, segment=header.segment, offset_bytes=0, lsn=header.first_lsn)
        return segment

    def _walk(self, segment: Segment) -> Stop:
        """Walk one segment, and on past a place that a live writer filled after it was read."""
        with opened(self._disk, segment.path) as fd:
            window, cursor = Window(self._disk, fd), start_of(segment.header)
            last_type: int | None = None
            while True:
                last_type = self._walk_frames(window, cursor, last_type)
                stop = self._judge(window, cursor, segment, last_type)
                if stop.case.action != REFUSE:
                    return stop
                if last_type == SEAL or not went_on(window, cursor):
                    raise stop.refusal()

    def _walk_frames(self, window: Window, cursor: Cursor, last_type: int | None) -> int | None:
        while last_type != SEAL and isinstance(frame := next_frame(window, cursor), Frame):
            self._check_chain(window, frame)
            cursor.advance(frame)
            last_type = frame.type
            self._last_lsn = cursor.lsn - 1
        return last_type

    def _judge(self, window: Window, cursor: Cursor, segment: Segment, last_type: int | None) -> Stop:
        after = self._successor(segment)
        return judge(
            window, cursor, segment.header, last_type=last_type,
            after=None if after is None else after.header,
            after_empty=after is not None and is_empty(self._disk, after),
        )  # fmt: skip

    def _check_chain(self, window: Window, frame: Frame) -> None:
        at = window.locate(frame.offset, frame.length)
        if not chain_holds(window.buffer, at, frame):
            problem = "the records do not hash to the chain that the frame states"
            raise LogCorrupt(problem, segment=frame.segment, offset_bytes=frame.offset, lsn=frame.first_lsn)

    def _successor(self, segment: Segment) -> Segment | None:
        paths = segment_paths(self._path, self._disk)
        number = segment.header.segment
        return read_segment(paths[number], self._disk) if len(paths) > number else None

    def _ending(self, stop: Stop | None) -> Verdict:
        if stop is None:
            return self.verdict(EMPTY)
        self._clean_close = stop.last_type == CLOSE
        self._live = self._live or is_locked(self._disk, self._path)  # one may have come meanwhile
        if stop.case.action == CUT and not self._live:
            self._clean_close = False
            problem = f"{stop.torn_bytes} bytes of a write that was never acknowledged stand after the last batch"
            return self.verdict(TORN, problem, stop.cursor.segment, stop.cursor.offset)
        return self.verdict(INTACT)
