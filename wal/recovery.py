"""What to make of the first place in a log where no next frame stands.

Rule 1: the decision is `RECOVERY_CASES`, and nothing else decides. Opening, reading and verifying
all ask the same table.
Rule 2: this file reads only. What must be done about a decision is in `wal.repair`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from wal.disk import Disk, opened
from wal.errors import LogCorrupt
from wal.flips import Flip
from wal.frames import CLOSE, SEAL, seal_bytes
from wal.scan import (
    Cursor,
    Rest,
    Window,
    checked_leaves,
    flip_at,
    frame_at,
    is_blank,
    is_next,
    next_frame,
    start_of,
    survey,
)
from wal.segment import HEADER_BYTES, Header
from wal.shelf import Segment, first_tree, read_segments, sealed_tree
from wal.tree import Tree

ACCEPT, END, CUT, RESEAL, REFUSE = "accept", "end", "cut", "reseal", "refuse"


class Conditions(NamedTuple):
    """What can be told about a place in a segment at which a frame is due."""

    last: bool  # no later segment exists
    sealed: bool  # the frame before this place is the segment's seal
    sealing: bool  # an empty successor says that the seal is due here, and nothing stands after it
    whole: bool  # a frame with right checksums stands here
    mine: bool  # ... and it is the next one: same log, segment, offset, epoch, LSN and chain
    blank: bool  # nothing but zeros from here to the end of the file
    proven: bool  # a later sound frame, or the caller, says that what stood here was acknowledged
    bounded: bool  # all that stands from here on is within what one sync group may write


class Case(NamedTuple):
    """A row: the conditions it covers (None: either), what to do, and why, for the message."""

    label: str
    when: tuple[bool | None, ...]
    action: str
    why: str


T, F = True, False
X: None = None  # either
#          last  sealed  sealing  whole  mine  blank  proven  bounded
RECOVERY_CASES = (
    # The usual case, and a frame that is sound but out of place: stale, foreign, misdirected, reordered.
    Case("@A", (X, F, X, T, T, X, X, X), ACCEPT, "the next frame"),
    Case("@B", (X, F, X, T, F, X, X, X), REFUSE, "a sound frame stands here that does not belong here"),
    # After the seal of a segment. Nothing is ever written there.
    Case("@C", (F, T, X, X, X, T, X, X), END, "the segment is complete"),
    Case("@D", (F, T, X, X, X, F, X, X), REFUSE, "bytes stand after the segment's seal"),
    Case("@E", (T, T, X, X, X, X, X, X), REFUSE, "the segment is sealed, so the one after it is missing"),
    # Before the seal of a segment that has a successor: all of it was synced before the successor existed.
    Case("@F", (F, F, T, F, X, X, X, X), RESEAL, "a crash between naming the successor and sealing"),
    Case("@G", (F, F, F, F, X, X, X, X), REFUSE, "a frame of a finished segment is damaged"),
    # In the last segment. Only here can bytes be in doubt, and only when nothing proves them acknowledged.
    Case("@H", (T, F, X, F, X, T, F, X), END, "the end of the log"),
    Case("@I", (T, F, X, F, X, F, F, T), CUT, "a write that was never acknowledged was torn"),
    Case("@J", (T, F, X, F, X, F, F, F), REFUSE, "more bytes stand here than a torn write can leave"),
    Case("@K", (T, F, X, F, X, X, T, X), REFUSE, "a frame that was acknowledged is damaged"),
)


def matches(case: Case, conditions: Conditions) -> bool:
    """Whether the row covers these conditions."""
    return all(want is None or want == have for want, have in zip(case.when, conditions, strict=True))


def decide(conditions: Conditions) -> Case:
    """Return the one row that covers these conditions."""
    return next(case for case in RECOVERY_CASES if matches(case, conditions))


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a walk ended: the decision, the cursor there, what stands from there on, and the last frame's type.

    `flipped` is the bit that explains a frame which was refused, None when no single one does.
    """

    case: Case
    cursor: Cursor
    rest: Rest
    last_type: int | None
    flipped: Flip | None = None

    @property
    def torn_bytes(self) -> int:
        """How many bytes stand after the last whole frame."""
        return self.rest.used_end - self.cursor.offset

    def refusal(self) -> LogCorrupt:
        """Return the error for a place that the table refuses."""
        at, next_lsn = self.cursor, self.rest.next_lsn
        return LogCorrupt(
            self.case.why, segment=at.segment, offset_bytes=at.offset, lsn=at.lsn,
            last_lsn=None if next_lsn is None else next_lsn - 1, flipped=self.flipped,
        )  # fmt: skip


def judge(
    window: Window, cursor: Cursor, header: Header, *,
    after: Header | None, after_empty: bool, last_type: int | None, durable_lsn: int = 0,
) -> Stop:  # fmt: skip
    """Ask the table about the place at the cursor, which `walk` stopped at.

    `after` is the next segment's header, and `after_empty` whether it has no frames; `durable_lsn` is how far
    the caller knows the log to be acknowledged.
    """
    found = frame_at(window, cursor.offset)
    rest = survey(window, cursor)
    seal_end = cursor.offset + seal_bytes(cursor.lsn - 1)
    due_here = after is not None and (header.known_end(seal_end), cursor.lsn, cursor.chain) == (
        after.prev_end, after.first_lsn, after.chain,
    )  # fmt: skip
    case = decide(
        Conditions(
            last=after is None,
            sealed=last_type == SEAL,
            sealing=due_here and after_empty and rest.used_end <= seal_end,
            whole=found is not None,
            mine=found is not None and is_next(found, cursor),
            blank=rest.used_end == cursor.offset,
            proven=rest.durable_offset > cursor.offset or durable_lsn >= cursor.lsn,
            bounded=rest.used_end - cursor.offset <= header.limits.in_doubt_bytes,
        )
    )
    flipped = flip_at(window, cursor) if case.action == REFUSE else None
    return Stop(case, cursor, rest, last_type, flipped)


def walk(window: Window, cursor: Cursor, tree: Tree, pace: Callable[[], None] | None = None) -> int | None:
    """Move the cursor over every frame that follows; return the last one's type, None when there was none.

    Their records are added to `tree`, which checks each chain on the way: LogTampered when one does not hold. `pace` is
    called for each.
    """
    last_type = None
    while last_type != SEAL and (frame := next_frame(window, cursor)) is not None:
        tree.extend(checked_leaves(window, frame))
        cursor.advance(frame)
        last_type = frame.type
        if pace is not None:
            pace()
    return last_type


def went_on(window: Window, cursor: Cursor) -> bool:
    """Whether a frame stands at the cursor after all, read anew.

    Before a place is called damaged beside a live writer: it may have been filled after it was read, and before
    the evidence was. What stands there once the evidence was seen is what the evidence is about.
    """
    window.refresh()
    return next_frame(window, cursor) is not None


def is_empty(disk: Disk, segment: Segment) -> bool:
    """Whether nothing was ever written after a segment's header."""
    with opened(disk, segment.path) as fd:
        return is_blank(Window(disk, fd), HEADER_BYTES)


def examine_segment(disk: Disk, segment: Segment, after: Segment | None, tree: Tree, durable_lsn: int) -> Stop:
    """Walk one segment to where its frames end and ask the table about that place. `tree` grows with its records."""
    with opened(disk, segment.path) as fd:
        window, cursor = Window(disk, fd), start_of(segment.header)
        last_type = walk(window, cursor, tree)
        return judge(
            window, cursor, segment.header, last_type=last_type, durable_lsn=durable_lsn,
            after=None if after is None else after.header,
            after_empty=after is not None and is_empty(disk, after),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Findings:
    """What opening a log needs to know of it: its segments, how the last ends, and whether a seal is owed.

    `unsealed` is the stop in the segment before the last when a crash kept its seal from being written. `tree` is
    the tree over all records.
    """

    segments: list[Segment]
    stop: Stop
    unsealed: Stop | None
    tree: Tree

    @property
    def clean_close(self) -> bool:
        """Whether the writer closed the log and left nothing behind it."""
        return self.stop.last_type == CLOSE and self.stop.case.action == END


def examine(path: Path, disk: Disk, *, durable_lsn: int = 0) -> Findings | None:
    """Check every header and seal, and walk the last segment; None for a log without segments.

    Raises LogCorrupt when the log must not be opened. Sealed segments are not walked, so that opening
    stays fast: damage inside them is met by `wal.read` and `wal.verify`.
    """
    segments = read_segments(path, disk)
    if not segments:
        return None
    tree = first_tree(path, disk, segments[0].header)
    unsealed = None
    for before, after in pairwise(segments):
        sealed = sealed_tree(disk, before, after.header)
        if sealed is None:
            unsealed = _owed_seal(disk, before, after, tree, durable_lsn, last_pair=after is segments[-1])
        else:
            tree = sealed
    stop = examine_segment(disk, segments[-1], None, tree, durable_lsn)
    if stop.case.action == REFUSE:
        raise stop.refusal()
    return Findings(segments, stop, unsealed, tree)


def _owed_seal(disk: Disk, before: Segment, after: Segment, tree: Tree, durable_lsn: int, *, last_pair: bool) -> Stop:
    """Find out why a segment lacks its seal; `tree` then holds its records too."""
    stop = examine_segment(disk, before, after, tree, durable_lsn)
    if stop.case.action == RESEAL and last_pair and tree.root() == after.header.root:
        return stop
    if stop.case.action == REFUSE:
        raise stop.refusal()
    at = stop.cursor
    problem = "the segment does not end where the next one says it does"
    raise LogCorrupt(problem, segment=at.segment, offset_bytes=at.offset, lsn=at.lsn)
