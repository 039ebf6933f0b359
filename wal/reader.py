"""Reading a log, also while another process or thread writes it.

Rule 1: a reader yields only what is durable: what its caller knows durable, or what a later frame
proves, or everything whole once no writer holds the lock (after syncing it itself).
Rule 2: bytes that are not a frame are waited for while a writer may still be writing them, and are
damage once something proves that they were acknowledged.
Rule 3: before anything is called damage it is read again, because a writer may have filled the place
after it was read and before the evidence was.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from wal.base import Replaced, beside_prunes
from wal.disk import Disk, OsDisk, opened
from wal.entries import Entry
from wal.errors import LogCorrupt, LogError, Trimmed, of_log
from wal.frames import SEAL, Frame, entries
from wal.lock import is_locked
from wal.recovery import REFUSE, is_empty, judge, went_on
from wal.scan import Cursor, Window, frame_at, next_frame, start_of
from wal.segment import HEADER_BYTES, encode_header, first_lsn_of, number_of
from wal.shelf import Segment, check_successor, first_tree, read_segment, segment_paths, successor

POLL_ENTRIES = 8192
_LOOKS = 8  # as many prunes may overtake one look at the directory; a file that is still missing then is missing
POLL_BYTES = 4 << 20  # so that following a log of large records takes no more memory than one of small ones


class Reader:
    """Follows a log from a given LSN on. One thread at a time may use it."""

    def __init__(
        self,
        path: Path | str,
        after: int | None = 0,
        *,
        durable_lsn: Callable[[], int] | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Begin past LSN `after`, or with the oldest record that is left when it is None.

        `durable_lsn` asks the writer itself, when it lives in this process.
        """
        self._path = Path(path)
        self._after = after
        self._from_the_oldest = after is None  # and nothing was handed over yet
        self._durable_lsn = durable_lsn
        self._disk: Disk = OsDisk() if disk is None else disk
        self._place: _Place | None = None
        self._surveyed: tuple[int, int, bool] | None = None
        self._left_bytes = 0

    @property
    def last_lsn(self) -> int:
        """The last LSN yielded, or the one before the first that will be; 0 while that is not known."""
        return self._after or 0

    def poll(self, limit: int = POLL_ENTRIES) -> list[Entry]:
        """Return the durable entries that follow, about `limit` at most; none when there are none yet.

        Fewer come at a time when they are large. Raises Trimmed when the next one was pruned, LogCorrupt when
        acknowledged data is damaged, UnsupportedFormat, or OSError; what is sound before the place was returned by
        earlier calls. No error and no interrupt moves the position: the next call goes on after the last entry that
        was returned.
        """
        found: list[Entry] = []
        before = None if self._place is None else self._place.copy()
        self._left_bytes = POLL_BYTES
        try:
            with of_log(self._path):
                while len(found) < limit and self._advance_beside_prunes(found, limit):
                    pass
            self._pass(found)
        except (LogError, OSError):
            if not found:
                raise  # else hand over what is sound first; the next call meets the same place again
            self._pass(found)
        except BaseException:  # an interrupt at any line: what was found is not handed over, so it is read again
            self._place = before
            raise
        return found

    def _pass(self, found: list[Entry]) -> None:
        """Begin past these from now on: they are handed over."""
        if found:
            self._after, self._from_the_oldest = found[-1].lsn, False

    def _advance_beside_prunes(self, found: list[Entry], limit: int) -> bool:
        """Read on, and where a file was taken away after it was listed, or another took its place, look up anew."""
        for _ in range(_LOOKS):
            try:
                return self._advance(found, limit)
            except FileNotFoundError:
                self._disk.list_dir(self._path)  # raises when it is the whole directory that is gone
                self._place = None
                if found:
                    return False
        try:
            return self._advance(found, limit)
        except Replaced as replaced:
            raise replaced.refusal from None

    def _advance(self, found: list[Entry], limit: int) -> bool:
        """Read on in the current segment; whether it is worth going on at once."""
        place = self._place = self._place or beside_prunes(self._path, self._disk, self._find)
        if place is None:
            return False
        if place.sealed:
            return self._next_segment(place)
        told = None if self._durable_lsn is None else self._durable_lsn()
        if told is not None and place.cursor.lsn > told:
            return False  # all that is acknowledged was read
        free = told is None and not is_locked(self._disk, self._path)  # asked before reading, never after
        with opened(self._disk, place.segment.path) as fd:
            if self._disk.pread(fd, HEADER_BYTES, 0) != place.sector:
                self._place = self._again(place)  # redacted since: the frames stand elsewhere, and are the same
                return True
            run = _Run(Window(self._disk, fd), place.cursor, told, found[-1].lsn if found else self.last_lsn)
            run.read(found, limit, self._left_bytes)
            place.sealed = run.sealed
            self._left_bytes -= run.ahead.offset - run.start
            if run.sealed:
                return not found or self._left_bytes > 0
            if found:
                return False  # hand over what is sound before asking what the rest means
            return self._look(run, place, free=free, fd=fd, found=found)

    def _find(self) -> "_Place | None":
        """Return the start of the segment in which the next record stands or would; None while the log is empty."""
        paths = segment_paths(self._path, self._disk)
        if not paths:
            return None
        after = first_lsn_of(paths[0]) - 1 if self._from_the_oldest or self._after is None else self._after
        self._after = after
        holding = [place for place in paths if first_lsn_of(place) <= after + 1]
        if not holding:
            raise Trimmed(after + 1, first_lsn_of(paths[0]))
        segment = read_segment(holding[-1], self._disk)
        if holding[-1] == paths[0]:
            first_tree(self._path, self._disk, segment.header)
        return _Place(segment, start_of(segment.header))

    def _again(self, place: "_Place") -> "_Place":
        """Return the place at the same record in the segment as it is now, read from its beginning."""
        segment = read_segment(place.segment.path, self._disk)
        with opened(self._disk, segment.path) as fd:
            window, cursor = Window(self._disk, fd), start_of(segment.header)
            while cursor.lsn < place.cursor.lsn and (frame := next_frame(window, cursor)) is not None:
                cursor.advance(frame)
        return _Place(segment, cursor)

    def _look(self, run: "_Run", place: "_Place", *, free: bool, fd: int, found: list[Entry]) -> bool:
        """Find out what it means that no frame stands here. Returns whether there is more after all."""
        if run.told is not None and run.ahead.lsn > run.told:
            return False
        if run.window.size != (due := place.segment.header.limits.segment_bytes):
            raise _broken(run.ahead, f"the file has {run.window.size} bytes instead of {due}")
        here = (run.ahead.segment, run.ahead.offset, free)
        if here == self._surveyed and run.told is None:
            return False  # looked at before, and nobody has written here since
        after = successor(self._path, self._disk, place.segment.header.segment)
        stop = judge(
            run.window, run.ahead.copy(), place.segment.header, last_type=run.last_type, durable_lsn=run.told or 0,
            after=None if after is None else after.header,
            after_empty=after is not None and is_empty(self._disk, after),
        )  # fmt: skip
        if went_on(run.window, run.ahead):
            return True
        if stop.case.action == REFUSE:
            if run.window.is_nameless:
                raise Replaced(stop.refusal())
            if frame_at(run.window, run.ahead.offset) is None:  # else it contradicts what was read just before it
                run.release_to(run.ahead.offset if after is not None else stop.rest.durable_offset, found)
            if found:
                return False  # hand over what the evidence proves first; the next call meets the damage again
            raise stop.refusal()
        if free and run.held:
            self._disk.fdatasync(fd)  # a writer that died may have left it in memory only
            self._disk.drop_cache(fd)  # and one whose sync failed, where no sync of ours brings it to the medium
            run.release_what_stands(found)
        self._surveyed = here
        return False

    def _next_segment(self, place: "_Place") -> bool:
        """Go on in the segment after a sealed one."""
        cursor, before = place.cursor, place.segment.header
        after = successor(self._path, self._disk, before.segment)
        if after is None:
            paths = segment_paths(self._path, self._disk)
            if paths and number_of(paths[0]) > before.segment:  # pruned, perhaps with nothing in it: look it up anew
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place.segment.path))
            raise _broken(cursor, "the segment is sealed, so the one after it is missing")
        check_successor(before, after.header)
        if (after.header.prev_end, after.header.first_lsn, after.header.chain) != (
            before.known_end(cursor.offset), cursor.lsn, cursor.chain,
        ):  # fmt: skip
            raise _broken(cursor, "the segment does not end where the next one says it does")
        self._place = _Place(after, start_of(after.header))
        return True


class _Place:
    """A position: a segment with its header's bytes, the cursor after what was yielded, whether that is the seal."""

    __slots__ = ("cursor", "sealed", "sector", "segment")

    def __init__(self, segment: Segment, cursor: Cursor, *, sealed: bool = False) -> None:
        self.segment = segment
        self.sector = encode_header(segment.header)
        self.cursor = cursor
        self.sealed = sealed

    def copy(self) -> "_Place":
        return _Place(self.segment, self.cursor.copy(), sealed=self.sealed)


class _Run:
    """One pass over frames. `cursor` follows what is proven durable, `ahead` what is whole; `held` lies between."""

    __slots__ = ("_after", "_cursor", "ahead", "held", "last_type", "sealed", "start", "told", "window")

    def __init__(self, window: Window, cursor: Cursor, told: int | None, after: int) -> None:
        self.window = window
        self.told = told
        self.start = cursor.offset
        self.ahead = cursor.copy()
        self.held: deque[tuple[Frame, list[Entry]]] = deque()
        self.last_type: int | None = None
        self.sealed = False
        self._cursor = cursor
        self._after = after

    def read(self, found: list[Entry], limit: int, limit_bytes: int) -> None:
        """Read until no frame follows, the segment is sealed, or there is enough to hand over."""
        window, ahead = self.window, self.ahead
        enough = self.start + limit_bytes
        while len(found) < limit and (ahead.offset < enough or not found):
            frame = next_frame(window, ahead)
            if frame is None:
                return
            at = window.locate(frame.offset, frame.length)
            self.held.append((frame, entries(window.buffer, at, frame) if frame.records else []))
            ahead.advance(frame)
            self.last_type = frame.type
            self._release(frame, found)
            if frame.type == SEAL:
                self.release_all(found)
                self.sealed = True
                return

    def _release(self, newest: Frame, found: list[Entry]) -> None:
        """Let go of what the writer itself, or else the newest frame, says is durable."""
        if self.told is None:
            self.release_to(newest.durable_offset, found)
        elif newest.first_lsn + newest.records - 1 <= self.told:
            self.release_all(found)

    def release_to(self, durable_offset: int, found: list[Entry]) -> None:
        """Let go of the frames that end at or before this offset."""
        held = self.held
        while held:
            frame, records = held[0]
            if frame.offset + frame.length > durable_offset:
                return
            held.popleft()
            self._let_go(frame, records, found)

    def release_all(self, found: list[Entry]) -> None:
        """Let go of everything whole."""
        held = self.held
        while held:
            self._let_go(*held.popleft(), found)

    def release_what_stands(self, found: list[Entry]) -> None:
        """Read anew, and let go of every frame that is there as it was."""
        self.window.refresh()
        while self.held and next_frame(self.window, self._cursor) == self.held[0][0]:
            self._let_go(*self.held.popleft(), found)

    def _let_go(self, frame: Frame, records: list[Entry], found: list[Entry]) -> None:
        self._cursor.advance(frame)
        skipped = self._after + 1 - frame.first_lsn
        found += records[skipped:] if skipped > 0 else records


def _broken(cursor: Cursor, problem: str) -> LogCorrupt:
    return LogCorrupt(problem, segment=cursor.segment, offset_bytes=cursor.offset, lsn=cursor.lsn)


def read(path: Path | str, after: int | None = 0, *, disk: Disk | None = None) -> Iterator[Entry]:
    """Yield the entries past LSN `after`, in order, up to the end of the durable log. Takes no lock.

    None begins with the oldest record that is left; a number below it raises Trimmed, so that nothing is skipped
    unnoticed. A redacted record is a `Redacted` entry without a payload.

    Beside a live writer in another process the last batch appears once a later frame proves it, at most a
    second after it was acknowledged; `Log.read` sees it at once. Raises what `Reader.poll` raises.
    """
    reader = Reader(path, after, disk=disk)
    while batch := reader.poll():
        yield from batch
