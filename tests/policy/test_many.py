"""Many graphs at once say what each says by itself."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.bench.agreement import decision
from tamiyo.bench.chance import random_graph
from tamiyo.core.proposal import Proposal
from tamiyo.graph import Graph
from tamiyo.policy.checkpoint import Checkpoint, load_policy
from tamiyo.policy.engine import loading
from tamiyo.policy.engine.engine import DENSE_NODES_MAX
from tamiyo.policy.engine.joined import join
from tamiyo.policy.gnn import GnnPolicy

TOLERANCE = 1e-5
COUNTS = st.fixed_dictionaries(
    {
        "global": st.just(1), "seed": st.integers(1, 6), "blueprint": st.integers(0, 3), "layer": st.integers(0, 9),
        "activation": st.integers(0, 4), "parameter": st.integers(0, 4),
    }
)  # fmt: skip


def numbers(made: Proposal) -> np.ndarray:
    parts = (*made.action, *made.risk, made.value, *made.param_deltas, *made.blending_method, *made.schedule)
    return np.array([*parts, made.seed_score, *made.breaker_scores])


@given(sizes=st.lists(COUNTS, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1), dense=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_graphs_of_any_sizes_together_say_what_each_says(
    policy: GnnPolicy, sizes: list[Mapping[str, int]], seed: int, dense: float
) -> None:
    graphs = [random_graph(counts, seed + place, density=dense) for place, counts in enumerate(sizes)]
    graphs = [graph for graph in graphs if graph.candidates]
    for graph, found in zip(graphs, policy.propose_all(graphs), strict=True):
        expected = policy.propose(graph)
        error = np.abs(numbers(found) - numbers(expected)).max()
        assert error <= TOLERANCE * max(1.0, np.abs(numbers(expected)).max())
        assert decision(found) == decision(expected) or error > 0


def test_a_joined_graph_keeps_every_edge_within_its_own(graph: Graph) -> None:
    joined = join([graph, graph, graph])
    for edge_type, edges in joined.edge_index.items():
        count = graph.edge_index[edge_type].shape[1]
        source, target = len(graph.features[edge_type[0]]), len(graph.features[edge_type[2]])
        for place in range(3):
            own = edges[:, place * count : (place + 1) * count] - np.array([[place * source], [place * target]])
            assert np.array_equal(own, graph.edge_index[edge_type])
    assert {kind: counts.tolist() for kind, counts in joined.counts.items()} == {
        kind: [len(features)] * 3 for kind, features in graph.features.items()
    }


def test_graphs_of_one_topology_share_a_key_and_a_large_one_has_none(policy: GnnPolicy, graph: Graph) -> None:
    counts = graph.node_counts()
    assert policy.batch_key(graph) == policy.batch_key(graph) is not None
    assert policy.batch_key(random_graph(counts, 1, density=0.2)) != policy.batch_key(graph)
    assert policy.batch_key(random_graph({**counts, "layer": DENSE_NODES_MAX}, 1, density=0.1)) is None
    edge_type = "layer", "connects", "layer"
    twice = {**graph.edge_index, edge_type: np.repeat(graph.edge_index[edge_type][:, :1], 2, axis=1)}
    assert policy.batch_key(replace(graph, edge_index=twice)) is None, (
        "an edge that is there twice needs the edge lists"
    )


def test_what_is_for_the_reference_is_asked_by_itself(checkpoint: Checkpoint, graph: Graph) -> None:
    policy = load_policy(checkpoint.path)  # one of its own: its fallbacks are counted
    counts = graph.node_counts()
    past = random_graph(counts, 3, density=0.5)
    past.features["layer"].setflags(write=True)
    past.features["layer"][0, 0] = 1e6
    found = policy.propose_all([graph, past])
    assert found == [policy.propose(graph), policy.propose(past)]


def test_a_graph_without_a_candidate_is_refused(policy: GnnPolicy, graph: Graph) -> None:
    lonely = random_graph({**graph.node_counts(), "seed": 0}, 3, density=0.5)
    with pytest.raises(ValueError, match="without a candidate"):
        policy.propose_all([graph, lonely])


def test_without_an_engine_the_reference_answers_each(policy: GnnPolicy, graph: Graph) -> None:
    plain = GnnPolicy(policy.network, policy.identity)
    assert plain.propose_all([graph, graph]) == [plain.propose(graph)] * 2


def test_scores_are_those_that_a_proposal_selects_from(policy: GnnPolicy, graph: Graph) -> None:
    seeds, blueprints = policy.selection_scores(graph)
    made = policy.propose(graph)
    assert len(seeds) == len(graph.seed_ids)
    assert seeds[made.seed_index] == max(seeds[place] for place in graph.candidates) == made.seed_score
    assert blueprints.index(max(blueprints)) == made.blueprint_index


def test_half_precision_is_no_batch_of_small_graphs(
    checkpoint: Checkpoint, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "has_bf16", lambda: True)
    half = load_policy(checkpoint.path, bf16=True)
    assert half.propose_all([graph, graph]) == [half.propose(graph)] * 2
