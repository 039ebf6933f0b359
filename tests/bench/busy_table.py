"""A large graph beside others who want the processors, with each way that OpenMP's threads may wait.

    python tests/bench/busy_table.py [--rounds N] [--busy N ...] [--json FILE]

torch's threads meet at the end of each operation. libgomp lets them spin there for milliseconds where the process has
no more OpenMP threads than processors, and hardly where it has: so where another thread, as a trainer's, has computed
with several too. It reads what the environment says of that when it is loaded, so every way has a process of its own.
They take turns, a few graphs each, beside so many loops that never end; nothing is asserted. The JSON in `results/` is
the last run kept.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch

from tamiyo.bench.chance import large_graph, random_network
from tamiyo.bench.machine import facts, load
from tamiyo.bench.timing import Figures
from tamiyo.policy.engine.fold import fold
from tamiyo.policy.engine.sparse import SparseForm

RESULTS = Path(__file__).parent / "results" / "busy.json"

WAYS: Mapping[str, tuple[int, bool, Mapping[str, str]]] = MappingProxyType(
    {
        "one thread": (1, False, {}),
        "two threads, alone": (2, False, {}),
        "two threads, beside a trainer's": (2, True, {}),
        "two threads, GOMP_SPINCOUNT=10000": (2, False, {"GOMP_SPINCOUNT": "10000"}),
        "two threads, OMP_WAIT_POLICY=passive": (2, False, {"OMP_WAIT_POLICY": "passive"}),
    }
)
"""By name how many threads, whether another thread has computed with as many, and what the environment says."""
TURN = 4
"""Graphs in a turn, after one that warms the caches."""


def serve(threads: int, *, beside: bool) -> None:
    """In a process of its own: for each line that comes, time a turn in fp32 and say what each graph took, in ms."""
    torch.set_num_threads(threads)
    if beside:
        computed = threading.Event()
        threading.Thread(target=trainer, args=(computed,), daemon=True).start()
        computed.wait()
    form, graph = SparseForm(fold(random_network(1))), large_graph(0)
    for _ in sys.stdin:
        form.run(graph, b"")
        taken_ms = []
        for _ in range(TURN):
            begun_s = time.perf_counter()
            form.run(graph, b"")
            taken_ms.append(1e3 * (time.perf_counter() - begun_s))
        sys.stdout.write(json.dumps(taken_ms) + "\n")
        sys.stdout.flush()


def trainer(computed: threading.Event) -> None:
    """A thread that has computed with several and is still there."""
    torch.ones(1_000_000).exp_()
    computed.set()
    threading.Event().wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many other processes that want a processor all the time."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(counts: Sequence[int], rounds: int) -> Figures:
    """By number of busy processes and way of waiting, milliseconds of a large graph."""
    servers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--serve", str(threads), *(["--beside"] if beside else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **said},
        )
        for name, (threads, beside, said) in WAYS.items()
    }  # fmt: skip
    found: Figures = {}
    try:
        for count in counts:
            times = {name: list[float]() for name in WAYS}
            with busy(count):
                for nth in range(rounds):
                    sys.stderr.write(f"{count} busy processes, round {nth + 1} of {rounds}\n")
                    for name, server in servers.items():
                        assert server.stdin is not None
                        assert server.stdout is not None
                        server.stdin.write("\n")
                        server.stdin.flush()
                        times[name] += json.loads(server.stdout.readline())
            found[f"{count} busy"] = {name: _figures(taken_ms) for name, taken_ms in times.items()}
    finally:
        for server in servers.values():
            server.kill()
            server.communicate()
    return found


def _figures(taken_ms: Sequence[float]) -> Figures:
    ordered = sorted(taken_ms)
    return {f"p{q}": round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 1) for q in (50, 95)}


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="turns of each way")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, beside=given.beside)
        return
    figures = {"machine": facts(Path.cwd()), "load": load(), "large_graph_ms": measure(given.busy, given.rounds)}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    for busy_count, ways in figures["large_graph_ms"].items():
        for name, taken in ways.items():
            sys.stdout.write(f"{busy_count}  {name:40}  p50 {taken['p50']:8}  p95 {taken['p95']:8}\n")


if __name__ == "__main__":
    main()
