"""The sparse form's plan: every edge counts once at its target, whichever of the two ways its relation goes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.bench.chance import graph_of, random_graph
from tamiyo.graph import Graph
from tamiyo.graph.schema import NODE_TYPES, RELATIONS
from tamiyo.policy.engine import sparse_plan
from tamiyo.policy.engine.fold import INTO, SINGLE
from tamiyo.policy.engine.sparse_plan import Hop, Into, Means, Sum, plan_of

HEADS = 4
Entry = tuple[int, int, int, int]
"""A relation's row, a source, a head and the number of an edge in the graph."""


def edges_of(graph: Graph, kind: str, target: int, *, by_head: bool) -> Counter[Entry]:
    """What a target is to get, from the graph alone."""
    found: Counter[Entry] = Counter()
    for row, relation in enumerate(INTO[kind]):
        sources, targets = graph.edge_index[relation.edge_type]
        for edge in np.flatnonzero(targets == target):
            for head in heads_of(relation.source, by_head=by_head):
                found[row, int(sources[edge]), head, int(edge)] += 1
    return found


def heads_of(source: str, *, by_head: bool) -> range:
    return range(HEADS if by_head and source != SINGLE else 1)


def read(into: Into, summed: Sum, target: int, *, by_head: bool) -> Counter[Entry]:
    """What it gets by the plan, beside the bias."""
    ends = [*summed.bags.tolist()[1:], len(summed.rows)]
    begin, end = summed.bags.tolist()[target], ends[target]
    found: Counter[Entry] = Counter()
    first_share = {}
    number = 0
    for place, hop in enumerate(into.hops):
        if is_near(hop, by_head=by_head):
            first_share[place] = number
            number += len(hop.order) * width(into, place, by_head=by_head)
    *entries, (bias, its_share) = zip(summed.rows[begin:end].tolist(), summed.shares[begin:end].tolist(), strict=True)
    assert (bias, its_share) == (summed.blocks[-1].stop if summed.blocks else 0, number), "the bias counts once"
    for row, share in entries:
        place = next(place for place, block in enumerate(summed.blocks) if block.start <= row < block.stop)
        hop, heads = into.hops[place], width(into, place, by_head=by_head)
        at = row - summed.blocks[place].start
        if is_near(hop, by_head=by_head):
            source_place, head = divmod(at, heads)
            edge, its_head = divmod(share - first_share[place], heads)
            source = source_place if hop.sources is None else int(hop.sources[source_place])
            assert (head, source) == (its_head, int(hop.ends[0, edge]))
            for each in heads_of(hop.source, by_head=by_head) if hop.is_lone else (head,):
                found[hop.row, source, each, int(hop.order[edge])] += 1
            continue
        assert share == number, "what comes from a far relation counts once"
        if not by_head:
            assert hop.means is not None
            bags = [*hop.means.bags.tolist(), len(hop.means.rows)]
            sources = Counter(hop.means.rows[bags[at] : bags[at + 1]].tolist())
            assert np.allclose(hop.means.shares[bags[at] : bags[at + 1]] * sources.total(), 1)
            # whose edges they are is of no importance: the target's own, as many from each source
            for edge in np.flatnonzero(hop.ends[1].numpy() == target):
                sources.subtract([int(hop.ends[0, edge])])
                found[hop.row, int(hop.ends[0, edge]), 0, int(hop.order[edge])] += 1
            assert not any(sources.values()), "a mean of other sources"
            continue
        assert hop.by_head is not None
        bags = [*hop.by_head.bags.tolist(), len(hop.by_head.rows)]
        for head in range(heads):
            for entry in range(bags[at * heads + head], bags[at * heads + head + 1]):
                edge, its_head = divmod(int(hop.by_head.shares[entry]), heads)
                assert its_head == head
                found[hop.row, int(hop.by_head.rows[entry]), head, int(hop.order[edge])] += 1
    return found


def is_near(hop: Hop, *, by_head: bool) -> bool:
    return (hop.by_head if by_head else hop.means) is None


def width(into: Into, place: int, *, by_head: bool) -> int:
    hop = into.hops[place]
    return 1 if hop.is_lone else len(heads_of(hop.source, by_head=by_head))


def check(graph: Graph) -> set[bool]:
    """Compare all targets, and return which of the two ways were gone."""
    plan = plan_of(graph, HEADS)
    for kind in NODE_TYPES:
        into = plan[kind]
        for target in range(len(graph.features[kind])):
            for summed, by_head in ((into.mean, False), (into.attention, True)):
                found = read(into, summed, target, by_head=by_head)
                assert found == edges_of(graph, kind, target, by_head=by_head)
        weights = into.shares.numpy()
        for hop in into.hops:
            counts = np.bincount(hop.ends[1].numpy())
            assert np.allclose(hop.shares.numpy() * counts[hop.ends[1].numpy()], 1)
        near = np.concatenate([hop.shares.numpy() for hop in into.hops if hop.means is None] or [np.zeros(0)])
        assert np.array_equal(weights, np.append(near, 1).astype(np.float32)[into.mean.shares.numpy()])
    return {hop.by_head is None for kind in NODE_TYPES for hop in plan[kind].hops}


@settings(max_examples=30, deadline=None)
@given(
    counts=st.tuples(st.just(1), *[st.integers(0, 6)] * 5),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_edge_counts_once_at_its_target(counts: tuple[int, ...], density: float, seed: int) -> None:
    check(random_graph(dict(zip(NODE_TYPES, counts, strict=True)), seed, density=density))


def test_both_ways_are_gone_and_an_edge_that_is_there_twice_counts_twice() -> None:
    stream = np.random.default_rng(7)
    counts = dict(zip(NODE_TYPES, (1, 3, 2, 9, 5, 4), strict=True))
    index = {
        relation.edge_type: np.stack(
            [stream.integers(0, counts[end], 12) for end in (relation.source, relation.target)]
        )
        for relation in RELATIONS
    }
    assert check(graph_of(counts, index, stream)) == {True, False}


def graph_with(edges: list[tuple[int, int]]) -> Graph:
    """These edges alone, from 4 seeds to 8 layers."""
    counts = dict(zip(NODE_TYPES, (1, 4, 0, 8, 0, 0), strict=True))
    index = {relation.edge_type: np.zeros((2, 0), np.int64) for relation in RELATIONS}
    index["seed", "monitors", "layer"] = np.array(edges, np.int64).T
    return graph_of(counts, index, np.random.default_rng(1))


def means_of(edges: list[tuple[int, int]]) -> Means | None:
    """What is planned for these edges; every target is checked."""
    graph = graph_with(edges)
    check(graph)
    (hop,) = plan_of(graph, HEADS)["layer"].hops
    return hop.means


def test_targets_of_the_same_sources_share_one_mean() -> None:
    everyone = [(seed, layer) for layer in range(8) for seed in range(4)]
    found = means_of(everyone)
    assert found is not None
    assert (sorted(found.rows.tolist()), len(found.bags)) == ([0, 1, 2, 3], 1)
    found = means_of([*everyone[::-1][:16], *everyone[:8], *((seed, 2 + seed // 2) for seed in range(4))])
    assert found is not None
    assert len(found.bags) == 3, "all four in another order, and two pairs"


@pytest.mark.parametrize(
    "others",
    [[0, 1, 2, 2], [0, 0, 1, 1], [0, 1, 2]],
    ids=["another source", "as often another", "one less"],
)
def test_targets_of_other_sources_share_none(others: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the numbers that tell sets apart are all the same, as two sets might be."""
    edges = [(seed, layer) for layer in range(7) for seed in range(4)] + [(seed, 7) for seed in others]
    means = means_of(edges)
    assert means is not None
    assert len(means.bags) == 2
    monkeypatch.setattr(sparse_plan, "_mixed", np.zeros_like)
    assert means_of(edges) is None


@pytest.mark.parametrize(
    ("edges", "is_lone"),
    [
        ([(2, layer) for layer in range(8)], True),
        ([(layer % 2, layer) for layer in range(7)], True),
        ([(2, layer) for layer in [0, *range(7)]], False),
        ([(seed, layer) for layer in range(4) for seed in range(2)], False),
    ],
    ids=["of one source", "of two", "one of them twice", "two each"],
)
def test_where_every_target_has_one_edge_the_heads_are_one(edges: list[tuple[int, int]], is_lone: bool) -> None:
    graph = graph_with(edges)
    check(graph)
    (hop,) = plan_of(graph, HEADS)["layer"].hops
    assert hop.is_lone == is_lone


@pytest.mark.parametrize("layers", [65_535, 65_536])
def test_targets_are_sorted_whether_or_not_their_numbers_fit_in_16_bits(layers: int) -> None:
    counts = dict(zip(NODE_TYPES, (1, 2, 0, layers, 0, 0), strict=True))
    index = {relation.edge_type: np.zeros((2, 0), np.int64) for relation in RELATIONS}
    index["seed", "monitors", "layer"] = np.stack([np.arange(layers) % 2, np.arange(layers)[::-1]])
    (hop,) = plan_of(graph_of(counts, index, np.random.default_rng(1)), HEADS)["layer"].hops
    assert hop.ends[1].tolist() == list(range(layers))
    assert hop.order.tolist() == list(range(layers))[::-1]
