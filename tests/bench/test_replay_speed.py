"""What a log costs to read again: `pytest tests/bench/test_replay_speed.py --benchmark-only`. Never asserted.

The log is that of `test_long_run.py`: four seeds, every step delivered, and published every thousand steps; without
observation windows (the default) and with windows of ten decisions. `steps_per_second` is of the CPU time of the median
round.
"""

import collections
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_long_run import parts

import wal
from tamiyo.audit import replay
from tamiyo.beginning import Beginning, folded

Benchmark = Callable[..., Any]
STEPS = 8_000


class OnDisk:
    """A log without a writer, as `folded` reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, after: int | None = 0) -> Any:
        return wal.read(self._path, after)


@pytest.fixture(scope="module", params=[1, 10], ids=["no_windows", "windows_of_10"])
def path(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("long")
    collections.deque(parts(STEPS, directory, window=request.param), maxlen=0)
    return Path(directory / "wal")


def measured(benchmark: Benchmark, work: Callable[[], Any], rounds: int) -> Any:
    """The work's last result; wall time is the benchmark's, CPU time goes with it."""
    took_s = []

    def once() -> Any:
        begun_s = time.process_time()
        found = work()
        took_s.append(time.process_time() - begun_s)
        return found

    result = benchmark.pedantic(once, rounds=rounds)  # type: ignore[attr-defined]
    benchmark.extra_info["steps_per_second"] = round(STEPS / sorted(took_s)[len(took_s) // 2])  # type: ignore[attr-defined]
    return result


def test_reading_a_log(benchmark: Benchmark, path: Path) -> None:
    measured(benchmark, lambda: collections.deque(wal.read(path), maxlen=0), 7)


def test_replaying_the_state_from_disk(benchmark: Benchmark, path: Path) -> None:
    state, _ = measured(benchmark, lambda: folded(OnDisk(path), Beginning()), 7)
    assert state.decisions == STEPS


def test_auditing_every_decision_from_disk(benchmark: Benchmark, path: Path) -> None:
    found = measured(benchmark, lambda: replay(wal.read(path)), 5)
    assert (found.decisions, found.divergence) == (STEPS, None)
