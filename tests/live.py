"""A live controller for tests: generous budgets, a clock turned by hand, a disk that can be made to fail."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rig import SECRET, packet

import wal
from tamiyo.audit import replay
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event, decode
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.service import TamiyoService
from tamiyo.testing import FixedPolicy, ManualClock
from wal.testing import FaultDisk, MemoryDisk

PATIENT_MS = 60_000
COVERAGE_ASIDE = Thresholds(feature_coverage_critical=-1.0, feature_coverage_low=-1.0)
"""The tests' packets say little; only the tests of coverage want to hear so."""
PATIENT: dict[str, Any] = {
    "step_timeout_ms": PATIENT_MS,
    "commit_timeout_ms": PATIENT_MS,
    "segment_bytes": 2**18,
    "thresholds": COVERAGE_ASIDE,
}


@dataclass(frozen=True)
class Record:
    """What a library returns."""

    descriptor: pb.BlueprintDescriptor
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class DictLibrary:
    """A library in memory. `error` makes every call raise; `gate` makes every call wait."""

    records: dict[str, Record] = field(default_factory=dict)
    error: Exception | None = None
    gate: Any = None

    def list(self) -> list[str]:
        self._answer()
        return list(self.records)

    def get(self, blueprint_id: str) -> Record | None:
        self._answer()
        return self.records.get(blueprint_id)

    def _answer(self) -> None:
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error


def library(*, sheet: pb.BSDS | None = None, blueprint_id: str = "run-1", **descriptor: Any) -> DictLibrary:
    """A library that knows the host's own blueprint."""
    described = pb.BlueprintDescriptor(blueprint_id=blueprint_id, **descriptor)
    return DictLibrary({blueprint_id: Record(described, {"bsds": sheet} if sheet is not None else {})})


class Live:
    """One directory on a disk that can be made to fail, and the service on it."""

    def __init__(
        self, *, policy: object = None, urza: object = None, clock: ManualClock | None = None, **settings: Any
    ) -> None:
        self.memory = MemoryDisk()
        self.disk = FaultDisk(self.memory)
        self.clock = clock or ManualClock()
        self.policy = policy or FixedPolicy()
        self.urza = urza
        self.settings = Settings(**{**PATIENT, **settings})
        self.directory = Path("/controller")
        self.service = self._open()

    def _open(self) -> TamiyoService:
        return TamiyoService.open(
            self.directory, policy=self.policy, urza=self.urza, secret=SECRET, settings=self.settings,
            clock=self.clock, disk=self.disk,
        )  # fmt: skip

    def step(self, packet: pb.SystemStatePacket | bytes) -> pb.AdaptationCommand:
        return self.service.evaluate_step(packet)

    def reopen(self) -> None:
        """Close and open again from the log."""
        self.service.close()
        self.service = self._open()

    def crash(self) -> None:
        """The process dies: the service is left as it is, and what was synced is opened again."""
        self.memory = self.memory.kill()
        self.disk = FaultDisk(self.memory)
        self.service = self._open()

    def entries(self) -> list[wal.Entry]:
        return list(self.service.log.read())

    def events(self, kind: type[Event] | None = None) -> list[Event]:
        """The journal's events, of one kind when asked."""
        found = [decode(entry.kind, entry.payload) for entry in self.entries()]
        return [event for event in found if kind is None or isinstance(event, kind)]

    def durable(self) -> None:
        """Wait until everything that was queued is durable, or the log's writer has failed."""
        while self.service.log.failure is None and self.service.log.durable_lsn < self.service.state.last_lsn:
            pass

    def decisions(self) -> list[journal.DecisionMade]:
        return self.events(journal.DecisionMade)

    def check(self) -> None:
        """The log's replay gives this state, and every decision is the one that follows from its record."""
        state = self.service.state  # a lookup may land while we look
        while self.service.log.durable_lsn < state.last_lsn:
            pass
        found = replay(entry for entry in self.entries() if entry.lsn <= state.last_lsn)
        assert found.divergence is None, str(found.divergence)
        assert found.state.digest() == state.digest()

    def close(self) -> None:
        self.service.close()


@dataclass(slots=True)
class LateClock(ManualClock):
    """A clock by which nobody waits for the calls in `late`: "policy", "library", "log". They miss their budgets."""

    late: set[str] = field(default_factory=set)

    def patience_s(self, call: str, budget_s: float) -> float:
        return 0.0 if call in self.late else max(budget_s, 0.0)


def reason(command: pb.AdaptationCommand) -> str:
    return command.annotations["risk_reason"]


def step_until(
    live: Live, holds: Callable[[], bool], *, made: pb.SystemStatePacket | None = None, elapsed_s: float = 0.0
) -> None:
    """Steps until something that happens in the background is to be seen."""
    for _ in range(10_000):
        if holds():
            return
        live.clock.advance(elapsed_s)
        live.step(made or packet())
    raise AssertionError("it never came")


def recover(live: Live) -> None:
    """Steps until the log takes records again; each trial is waited for, and its cool-down is let pass."""
    for _ in range(50):
        live.clock.advance(1.5)
        if reason(live.step(packet())) != "log_failed":
            return
        live.service.journal.wait_for_trial()
    raise AssertionError("the log did not come back")


NO_ROOM = "no room for another segment"


@contextmanager
def without_room(live: Live, *calls: str) -> Iterator[None]:
    """Inside, the log refuses these calls because it is full; all that a step makes where none is named."""

    def refuse(*_: object, **__: object) -> None:
        raise wal.LogFull(NO_ROOM)

    with pytest.MonkeyPatch.context() as patch:
        for call in calls or ("stage", "submit"):
            patch.setattr(live.service.log, call, refuse)
        yield
