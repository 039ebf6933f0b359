"""Where in a log an audit can begin: after a StateBase, which holds the whole state of a record before it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS
from tamiyo.core.events import KINDS
from tamiyo.core.state import DIGEST_VERSION
from tamiyo.errors import JournalUnreadable
from tamiyo.stored import event_of

__all__ = ["Cut", "base_past", "cuts", "read_from", "records_past"]

SCAN_MAX = 16 * CHECKPOINT_STEPS
"""Records of a segment that are looked through for its base: one checkpoint of steps, which write up to 16 each."""
REACH_MIN = 8_192
"""So many records before a base are read again for what is not in it, however small the parts are."""


def base_past(path: Path, missing_lsn: int) -> tuple[int, journal.StateBase]:
    """The first base that needs nothing up to `missing_lsn`, and its LSN.

    It stands after what it needs, so the log is read from there on: a log of many bases is read through about twice,
    however many of them are passed over.

    Raises:
        JournalUnreadable: there is none, or a base does not parse.
        wal.LogError: the log is damaged.
    """
    for entry in records_past(path, missing_lsn):
        if entry.kind == KINDS[journal.StateBase]:
            base = event_of(entry)
            if isinstance(base, journal.StateBase) and base.needs_lsn > missing_lsn:
                return entry.lsn, base
    raise JournalUnreadable(
        f"records up to LSN {missing_lsn} were taken out (pruned or redacted), and no StateBase after them says what "
        "they came to: decisions cannot be recomputed without the archive of the retention run"
    )


def records_past(path: Path, lsn: int | None) -> Iterator[wal.Entry]:
    """The records after an LSN, or all of them; where a writer prunes meanwhile, those that are left."""
    while True:
        try:
            yield from wal.read(path, lsn)
        except wal.Trimmed as trimmed:
            lsn = trimmed.first_lsn - 1
        else:
            return


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a log can be cut: the base at `lsn` holds the state of `at_lsn`; it is read from `from_lsn` on."""

    lsn: int
    at_lsn: int
    from_lsn: int


def read_from(path: Path, begin: Cut | None) -> tuple[journal.StateBase | None, Iterable[wal.Entry]]:
    """A cut's base, and the records from before it to the end of the log; of None those from its beginning.

    Raises JournalUnreadable where there is no base, wal.LogError. What is read to find it is not read again.
    """
    if begin is None:
        return None, wal.read(path, None)
    entries, held = wal.read(path, begin.from_lsn - 1), list[wal.Entry]()
    for entry in entries:
        held.append(entry)
        if entry.lsn == begin.lsn:
            base = event_of(entry)
            if isinstance(base, journal.StateBase):
                return base, chain(held, entries)
    raise JournalUnreadable(f"no StateBase stands at LSN {begin.lsn}")


def cuts(path: Path, begun_lsn: int, needs_lsn: int, last_lsn: int, parts: int) -> Sequence[Cut]:
    """Where to cut a log into about so many parts of about one size, of the bases at the beginnings of its segments.

    A running service writes one soon after each. Only bases of checkpoints are taken: an audit keeps those states in
    mind, and lets no inference wait beyond one. None is taken that needs records from far back.

    Args:
        path: the log.
        begun_lsn: the audit begins past this.
        needs_lsn: and what it reads begins here.
        last_lsn: the last record to look at.
        parts: how many there should be.

    Raises:
        JournalUnreadable: a base does not parse.
        wal.LogError: the log is damaged.
    """
    first_lsns = [segment.first_lsn for segment in wal.segments(path)]
    span = last_lsn - begun_lsn
    targets = [begun_lsn + span * number // parts for number in range(1, parts)]
    starts = sorted({max((lsn for lsn in first_lsns if lsn <= target), default=0) for target in targets} - {0})
    found, near = list[Cut](), begun_lsn
    for start, limit in pairwise([*starts, last_lsn + 1]):
        cut = _first_cut(path, start, min(limit, start + SCAN_MAX), needs_lsn, max(REACH_MIN, span // parts // 4))
        if cut is not None and cut.at_lsn - near > span // parts // 2:
            found.append(cut)
            near = cut.at_lsn
    return found


def _first_cut(path: Path, start: int, limit: int, needs_lsn: int, reach: int) -> Cut | None:
    """The first one whose base stands between these LSNs."""
    for entry in wal.read(path, start - 1):
        if entry.lsn >= limit:
            break
        if entry.kind != KINDS[journal.StateBase] or isinstance(entry, wal.Redacted):
            continue
        base = event_of(entry)
        if isinstance(base, journal.StateBase) and base.needs_lsn >= needs_lsn and _is_fit(base, reach):
            unpublished_lsn = max(base.state.outbox.reports_lsn + 1, needs_lsn)
            is_near = base.at_lsn - unpublished_lsn <= reach
            from_lsn = min(base.needs_lsn, unpublished_lsn) if is_near else base.needs_lsn
            return Cut(entry.lsn, base.at_lsn, from_lsn)
    return None


def _is_fit(base: journal.StateBase, reach: int) -> bool:
    """Whether an audit can compare it, keeps this state in mind, and finds near by what is not in it."""
    comparable = base.digest.partition(":")[0] == str(DIGEST_VERSION)
    is_checkpoint = base.state.steps_received % CHECKPOINT_STEPS == 0
    return comparable and is_checkpoint and base.at_lsn - base.needs_lsn <= reach
