"""Large graphs on a device: few kernels whatever the graph, and none in which one thread adds up thousands of edges."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from policy.processor import Processor
from torch.utils._python_dispatch import TorchDispatchMode

from tamiyo.bench.chance import large_graph, random_graph, random_network
from tamiyo.graph import Graph
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.device_plan import PIECE_MAX, Bags, _sorted, device_plan_of
from tamiyo.policy.engine.engine import _topology
from tamiyo.policy.engine.fold import Folded, fold
from tamiyo.policy.engine.sizes import USUAL
from tamiyo.policy.engine.sparse import SparseForm
from tamiyo.policy.engine.sparse_device import DeviceSparse

PLACE = torch.device("cpu")


@pytest.fixture(scope="module")
def folded() -> Folded:
    return fold(random_network(1, spread=5.0))


def lengths(begins: torch.Tensor, count: int) -> list[int]:
    return np.diff(np.append(begins.numpy(), count)).tolist()


def test_no_bag_is_longer_than_a_piece(folded: Folded) -> None:
    plan = device_plan_of(large_graph(1), folded.gat, PLACE)
    for bags, entries in [(one.bags, one.nodes) for one in (plan.averaged, *plan.attended)]:
        assert max(lengths(bags.begins, len(entries))) == PIECE_MAX
        assert sum(lengths(bags.begins, len(entries))) == len(entries)
        assert max(lengths(bags.piece_begins, len(bags.pieces))) == -(-3505 // PIECE_MAX)
        assert len(bags.begins) == bags.rows + len(bags.pieces)


@pytest.mark.parametrize("seed", range(5))
def test_sums_in_pieces_are_sums(folded: Folded, seed: int) -> None:
    graph = random_graph({**USUAL, "layer": 70 * (seed + 1)}, seed, density=0.9)
    for one in device_plan_of(graph, folded.gat, PLACE).attended:
        table = torch.randn(len(one.own), 3)
        expected = torch.zeros(one.bags.rows, 3).index_add_(0, one.rows, table)
        assert torch.allclose(one.bags.summed(one.own, table), expected, atol=1e-4)


def test_of_a_row_without_entries_the_sum_is_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    bags = Bags(2, torch.tensor([0, 1], dtype=torch.int32), none.long(), none, none)
    assert bags.summed(torch.tensor([1], dtype=torch.int32), torch.ones(2, 3)).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_numbers_are_sorted_as_numpy_does_past_16_bits() -> None:
    numbers = np.random.default_rng(1).integers(0, 200_000, 5_000)
    assert np.array_equal(_sorted(numbers), np.argsort(numbers, kind="stable"))


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.called: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("graph", [large_graph(1), random_graph(USUAL, 1)], ids=["large", "small"])
def test_a_graph_takes_few_kernels_whatever_it_is(folded: Folded, graph: Graph) -> None:
    """To queue one takes some microseconds of the processor, as long as most of them run."""
    form, key = DeviceSparse(folded, Processor()), _topology(graph)
    form.run(graph, key)
    with Counting() as mode:
        form.run(graph, key)
    assert mode.called["embedding_bag"] <= 12
    assert sum(mode.called.values()) < 200


@pytest.mark.parametrize("without", [kind for kind in NODE_TYPES if kind != "global"])
def test_a_type_may_have_no_nodes(folded: Folded, without: str) -> None:
    counts = {**USUAL, "seed": 12, "layer": 150, "activation": 40, without: 0}
    graph = random_graph(counts, 3, density=0.3)
    ours, theirs = (
        form.run(graph, _topology(graph)) for form in (DeviceSparse(folded, Processor()), SparseForm(folded))
    )
    for found, expected in (
        (ours.heads, theirs.heads),
        (ours.seed_scores, theirs.seed_scores),
        (ours.blueprint_scores, theirs.blueprint_scores),
    ):
        assert np.allclose(found, expected, atol=1e-4)
