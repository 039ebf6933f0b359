"""What a run came to: counted from its log and its last checkpoint, plus the latencies of this process."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.integrations.kasmina.lifecycle import name_of_stage
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.stored import event_of

__all__ = ["Latency", "LogSummary", "Summary", "latencies", "read_log", "seeds_of"]

_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class LogSummary:
    """Commands as they were released, by (type, risk reason); records, and bytes of what the records hold.

    A decision whose commit was late counts as the safe PAUSE that went out in its place.
    """

    decisions: Mapping[tuple[str, str], int]
    records: int
    record_bytes: int
    policies: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Commands released; a step that was trained again after a kill was decided twice."""
        return sum(self.decisions.values())

    @property
    def bytes_per_step(self) -> float:
        """Record bytes for each decision."""
        return self.record_bytes / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """One stage of `evaluate_step`, in milliseconds."""

    stage: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that `summary.json` holds."""

    run_id: str
    steps: int
    validation_loss: float | None
    validation_accuracy: float | None
    seeds: Mapping[str, Mapping[str, object]]
    log: LogSummary
    audit: str
    latencies: tuple[Latency, ...] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON; pairs of type and reason become "TYPE: reason"."""
        return {
            "run_id": self.run_id,
            "steps": self.steps,
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            "seeds": {seed_id: dict(facts) for seed_id, facts in self.seeds.items()},
            "decisions": {f"{kind}: {reason}": count for (kind, reason), count in self.log.decisions.items()},
            "policies": list(self.log.policies),
            "log": {
                "records": self.log.records,
                "record_bytes": self.log.record_bytes,
                "bytes_per_step": round(self.log.bytes_per_step, 1),
            },
            "latencies_ms": {row.stage: _milliseconds(row) for row in self.latencies},
            "outcomes": dict(self.outcomes),
            "elapsed_s": round(self.elapsed_s, 3),
            "audit": self.audit,
        }


def read_log(directory: Path) -> LogSummary:
    """Count what the log in `directory` holds.

    Raises:
        wal.LogError: the log is damaged.
    """
    released: dict[int, tuple[str, str]] = {}
    unrecorded: Counter[tuple[str, str]] = Counter()
    policies: dict[str, None] = {}
    records = record_bytes = 0
    for entry in wal.read(directory / "wal"):
        records += 1
        record_bytes += len(entry.payload)
        event = event_of(entry)
        if isinstance(event, journal.DecisionMade):
            released[entry.lsn] = _named(event)
        elif isinstance(event, journal.CommitLate):
            released[event.decision_lsn] = ("PAUSE", event.cause)
        elif isinstance(event, journal.StepsUnrecorded):
            unrecorded["PAUSE", event.cause] += event.count
        elif isinstance(event, journal.ServiceOpened):
            policies[event.policy_version] = None
    decisions = Counter(released.values()) + unrecorded
    return LogSummary(dict(decisions.most_common()), records, record_bytes, tuple(policies))


def latencies(timings: Iterable[Any]) -> tuple[Latency, ...]:
    """Percentiles of each stage over the steps of this process; empty without steps.

    Args:
        timings: dataclasses with one `<stage>_ns` field for each stage, as `TamiyoService.timings` holds them.
    """
    rows = list(timings)
    if not rows:
        return ()
    return tuple(_latency(item.name, [getattr(row, item.name) for row in rows]) for item in fields(rows[0]))


def seeds_of(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    """Stage, blueprint and alpha of each seed as a training checkpoint has them."""
    stored: Mapping[str, Mapping[str, Any]] = checkpoint["seeds"]["seeds"]
    return {
        seed_id: {
            "stage": name_of_stage(facts["stage"]),
            "blueprint": facts["blueprint_id"],
            "alpha": facts["alpha"],
        }
        for seed_id, facts in stored.items()
    }


def _named(event: journal.DecisionMade) -> tuple[str, str]:
    command = pb.AdaptationCommand.FromString(event.command)
    kind = pb.CommandType.Name(command.command_type).removeprefix("COMMAND_")
    return kind, event.risk_reason


def _latency(name: str, values_ns: list[int]) -> Latency:
    p50, p95, p99 = (float(value) / _NS_PER_MS for value in np.percentile(values_ns, [50, 95, 99]))
    return Latency(name.removesuffix("_ns"), p50, p95, p99, max(values_ns) / _NS_PER_MS)


def _milliseconds(row: Latency) -> dict[str, float]:
    values = {"p50": row.p50_ms, "p95": row.p95_ms, "p99": row.p99_ms, "max": row.max_ms}
    return {name: round(value, 4) for name, value in values.items()}
