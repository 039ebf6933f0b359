"""How long a step takes, and its parts: `pytest tests/bench --benchmark-only`. Compare within one run; never asserted.

The small graph: global 1, seed 4, blueprint 1, layer 8, activation 4, parameter 4 nodes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live import DictLibrary, Live, Record
from rig import Bench, proposal
from rig import packet as plain_packet

import wal
from tamiyo.audit import replay
from tamiyo.core.events import decode
from tamiyo.core.evolve import evolve
from tamiyo.core.state import State
from tamiyo.leyline import leyline_pb2 as pb

Benchmark = Callable[..., Any]
STEPS = 500


def small_packet() -> pb.SystemStatePacket:
    made = pb.SystemStatePacket(training_run_id="run-1", training_loss=0.8, validation_loss=0.7, packet_id="packet")
    made.training_metrics.update(
        {"loss": 0.8, "gradient_norm": 1.0, "samples_per_s": 4_400.0, "hook_latency_ms": 3.0, "optimizer_lr": 0.01}
    )
    for index in range(4):
        made.seed_states.add(seed_id=f"seed-{index}", stage=pb.SEED_STAGE_TRAINING, learning_rate=0.01, age_epochs=5)
    return made


def small_library() -> DictLibrary:
    metadata = {
        "layers": [{"layer_id": f"l{i}", "type": "conv", "depth": i, "parameter_count": 1_000} for i in range(8)],
        "activations": [{"activation_id": f"a{i}", "type": "gelu", "saturation_rate": 0.1} for i in range(4)],
        "parameters": [{"name": f"p{i}", "min": 0.0, "max": 1.0, "span": 1.0, "default": 0.5} for i in range(4)],
    }
    descriptor = pb.BlueprintDescriptor(blueprint_id="run-1", risk=0.1)
    return DictLibrary({"run-1": Record(descriptor, {"graph_metadata": metadata})})


def test_one_append_of_the_same_size(benchmark: Benchmark, tmp_path: Path) -> None:
    with wal.Log.open(tmp_path / "log") as log:
        benchmark.pedantic(log.append, ([(1, b"x" * 3_000)],), rounds=STEPS)


def test_decide(benchmark: Benchmark) -> None:
    bench = Bench()
    bench.observe()
    benchmark(bench.decide, bench.inputs(plain_packet(), proposal()))


@pytest.fixture(scope="module")
def history() -> list[wal.Entry]:
    live = Live(urza=small_library())
    for _ in range(STEPS):
        live.step(small_packet())
    entries = live.entries()
    live.close()
    return entries


def test_replaying_the_state_of_500_steps(benchmark: Benchmark, history: list[wal.Entry]) -> None:
    def fold() -> State:
        state = State()
        for entry in history:
            state = evolve(state, entry.lsn, decode(entry.kind, entry.payload))
        return state

    assert benchmark.pedantic(fold, rounds=5).decisions == STEPS


def test_auditing_500_steps(benchmark: Benchmark, history: list[wal.Entry]) -> None:
    found = benchmark.pedantic(replay, (history,), rounds=5)
    assert found.decisions == STEPS
    benchmark.extra_info["bytes_per_step"] = sum(len(entry.payload) for entry in history) / STEPS
