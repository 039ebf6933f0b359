"""Deadlines under fault: every collaborator hangs in turn for a second, and steps go on. Shown, never asserted.

    pytest tests/bench/test_deadlines.py --benchmark-only
    python tests/bench/test_deadlines.py [STEPS] [DIRECTORY]

Beside each step's time stands that of an empty control loop in the same run: one handover to a thread that is there
already and answers at once, under the same kind of wait. What that takes longest is the machine's, not ours.
"""

import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from live import DictLibrary, Record
from rig import SECRET

from tamiyo import Settings, TamiyoService
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.stages import StepTimings
from tamiyo.testing import FixedPolicy
from tamiyo.workers import DeadlineWorker
from wal.testing import FaultDisk

STEPS = 10_000
HANG_S = 1.0
PAUSE_S = (0.05, 0.5)  # between two hangs, at random
PERIOD_S = 0.005  # of the trainer's loop; without one most steps would fall into the quick ones of an open breaker
COLLABORATORS = ("policy", "library", "disk", "bus")


@dataclass
class Hangs:
    """Who hangs now. One at a time, in turn."""

    disk: FaultDisk
    gates: dict[str, threading.Event] = field(
        default_factory=lambda: {name: threading.Event() for name in COLLABORATORS}
    )
    ended: threading.Event = field(default_factory=threading.Event)
    count: Counter[str] = field(default_factory=Counter)

    def run(self, seed: int) -> None:
        draw = random.Random(seed)
        for gate in self.gates.values():
            gate.set()
        while not self.ended.wait(draw.uniform(*PAUSE_S)):
            name = COLLABORATORS[sum(self.count.values()) % len(COLLABORATORS)]
            self.count[name] += 1
            self.gates[name].clear()
            if name == "disk":
                self.disk.hang("fdatasync")
                self.disk.hang("pwrite")
            self.ended.wait(HANG_S)
            self.disk.release()
            self.gates[name].set()


@dataclass
class HangingPolicy:
    gate: threading.Event
    identity: PolicyIdentity = field(default=PolicyIdentity("bench-v1", "fixed", "python"))

    def propose(self, graph: Graph) -> Proposal:
        self.gate.wait()
        return FixedPolicy(1).propose(graph)


class HangingBus:
    def __init__(self, gate: threading.Event) -> None:
        self.gate = gate
        self.taken = 0

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.005)
        self.taken += 1


def small_packet(index: int) -> bytes:
    """A new run every ten steps, so that the library is asked all the time."""
    made = pb.SystemStatePacket(
        training_run_id=f"run-{index // 10}", training_loss=0.8, validation_loss=0.7, global_step=index
    )
    made.training_metrics.update({"loss": 0.8, "gradient_norm": 1.0, "samples_per_s": 4_400.0, "hook_latency_ms": 3.0})
    for seed in range(4):
        made.seed_states.add(seed_id=f"seed-{seed}", stage=pb.SEED_STAGE_TRAINING, learning_rate=0.01)
    return made.SerializeToString()


def measure(steps: int, directory: Path, seed: int = 7) -> dict[str, Any]:
    """Run the steps; every figure in milliseconds."""
    disk = FaultDisk()
    hangs = Hangs(disk)
    records = {f"bp-{i}": Record(pb.BlueprintDescriptor(blueprint_id=f"bp-{i}", risk=0.1)) for i in range(8)}
    library = DictLibrary(records, gate=hangs.gates["library"])
    settings = Settings(publish_timeout_ms=200)
    service = TamiyoService.open(
        directory,
        policy=HangingPolicy(hangs.gates["policy"]),
        urza=library,
        secret=SECRET,
        settings=settings,
        disk=disk,
    )
    bus = HangingBus(hangs.gates["bus"])
    background = [threading.Thread(target=hangs.run, args=(seed,), daemon=True), _publisher(service, bus, hangs)]
    for thread in background:
        thread.start()
    empty = DeadlineWorker("empty")
    step_ms, empty_ms, reasons, threads_max = [], [], Counter[str](), 0
    for index in range(steps):
        packet = small_packet(index)
        took_ms, command = _timed(lambda packet=packet: service.evaluate_step(packet))
        step_ms.append(took_ms)
        empty_ms.append(_timed(lambda: empty.call(int, 0.005))[0])
        reasons[command.annotations["risk_reason"]] += 1
        threads_max = max(threads_max, threading.active_count())
        time.sleep(max(PERIOD_S - sum((took_ms, empty_ms[-1])) / 1e3, 0.0))
    hangs.ended.set()
    for thread in background:
        thread.join()
    service.close()
    budgets_ms = settings.step_timeout_ms + settings.metadata_timeout_ms + settings.commit_timeout_ms
    return {
        "steps": steps,
        "hangs": dict(hangs.count),
        "budgets_ms": budgets_ms,
        "bar_p99.9_ms": budgets_ms + 5,
        "evaluate_step_ms": _shares(step_ms),
        "empty_loop_ms": _shares(empty_ms),
        "worst_ms": _worst(service.timings),
        "over_the_bar": sum(took_ms > budgets_ms + 5 for took_ms in step_ms),
        "threads_max": threads_max,
        "published": bus.taken,
        "reasons": dict(reasons.most_common()),
    }


def _publisher(service: TamiyoService, bus: HangingBus, hangs: Hangs) -> threading.Thread:
    def publish() -> None:
        while not hangs.ended.wait(0.1):
            asyncio.run(service.publish_history(bus))

    return threading.Thread(target=publish, daemon=True)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started_ns = time.perf_counter_ns()
    found = call()
    return (time.perf_counter_ns() - started_ns) / 1e6, found


def _worst(timings: Iterable[StepTimings], most: int = 12) -> list[dict[str, float]]:
    """The stages of the slowest steps."""
    slowest = sorted(timings, key=lambda step: -step.total_ns)[:most]
    return [
        {name.removesuffix("_ns"): round(getattr(step, name) / 1e6, 1) for name in StepTimings.__slots__}
        for step in slowest
    ]


def _shares(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    picked = {f"p{share}": ordered[int(len(ordered) * share / 100)] for share in (50, 95, 99, 99.9)}
    return {name: round(value, 3) for name, value in (picked | {"max": ordered[-1]}).items()}


@pytest.mark.parametrize("steps", [2_000])
def test_steps_while_every_collaborator_hangs_in_turn(benchmark: Any, tmp_path: Path, steps: int) -> None:
    benchmark.extra_info.update(benchmark.pedantic(measure, (steps, tmp_path), rounds=1))


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as made:
        sys.stdout.write(json.dumps(measure(asked, Path(made)), indent=2) + "\n")
