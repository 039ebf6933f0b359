"""What a whole step costs: `evaluate_step` on a real disk, with the baseline and with the network, beside a bare sync.

The small graph, four seeds, a library that knows the host, a packet of its own for each step. The budgets are raised,
so that every step runs to its end on a busy machine; how many would have missed the configured ones is counted.
"""

import os
import secrets
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from tamiyo.bench.network import Subject
from tamiyo.bench.samples import SMALL_SEEDS, OneHost, small_host, training_packet
from tamiyo.bench.timing import NOT_YET_HOT, Figures, Progress, quantiles_ms
from tamiyo.config import load_settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS
from tamiyo.policy import Policy
from tamiyo.policy.ambient import threads
from tamiyo.service import StepTimings, TamiyoService

__all__ = ["PREFIX", "Bare", "Stepping", "measure_step"]

PREFIX = "tamiyo-bench-"
"""Of the folders that logs are written in; they go when it is over."""

PATIENT_MS = 1_000
SECTOR_BYTES = 512
WARM_UP_STEPS = 60
TURN_STEPS = 20
STAGES = tuple(name.removesuffix("_ns") for name in StepTimings.__slots__)
ANSWERS = (journal.InferenceObserved, journal.InferenceTimedOut, journal.InferenceFailed, journal.InferenceSkipped)


@dataclass(slots=True)
class Taken:
    """What the counted steps took, in nanoseconds: each stage by the clock, and the CPU time of the whole process."""

    stages_ns: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in STAGES})
    cpu_ns: list[int] = field(default_factory=list)


class Stepping:
    """A service in a folder of its own, and the packets that it is given, one after the other."""

    def __init__(self, folder: Path, policy: Policy | None, **changed: int) -> None:
        """`changed` are settings of the service."""
        self.folder = folder
        self.budgets = load_settings()
        patient = load_settings(step_timeout_ms=PATIENT_MS, commit_timeout_ms=PATIENT_MS, **changed)
        self.service = TamiyoService.open(
            folder, policy=policy, urza=OneHost(small_host()), secret=secrets.token_hex(), settings=patient
        )
        self.taken = Taken()
        self._step = 0

    def step(self, *, counted: bool) -> None:
        """Evaluate the next packet, as bytes: that is how a host hands it over."""
        self._step += 1
        data = training_packet(SMALL_SEEDS, self._step).SerializeToString()
        busy_ns = time.process_time_ns()
        self.service.evaluate_step(data)
        busy_ns = time.process_time_ns() - busy_ns
        if counted:
            timings = self.service.timings[-1]
            self.taken.cpu_ns.append(busy_ns)
            for name in STAGES:
                self.taken.stages_ns[name].append(getattr(timings, f"{name}_ns"))

    def turn(self, steps: int) -> None:
        """A few steps that bring back the caches, then those that count."""
        for number in range(NOT_YET_HOT + steps):
            self.step(counted=number >= NOT_YET_HOT)

    def figures(self) -> Figures:
        """Quantiles by stage, the budgets that would have been missed, and what the policy answered."""
        stages = self.taken.stages_ns
        kinds = {KINDS[kind]: kind.DESCRIPTOR.name for kind in ANSWERS}
        answers = Counter(kinds[entry.kind] for entry in self.service.log.read() if entry.kind in kinds)
        return {
            "calls": len(stages["total"]),
            "stages_ms": {name: quantiles_ms(values) for name, values in stages.items()},
            "cpu_ms": quantiles_ms(self.taken.cpu_ns),
            "policy": self.service.state.policy_version,
            "answers": dict(answers),
            "over_budget": {
                "inference": _over(stages["inference"], self.budgets.step_timeout_ms),
                "commit": _over(stages["commit"], self.budgets.commit_timeout_ms),
            },
        }

    def step_bytes(self) -> int:
        """What the last step wrote, in whole sectors: its records' bytes without the log's frames around them."""
        sizes: list[int] = []
        for entry in self.service.log.read():
            if entry.kind == KINDS[journal.StepReceived]:
                sizes.clear()
            sizes.append(len(entry.payload))
        return -(-sum(sizes) // SECTOR_BYTES) * SECTOR_BYTES

    def __enter__(self) -> Self:
        """Return it, warmed up."""
        for _ in range(WARM_UP_STEPS):
            self.step(counted=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the service."""
        self.service.close()


class Bare:
    """`pwrite` and `fdatasync` of so many bytes into space that is there already: the floor of a commit."""

    def __init__(self, path: Path, size_bytes: int, writes: int) -> None:
        self._data, self._offset_bytes = os.urandom(size_bytes), 0
        self.times_ns: list[int] = []
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._descriptor, bytes(size_bytes * writes), 0)
        os.fsync(self._descriptor)

    def turn(self, writes: int) -> None:
        """A few that warm up, then those that count."""
        for number in range(NOT_YET_HOT + writes):
            started_ns = time.perf_counter_ns()
            os.pwrite(self._descriptor, self._data, self._offset_bytes)
            os.fdatasync(self._descriptor)
            if number >= NOT_YET_HOT:
                self.times_ns.append(time.perf_counter_ns() - started_ns)
            self._offset_bytes += len(self._data)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def measure_step(subject: Subject, rounds: int, say: Progress, folder: Path | None = None) -> Figures:
    """The baseline, the network and a bare write and sync, in turns.

    Args:
        subject: the network.
        rounds: how many turns each has, of `TURN_STEPS` steps.
        say: told what is under way.
        folder: where the logs are written; the temporary directory where None.

    Raises:
        OSError, wal.LogError: the folder cannot be written.
    """
    say(f"step, {rounds * TURN_STEPS} with the baseline and as many with the network")
    with threads(1), TemporaryDirectory(prefix=PREFIX, dir=folder) as made, ExitStack() as stack:
        place = Path(made)
        policies = {"baseline": None, "network": subject.exact}
        steppings = {name: stack.enter_context(Stepping(place / name, policy)) for name, policy in policies.items()}
        size_bytes = steppings["network"].step_bytes()
        bare = stack.enter_context(Bare(place / "bare", size_bytes, rounds * (NOT_YET_HOT + TURN_STEPS)))
        for _ in range(rounds):
            for stepping in steppings.values():
                stepping.turn(TURN_STEPS)
            bare.turn(TURN_STEPS)
        found = {name: one.figures() for name, one in steppings.items()}
    bare_ms = quantiles_ms(bare.times_ns)
    return {
        **found,
        "bare_sync": {"calls": len(bare.times_ns), "size_bytes": size_bytes, "wall_ms": bare_ms},
        "commit_to_bare": round(found["network"]["stages_ms"]["commit"]["p50"] / bare_ms["p50"], 2),
    }


def _over(times_ns: list[int], budget_ms: int) -> int:
    return sum(one > budget_ms * 1_000_000 for one in times_ns)
