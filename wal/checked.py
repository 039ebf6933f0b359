"""Walking a segment and believing nothing: checksums, identity, chain, tree."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wal.base import Replaced
from wal.disk import Disk, opened, read_fully
from wal.errors import LogCorrupt, LogTampered
from wal.frames import SEAL, Frame, frontier
from wal.recovery import REFUSE, Stop, is_empty, judge, went_on
from wal.scan import Cursor, Window, checked_leaves, next_frame
from wal.segment import HEADER_BYTES, Header, decode_header
from wal.shelf import Segment, check_successor, read_segment
from wal.tree import Tree


@contextmanager
def opened_segment(path: Path, disk: Disk) -> Iterator[tuple[Header, int]]:
    """Open a segment together with the header of this very file: a redaction may put another in its place meanwhile.

    Raises LogCorrupt, UnsupportedFormat or OSError.
    """
    while True:
        header = read_segment(path, disk).header
        with opened(disk, path) as fd:
            if decode_header(read_fully(disk, fd, HEADER_BYTES, 0), header.segment, path) == header:
                yield header, fd
                return


def checked_frames(window: Window, cursor: Cursor, tree: Tree | None = None) -> Iterator[tuple[Frame, list[bytes]]]:
    """Yield the frames that follow and their leaves, up to the seal or where none stands, the cursor already past each.

    Their records are added to `tree`, and a seal must state what it then is; None is for a tree that is not known.
    Raises LogTampered when a hash does not hold.
    """
    last_type = None
    while last_type != SEAL and (frame := next_frame(window, cursor)) is not None:
        leaves = checked_leaves(window, frame)
        last_type = frame.type
        if tree is not None:
            tree.extend(leaves)
            if last_type == SEAL and _frontier(window, frame) != tree.nodes:
                problem = "the seal does not state the tree that the records make"
                raise LogTampered(problem, segment=frame.segment, offset_bytes=frame.offset, lsn=frame.first_lsn)
        cursor.advance(frame)
        yield frame, leaves


def _frontier(window: Window, seal: Frame) -> list[bytes] | None:
    return frontier(window.buffer, window.locate(seal.offset, seal.length), seal)


def judge_end(
    window: Window, cursor: Cursor, header: Header, disk: Disk, *, after: Segment | None, last_type: int | None
) -> Stop | None:
    """Ask the recovery table about the place where the frames of a segment end.

    None means that a live writer has filled the place meanwhile: walk on. Raises LogCorrupt when the table refuses,
    Replaced when it does and another file has taken this one's place.
    """
    stop = judge(
        window, cursor.copy(), header, last_type=last_type, after=None if after is None else after.header,
        after_empty=after is not None and is_empty(disk, after),
    )  # fmt: skip
    if stop.case.action != REFUSE:
        return stop
    if last_type != SEAL and went_on(window, cursor):
        return None
    if window.is_nameless:
        raise Replaced(stop.refusal())
    raise stop.refusal()


def check_end(before: Header, end: Cursor, tree: Tree | None, after: Header) -> None:
    """Check that a segment which was walked to its end is the one that its successor's header describes.

    Raises LogCorrupt.
    """
    check_successor(before, after)
    root = after.root if tree is None else tree.root()
    found = (before.known_end(end.offset), end.lsn, end.chain, root)
    if found != (after.prev_end, after.first_lsn, after.chain, after.root):
        problem = "the segment before this one does not end where its header says"
        raise LogCorrupt(problem, segment=after.segment, offset_bytes=0, lsn=after.first_lsn)
