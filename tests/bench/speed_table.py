"""One run of everything that has a bar, and whether it was met: `python tests/bench/speed_table.py`; nothing asserted.

    PYTHONPATH=tests python tests/bench/speed_table.py [--folder FOLDER] [--json FILE] [--quick]

Graphs, network and steps are measured as `tamiyo bench` does; the core, the log and replay as the benchmarks beside it
do. It takes some minutes, and means little unless nothing else runs. The JSON in `results/` is the last run kept.
"""

import argparse
import collections
import json
import os
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import log_measures
from test_core_speed import history, told, typical, whole
from test_long_run import parts
from test_replay_speed import OnDisk

import wal
from tamiyo.audit import replay
from tamiyo.audit.agreement import Reinference
from tamiyo.audit.inference import BATCH, Inferences, asking_alone, past_policies
from tamiyo.audit.parts import in_parts
from tamiyo.audit.workers import Workers
from tamiyo.beginning import Beginning, folded
from tamiyo.bench.machine import doubt, load
from tamiyo.bench.run import FULL, PARTS, QUICK, measure
from tamiyo.bench.samples import small_graph
from tamiyo.bench.step import Stepping
from tamiyo.bench.table import table
from tamiyo.bench.timing import Figures, Times, Turn, in_turns
from tamiyo.core.registries import initial
from tamiyo.policy.ambient import threads
from tamiyo.policy.checkpoint import init_checkpoint, load_policy

RESULTS = Path(__file__).parent / "results" / "speed.json"
REPLAYED_STEPS = 8_000
INFERRED_STEPS = 4_000
INFERRED_SEGMENT_BYTES = 2**22
"""Less than the steps between two checkpoints write: each has a base, and the log is cut at every one."""
WORKERS = 2
NETWORK_SEED = 1


def run(folder: Path, *, quick: bool) -> Figures:
    """Measure everything, in a folder on the disk in question."""
    before = load()
    effort = QUICK if quick else replace(FULL, agreement=300)
    figures = measure(PARTS, effort, say, folder=folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix="tamiyo-bench-") as made:
        place = Path(made)
        figures["core"] = core(20 if quick else 200)
        figures["log"] = commits(place, 4 if quick else 40)
        figures["replay"] = replaying(place, REPLAYED_STEPS // (10 if quick else 1))
        figures["inferences"] = again(place, INFERRED_STEPS // (2 if quick else 1))  # a log of less is not cut
    after = load()
    return figures | {"load_before": before, "load_after": after, "doubt": doubt(before, after)}


def core(rounds: int) -> Figures:
    """`decide` and `evolve` of a typical step, and the telemetry of it; all of it hot."""
    say("the core")
    step = typical(history())
    telemetry = Times()
    for _ in range(rounds * 10):
        telemetry.call(told(step))
    decided = in_turns({"decide_evolve": Turn(lambda: whole(step), 10)}, rounds)
    return decided | {"telemetry": telemetry.figures()}


def commits(folder: Path, rounds: int) -> Figures:
    """One durable append of 1 KB beside a bare write and sync, in turns."""
    say("the log")
    found = log_measures.commits(folder, rounds=rounds)["stores"]
    return {"append": found["wal"], "bare": found["bare pwrite + fdatasync"]}


def replaying(folder: Path, steps: int) -> Figures:
    """Steps a second of one core: folding the state from a log on disk, and recomputing every decision in it."""
    say(f"replay of {steps} steps")
    collections.deque(parts(steps, folder / "long", window=1), maxlen=0)
    path = folder / "long" / "wal"
    works: dict[str, Callable[[], object]] = {
        "state": lambda: folded(OnDisk(path), Beginning()),
        "audit": lambda: replay(wal.read(path)),
    }
    return {"steps": steps} | {f"{name}_steps_per_s": _per_s(work, steps) for name, work in works.items()}


def again(folder: Path, steps: int) -> Figures:
    """Audit level 3 of steps with small graphs that a network decided, by the clock: `steps_per_s` of one process.

    It has all cores for torch; `workers_steps_per_s` are those of two processes. In turns, and the network is loaded
    before. `batch_graphs_per_s` are those of one core, from graph to proposal.
    """
    say(f"audit level 3 of {steps} steps")
    checkpoint = init_checkpoint(folder / "network.safetensors", NETWORK_SEED)
    with threads(1):
        policy = load_policy(checkpoint.path)
        stepping = Stepping(folder / "inferred", policy, segment_bytes=INFERRED_SEGMENT_BYTES)
        for _ in range(steps):
            stepping.step(counted=False)
        stepping.service.close()
        graphs = [small_graph()] * BATCH
        one_core_s = min(timeit.repeat(lambda: policy.propose_all(graphs), number=1, repeat=20))
    path = folder / "inferred" / "wal"
    past = past_policies(folder / "inferred", [checkpoint.path], ())
    past.find(checkpoint.version, checkpoint.digest, initial())
    last_lsn = wal.head(path).size
    answers = Reinference()

    def alone() -> None:
        nonlocal answers
        asked = Inferences(past)
        replay(wal.read(path), follower=asked)
        answers = asked.finish()

    prepare = partial(asking_alone, folder / "inferred", (checkpoint.path,), max(1, (os.cpu_count() or 1) // WORKERS))
    with Workers(WORKERS, prepare) as workers:

        def together() -> None:
            passed = in_parts(path, 1, last_lsn, workers)
            assert passed is not None
            assert passed[1] is not None
            assert passed[1].inferences == steps

        together()  # the processes have begun then, and loaded the network
        found = [(_took_s(alone), _took_s(together)) for _ in range(3)]
    assert answers.inferences == steps, answers
    one_s, workers_s = (sorted(taken)[1] for taken in zip(*found, strict=True))
    return {
        "steps": steps, "steps_per_s": round(steps / one_s), "workers": WORKERS,
        "workers_steps_per_s": round(steps / workers_s), "batch": BATCH,
        "batch_graphs_per_s": round(BATCH / one_core_s), "largest_error": float(f"{answers.largest_error:.2g}"),
    }  # fmt: skip


def _took_s(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _per_s(work: Callable[[], object], steps: int) -> int:
    """Of the CPU time of the middle one of three."""
    taken_s = []
    for _ in range(3):
        begun_s = time.process_time()
        work()
        taken_s.append(time.process_time() - begun_s)
    return round(steps / sorted(taken_s)[1])


@dataclass(frozen=True)
class Bar:
    """What is wanted of one figure: at most `wanted`, or at least where `at_least`."""

    what: str
    wanted: float
    found: Callable[[Figures], float]
    at_least: bool = False


def at(*path: str) -> Callable[[Figures], float]:
    """The figure at the end of these keys."""

    def figure(figures: Figures) -> float:
        found: Any = figures
        for key in path:
            found = found[key]
        return float(found)

    return figure


def equal(form: str) -> Callable[[Figures], float]:
    """The share of decisions that are equal, in percent."""
    return at("network", "agreement", form, "equal_percent")


BARS = (
    Bar("network, small, hot, p50 ms", 1.6, at("network", "small", "hot", "wall_ms", "p50")),
    Bar("network, small, hot, p99 ms", 2.2, at("network", "small", "hot", "wall_ms", "p99")),
    Bar("network, small, times faster than PyG", 14, at("network", "small", "times_faster", "wall_ms"), at_least=True),
    Bar("network, small, cold, p50 ms", 2.3, at("network", "small", "cold", "wall_ms", "p50")),
    Bar("network, small, cold, p99 ms", 3.0, at("network", "small", "cold", "wall_ms", "p99")),
    Bar("small, decisions equal, %", 100, equal("small_fp32"), at_least=True),
    Bar("graph builder, small, p50 ms", 0.30, at("builder", "small", "known", "wall_ms", "p50")),
    Bar("decide + evolve, p50 ms", 0.06, at("core", "decide_evolve", "wall_ms", "p50")),
    Bar("telemetry, p50 ms", 0.10, at("core", "telemetry", "wall_ms", "p50")),
    Bar("commit over a bare write and sync, times", 1.3, at("log", "append", "p50_to_bare")),
    Bar("evaluate_step with the network, p50 ms", 2.5, at("step", "network", "stages_ms", "total", "p50")),
    Bar("evaluate_step with the network, p99 ms", 4.0, at("step", "network", "stages_ms", "total", "p99")),
    Bar("network, large, exact, p95 ms", 75, at("network", "large", "fp32", "wall_ms", "p95")),
    Bar("network, large, bf16, p95 ms", 45, at("network", "large", "bf16", "wall_ms", "p95")),
    Bar("large, exact, decisions equal, %", 100, equal("large_fp32"), at_least=True),
    Bar("large, bf16, decisions equal, %", 99.5, equal("large_bf16"), at_least=True),
    Bar("plan of a new large topology, p50 ms", 10, at("network", "large", "new_topology", "wall_ms", "p50")),
    Bar("replay of the state, steps/s of a core", 20_000, at("replay", "state_steps_per_s"), at_least=True),
    Bar("audit of every decision, steps/s of a core", 10_000, at("replay", "audit_steps_per_s"), at_least=True),
    Bar("audit of every inference, 2 workers, steps/s", 2_000, at("inferences", "workers_steps_per_s"), at_least=True),
)  # fmt: skip
"""Bars for two cores of an EPYC Zen 4. CUDA is measured elsewhere."""


def bars(figures: Figures) -> str:
    """What was wanted, what was found, and whether that will do."""
    lines = [f"{'':44}{'wanted':>10}{'found':>10}"]
    for bar in BARS:
        found = bar.found(figures)
        met = found >= bar.wanted if bar.at_least else found <= bar.wanted
        lines.append(f"{bar.what:44}{bar.wanted:10,g}{found:10,.5g}  {'met' if met else 'MISSED'}")
    return "\n".join(lines) + "\n"


def say(what: str) -> None:
    """Tell what is measured next."""
    sys.stderr.write(f"measuring: {what}\n")


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to measure; the default is the temporary directory")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    given = parser.parse_args()
    figures = run(given.folder or Path(tempfile.gettempdir()), quick=given.quick)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(f"{table(figures)}\n{bars(figures)}")


if __name__ == "__main__":
    main()
