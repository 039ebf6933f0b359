"""What retention came to, or would come to, and how it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.retention import Held, Plan, kind_name
from tamiyo.retention.survey import Payloads

__all__ = ["Outcome", "Preview", "Report"]

MEBIBYTE = 2**20
HOUR_NS = 3_600 * 10**9


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run that came to its end: its plan, and its completion, as the log has them."""

    planned: journal.RetentionPlanned
    completed: journal.RetentionCompleted

    @property
    def text(self) -> str:
        """In a sentence."""
        done = self.completed
        words = [f"run {done.run_id}{', begun by an earlier process' if done.resumed else ''}:"]
        words.append(f"{len(done.segments)} segments pruned, {done.payloads_redacted} payloads taken out,")
        words.append(f"{done.freed_bytes / MEBIBYTE:.1f} MiB freed; the log begins with LSN {done.first_lsn}")
        if any(segment.archived_as for segment in done.segments):
            words.append(f"; kept in {self.planned.archive}")
        words.append(f"; the state of LSN {done.digest_lsn} is the same before and after: {done.digest}")
        return " ".join(words).replace(" ;", ";")


@dataclass(frozen=True, slots=True)
class Report:
    """The runs of one call, an unfinished one of before first. `held` is what is old enough and stays, and why.

    `wants_base` says that a younger base would let more go: a service writes one in each segment, for a later run.
    """

    outcomes: tuple[Outcome, ...] = ()
    held: tuple[Held, ...] = ()
    wants_base: bool = False

    @property
    def text(self) -> str:
        """In words, a line for each."""
        lines = [outcome.text for outcome in self.outcomes] or ["nothing to take"]
        return "\n".join([*lines, *_held_lines(self.held)])

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "runs": [
                {"planned": _plain(outcome.planned), "completed": _plain(outcome.completed)}
                for outcome in self.outcomes
            ],
            "held": [{"past_lsn": held.lsn, "why": held.why} for held in self.held],
            "wants_base": self.wants_base,
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would take now, and what could no longer be recomputed after it; nothing was changed.

    `times` are the event times, in ns, of the first and the last record that goes whole. `horizon_lsn` is the LSN past
    which an audit recomputes decisions, `horizon_after_lsn` the same after the run, None where no base would be left to
    begin with.
    """

    plan: Plan
    payloads: Payloads
    times: tuple[int, int] | None = None
    horizon_lsn: int | None = 0
    horizon_after_lsn: int | None = 0
    unfinished: str = ""
    windows: Mapping[int, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """In words."""
        lines = [f"an earlier run, {self.unfinished}, is to be finished first"] if self.unfinished else []
        lines += self._segment_lines() + self._payload_lines()
        if not lines:
            lines = ["nothing to take"]
        elif self.horizon_after_lsn != self.horizon_lsn:
            lines.append(_horizon_line(self.horizon_lsn, self.horizon_after_lsn))
        else:
            lines.append("audit level 2: no decision that can be recomputed now can no longer be")
        return "\n".join([*lines, *_held_lines(self.plan.held)])

    def _segment_lines(self) -> list[str]:
        going = self.plan.segments
        if not going:
            return []
        size = sum(segment.size_bytes for segment in going)
        hours = "" if self.times is None else f", {_hours_ago(self.plan.now_ns, self.times)}"
        first = f"would prune {len(going)} segments, {size / MEBIBYTE:.1f} MiB, LSN {going[0].first_lsn} to "
        lines = [f"{first}{going[-1].last_lsn}{hours}"]
        lines += [
            f"  segment {segment.number}: LSN {segment.first_lsn} to {segment.last_lsn}, {segment.size_bytes} bytes"
            for segment in going
        ]
        return lines + (["  more segments are due; further runs take them"] if self.plan.more else [])

    def _payload_lines(self) -> list[str]:
        return [
            f"would take out {count} payloads of {kind_name(kind)}, up to LSN {self.plan.payloads[kind]}"
            for kind, count in sorted(self.payloads.records.items())
        ]

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        plan = self.plan
        return {
            "now_ns": plan.now_ns,
            "base_lsn": None if plan.base is None else plan.base.lsn,
            "prune_before_lsn": plan.prune_before_lsn,
            "segments": [
                {
                    "segment": segment.number,
                    "first_lsn": segment.first_lsn,
                    "last_lsn": segment.last_lsn,
                    "size_bytes": segment.size_bytes,
                }
                for segment in plan.segments
            ],
            "segments_event_time_ns": self.times,
            "payloads": {
                kind_name(kind): {"records": self.payloads.records.get(kind, 0), "upto_lsn": upto_lsn}
                for kind, upto_lsn in plan.payloads.items()
            },
            "payload_bytes": self.payloads.size_bytes,
            "audit_horizon_lsn": self.horizon_lsn,
            "audit_horizon_after_lsn": self.horizon_after_lsn,
            "unfinished_run": self.unfinished,
            "more": plan.more,
            "held": [{"past_lsn": held.lsn, "why": held.why} for held in plan.held],
        }


def _hours_ago(now_ns: int, times: tuple[int, int]) -> str:
    first, last = ((now_ns - time_ns) / HOUR_NS for time_ns in times)
    return f"from {first:.2f} to {last:.2f} hours ago"


def _horizon_line(before: int | None, after: int | None) -> str:
    if after is None:
        return "audit level 2: no decision could be recomputed any more, until the next base is written"
    first = "from the first one" if not before else f"from LSN {before + 1} on"
    return f"audit level 2: decisions can be recomputed {first} now, and from LSN {after + 1} on after it"


def _held_lines(held: tuple[Held, ...]) -> list[str]:
    return [f"old enough, and stays (past LSN {limit.lsn}): {limit.why}" for limit in held]


def _plain(message: Any) -> dict[str, Any]:
    return dict(MessageToDict(message, preserving_proto_field_name=True))
