"""How long a step takes alone, and beside the work that may go on meanwhile, in one run; nothing asserted.

    PYTHONPATH=tests python tests/bench/step_beside.py [--steps N] [--rounds N] [--rate HZ] [--log N] [--folder DIR]
                                                       [--json FILE]

A service on a log that is there already (`long_log_measures.py`) takes steps at a steady rate: alone, beside a
projection that is made anew in the same process, at full speed and resting, and in another one, beside a follower, and
beside a retention run. They take turns, a part of the steps each, so that all meet the same machine; a retention run
that ends sooner has fewer. Budgets are a second, so that what a step takes shows, and not what is released
in its place. The JSON in `results/` is the last run kept.
"""

import argparse
import asyncio
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
from live import DictLibrary
from long_log_measures import Figures, measured
from rig import SECRET
from test_long_run import CountingBus, FixedPolicy, made_packet

from tamiyo import Settings, TamiyoService
from tamiyo.bench.machine import facts, load
from tamiyo.core.paced import Pace, without_rest
from tamiyo.pace import Restful
from tamiyo.projections import Projection, ProjectionFollower

RESULTS = Path(__file__).parent / "results" / "step-beside.json"
FOLLOW_EVERY_S = 0.1
SEGMENT_BYTES = 2**23
"""Small ones, so that every round leaves some to prune."""

Work = Callable[[TamiyoService, Path, Event], object]
"""What goes on beside the steps, on a thread of its own, until the event says that there are enough of them."""


def alone(_service: TamiyoService, _directory: Path, enough: Event) -> None:
    """Nothing."""
    enough.wait()


def rebuild(pace: Callable[[], Pace]) -> Work:
    """A projection made anew in this process, over and over."""

    def work(service: TamiyoService, directory: Path, enough: Event) -> None:
        while not enough.is_set():
            with Projection.open(directory, pace=pace()) as projection:
                projection.rebuild(service.log)

    return work


def rebuild_elsewhere(_service: TamiyoService, directory: Path, enough: Event) -> None:
    """The same in another process, which knows nothing but the directory."""
    with subprocess.Popen([sys.executable, __file__, "--rebuild", str(directory)]) as child:
        enough.wait()
        child.terminate()


def follow(service: TamiyoService, directory: Path, enough: Event) -> None:
    """A follower in this process."""
    follower = ProjectionFollower(directory, service.log, every_s=FOLLOW_EVERY_S)
    enough.wait()
    follower.close()


def retain(service: TamiyoService, _directory: Path, _enough: Event) -> None:
    """What is due to be published, then a retention run, once: it prunes whatever is not needed."""
    asyncio.run(service.publish_history(CountingBus()))
    sys.stderr.write(service.retain().text + "\n")


SITUATIONS: dict[str, Work] = {
    "alone": alone,
    "rebuild at full speed": rebuild(lambda: without_rest),
    "rebuild that rests": rebuild(Restful),
    "rebuild in another process": rebuild_elsewhere,
    "follower": follow,
    "retention": retain,
}
"""In this order: a follower has little to do once the rows are there."""


class Steps:
    """A host that takes a step at a steady rate."""

    def __init__(self, service: TamiyoService, rate_hz: float) -> None:
        self._service, self._every_s, self._taken = service, 1 / rate_hz, 0

    def beside(self, work: Work, directory: Path, most: int) -> list[float]:
        """Take steps until there are so many, or the work beside them has ended; what each took, in ms."""
        enough, took_ms = Event(), list[float]()
        with ThreadPoolExecutor(1) as thread:
            doing = thread.submit(work, self._service, directory, enough)
            due_s = time.perf_counter()
            while len(took_ms) < most and not doing.done():
                due_s = max(due_s + self._every_s, time.perf_counter())
                time.sleep(max(due_s - time.perf_counter(), 0.0))
                took_ms.append(self._step())
            enough.set()
            doing.result()
        return took_ms

    def _step(self) -> float:
        packet = made_packet(self._taken)
        self._taken += 1
        begun_ns = time.perf_counter_ns()
        self._service.evaluate_step(packet)
        return (time.perf_counter_ns() - begun_ns) / 1e6


def run(folder: Path, steps: int, rounds: int, rate_hz: float, log_steps: int) -> Figures:
    """Write the log in a process of its own, then measure every situation on it."""
    measured("writing", folder, log_steps)
    before, took_ms = load(), {name: list[float]() for name in SITUATIONS}
    settings = Settings(
        step_timeout_ms=1_000, commit_timeout_ms=1_000, log_retention_hours=0, segment_bytes=SEGMENT_BYTES
    )
    with TamiyoService.open(
        folder, policy=FixedPolicy(1), urza=DictLibrary({}), secret=SECRET, settings=settings
    ) as service:
        host = Steps(service, rate_hz)
        host.beside(alone, folder, steps // 10)  # warm
        for turn in range(rounds):
            for name, work in SITUATIONS.items():
                sys.stderr.write(f"round {turn + 1}: {name}\n")
                took_ms[name] += host.beside(work, folder, steps // rounds)
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "machine": facts(folder), "log_steps": log_steps,
        "steps_per_second": rate_hz, "rounds": rounds, "follower_looks_every_s": FOLLOW_EVERY_S,
        "load_before": before, "load_after": load(),
        "situations": {name: _spread(one_ms) for name, one_ms in took_ms.items()},
    }  # fmt: skip


def _spread(took_ms: list[float]) -> Figures:
    shares = {"p50_ms": 50, "p99_ms": 99, "p99_9_ms": 99.9, "max_ms": 100}
    return {"steps": len(took_ms)} | {
        name: round(float(np.percentile(took_ms, share)), 2) for name, share in shares.items()
    }


def table(figures: Figures) -> str:
    """A line for each situation."""
    columns = ("steps", "p50_ms", "p99_ms", "p99_9_ms", "max_ms")
    lines = [f"{'':28}" + "".join(f"{name:>10}" for name in columns)]
    lines += [
        f"{name:28}" + "".join(f"{found[column]:10,}" for column in columns)
        for name, found in figures["situations"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, keep and print."""
    if sys.argv[1:2] == ["--rebuild"]:
        while True:
            with Projection.open(sys.argv[2]) as projection:
                projection.rebuild(Path(sys.argv[2]) / "wal")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4_000, help="in each situation, all rounds together")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rate", type=float, default=200, help="steps a second")
    parser.add_argument("--log", type=int, default=40_000, help="steps of the log that is there before")
    parser.add_argument("--folder", type=Path, help="where to measure; the default is the temporary directory")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="tamiyo-beside-") as made:
        figures = run(Path(made), given.steps, given.rounds, given.rate, given.log)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(table(figures))


if __name__ == "__main__":
    main()
