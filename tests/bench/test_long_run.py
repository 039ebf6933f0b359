"""Many steps with a fixed policy: memory, threads and the cost of a step stay flat. Shown, never asserted.

    pytest tests/bench/test_long_run.py --benchmark-only
    python tests/bench/test_long_run.py [STEPS] [DIRECTORY]      one line for each tenth, as it passes

Every step is delivered, and history is published every thousand steps, as a host would. About 5 KB of log a step.
"""

import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from live import DictLibrary, Record
from rig import SECRET

from tamiyo import Settings, TamiyoService
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FixedPolicy

STEPS = 20_000
PARTS = 10
PUBLISH_EVERY = 1_000


class CountingBus:
    """Keeps nothing."""

    def __init__(self) -> None:
        self.taken = 0

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        self.taken += 1


def made_packet(index: int) -> bytes:
    made = pb.SystemStatePacket(training_run_id=f"run-{index // 5_000}", training_loss=0.8, global_step=index)
    made.validation_loss = 0.7 + 0.001 * (index % 7)
    made.training_metrics.update({"loss": 0.8, "gradient_norm": 1.0, "samples_per_s": 4_400.0, "hook_latency_ms": 3.0})
    for seed in range(4):
        made.seed_states.add(seed_id=f"seed-{seed}", stage=pb.SEED_STAGE_TRAINING, learning_rate=0.01)
    return made.SerializeToString()


def memory_mb() -> float:
    """Resident memory of this process that is its own (no mapped files), in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


def parts(steps: int, directory: Path, *, window: int = 10) -> Iterator[dict[str, Any]]:
    """Run the steps, with observation windows of so many decisions; figures after each tenth of them."""
    library = DictLibrary({"bp-1": Record(pb.BlueprintDescriptor(blueprint_id="bp-1", risk=0.1))})
    settings = Settings(step_timeout_ms=1_000, commit_timeout_ms=1_000, fr_obs_window_epochs=window)
    bus = CountingBus()
    with TamiyoService.open(directory, policy=FixedPolicy(1), urza=library, secret=SECRET, settings=settings) as tamiyo:
        for part in range(PARTS):
            took_ns, started_s = [], time.monotonic()
            for index in range(part * steps // PARTS, (part + 1) * steps // PARTS):
                packet = made_packet(index)
                before_ns = time.perf_counter_ns()
                command = tamiyo.evaluate_step(packet)
                took_ns.append(time.perf_counter_ns() - before_ns)
                tamiyo.record_delivery(command.command_id, "applied")
                if index % PUBLISH_EVERY == PUBLISH_EVERY - 1:
                    asyncio.run(tamiyo.publish_history(bus))
            yield {
                "steps": (part + 1) * steps // PARTS,
                "memory_mb": round(memory_mb(), 1),
                "threads": threading.active_count(),
                "step_median_ms": round(statistics.median(took_ns) / 1e6, 4),
                "step_cpu_bound_p10_ms": round(statistics.quantiles(took_ns, n=10)[0] / 1e6, 4),
                "published": bus.taken,
                "seconds": round(time.monotonic() - started_s, 1),
            }


@pytest.mark.parametrize("steps", [5_000])
def test_cost_memory_and_threads_over_many_steps(benchmark: Any, tmp_path: Path, steps: int) -> None:
    found = benchmark.pedantic(lambda: list(parts(steps, tmp_path)), rounds=1)
    benchmark.extra_info["parts"] = found


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else STEPS
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as made:
        for figures in parts(asked, Path(made)):
            sys.stdout.write(f"{figures}\n")
            sys.stdout.flush()
