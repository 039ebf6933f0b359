"""The network's engine beside PyTorch Geometric: `pytest tests/bench/test_engine_speed.py --benchmark-only`.

Never asserted. `engine_table.py` has all measures from one run, as a table and JSON.
"""

from collections.abc import Callable
from typing import Any

import engine_table
import pytest

from tamiyo.bench.network import Subject, from_seed
from tamiyo.bench.samples import small_graph
from tamiyo.policy.ambient import threads

Benchmark = Callable[..., Any]


@pytest.fixture(scope="module")
def subject() -> Subject:
    return from_seed(1)


def test_the_engine_and_pyg_in_turns(benchmark: Benchmark) -> None:
    figures = benchmark.pedantic(engine_table.run, kwargs={"quick": True}, rounds=1)
    benchmark.extra_info.update(figures)


def test_one_proposal_on_the_small_graph(benchmark: Benchmark, subject: Subject) -> None:
    with threads(1):
        benchmark(subject.exact.propose, small_graph())
