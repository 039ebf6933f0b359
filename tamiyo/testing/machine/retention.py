"""The laws of retention, kept by a second bookkeeper that reads the log and looks at what is left of it.

It knows the requirements, not the code: nothing goes before its window has passed and the bus has it; what goes is what
a plan in the log says, no more and no less; and what is left comes to the same state.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import wal
from tamiyo.audit import Replay, replay
from tamiyo.audit.agreement import Reinference
from tamiyo.audit.inference import Inferences, past_policies
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, Event
from tamiyo.core.retention import Windows
from tamiyo.errors import RecordRedacted
from tamiyo.stored import event_of
from tamiyo.testing.machine.law import LawBroken, require
from tamiyo.testing.machine.publishing import BusBook

__all__ = ["RetentionBook", "audited", "replayed"]

OLD = "nothing goes before its window has passed"
TOLD = "nothing goes that is still to be published"
PLANNED = "what goes is what a plan in the log says"
BOUNDED = "a plan names what it takes, and no more than one run may"
TOLD_BY = frozenset(KINDS[kind] for kind in (journal.RetentionPlanned, journal.RetentionCompleted))
SEGMENTS_MAX = 64
"""Of one run."""


class RetentionBook:
    """Follows the events of a log in order; raises `LawBroken` at the first that breaks a law.

    `windows` are those in force; `plans` the plans so far, `completed` by run id those that came to their end; `heads`
    were promised to stay provable.
    """

    def __init__(self, bus: BusBook) -> None:
        self.windows = Windows()
        self.plans: list[journal.RetentionPlanned] = []
        self.completed: dict[str, journal.RetentionCompleted] = {}
        self.heads: set[wal.Head] = set()
        self._bus = bus
        self._times: list[tuple[int, int]] = []  # (LSN, event time in ns), of records that have one

    def take(self, lsn: int, event: Event, kept_back: Collection[str]) -> None:
        """One more event; `kept_back` are the ids of reports that are not published: dropped and superseded ones."""
        if isinstance(event, journal.RetentionPlanned):
            self._require_due(event, kept_back)
            self.plans.append(event)
            self.heads.update(wal.Head.parse(head) for head in event.keep_heads)
        elif isinstance(event, journal.RetentionCompleted):
            self._complete(event)
        time_ns = getattr(event, "event_time_ns", 0)
        if time_ns:
            self._times.append((lsn, time_ns))

    @property
    def unfinished(self) -> list[str]:
        """The runs that were planned and did not come to their end."""
        return [plan.run_id for plan in self.plans if plan.run_id not in self.completed]

    def require_left(self, now: Sequence[wal.Entry], before: Sequence[wal.Entry], law: str) -> None:
        """`now` is what the log has of its records, `before` the first of them as they were written."""
        first_lsn = now[0].lsn if now else 1
        plans, done = self._plans_with([entry for entry in now if entry.lsn > len(before)])
        begins = {_beginning(plans), _beginning(done)}
        require(first_lsn in begins, PLANNED, f"the log begins with LSN {first_lsn}, and not with one of {begins}")
        may_go, must_go = _payloads(plans), _payloads(done)
        for was, entry in zip(before[first_lsn - 1 :], now, strict=False):
            if isinstance(entry, wal.Redacted):
                planned = (entry.lsn, entry.kind) == (was.lsn, was.kind) and entry.lsn <= may_go.get(entry.kind, 0)
                require(planned, PLANNED, f"the payload of LSN {entry.lsn} is gone")
            else:
                require(entry == was, law, f"LSN {was.lsn} is not what it was")
                due = entry.lsn <= must_go.get(entry.kind, 0)
                require(not due, PLANNED, f"the payload of LSN {entry.lsn} is there")
        missing = len(before) - (first_lsn - 1 + len(now))
        require(missing <= 0, law, f"the last {missing} of {len(before)} records that were durable are not there")

    def _plans_with(
        self, fresh: Iterable[wal.Entry]
    ) -> tuple[list[journal.RetentionPlanned], list[journal.RetentionPlanned]]:
        """All plans, and those of them that came to their end, with what records say that were not taken yet."""
        events = [event_of(entry) for entry in fresh if entry.kind in TOLD_BY]
        plans = [*self.plans, *(event for event in events if isinstance(event, journal.RetentionPlanned))]
        ended = {event.run_id for event in events if isinstance(event, journal.RetentionCompleted)}
        return plans, [plan for plan in plans if plan.run_id in self.completed.keys() | ended]

    def _require_due(self, plan: journal.RetentionPlanned, kept_back: Collection[str]) -> None:
        for lsn, window_ns in self._going(plan):
            youngest = next((time_ns for at_lsn, time_ns in reversed(self._times) if at_lsn <= lsn), 0)
            old = window_ns is not None and youngest < plan.event_time_ns - window_ns
            require(old, OLD, f"up to LSN {lsn}, of {youngest}, with the window {window_ns}: {plan}")
            untold = self._bus.untold(lsn).difference(kept_back)
            require(not untold, TOLD, f"up to LSN {lsn}: {untold}")
        last_lsn = max([segment.last_lsn for segment in plan.segments], default=plan.prune_before_lsn - 1)
        require(last_lsn == plan.prune_before_lsn - 1 or not plan.prune_before_lsn, BOUNDED, plan)
        require(len(plan.segments) <= SEGMENTS_MAX, BOUNDED, plan)

    def _going(self, plan: journal.RetentionPlanned) -> Iterable[tuple[int, int | None]]:
        """How far each part of a plan goes, with the window that it must have passed; None where nothing may go."""
        if plan.prune_before_lsn:
            yield plan.prune_before_lsn - 1, self.windows.log_ns
        for going in plan.payloads:
            yield going.upto_lsn, self.windows.payloads.get(going.kind)

    def _complete(self, event: journal.RetentionCompleted) -> None:
        plan = next((plan for plan in self.plans if plan.run_id == event.run_id), None)
        known = plan is not None and event.run_id not in self.completed
        require(known, "a run that is planned is completed, once", event)
        self.completed[event.run_id] = event
        begins = _beginning(plan for plan in self.plans if plan.run_id in self.completed)
        require(event.first_lsn == begins, PLANNED, f"{event}; the plans say {begins}")


def _beginning(plans: Iterable[journal.RetentionPlanned]) -> int:
    """The first LSN of a log from which all that these plans name is gone."""
    return max((plan.prune_before_lsn for plan in plans if plan.prune_before_lsn), default=1)


def _payloads(plans: Iterable[journal.RetentionPlanned]) -> dict[int, int]:
    """By kind, how far these plans take payloads."""
    found: dict[int, int] = {}
    for plan in plans:
        for going in plan.payloads:
            found[going.kind] = max(found.get(going.kind, 0), going.upto_lsn)
    return found


def replayed(entries: Sequence[wal.Entry], asked: Inferences | None = None) -> Replay:
    """What an audit finds in what is left of a log: from its first record on, or from the first base that is enough.

    `asked` follows it, for level 3.
    """
    first_lsn = entries[0].lsn if entries else 1
    missing_lsn = first_lsn - 1
    while True:
        base = _base_past(entries, missing_lsn) if missing_lsn else None
        if asked is not None:
            asked.begin(base)
        try:
            return replay(entries[0 if base is None else base.needs_lsn - first_lsn :], base=base, follower=asked)
        except RecordRedacted as redacted:
            missing_lsn = redacted.lsn


def audited(entries: Sequence[wal.Entry]) -> tuple[Replay, Reinference]:
    """Levels 2 and 3 of what is left of a log; of the policies only the baseline is asked again."""
    asked = Inferences(past_policies(Path("nowhere"), (), ()))
    found = replayed(entries, asked)
    return found, asked.finish()


def _base_past(entries: Iterable[wal.Entry], missing_lsn: int) -> journal.StateBase:
    for entry in entries:
        if entry.kind == KINDS[journal.StateBase]:
            base = event_of(entry)
            if isinstance(base, journal.StateBase) and base.needs_lsn > missing_lsn:
                return base
    raise LawBroken("a base is left that the rest of the log goes on from", f"none needs less than LSN {missing_lsn}")
