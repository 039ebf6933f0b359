"""What a retention run may take: a pure function of event time, of what the log holds, and of what is still to be told.

    first_lsn        prune_before        upto_lsn             needs_lsn   at_lsn          the log's end
        ├── whole segments ──┤── payloads of ──┤── too young,  ──┤───────────┤───────────────────┤
        │   go               │   a kind go     │   or held back  │  the base and what goes on from it stay

Rule 1: oldest LSN first, in event time. What is as old as its window goes, unless something younger still needs it.
Rule 2: nothing goes that a base which stays has need of, and the base is one that telemetry can go on from.
Rule 3: a report that is still to be published, and all that comes after it, stays.
Rule 4: only finished segments are touched; the one in use never is.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, MESSAGES
from tamiyo.core.state import Outbox

__all__ = [
    "SEGMENTS_MAX",
    "BaseMark",
    "Held",
    "Holdings",
    "Plan",
    "Segment",
    "Windows",
    "kind_name",
    "plan",
]

SEGMENTS_MAX = 64
"""Of one run: what it plans is one record, which has to fit into the room that a full log keeps for emergencies."""
HOUR_NS = 3_600 * 10**9


@dataclass(frozen=True, slots=True)
class Windows:
    """How long what is kept, in ns of event time; what has no window is kept for ever.

    `log_ns` is for whole segments, `payloads` by kind of record.
    """

    log_ns: int | None = None
    payloads: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of_hours(
        cls, *, log: float | None, field_reports: float | None, packets: float | None, observations: float | None
    ) -> "Windows":
        """The windows of the settings, in hours."""
        hours: dict[type, float | None] = {
            journal.FieldReportIssued: field_reports,
            journal.StepReceived: packets,
            journal.GraphObserved: observations,
            journal.InferenceObserved: observations,
        }
        return cls(
            None if log is None else round(log * HOUR_NS),
            MappingProxyType(
                {KINDS[kind]: round(value * HOUR_NS) for kind, value in hours.items() if value is not None}
            ),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the log: its number, its records, the length of its file; `finished` where no more come."""

    number: int
    first_lsn: int
    last_lsn: int
    size_bytes: int
    finished: bool = True


@dataclass(frozen=True, slots=True)
class BaseMark:
    """Where a StateBase stands, and what it says of itself."""

    lsn: int
    at_lsn: int
    needs_lsn: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a log holds, as far as a plan asks.

    `times` are (LSN, event time in ns) of some records, in order of both: between two of them nothing is known. `taken`
    is, by kind, how far an earlier run has taken payloads.
    """

    segments: Sequence[Segment]
    times: Sequence[tuple[int, int]]
    bases: Sequence[BaseMark]
    outbox: Outbox
    taken: Mapping[int, int] = field(default_factory=dict)

    def before(self, base: BaseMark) -> BaseMark | None:
        """The base that speaks of the latest record before what another speaks of, and that can be folded on from."""
        first_lsn = self.segments[0].first_lsn if self.segments else 1
        earlier = (other for other in self.bases if first_lsn - 1 <= other.at_lsn < base.at_lsn)
        return max(earlier, key=lambda mark: mark.at_lsn, default=None)

    def older_than(self, time_ns: int) -> int:
        """The last LSN that is known to be older, 0 where none is."""
        place = bisect_left(self.times, time_ns, key=_event_time)
        return self.times[place - 1][0] if place else 0


def _event_time(record: tuple[int, int]) -> int:
    return record[1]


@dataclass(frozen=True, slots=True)
class Held:
    """What is old enough and stays all the same: everything past `lsn`, and why."""

    lsn: int
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes. `base` is the one that stays; None where nothing may go.

    `segments` go whole: their records are those below `prune_before_lsn`, 0 where none go. `payloads` go by kind, up to
    an LSN. `held` is what is old enough and stays, the most restrictive first. `more` says that segments were left for
    another run, `wants_base` that a younger base would let more go.
    """

    now_ns: int
    base: BaseMark | None = None
    prune_before_lsn: int = 0
    segments: tuple[Segment, ...] = ()
    payloads: Mapping[int, int] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    more: bool = False
    wants_base: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing goes. Payloads that are named may be none; whoever can count them decides."""
        return not self.segments and not self.payloads

    @property
    def upto_lsn(self) -> int:
        """The last LSN whose payload may go."""
        return max(self.payloads.values(), default=0)

    def event(
        self, run_id: str, windows: Windows, *, archive: str, keep_heads: Sequence[str]
    ) -> journal.RetentionPlanned:
        """The record of it."""
        return journal.RetentionPlanned(
            run_id=run_id,
            event_time_ns=self.now_ns,
            prune_before_lsn=self.prune_before_lsn,
            base_lsn=0 if self.base is None else self.base.lsn,
            payloads=[
                journal.PayloadWindow(kind=kind, window_ns=windows.payloads[kind], upto_lsn=upto_lsn)
                for kind, upto_lsn in sorted(self.payloads.items())
            ],
            archive=archive,
            keep_heads=keep_heads,
            segments=[
                journal.PrunedSegment(
                    segment=going.number,
                    first_lsn=going.first_lsn,
                    last_lsn=going.last_lsn,
                    size_bytes=going.size_bytes,
                )
                for going in self.segments
            ],
        )


def plan(now_ns: int, held: Holdings, windows: Windows, *, segments_max: int = SEGMENTS_MAX) -> Plan:
    """What goes at event time `now_ns`.

    Args:
        now_ns: what the windows are counted back from.
        held: what the log holds.
        windows: how long what is kept.
        segments_max: how many segments may go at once, the oldest ones.
    """
    aged = {kind: held.older_than(now_ns - window_ns) for kind, window_ns in windows.payloads.items()}
    log_lsn = 0 if windows.log_ns is None else held.older_than(now_ns - windows.log_ns)
    wanted_lsn = max([log_lsn, *aged.values()])
    base = _base(held)
    limits = _limits(held, base)
    horizon = min(limit.lsn for limit in limits)
    going = [segment for segment in held.segments if segment.finished and segment.last_lsn <= min(log_lsn, horizon)]
    taken = tuple(going[:segments_max])
    prune_before = taken[-1].last_lsn + 1 if taken else 0
    payloads = {
        kind: min(lsn, horizon)
        for kind, lsn in aged.items()
        if min(lsn, horizon) > max(held.taken.get(kind, 0), prune_before - 1, _first_lsn(held) - 1)
    }
    return Plan(
        now_ns=now_ns,
        base=base,
        prune_before_lsn=prune_before,
        segments=taken,
        payloads=MappingProxyType(payloads),
        held=tuple(sorted((limit for limit in limits if limit.lsn < wanted_lsn), key=lambda limit: limit.lsn)),
        more=len(going) > len(taken),
        wants_base=limits[0].lsn < min([wanted_lsn, *(limit.lsn for limit in limits[1:])]),
    )


def _first_lsn(held: Holdings) -> int:
    return held.segments[0].first_lsn if held.segments else 1


def _finished_lsn(held: Holdings) -> int:
    """The last LSN before the first segment that is not finished."""
    in_use = next((segment for segment in held.segments if not segment.finished), None)
    return 0 if in_use is None else in_use.first_lsn - 1


def _base(held: Holdings) -> BaseMark | None:
    """The newest base that speaks of nothing past what telemetry has told: whoever tells the rest begins there."""
    fit = [base for base in held.bases if base.at_lsn <= held.outbox.telemetry_lsn]
    return max(fit, key=lambda base: (base.needs_lsn, base.lsn), default=None)


def _limits(held: Holdings, base: BaseMark | None) -> list[Held]:
    """What holds back, each with the last LSN that it lets go; the base first."""
    outbox = held.outbox
    limits = [
        _base_limit(held, base),
        Held(_finished_lsn(held), "the segment in use is never touched"),
        Held(outbox.reports_lsn, f"field reports past LSN {outbox.reports_lsn} are not published"),
    ]
    if outbox.retries:
        waiting = min(retry.report_lsn for retry in outbox.retries.values())
        limits.append(Held(waiting - 1, f"the field report of LSN {waiting} waits to be published again"))
    return limits


def _base_limit(held: Holdings, base: BaseMark | None) -> Held:
    telemetry_lsn = held.outbox.telemetry_lsn
    if base is not None:
        newer = any(other.needs_lsn > base.needs_lsn for other in held.bases)
        untold = f"; telemetry past LSN {telemetry_lsn} is not published" if newer else ""
        return Held(base.needs_lsn - 1, f"the base of LSN {base.lsn} needs what is past it{untold}")
    if not telemetry_lsn:
        return Held(0, "no telemetry is published")
    return Held(0, f"the log holds no base of its state as it was by LSN {telemetry_lsn}, where telemetry has come to")


def kind_name(kind: int) -> str:
    """The name of a kind of record; its number where this version does not know it."""
    message = MESSAGES.get(kind)
    return f"kind {kind}" if message is None else message.DESCRIPTOR.name
