"""Checking a whole log, read-only: every frame, every record's digest, every link between segments, the tree."""

from dataclasses import dataclass
from pathlib import Path

from wal.base import LOOKS_MAX, Replaced, read_base
from wal.checked import check_end, checked_frames, judge_end, opened_segment
from wal.disk import Disk, OsDisk, opened
from wal.errors import LogCorrupt, LogTampered, UnsupportedFormat
from wal.frames import CLOSE, Frame, stubs
from wal.head import CONFIRMED, CONTRADICTED, Head, by_steps
from wal.lock import is_locked
from wal.progress import Meter, Progress
from wal.recovery import CUT, RESEAL, Stop
from wal.scan import Cursor, Window, start_of
from wal.segment import HEADER_BYTES, Header
from wal.shelf import first_tree, segment_paths, successor
from wal.tree import Tree

INTACT, REDACTED, PRUNED, TORN, TRUNCATED = "intact", "redacted", "pruned", "torn", "truncated"
TAMPERED, CORRUPT, UNSUPPORTED, EMPTY = "tampered", "corrupt", "unsupported", "empty"
STATUSES = (INTACT, REDACTED, PRUNED, TORN, TRUNCATED, TAMPERED, CORRUPT, UNSUPPORTED, EMPTY)
# The verdicts on a log of which nothing acknowledged is missing or changed, but for what its owner took out.
SOUND = frozenset({INTACT, REDACTED, PRUNED, TORN, EMPTY})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log is worth.

    `status` is one of:

    - "intact": every record is there as it was written;
    - "redacted": so it is, but for `redacted` payloads that its owner took out, leaving their digests;
    - "pruned": the same, and its owner dropped the records before `first_lsn`;
    - "torn": an interrupted write stands at the end, which opening will set aside;
    - "truncated": the log ends before the head it was held against;
    - "tampered": the checksums are right and the hashes are not, or the log contradicts that head: no accident;
    - "corrupt", "unsupported" (another format's), "empty" (no segments).

    `records` were found sound, `first_lsn`..`last_lsn` (`first_lsn` 0 for none), in `segments` files, and `head` is the
    log's head there. `expected` says what became of the head that was given: "confirmed", "contradicted", or
    "unprovable" where its records were pruned and no proof of it was kept; None when none was given or the log was not
    sound so far. `problem` says what is wrong, at offset `offset_bytes` of segment `segment`; all three are None when
    nothing is. `live` says whether a writer had the log open, `clean_close` whether the last one closed it.
    """

    status: str
    records: int
    first_lsn: int
    last_lsn: int
    segments: int
    redacted: int = 0
    head: Head | None = None
    expected: str | None = None
    problem: str | None = None
    segment: int | None = None
    offset_bytes: int | None = None
    live: bool = False
    clean_close: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing acknowledged is missing or changed, but for what the log's owner took out."""
        return self.status in SOUND


def verify(
    path: Path | str, head: Head | None = None, *, disk: Disk | None = None, progress: Progress | None = None
) -> Verdict:
    """Read the whole log and say what it is worth. Changes nothing, takes no lock, raises OSError alone.

    `head` is one that was kept elsewhere: the log must reach it and must have been, there, what it says. Beside a live
    writer the verdict covers what was written when each segment was read, an unfinished write at the end is part of an
    intact log, and a prune or an opening meanwhile only means to begin again.
    """
    directory = Path(path)
    disk = OsDisk() if disk is None else disk
    looks = 1
    while True:
        survey = _Survey(directory, disk, head, progress)
        base = None
        try:
            base = read_base(directory, disk)
            return survey.run()
        except Replaced as replaced:
            if looks == LOOKS_MAX:
                return survey.refused(CORRUPT, replaced.refusal)
            looks += 1
        except (LogCorrupt, FileNotFoundError) as error:
            if read_base(directory, disk) != base:
                continue
            if isinstance(error, FileNotFoundError):
                raise
            return survey.refused(TAMPERED if isinstance(error, LogTampered) else CORRUPT, error)
        except UnsupportedFormat as error:
            return survey.verdict(UNSUPPORTED, str(error))


class _Survey:
    """One verification under way."""

    def __init__(self, path: Path, disk: Disk, expected: Head | None, progress: Progress | None) -> None:
        self._path = path
        self._disk = disk
        self._live = is_locked(disk, path)
        self._tree = Tree()
        self._first_lsn = 1
        self._redacted = 0
        self._segments = 0
        self._clean_close = False
        self._begins: Head | None = None
        self._chain = b""
        self._expected = expected
        self._standing: str | None = None
        self._progress = progress
        self._meter = Meter(None, 0)

    def run(self) -> Verdict:
        paths = segment_paths(self._path, self._disk)
        self._segments = len(paths)
        if not paths:
            return self._without_segments()
        if self._progress is not None:
            self._meter = Meter(self._progress, sum([self._length(place) for place in paths]))
        header, stop = self._read(paths[0], None)
        for place in paths[1:]:
            if stop.case.action == RESEAL:
                break  # the successor is empty: this is the end
            header, stop = self._read(place, (header, stop.cursor))
        return self._ending(stop)

    def _read(self, place: Path, before: tuple[Header, Cursor] | None) -> tuple[Header, Stop]:
        """Read one segment; `before` is the header of the one before it, and where that one ended."""
        with opened_segment(place, self._disk) as (header, fd):
            self._check(header, before)
            return header, self._walk(header, fd)

    def verdict(
        self, status: str, problem: str | None = None, segment: int | None = None, offset_bytes: int | None = None
    ) -> Verdict:
        """Return the verdict on what was read so far."""
        last_lsn = self._tree.size
        records = last_lsn + 1 - self._first_lsn
        return Verdict(
            status, records, self._first_lsn if records else 0, last_lsn, self._segments, self._redacted, self._head(),
            self._standing, problem, segment, offset_bytes, live=self._live, clean_close=self._clean_close,
        )  # fmt: skip

    def refused(self, status: str, error: LogCorrupt) -> Verdict:
        """Return the verdict on a log that was found damaged."""
        return self.verdict(status, error.problem, error.segment, error.offset_bytes)

    def _length(self, place: Path) -> int:
        with opened(self._disk, place) as fd:
            return self._disk.size(fd)

    def _without_segments(self) -> Verdict:
        if self._expected is None or self._expected.size == 0:
            return self.verdict(EMPTY)
        return self.verdict(TRUNCATED, f"no segment is left of the {self._expected.size} records expected")

    def _check(self, header: Header, before: tuple[Header, Cursor] | None) -> None:
        """Check that a segment's header follows from what was read before."""
        if before is not None:
            check_end(*before, self._tree, header)
            return
        self._tree = first_tree(self._path, self._disk, header)
        self._first_lsn = header.first_lsn
        self._chain = header.chain
        self._begins = Head(header.log_id, self._tree.size, self._tree.root(), header.chain)
        self._meet_at_the_beginning()

    def _walk(self, header: Header, fd: int) -> Stop:
        """Walk one segment, and on past a place that a live writer filled after it was read."""
        window, cursor = Window(self._disk, fd), start_of(header)
        last_type, stop = None, None
        while stop is None:
            for frame, leaves in checked_frames(window, cursor, self._tree):
                last_type = frame.type
                self._meet(frame, leaves)
                if header.redacted:
                    self._redacted += stubs(window.buffer, window.locate(frame.offset, frame.length), frame)
                self._meter.add(frame.length)
            after = successor(self._path, self._disk, header.segment)
            stop = judge_end(window, cursor, header, self._disk, after=after, last_type=last_type)
        self._meter.add(HEADER_BYTES + window.size - cursor.offset)
        return stop

    def _head(self) -> Head | None:
        """The head of what was read so far."""
        return None if self._begins is None else Head(
            self._begins.log_id, self._tree.size, self._tree.root(), self._chain
        )  # fmt: skip

    def _meet(self, frame: Frame, leaves: list[bytes]) -> None:
        """Follow the log's head over a frame that is in the tree, and meet the expected one where it is passed."""
        self._chain = frame.chain
        expected, size = self._expected, self._tree.size
        if expected is not None and size - len(leaves) < expected.size <= size:
            self._standing = CONFIRMED if self._head() == expected else CONTRADICTED

    def _meet_at_the_beginning(self) -> None:
        """Hold the expected head against where the log begins, or against the proofs that a prune kept."""
        expected, begins = self._expected, self._begins
        if expected is None or begins is None or expected.size > begins.size:
            return
        if expected.log_id != begins.log_id:
            self._standing = CONTRADICTED
        elif expected.size == begins.size:
            self._standing = CONFIRMED if expected == begins else CONTRADICTED
        else:
            self._standing = by_steps(read_base(self._path, self._disk), expected)

    def _ending(self, stop: Stop) -> Verdict:
        self._clean_close = stop.last_type == CLOSE
        self._live = self._live or is_locked(self._disk, self._path)  # one may have come meanwhile
        torn = stop.case.action == CUT and not self._live
        self._clean_close = self._clean_close and not torn
        place = (stop.cursor.segment, stop.cursor.offset)
        expected = self._expected
        if self._standing == CONTRADICTED or (expected is not None and expected.log_id != stop.cursor.log_id):
            self._standing = CONTRADICTED
            return self.verdict(TAMPERED, f"the log contradicts the head that was expected: {expected}")
        if expected is not None and self._standing is None:
            problem = f"the log has {self._tree.size} records, and {expected.size} were acknowledged"
            return self.verdict(TRUNCATED, problem, *place)
        if torn:
            problem = f"{stop.torn_bytes} bytes of a write that was never acknowledged stand after the last batch"
            return self.verdict(TORN, problem, *place)
        return self.verdict(PRUNED if self._first_lsn > 1 else REDACTED if self._redacted else INTACT)
