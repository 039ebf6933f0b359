"""An audit in parts, by whoever checks them (`tamiyo.audit.workers`: several processes at once).

A running service writes a StateBase, its whole state, about once a segment of the log. There the log is cut:

    part 0       from where an audit in one process begins     to the base of part 1
    part k       from the state that its base holds            to the base of part k + 1
    the last     from the state that its base holds            to the end of the log, whatever is appended meanwhile

Each part ends with comparing the state it has come to with what the next one began with: where all have passed, each
state is what follows from the log's beginning, and so is all that was recomputed after it.

Rule 1: what is said of all of it is what one process would say, to the last count. A part counts what stands after the
        record that its base speaks of, up to the one that the next base speaks of.
Rule 2: only what passes is put together. Where anything does not follow, or cannot be said, or a process dies, nothing
        is known here, and one process has to do it all.
Rule 3: what an auditor keeps in mind beside the state is empty at a cut, or read again, or never spoken of later;
        where it is spoken of after all, the log is not cut there.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import wal
from tamiyo.audit.agreement import Reinference, joined
from tamiyo.audit.bases import Cut, base_past, cuts, read_from
from tamiyo.audit.follower import Asked, Follower
from tamiyo.audit.found import Counted, Replay
from tamiyo.audit.replay import Auditor, begun_with
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import state_message, state_of
from tamiyo.core.draft import Standing
from tamiyo.core.events import KINDS, Event
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable, RecordRedacted
from tamiyo.stored import event_of
from tamiyo.workers import in_words

__all__ = ["PARTS_EACH", "Hands", "Missing", "Outcome", "Part", "Passed", "Unfit", "Unproven", "checked", "in_parts"]

logger = logging.getLogger(__name__)

PARTS_EACH = 4
"""Parts for each process, so that none waits long for the last one."""
TELL_EVERY = 256
"""Records between two looks at whether to go on: a twentieth of a second at level 3."""

RECALLED = frozenset(
    KINDS[kind]
    for kind in (
        journal.BlueprintObserved, journal.StepReceived, journal.DecisionMade, journal.FieldReportIssued,
        journal.CommitLate,
    )
)  # fmt: skip
"""What is read again of the records before a cut; they were checked with the part before."""
LOOKED_BACK = frozenset(KINDS[kind] for kind in (journal.StateBase, journal.SnapshotTaken, journal.RetentionCompleted))
SPEAKING_OF_BEFORE = LOOKED_BACK | {KINDS[journal.PublishAttempted]}
"""What may speak of what was before the part."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one process checks at a time; `begin` is None for the log's beginning, `end` for its end."""

    begin: Cut | None
    end: Cut | None
    is_first: bool

    @property
    def begun_lsn(self) -> int:
        """It counts what stands past this."""
        return 0 if self.begin is None else self.begin.at_lsn


@dataclass(frozen=True, slots=True)
class Passed:
    """A part in which all follows, past `begun_lsn`; `state` is that of the end of the log, as a `BaseState`."""

    begun_lsn: int
    counted: Counted
    inferences: Reinference | None
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Missing:
    """The payload of this record was taken out: an audit begins after it."""

    lsn: int


@dataclass(frozen=True, slots=True)
class Unfit:
    """The log is not to be cut where the state of a record after `lsn`, up to `upto_lsn`, is handed over."""

    lsn: int
    upto_lsn: int


@dataclass(frozen=True, slots=True)
class Unproven:
    """Something does not follow, or cannot be said, or nobody waits for it any more."""


Outcome = Passed | Missing | Unfit | Unproven


class Hands(Protocol):
    """Who checks the parts."""

    count: int

    def run(self, path: Path, parts: Sequence[Part], tell: Callable[[int], None]) -> Sequence[Outcome]:
        """What came of each; `tell` is told how many records are checked.

        Where one is `Missing`, those after it may be `Unproven`; where one is `Unproven`, all may be.
        """


def in_parts(
    path: Path, first_lsn: int, last_lsn: int, hands: Hands, progress: Callable[[int], None] | None = None
) -> tuple[Replay, Reinference | None] | None:
    """Recompute a log that passes; None where it does not, or there is nothing to be gained.

    Args:
        path: the log.
        first_lsn: the first record that is left of it.
        last_lsn: where it ended a moment ago; what is appended since is checked as well.
        hands: those who do it.
        progress: called with the LSN up to which a single process would be about now.
    """
    known: dict[Part, Passed] = {}
    unfit: list[Unfit] = []
    missing_lsn = first_lsn - 1
    try:
        while True:
            parts = _parts(path, missing_lsn, last_lsn, hands.count, unfit)
            if len(parts) == 1:
                return None
            left = [part for part in parts if part not in known]
            so_far = parts[0].begun_lsn + sum(_length(part, last_lsn) for part in parts if part in known)
            outcomes = hands.run(path, left, _from(so_far, progress))
            known.update((part, one) for part, one in zip(left, outcomes, strict=True) if isinstance(one, Passed))
            if all(part in known for part in parts):
                return _together([known[part] for part in parts])
            first = next(one for one in outcomes if not isinstance(one, Passed))
            if isinstance(first, Unproven):
                return None
            if isinstance(first, Missing):
                missing_lsn = first.lsn
            unfit += [one for one in outcomes if isinstance(one, Unfit)]
    except (JournalUnreadable, wal.LogError) as error:
        logger.info("the log is not audited in parts: %s", str(error))
    except BrokenExecutor:
        logger.warning("a process of the audit was ended, or not begun, as when memory runs out: one audits it all")
    return None


def _parts(path: Path, missing_lsn: int, last_lsn: int, workers: int, unfit: Sequence[Unfit]) -> list[Part]:
    """Raises JournalUnreadable, wal.LogError."""
    begin = None
    if missing_lsn:
        lsn, base = base_past(path, missing_lsn)
        begin = Cut(lsn, base.at_lsn, base.needs_lsn)
    begun_lsn, from_lsn = (0, 1) if begin is None else (begin.at_lsn, begin.from_lsn)
    found = [
        cut
        for cut in cuts(path, begun_lsn, from_lsn, last_lsn, workers * PARTS_EACH)
        if not any(one.lsn < cut.at_lsn <= one.upto_lsn for one in unfit)
    ]
    ends = [begin, *found, None]
    return [Part(one, other, is_first=place == 0) for place, (one, other) in enumerate(pairwise(ends))]


def _length(part: Part, last_lsn: int) -> int:
    return (last_lsn if part.end is None else part.end.at_lsn) - part.begun_lsn


def _from(so_far: int, progress: Callable[[int], None] | None) -> Callable[[int], None]:
    def tell(records: int) -> None:
        if progress is not None:
            progress(so_far + records)

    return tell


def _together(parts: Sequence[Passed]) -> tuple[Replay, Reinference | None]:
    state = state_of(journal.BaseState.FromString(parts[-1].state))
    whole = Replay(state=state, begun_lsn=parts[0].begun_lsn)
    for part in parts:
        whole.add(part.counted)
    asked = [part.inferences for part in parts if part.inferences is not None]
    return whole, joined(asked) if asked else None


class _Upto:
    """A follower that is told nothing past an LSN: a step that is under way there is the next part's."""

    def __init__(self, follower: Follower, lsn: int) -> None:
        self._follower, self._lsn = follower, lsn

    def recall(self, lsn: int, event: Event, state: State) -> None:
        self._follower.recall(lsn, event, state)

    def take(self, lsn: int, event: Event, standing: Standing) -> None:
        if lsn <= self._lsn:
            self._follower.take(lsn, event, standing)


def checked(path: Path, part: Part, asked: Asked | None, goes_on: Callable[[int], bool]) -> Outcome:
    """Check a part.

    Args:
        path: the log.
        part: of it.
        asked: for level 3, somebody who has followed nothing yet.
        goes_on: told now and then how many records of it were checked; whether to go on.
    """
    try:
        while True:
            try:
                return _Check(path, part, asked, goes_on).run()
            except RecordRedacted as redacted:
                if asked is not None and asked.finish().divergence is not None:
                    return Unproven()
                later = _begun_past(path, part, redacted.lsn)
                if later is None:
                    return Missing(redacted.lsn)
                part = later
    except Exception as error:  # noqa: BLE001  what is recalled is unchecked here; whoever reads all of it says what it is
        logger.info("a part of the log is left to a process that reads all of it: %s", in_words(error))
        return Unproven()


def _begun_past(path: Path, part: Part, missing_lsn: int) -> Part | None:
    """The first part, begun after a record that was taken out, where that is before its end."""
    if not part.is_first or part.end is None:
        return None
    lsn, base = base_past(path, missing_lsn)
    begin = Cut(lsn, base.at_lsn, base.needs_lsn)
    return replace(part, begin=begin) if begin.at_lsn < part.end.at_lsn else None


class _Check:
    """One part under way."""

    def __init__(self, path: Path, part: Part, asked: Asked | None, goes_on: Callable[[int], bool]) -> None:
        self._path, self._part, self._asked, self._goes_on = path, part, asked, goes_on
        self._reports_known = part.is_first
        self._reports_lsn = 0

    def run(self) -> Outcome:
        part, asked = self._part, self._asked
        base, entries = read_from(self._path, part.begin)
        if asked is not None:
            asked.begin(base)
        if base is not None and base.at_lsn != part.begun_lsn:
            return Unproven()
        if base is not None and part.begin is not None and not part.is_first:
            self._reports_lsn = base.state.outbox.reports_lsn
            self._reports_known = part.begin.from_lsn <= self._reports_lsn + 1
        follower: Follower | None = asked
        if asked is not None and part.end is not None:
            follower = _Upto(asked, part.end.at_lsn)
        auditor = begun_with(base, follower)
        if part.end is not None:
            return self._to_the_cut(auditor, entries, part.end)
        for entry in entries:
            wrong = self._take(auditor, entry)
            if wrong is not None:
                return wrong
        auditor.finish()
        return self._passed(auditor, auditor.found.counted(), state_message(auditor.found.state).SerializeToString())

    def _to_the_cut(self, auditor: Auditor, entries: Iterable[wal.Entry], end: Cut) -> Outcome:
        counted = None
        no_cut = Unfit(end.at_lsn - 1, end.at_lsn)
        for entry in entries:
            compared = auditor.found.digests if entry.lsn == end.lsn else 0
            wrong = self._take(auditor, entry)
            if wrong is not None:
                return wrong
            if entry.lsn == end.at_lsn:
                if entry.kind != KINDS[journal.StepReceived] or not auditor.between_steps:
                    return no_cut
                counted = auditor.found.counted()
            if entry.lsn == end.lsn:
                handed_over = entry.kind == KINDS[journal.StateBase] and auditor.found.digests > compared
                return self._passed(auditor, counted) if handed_over and counted is not None else no_cut
        return Unproven()

    def _take(self, auditor: Auditor, entry: wal.Entry) -> Outcome | None:
        """The next record; what is wrong, if anything is."""
        part = self._part
        lsn, begun_lsn = entry.lsn, part.begun_lsn
        if not part.is_first:
            if lsn > begun_lsn:
                unknown_lsn = self._unknown(entry) if entry.kind in SPEAKING_OF_BEFORE else None
                if unknown_lsn is not None:
                    return Unfit(unknown_lsn, begun_lsn)
            elif isinstance(entry, wal.Redacted):
                self._reports_known &= lsn <= self._reports_lsn
            elif entry.kind not in RECALLED:
                return None
        auditor.advance(entry)
        if auditor.diverged:
            return Unproven()
        if lsn % TELL_EVERY == 0:
            vain = self._asked is not None and not _is_pass(self._asked.found)
            upto_lsn = lsn if part.end is None else min(lsn, part.end.at_lsn)
            if vain or not self._goes_on(max(upto_lsn - begun_lsn, 0)):
                return Unproven()
        return None

    def _unknown(self, entry: wal.Entry) -> int | None:
        """Where the part would have to begin at the latest, for what a record speaks of to be known; or None."""
        if entry.kind in LOOKED_BACK:
            spoken_of = _spoken_of(event_of(entry))
            return spoken_of if spoken_of < self._part.begun_lsn else None
        if not self._reports_known:
            event = event_of(entry)
            if isinstance(event, journal.PublishAttempted) and event.attempt == 1:
                return self._reports_lsn
        return None

    def _passed(self, auditor: Auditor, counted: Counted, state: bytes = b"") -> Outcome:
        again = None if self._asked is None else self._asked.finish()
        if auditor.diverged or not (again is None or _is_pass(again)):
            return Unproven()
        return Passed(self._part.begun_lsn, counted, again, state)


def _spoken_of(event: Event) -> int:
    """The LSN whose state it names."""
    if isinstance(event, journal.RetentionCompleted):
        return event.digest_lsn
    return event.at_lsn if isinstance(event, journal.StateBase | journal.SnapshotTaken) else 0


def _is_pass(found: Reinference) -> bool:
    return found.divergence is None and not found.unknown
