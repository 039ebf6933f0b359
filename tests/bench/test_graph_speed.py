"""What graphs cost: `pytest tests/bench/test_graph_speed.py --benchmark-only`. Compare within one run; never asserted.

The small graph: global 1, seed 4, blueprint 1, layer 8, activation 4, parameter 4 nodes. The large one: 10,000 nodes,
1, 32, 1, 4,000, 3,000 and 2,966, and about 56,000 edges. Packets differ from step to step, as they do in a run; what
is read of them (`read_packet`) is a part of the step and not of the graph.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest

from tamiyo.bench.builder import HOSTS, Warm
from tamiyo.bench.samples import LARGE_HOST, large_host, training_step
from tamiyo.core.observation import Observation
from tamiyo.graph import BlueprintInput
from tamiyo.graph.plan import make_plan
from tamiyo.graph.topology import lay_out

Benchmark = Callable[..., Any]
SMALL, BIG = HOSTS.values()


def following(warm: Warm) -> tuple[tuple[Observation], dict[str, Any]]:
    return (warm.next_step(),), {}


@pytest.mark.parametrize(("seeds", "given"), [SMALL, BIG], ids=("small", "large"))
def test_a_graph_of_a_known_blueprint(benchmark: Benchmark, seeds: int, given: Callable[[], BlueprintInput]) -> None:
    warm = Warm(seeds, given())
    counts = warm.graph.node_counts()
    benchmark.extra_info["nodes"], benchmark.extra_info["edges"] = (
        sum(counts.values()),
        sum(warm.graph.edge_counts().values()),
    )
    benchmark.pedantic(warm.build, setup=lambda: following(warm), rounds=1_000)


@pytest.mark.parametrize(("seeds", "given"), [SMALL, BIG], ids=("small", "large"))
def test_a_graph_in_whose_step_a_seed_has_moved_on(
    benchmark: Benchmark, seeds: int, given: Callable[[], BlueprintInput]
) -> None:
    """The edges of the seeds are laid anew, and the coverage is counted anew."""
    warm = Warm(seeds, given())
    stages = cycle((3, 4))

    def arguments() -> tuple[tuple[Observation], dict[str, Any]]:
        observation = warm.next_step()
        moved = training_step(seeds, observation.global_step)
        object.__setattr__(moved.seeds[0], "stage", next(stages))
        return (moved,), {}

    benchmark.pedantic(warm.build, setup=arguments, rounds=200)


@pytest.mark.parametrize("given", [SMALL[1], BIG[1]], ids=("small", "large"))
def test_a_plan_of_a_new_blueprint(benchmark: Benchmark, given: Callable[[], BlueprintInput]) -> None:
    made = given()
    benchmark.pedantic(make_plan, (made,), rounds=50, warmup_rounds=2)


def test_the_topology_of_new_plans(benchmark: Benchmark) -> None:
    made = large_host()
    plan = make_plan(made)
    assert plan.count("layer") == LARGE_HOST["layer"]
    benchmark.pedantic(lay_out, ([made.blueprint], [plan]), rounds=50, warmup_rounds=2)


def test_the_registry_keys_of_a_step(benchmark: Benchmark) -> None:
    warm = Warm(SMALL[0], SMALL[1]())
    benchmark.pedantic(warm.builder.registry_keys, (warm.steps[0], warm.given), rounds=1_000)
