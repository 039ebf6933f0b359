"""A retention run, from its plan to its completion.

    survey ─▶ plan (journaled) ─▶ archive ─▶ prove ─▶ prune ─▶ redact ─▶ prove ─▶ complete (journaled)

Rule 1: what goes is fixed in a durable record before anything goes, and taken exactly so: a run that was interrupted
        anywhere is found by its plan, and the next one finishes it first.
Rule 2: nothing goes before the log from the base that stays on was folded and came to the state that there is.
Rule 3: pruning comes before redaction: it needs no free space and makes some, and what goes whole is not rewritten.
Rule 4: nothing here is on a step's way. It rests all along (`pace`), and what `pace` raises ends it as a crash would.
"""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.evolve import evolve
from tamiyo.core.paced import Pace, without_rest
from tamiyo.core.retention import SEGMENTS_MAX, Plan, Windows, plan
from tamiyo.core.state import State
from tamiyo.errors import HeadNotKept, NotRecorded, RetentionBusy
from tamiyo.journal import Journal
from tamiyo.records import JournalUnavailable, Recorded
from tamiyo.retention.archive import Archive
from tamiyo.retention.prove import base_at, confirm, prove, state_before
from tamiyo.retention.report import Outcome, Report
from tamiyo.retention.survey import Survey, count_payloads, survey, takes

__all__ = ["STAGES", "Order", "Retention", "Tell", "silently"]

STAGES = ("survey", "plan", "archive", "prove", "prune", "redact", "prove again", "complete")
Tell = Callable[[str, str], None]
"""Told each stage as it begins, and a word on it."""

SEGMENTS_IN_EMERGENCY = 8
TRIES, TRY_EVERY_S = 200, 0.05
"""While the log is busy, and while a state is not durable yet: ten seconds."""
WAIT_S = 1.0


def silently(stage: str, detail: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of one call. `run_id` names it for ever: the same again is the same run.

    `archive` is the folder that pruned segments are kept in; `keep_heads` are heads of this log, kept elsewhere, that
    are to stay provable although their records go.
    """

    run_id: str
    archive: Path | None = None
    keep_heads: tuple[wal.Head, ...] = ()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run under way: its plan with its LSN, and a durable state at or after it."""

    lsn: int
    planned: journal.RetentionPlanned
    state: State
    log: wal.Log
    taken_lsn: int  # up to which an earlier run has taken all payloads that this one takes
    earlier: State | None = None  # a state before the base's, that the log can be folded on from
    archive: Path | None = None
    heads: tuple[wal.Head, ...] = ()
    resumed: bool = False

    @property
    def payloads(self) -> dict[int, int]:
        return {window.kind: window.upto_lsn for window in self.planned.payloads}

    @property
    def gone_lsn(self) -> int:
        return max(self.planned.prune_before_lsn - 1, *self.payloads.values(), 0)


class Retention:
    """The retention of one journal. Every method may be called from any thread but that of a step."""

    def __init__(self, journal_: Journal, windows: Windows) -> None:
        """`windows` are in force for every run that is begun here."""
        self._journal = journal_
        self._windows = windows
        self._at_work = threading.Lock()

    def run(self, order: Order, *, pace: Pace = without_rest, tell: Tell = silently) -> Report:
        """Finish what an earlier process has begun, then take what is due.

        Args:
            order: what is asked.
            pace: called all along.
            tell: told each stage.

        Raises:
            RetentionBusy: another run is at work.
            NotRecorded: the log takes no record at the moment; nothing was changed.
            ArchiveUnusable: the folder takes nothing; nothing was taken away.
            HeadNotKept: a head to keep is not one of this log; nothing was changed.
            RetentionUnproven: what would be left does not come to the same state; nothing more was taken away.
            JournalUnreadable: a record cannot be read by this version.
            wal.LogError, OSError: the disk failed or is full. The run is begun and not complete: run again.
        """
        if not self._at_work.acquire(blocking=False):
            raise RetentionBusy("a retention run of this log is at work; its completion will stand in the log")
        try:
            return self._run(order, pace, tell)
        finally:
            self._at_work.release()

    def _run(self, order: Order, pace: Pace, tell: Tell) -> Report:
        log = self._journal.log
        pace = _while_it_works(log, pace)
        _keep_heads(log, order)
        if order.archive is not None:
            folder = order.archive.absolute()
            Archive(folder, log.head().log_id).require()
            order = replace(order, archive=folder)
        found = self._survey(log, pace, tell)
        outcomes: list[Outcome] = []
        if found.unfinished is not None:
            outcomes.append(self._resume(found.unfinished, order, log, pace, tell))
            found = self._survey(log, pace, tell)
        while True:
            drafted = plan(self._journal.now_ns(), found.holdings, self._windows)
            counted = count_payloads(log, drafted, found.holdings.taken, pace)
            if not drafted.segments and not counted.total:
                return Report(tuple(outcomes), drafted.held, drafted.wants_base)
            begun = self._begin(found, _named_anew(order, found.run_ids), log, pace, tell)
            if begun is None:  # the log was reopened meanwhile, and may have lost what the survey found
                raise NotRecorded("the log was reopened while a retention run was planned; run again")
            outcomes.append(self._finish(begun, pace, tell))
            found = self._survey(log, pace, tell)

    def _survey(self, log: wal.Log, pace: Pace, tell: Tell) -> Survey:
        tell("survey", f"reading {log.path}")
        return survey(log, self._journal.state.outbox, self._windows, self._journal.now_ns(), pace)

    def _begin(self, found: Survey, order: Order, log: wal.Log, pace: Pace, tell: Tell) -> _Begun | None:
        """Journal the plan, durably, before anything else."""
        made: list[_Begun] = []

        def make(most: int) -> Callable[[State, int], tuple[Event, ...]]:
            def planned(state: State, now_ns: int) -> tuple[Event, ...]:
                made.clear()
                drafted = plan(now_ns, found.holdings, self._windows, segments_max=most)
                if self._journal.log is not log or drafted.empty:
                    return ()
                event, lsn = self._event(drafted, order), state.last_lsn + 1
                made.append(
                    _Begun(
                        lsn, event, evolve(state, lsn, event), log, _taken_lsn(drafted, found),
                        archive=order.archive, heads=order.keep_heads,
                    )
                )  # fmt: skip
                return (event,)

            return planned

        tell("plan", order.run_id)
        earlier = state_before(log, plan(self._journal.now_ns(), found.holdings, self._windows), found.holdings, pace)
        self._record(make(SEGMENTS_MAX), log, pace, in_emergency=make(SEGMENTS_IN_EMERGENCY))
        return replace(made[0], earlier=earlier) if made else None

    def _event(self, drafted: Plan, order: Order) -> journal.RetentionPlanned:
        heads = [str(head) for head in order.keep_heads]
        return drafted.event(order.run_id, self._windows, archive=str(order.archive or ""), keep_heads=heads)

    def _resume(
        self, unfinished: tuple[int, journal.RetentionPlanned], order: Order, log: wal.Log, pace: Pace, tell: Tell
    ) -> Outcome:
        """Finish the run of an earlier process, as it was planned; into another archive where one is given now."""
        lsn, planned = unfinished
        begun = _Begun(
            lsn, planned, self._durable_state(log, pace), log, taken_lsn=0, resumed=True,
            archive=(order.archive or Path(planned.archive)) if planned.archive else None,
            heads=_heads_of(planned, order),
        )  # fmt: skip
        return self._finish(begun, pace, tell)

    def _durable_state(self, log: wal.Log, pace: Pace) -> State:
        state = self._journal.state
        for _ in range(TRIES):
            if log.durable_lsn >= state.last_lsn:
                return state
            time.sleep(TRY_EVERY_S)
            pace()
        raise NotRecorded("the log's last records are not durable yet; nothing was taken away: run again")

    def _finish(self, begun: _Begun, pace: Pace, tell: Tell) -> Outcome:
        log, planned = begun.log, begun.planned
        base = base_at(log, planned.base_lsn, pace)
        tell("archive", str(begun.archive or "not asked for"))
        kept = self._archived(begun, pace)
        tell("prove", f"folding from LSN {base.at_lsn} on")
        if begun.earlier is not None:
            confirm(log, base, begun.earlier, pace)
        prove(log, base, begun.gone_lsn, begun.lsn, begun.state, pace)
        if self._journal.snapshots is not None:
            self._journal.snapshots.drop_before(base.at_lsn)
        tell("prune", f"{len(planned.segments)} segments")
        pruned = log.prune(planned.prune_before_lsn, keep_heads=begun.heads)
        tell("redact", f"up to LSN {max(begun.payloads.values(), default=0)}")
        redaction = self._redacted(begun, pace)
        tell("prove again", f"folding from LSN {base.at_lsn} on")
        digest = prove(log, base_at(log, planned.base_lsn, pace), begun.gone_lsn, begun.lsn, begun.state, pace)
        completed = journal.RetentionCompleted(
            run_id=planned.run_id,
            first_lsn=pruned.first_lsn,
            freed_bytes=sum(segment.size_bytes for segment in kept) + redaction.freed_bytes,
            payloads_redacted=redaction.records,
            segments=kept,
            digest_lsn=begun.lsn,
            digest=digest,
            resumed=begun.resumed,
        )
        tell("complete", planned.run_id)
        self._record(lambda _, now_ns: (_at(completed, now_ns),), log, pace)
        return Outcome(planned, completed)

    def _archived(self, begun: _Begun, pace: Pace) -> list[journal.PrunedSegment]:
        """The segments that go, each kept first where that was asked for. Those gone already were kept before."""
        segments = [journal.PrunedSegment.FromString(going.SerializeToString()) for going in begun.planned.segments]
        if begun.archive is None or not segments:
            return segments
        log_id, planned = begun.log.head().log_id, Path(begun.planned.archive)
        there = {info.number: info.path for info in begun.log.segments()}
        for segment in segments:
            path = there.get(segment.segment)
            if path is None:
                archive = Archive(planned, log_id)
                name = archive.name_of(segment.segment, segment.first_lsn)
                segment.archived_as, segment.archived_sha256 = name, archive.sha256(name, pace)
            else:
                name, segment.archived_sha256 = Archive(begun.archive, log_id).keep(path, pace)
                segment.archived_as = name if begun.archive == planned else str(begun.archive / name)
        return segments

    def _redacted(self, begun: _Begun, pace: Pace) -> wal.Redaction:
        payloads = begun.payloads
        goes = takes(payloads)

        def paced(entry: wal.Entry) -> bool:
            pace()
            return goes(entry)

        upto_lsn = max(payloads.values(), default=0)
        after_lsn = max(begun.taken_lsn, begun.planned.prune_before_lsn - 1)
        return begun.log.redact(paced, after_lsn=after_lsn, upto_lsn=upto_lsn, pace=pace)

    def _record(
        self,
        make: Callable[[State, int], tuple[Event, ...]],
        log: wal.Log,
        pace: Pace,
        *,
        in_emergency: Callable[[State, int], tuple[Event, ...]] | None = None,
    ) -> None:
        """Record, where need be in the room for emergencies, and wait until it is durable."""
        recorded = self._taken(make, in_emergency or make, log, pace)
        while recorded is not None:
            try:
                recorded.result(WAIT_S)
            except TimeoutError:
                pace()
            else:
                return

    def _taken(
        self,
        make: Callable[[State, int], tuple[Event, ...]],
        in_emergency: Callable[[State, int], tuple[Event, ...]],
        log: wal.Log,
        pace: Pace,
    ) -> Recorded | None:
        for _ in range(TRIES):
            try:
                return self._journal.record_aside(make, log=log)
            except JournalUnavailable as unavailable:
                cause = unavailable
            if cause.cause == "log_full":
                try:
                    return self._journal.record_in_emergency(in_emergency, log=log)
                except JournalUnavailable as unavailable:
                    cause = unavailable
            if cause.cause != "timeout_wal":
                break
            time.sleep(TRY_EVERY_S)  # the log is busy, for one with making room
            pace()
        raise NotRecorded(
            f"the log takes no record of the retention run ({cause.cause}): run again once it does. Where the disk is "
            "so full that it never will, close whoever has the log open and run `tamiyo retain DIRECTORY --unrecorded`"
        ) from cause


def _named_anew(order: Order, run_ids: Collection[str]) -> Order:
    """One order may take several runs: the first has its id, and no two have the same."""
    names = (order.run_id if number == 1 else f"{order.run_id}-{number}" for number in count(1))
    return replace(order, run_id=next(name for name in names if name not in run_ids))


def _heads_of(planned: journal.RetentionPlanned, order: Order) -> tuple[wal.Head, ...]:
    """Those that were promised then, and those that are wanted now: neither asker knows of the other."""
    promised = tuple(wal.Head.parse(head) for head in planned.keep_heads)
    return tuple(dict.fromkeys((*promised, *order.keep_heads)))


def _at(completed: journal.RetentionCompleted, now_ns: int) -> journal.RetentionCompleted:
    completed.event_time_ns = now_ns
    return completed


def _taken_lsn(drafted: Plan, found: Survey) -> int:
    """Up to where an earlier run has taken the payloads of every kind that goes now."""
    return min((found.holdings.taken.get(kind, 0) for kind in drafted.payloads), default=0)


def _while_it_works(log: wal.Log, pace: Pace) -> Pace:
    """The pace of work on a log that may fail meanwhile: it is reopened as soon as nobody works on it."""

    def watchful() -> None:
        pace()
        if log.failure is not None:
            raise NotRecorded(
                f"the log failed during a retention run ({log.failure}): what was begun is finished by the next run"
            )

    return watchful


def _keep_heads(log: wal.Log, order: Order) -> None:
    """Promise it in the log before anything is planned, also where nothing goes now: a later run would take them."""
    for head in order.keep_heads:
        found = log.standing(head)
        if found != "confirmed":
            raise HeadNotKept(f"{head} cannot be kept: against {log.path} it is {found}. Nothing was changed")
    if order.keep_heads:
        log.prune(0, keep_heads=order.keep_heads)
