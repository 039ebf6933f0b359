"""A whole step with the network running and the log synced, and everything that has a bar from one run:

    pytest tests/bench/test_step_speed.py --benchmark-only

Never asserted. `speed_table.py` prints the bars beside what was found.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import speed_table

from tamiyo.bench.network import from_seed
from tamiyo.bench.step import Bare, Stepping
from tamiyo.policy.ambient import threads

Benchmark = Callable[..., Any]
STEPS = 500


@pytest.fixture(params=["baseline", "network"])
def stepping(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stepping]:
    policy = from_seed(1).exact if request.param == "network" else None
    with threads(1), Stepping(tmp_path / "service", policy) as made:
        yield made


def test_evaluate_step_on_a_real_disk(benchmark: Benchmark, stepping: Stepping) -> None:
    benchmark.pedantic(stepping.step, kwargs={"counted": True}, rounds=STEPS)
    benchmark.extra_info.update(stepping.figures())


def test_a_bare_write_and_sync_of_the_same_size(benchmark: Benchmark, tmp_path: Path) -> None:
    """The floor of a commit."""
    with Bare(tmp_path / "bare", 4_608, 5 * (STEPS + 1)) as bare:
        benchmark.pedantic(bare.turn, (1,), rounds=STEPS)


def test_everything_that_has_a_bar(benchmark: Benchmark, tmp_path: Path) -> None:
    figures = benchmark.pedantic(speed_table.run, (tmp_path,), {"quick": True}, rounds=1)
    benchmark.extra_info.update(figures)
