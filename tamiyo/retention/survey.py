"""Reads from a log what a plan asks: its segments, how old what is, its bases, and what earlier runs came to.

Rule 1: reading stops as soon as nothing further can matter. The beginning is read for its times, the end for bases and
        for the last plan; a plan without its completion is one that was interrupted.
Rule 2: it reads only, beside a live writer too.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import read_base
from tamiyo.core.events import KINDS, Event
from tamiyo.core.evolve import Fold
from tamiyo.core.paced import Pace, without_rest
from tamiyo.core.retention import BaseMark, Holdings, Plan, Segment, Windows
from tamiyo.core.state import Outbox, State
from tamiyo.retention.source import Source, entries_past, last_lsn_of
from tamiyo.stored import event_of

__all__ = [
    "Payloads",
    "Survey",
    "count_payloads",
    "entries_backwards",
    "event_time_at",
    "horizon_of",
    "state_of_log",
    "survey",
    "takes",
]

LOOKED_BACK = frozenset(
    KINDS[kind] for kind in (journal.StateBase, journal.RetentionPlanned, journal.RetentionCompleted)
)
FIRST_ENTRIES = 64
"""So many records of a segment are looked at for the first one that says when it was."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a log holds, and the run that was begun and not completed, with the LSN of its plan.

    `run_ids` are those of the last runs.
    """

    holdings: Holdings
    unfinished: tuple[int, journal.RetentionPlanned] | None = None
    run_ids: frozenset[str] = frozenset()


@dataclass(slots=True)
class _LookedBack:
    """What the records that look back say, the newest segment first."""

    bases: list[BaseMark] = field(default_factory=list)
    plans: dict[int, journal.RetentionPlanned] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)

    def take(self, lsn: int, event: Event) -> None:
        if isinstance(event, journal.StateBase):
            self.bases.append(BaseMark(lsn, event.at_lsn, event.needs_lsn))
        elif isinstance(event, journal.RetentionPlanned):
            self.plans[lsn] = event
        elif isinstance(event, journal.RetentionCompleted):
            self.completed.add(event.run_id)

    def unfinished(self) -> tuple[int, journal.RetentionPlanned] | None:
        open_plans = [(lsn, plan) for lsn, plan in self.plans.items() if plan.run_id not in self.completed]
        return max(open_plans, key=lambda found: found[0], default=None)

    def taken(self) -> Mapping[int, int]:
        """By kind, how far the last completed run went."""
        done = [(lsn, plan) for lsn, plan in self.plans.items() if plan.run_id in self.completed]
        if not done:
            return {}
        _, last = max(done, key=lambda found: found[0])
        return {window.kind: window.upto_lsn for window in last.payloads}

    def suffices(self, outbox: Outbox) -> bool:
        """Whether reading on, towards the beginning, would find nothing that matters: the base, and one before it."""
        fit = [base for base in self.bases if base.at_lsn <= outbox.telemetry_lsn]
        return len(fit) > 1 and any(plan.run_id in self.completed for plan in self.plans.values())


def survey(source: Source, outbox: Outbox, windows: Windows, now_ns: int, pace: Pace = without_rest) -> Survey:
    """What a plan at event time `now_ns` asks.

    Raises:
        JournalUnreadable: a record cannot be read by this version.
        wal.LogError: the log cannot be read.
    """
    segments = source.segments()
    back = _LookedBack()
    if segments and outbox.telemetry_lsn >= segments[0].first_lsn:
        _look_back(source, segments, outbox, back, pace)
    cuts = {now_ns - window for window in (windows.log_ns, *windows.payloads.values()) if window is not None}
    holdings = Holdings(
        segments=[_segment(segment) for segment in segments],
        times=_times(source, segments, cuts, pace),
        bases=sorted(back.bases, key=lambda base: base.lsn),
        outbox=outbox,
        taken=back.taken(),
    )
    run_ids = frozenset(plan.run_id for plan in back.plans.values())
    return Survey(holdings, back.unfinished(), run_ids)


def _segment(info: wal.SegmentInfo) -> Segment:
    return Segment(info.number, info.first_lsn, last_lsn_of(info), info.size_bytes, finished=info.finished)


def _look_back(source: Source, segments: list[wal.SegmentInfo], outbox: Outbox, found: _LookedBack, pace: Pace) -> None:
    for segment in reversed(segments):
        for entry in _entries_of(source, segment, pace):
            if entry.kind in LOOKED_BACK:
                found.take(entry.lsn, event_of(entry))
        if found.suffices(outbox):
            return


def entries_backwards(source: Source, pace: Pace) -> Iterator[wal.Entry]:
    """The entries of a log, the last one first; one segment's in memory at a time. Raises what reading raises."""
    for segment in reversed(source.segments()):
        yield from reversed(list(_entries_of(source, segment, pace)))


def _entries_of(source: Source, segment: wal.SegmentInfo, pace: Pace) -> Iterator[wal.Entry]:
    for entry in entries_past(source, segment.first_lsn - 1, pace):
        if entry.lsn > last_lsn_of(segment):
            return
        yield entry


def _times(source: Source, segments: list[wal.SegmentInfo], cuts: Collection[int], pace: Pace) -> list[tuple[int, int]]:
    """When each segment begins, as far as that matters; within one that a cut goes through, every record that says."""
    begins: list[tuple[int, int]] = []
    newest_cut = max(cuts, default=0)
    for segment in segments:
        first = _first_time(source, segment)
        pace()
        if first is not None:
            begins.append(first)
            if first[1] >= newest_cut:
                break
    places = {place for cut in cuts if (place := bisect_left([at for _, at in begins], cut))}
    times = set(begins)
    for place in places:
        end_lsn = begins[place][0] if place < len(begins) else 2**63
        times |= _all_times(source, begins[place - 1][0], end_lsn, newest_cut, pace)
    return sorted(times)


def _first_time(source: Source, segment: wal.SegmentInfo) -> tuple[int, int] | None:
    for entry in source.reader(segment.first_lsn - 1).poll(FIRST_ENTRIES):
        time_ns = _time_of(entry)
        if time_ns and entry.lsn <= last_lsn_of(segment):
            return entry.lsn, time_ns
    return None


def event_time_at(source: Source, lsn: int) -> int:
    """The event time, in ns, of the first record from an LSN on that says so; 0 where none of the next does."""
    found = (_time_of(entry) for entry in source.reader(lsn - 1).poll(FIRST_ENTRIES))
    return next((time_ns for time_ns in found if time_ns), 0)


def _all_times(source: Source, first_lsn: int, end_lsn: int, newest_ns: int, pace: Pace) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for entry in entries_past(source, first_lsn - 1, pace):
        time_ns = _time_of(entry)
        if entry.lsn >= end_lsn or time_ns >= newest_ns:
            break
        if time_ns:
            found.add((entry.lsn, time_ns))
    return found


def _time_of(entry: wal.Entry) -> int:
    """When the record was made, 0 where it does not say."""
    if isinstance(entry, wal.Redacted):
        return 0
    time_ns = getattr(event_of(entry), "event_time_ns", 0)
    return int(time_ns)


@dataclass(frozen=True, slots=True)
class Payloads:
    """How many payloads of each kind there are, and their bytes together."""

    records: Mapping[int, int]
    size_bytes: int

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(self.records.values())


def count_payloads(source: Source, plan: Plan, taken: Mapping[int, int], pace: Pace = without_rest) -> Payloads:
    """The payloads that a plan takes, besides those in segments that go whole. Raises what reading raises."""
    counted: Counter[int] = Counter()
    size_bytes = 0
    segments = source.segments()
    first_lsn = segments[0].first_lsn if segments else 1
    done = min((taken.get(kind, 0) for kind in plan.payloads), default=0)
    after_lsn = max(done, plan.prune_before_lsn - 1, first_lsn - 1)
    for entry in entries_past(source, after_lsn, pace) if plan.upto_lsn > after_lsn else ():
        if entry.lsn > plan.upto_lsn:
            break
        if takes(plan.payloads)(entry) and not isinstance(entry, wal.Redacted):
            counted[entry.kind] += 1
            size_bytes += len(entry.payload)
    return Payloads(dict(counted), size_bytes)


def takes(payloads: Mapping[int, int]) -> Callable[[wal.Entry], bool]:
    """Whether the payload of an entry goes, by kind and LSN."""
    return lambda entry: entry.lsn <= payloads.get(entry.kind, 0)


def state_of_log(source: Source, pace: Pace = without_rest) -> State:
    """The state at the end of a log that is not open here: folded from the last base in it.

    Raises:
        JournalUnreadable: the log's beginning was pruned, and no base in it says what was before.
        wal.LogError: the log cannot be read.
    """
    segments = source.segments()
    base: journal.StateBase | None = None
    for segment in reversed(segments):
        bases = [
            event_of(entry) for entry in _entries_of(source, segment, pace) if entry.kind == KINDS[journal.StateBase]
        ]
        base = next((event for event in reversed(bases) if isinstance(event, journal.StateBase)), None)
        if base is not None:
            break
    fold = Fold(State() if base is None else read_base(base, pace))
    for entry in entries_past(source, fold.last_lsn, pace):
        fold.take(entry.lsn, event_of(entry))
    return fold.state()


def horizon_of(source: Source, missing_lsn: int, pace: Pace = without_rest) -> int | None:
    """The LSN past which an audit recomputes decisions, where nothing up to `missing_lsn` can be read.

    0 where nothing is missing; None where no base says what the missing came to. Raises what reading raises.
    """
    if not missing_lsn:
        return 0
    for entry in entries_past(source, missing_lsn, pace):
        if entry.kind == KINDS[journal.StateBase]:
            base = event_of(entry)
            if isinstance(base, journal.StateBase) and base.needs_lsn > missing_lsn:
                return base.at_lsn
    return None
