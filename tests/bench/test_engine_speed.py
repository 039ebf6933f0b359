"""The network's engine beside PyTorch Geometric: `pytest tests/bench/test_engine_speed.py --benchmark-only`.

Never asserted. `engine_table.py` has all measures from one run, as a table and JSON.
"""

from collections.abc import Callable
from typing import Any

import engine_measures as measures
import engine_table

Benchmark = Callable[..., Any]


def test_the_engine_and_pyg_in_turns(benchmark: Benchmark) -> None:
    figures = benchmark.pedantic(engine_table.run, kwargs={"quick": True}, rounds=1)
    benchmark.extra_info.update(figures)


def test_one_proposal_on_the_small_graph(benchmark: Benchmark) -> None:
    measures.torch.set_num_threads(1)
    policy, graph = measures.policy_of(measures.random_network(1)), measures.small_graph()
    benchmark(policy.propose, graph)
