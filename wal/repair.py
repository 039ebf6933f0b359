"""Carrying out what recovery decided. Each step is durable before the next, and can be repeated after a crash.

Rule 1: the last segment's records are never changed in place. What is kept of it goes to a new file that takes
its name, so a crash leaves the old bytes or the new ones.
Rule 2: what the last writer wrote last is written again, with the same bytes. A failed sync may have left it in
memory alone, marked clean, and asking the kernel to forget its pages is advice.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from wal.base import create_base, first_base, read_base, write_base
from wal.disk import Disk, opened, read_fully, settle, sync_surely, write_fully
from wal.errors import LogCorrupt
from wal.frames import CONTROL_BYTES
from wal.head import Head, check_head
from wal.prune import given_up
from wal.recovery import CUT, Findings, Stop, examine
from wal.scan import CHUNK_BYTES, Cursor
from wal.segment import BASE_NAME, REDACT_NAME, REPAIR_NAME, SPARE_NAME, Header
from wal.shelf import Segment, seal_span, segment_paths
from wal.tail import allocate, remove, reseal
from wal.tree import Tree


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening found and did.

    `records` are in the log, `first_lsn`..`last_lsn` (`first_lsn` 0 when none is). `cut_bytes` of a torn write that
    was never acknowledged were taken off the end of segment `cut_segment` at `cut_offset_bytes`, after they
    were saved to `quarantine`. `clean_close` says whether the last writer closed the log.
    """

    records: int
    first_lsn: int
    last_lsn: int
    segments: int
    cut_bytes: int
    cut_segment: int | None
    cut_offset_bytes: int | None
    quarantine: Path | None
    clean_close: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """The last segment, durable up to `cursor` and blank after it, with the tree over all records and the report."""

    last: Segment
    cursor: Cursor
    tree: Tree
    report: Recovery


NEW_LOG = Recovery(0, 0, 0, 0, 0, None, None, None, clean_close=True)


def recover(path: Path, disk: Disk, expect_head: Head | None = None) -> Recovered | None:
    """Bring a log to a state that can be appended to, and report what was done; None when there is no log yet.

    Doing it again changes nothing. Raises LogCorrupt, with nothing changed, when acknowledged data is damaged;
    with `expect_head` all that it covers is acknowledged, and a log that contradicts it is damaged too.
    The caller holds the lock.
    """
    for name in (SPARE_NAME, REPAIR_NAME, REDACT_NAME):
        remove(disk, path / name)  # leftovers of a writer that died; all are outside the log until renamed
    _settle(path, disk)
    findings = examine(path, disk, durable_lsn=0 if expect_head is None else expect_head.size)
    if expect_head is not None:
        check_head(path, disk, expect_head, None if findings is None else findings.segments[0].header.log_id)
    if findings is None:
        return None
    create_base(path, disk)
    _drop_pruned(path, disk, findings.segments[0].header)
    quarantine = _carry_out(path, disk, findings)
    return Recovered(findings.segments[-1], findings.stop.cursor, findings.tree, _report(findings, quarantine))


def _drop_pruned(path: Path, disk: Disk, first: Header) -> None:
    """Remove the segments that a prune has given up, and a crash has left, before the log's first one."""
    base = read_base(path, disk)
    if base is None:  # a crash came between the first segment and this
        write_base(path, disk, first_base(first))
        return
    if not base.precedes(first):
        raise LogCorrupt(
            f"{BASE_NAME} says that a log begins here, and this is another one's segment",
            segment=base.segment, offset_bytes=0, lsn=base.first_lsn,
        )  # fmt: skip
    for place in given_up(path, disk, base):
        remove(disk, place)


def _settle(path: Path, disk: Disk) -> None:
    """Make sure that what is read next is on the medium: BASE, and the two segments that may have been written last."""
    with contextlib.suppress(FileNotFoundError):
        settle(disk, path / BASE_NAME)
    for place in segment_paths(path, disk)[-2:]:
        settle(disk, place)
    disk.fsync_dir(path)


def _carry_out(path: Path, disk: Disk, findings: Findings) -> Path | None:
    stop, last = findings.stop, findings.segments[-1]
    if findings.unsealed is not None:
        reseal(disk, findings.segments[-2].path, findings.unsealed.cursor, findings.tree)
    elif stop.last_type is None and stop.torn_bytes == 0 and len(findings.segments) > 1:
        before = findings.segments[-2]
        _write_again(disk, before.path, *seal_span(before.header, last.header))
    quarantine = _quarantine(path, disk, last, stop) if stop.case.action == CUT else None
    if findings.clean_close:
        _write_again(disk, last.path, stop.cursor.offset - CONTROL_BYTES, stop.cursor.offset)
    else:
        _rebuild(path, disk, last, stop.cursor.offset)
    return quarantine


def _write_again(disk: Disk, path: Path, start: int, end: int) -> None:
    """Write a control frame over itself, and sync it; it holds no record that could be lost on the way."""
    with opened(disk, path, write=True) as fd:
        write_fully(disk, fd, read_fully(disk, fd, end - start, start), start)
        disk.fdatasync(fd)


def _quarantine(path: Path, disk: Disk, last: Segment, stop: Stop) -> Path:
    """Save the bytes that will be cut, as they stand, to a new file."""
    place = _unused(path, disk, f"quarantine-{last.header.segment:08d}-{stop.cursor.offset}")
    fd = disk.open(place, write=True, create=True)
    with contextlib.ExitStack() as undo:
        undo.callback(remove, disk, place)
        undo.callback(disk.close, fd)
        _copy(disk, last.path, fd, stop.cursor.offset, stop.rest.used_end, shift=stop.cursor.offset)
        sync_surely(disk, fd)
        undo.pop_all()
    disk.close(fd)
    disk.fsync_dir(path)
    return place


def _unused(path: Path, disk: Disk, stem: str) -> Path:
    """Return a name that nothing has: a crash in mid-repair may have left an earlier copy."""
    taken = set(disk.list_dir(path))
    number = 1
    while f"{stem}-{number}.bin" in taken:
        number += 1
    return path / f"{stem}-{number}.bin"


def _rebuild(path: Path, disk: Disk, last: Segment, end: int) -> None:
    """Replace the last segment by a new file that holds its bytes up to `end`, and zeros."""
    place = path / REPAIR_NAME
    fd = allocate(disk, place, last.header.limits.segment_bytes)
    with contextlib.ExitStack() as undo:
        undo.callback(remove, disk, place)
        undo.callback(disk.close, fd)
        _copy(disk, last.path, fd, 0, end)
        sync_surely(disk, fd)
        undo.pop_all()
    disk.close(fd)
    disk.rename(place, last.path)
    disk.fsync_dir(path)


def _copy(disk: Disk, source: Path, fd: int, start: int, end: int, *, shift: int = 0) -> None:
    with opened(disk, source) as source_fd:
        for offset in range(start, end, CHUNK_BYTES):
            chunk = read_fully(disk, source_fd, min(CHUNK_BYTES, end - offset), offset)
            write_fully(disk, fd, chunk, offset - shift)


def _report(findings: Findings, quarantine: Path | None) -> Recovery:
    stop = findings.stop
    cut = stop.case.action == CUT
    last_lsn = stop.cursor.lsn - 1
    first_lsn = findings.segments[0].header.first_lsn
    records = last_lsn + 1 - first_lsn
    return Recovery(
        records=records, first_lsn=first_lsn if records else 0, last_lsn=last_lsn, segments=len(findings.segments),
        cut_bytes=stop.torn_bytes, cut_segment=stop.cursor.segment if cut else None,
        cut_offset_bytes=stop.cursor.offset if cut else None, quarantine=quarantine,
        clean_close=findings.clean_close,
    )  # fmt: skip
