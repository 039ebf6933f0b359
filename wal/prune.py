"""Dropping whole segments from the beginning of a log.

Rule: BASE says first, durably, where the log now begins; only then do files go, and a crash in between leaves files
that the next opening removes. So a log is the old one or the pruned one, and no free space is needed.
"""

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from wal.base import SLOT_BYTES, Base, Step, base_of, read_base, reserved_bytes, write_base
from wal.disk import Disk, OsDisk, opened, settle
from wal.errors import LogCorrupt, LogError, of_log
from wal.head import CONFIRMED, Head, standing
from wal.leaves import tree_at
from wal.lock import Lock
from wal.merkle import extended
from wal.proofs import consistency_path
from wal.segment import BASE_NAME, Header, parse_name
from wal.shelf import Segment, finished_tree, read_segments
from wal.tail import remove


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune dropped: `records`, and `segments` files of together `freed_bytes`. The log begins at `first_lsn`.

    The files include those that an earlier prune, which failed, had left.
    """

    records: int
    segments: int
    freed_bytes: int
    first_lsn: int


def prune(path: Path | str, before_lsn: int, *, keep_heads: Iterable[Head] = (), disk: Disk | None = None) -> Pruned:
    """Drop the segments all of whose records are below `before_lsn` from a log that nobody has open for writing.

    As `Log.prune`, for a log that cannot be opened because the disk is full: it writes nothing but to space that is
    the log's already. Raises LogLocked, LogError when a head to keep is not one of this log or its proof has no place,
    LogCorrupt, or OSError; the log is then the old one or the pruned one.
    """
    directory, disk = Path(path), OsDisk() if disk is None else disk
    lock = Lock(disk, directory)
    try:
        lock.take()
        with of_log(directory):
            return drop_segments(directory, disk, before_lsn, list(keep_heads), in_use=None, still_ours=lambda: None)
    finally:
        lock.release()


def drop_segments(
    path: Path,
    disk: Disk,
    before_lsn: int,
    keep_heads: Sequence[Head],
    *,
    in_use: int | None,
    still_ours: Callable[[], None],
) -> Pruned:
    """Do it, never to the last segment. The caller holds the lock. Raises as `prune`.

    `in_use` is the segment that a live writer has open, which stays whatever it looks like: between the seal and the
    next segment the writer still asks for that file's name. `still_ours` is called before anything is changed, and
    raises when the lock did not hold.
    """
    settle(disk, path / BASE_NAME)  # an earlier attempt's slot may be in memory alone; the next goes over the other one
    segments = read_segments(path, disk)
    first = _first_kept(disk, segments, before_lsn, in_use)
    going, kept = segments[:first], segments[first].header
    old = read_base(path, disk)
    if old is None:
        raise LogCorrupt(f"{BASE_NAME} is damaged; open the log again to mend it", segment=0, offset_bytes=0)
    files = [*given_up(path, disk, old), *[segment.path for segment in going]]
    freed_bytes = sum([_length(disk, place) for place in files])
    still_ours()
    steps = _steps(path, disk, old, kept, keep_heads)
    if going or steps != old.steps:  # a head that is to be kept waits in BASE also when nothing goes yet
        tree, _ = tree_at(path, disk, kept.first_lsn - 1)
        base = base_of(kept, old.number + 1, tree, steps)
        _require_room(base, old)
        still_ours()  # asked once more, because this took a while
        write_base(path, disk, base)
        settle(disk, path / BASE_NAME)  # a file system that fails late says so at the second sync
        if read_base(path, disk) != base:
            raise OSError(errno.EIO, f"{BASE_NAME} does not read back as it was written")
        disk.fsync_dir(path)
    if files:
        for place in files:
            remove(disk, place)
        disk.fsync_dir(path)
    records = kept.first_lsn - segments[0].header.first_lsn
    return Pruned(records, len(files), freed_bytes, kept.first_lsn)


def given_up(path: Path, disk: Disk, base: Base) -> list[Path]:
    """Return the segments that an earlier prune gave up, and did not come to remove or that came back, oldest first."""
    names = [name for name in disk.list_dir(path) if (numbers := parse_name(name)) and numbers[0] < base.segment]
    return [path / name for name in sorted(names)]


def _length(disk: Disk, place: Path) -> int:
    with opened(disk, place) as fd:
        return disk.size(fd)


def _first_kept(disk: Disk, segments: Sequence[Segment], before_lsn: int, in_use: int | None) -> int:
    """Return which segment is the first to keep, at most the one in use: with a sound seal behind what goes.

    Raises LogCorrupt when one of these seals is damaged. Where no writer is, the last but one may have none.
    """
    first = 0
    for before, after in pairwise(segments):
        if before.header.segment == in_use or after.header.first_lsn > before_lsn:
            break
        if finished_tree(disk, before, after, may_lack=in_use is None and after is segments[-1]) is None:
            break
        first += 1
    return first


def _steps(path: Path, disk: Disk, old: Base, kept: Header, heads: Sequence[Head]) -> tuple[Step, ...]:
    """Return the proofs that lead from the heads to keep, and from those kept before, to the new beginning."""
    begins = kept.first_lsn - 1
    wanted = {(head.size, head.root) for head in heads if _is_ours(path, disk, head, kept.log_id)}
    wanted |= {(step.old_size, step.old_root) for step in old.steps if step.waits}
    steps = _led_on(path, disk, old, kept)
    for size, root in sorted(wanted):
        if size == 0 or size < old.first_lsn - 1:
            continue  # every log begins with nothing; and what led to the beginning already still does
        if size >= begins:
            steps.append(Step(size, root, size, root, ()))
        else:
            steps.append(Step(size, root, begins, kept.root, consistency_path(path, disk, size, begins)))
    return tuple(steps)


def _led_on(path: Path, disk: Disk, old: Base, kept: Header) -> list[Step]:
    """Return the steps of the prunes before, those that lead to the old beginning led on to the new one.

    So there is one for each head, however many prunes there are. Format 2's first writers added one for each prune.
    """
    steps = [step for step in old.steps if not step.waits]
    was, begins = old.first_lsn - 1, kept.first_lsn - 1
    if begins == was or not steps:
        return steps
    further = consistency_path(path, disk, was, begins)
    return [
        step
        if step.new_size != was
        else Step(
            step.old_size, step.old_root, begins, kept.root,
            extended(step.old_size, step.path, was, old.root, further, begins),
        )
        for step in steps
    ]  # fmt: skip


def _require_room(base: Base, old: Base) -> None:
    """Refuse a head for which there is no room once its proof has grown: later prunes must not fail of it."""
    heads = {step.old_size for step in base.steps}
    if heads - {step.old_size for step in old.steps} and reserved_bytes(base) > SLOT_BYTES:
        raise LogError(
            f"cannot keep the proofs of {len(heads)} heads past prunes to come: they may take {reserved_bytes(base)}"
            f" bytes and {SLOT_BYTES} are there. Nothing was pruned; keep fewer heads."
        )


def _is_ours(path: Path, disk: Disk, head: Head, log_id: bytes) -> bool:
    if standing(path, disk, head, log_id) != CONFIRMED:
        raise LogError(f"cannot keep {head} past a prune: it is not a head of the log at {path}. Nothing was pruned.")
    return True
