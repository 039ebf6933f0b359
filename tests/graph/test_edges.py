import math

import numpy as np
import pytest
from graph.sketch import HOST, blueprint, built, host, metadata, observed, seed

from tamiyo.graph import BlueprintInput
from tamiyo.graph.plan import PAIRS_MAX, pairs
from tamiyo.graph.schema import EDGE_ATTRIBUTES, FEATURES, RELATIONS, column
from tamiyo.graph.seeds import BLENDED_STAGES, SEED_EDGES_MAX, peer_edges
from tamiyo.leyline import leyline_pb2 as pb


def edges(graph: object, *relation: str) -> list[tuple[int, int]]:
    return [tuple(edge) for edge in graph.edge_index[relation].T.tolist()]


@pytest.mark.parametrize("relation", [r for r in RELATIONS if r.carrier != "given"], ids=lambda r: r.label)
def test_an_edge_copies_the_features_of_its_carrier(relation: object) -> None:
    seeds = [seed(place + 3, risk_score=place / 4, layer_depth=place, metrics={"alpha": 0.5}) for place in range(3)]
    layers = [{"depth": place, "latency_ms": place / 2} for place in range(3)]
    parameters = [{"name": "a", "min": 0.0, "max": 1.0}, {"name": "b", "default": 2.0}]
    activations = [{"saturation_rate": 0.25}, {"gradient_flow": 0.5}]
    given = BlueprintInput(blueprint(), {"layers": layers, "activations": activations, "parameters": parameters})
    graph = built(observed(*seeds), given)
    index, attributes = graph.edge_index[relation.edge_type], graph.edge_attr[relation.edge_type]
    assert index.shape[1] > 0
    kind, end = (relation.source, 0) if relation.carrier == "source" else (relation.target, 1)
    for edge, node in enumerate(index[end].tolist()):
        for place, name in enumerate(relation.attributes):
            row, value = graph.features[kind][node], column(kind, name)
            assert attributes[edge, place] == row[value]
            assert attributes[edge, EDGE_ATTRIBUTES + place] == row[len(FEATURES[kind]) + value]


OPPOSITES = [
    (("global", "influences", "seed"), ("seed", "reports", "global")),
    (("global", "annotates", "blueprint"), ("blueprint", "monitored_by", "global")),
    (("global", "operates", "layer"), ("layer", "feedback", "global")),
    (("layer", "activates", "activation"), ("activation", "affects", "layer")),
    (("activation", "configures", "parameter"), ("parameter", "modulates", "activation")),
    (("seed", "allowed", "parameter"), ("parameter", "associated", "seed")),
    (("blueprint", "composes", "layer"), ("layer", "belongs_to", "blueprint")),
    (("seed", "monitors", "layer"), ("layer", "monitored_by", "seed")),
]


@pytest.mark.parametrize(("there", "back"), OPPOSITES, ids="-".join)
def test_a_relation_and_its_opposite_join_the_same_nodes(there: tuple[str, ...], back: tuple[str, ...]) -> None:
    seeds = [seed(layer_depth=place, metrics={"blend_allowed": 1}) for place in range(3)]
    graph = built(observed(*seeds), host(layers=3, activations=2, parameters=2))
    assert edges(graph, *there) == [(target, source) for source, target in edges(graph, *back)] != []


def test_connections_carry_their_strength_and_the_gap_in_depth() -> None:
    graph = built(observed(), host(layers=3, adjacency={"layer": [[2, 0, 0.5], [0, 1]]}))
    assert edges(graph, "layer", "connects", "layer") == [(2, 0), (0, 1)]
    assert graph.edge_attr["layer", "connects", "layer"].tolist() == [
        [0.5, -2 / 64, 0, 1, 1, 0],
        [0, 1 / 64, 0, 0, 1, 0],
    ]


def test_a_connection_to_a_place_past_any_number_is_ignored() -> None:
    graph = built(observed(), host(layers=3, adjacency={"layer": [[0, 2**70], [1, 2]]}))
    assert edges(graph, "layer", "connects", "layer") == [(1, 2)]
    assert graph.ignored_inputs == 1


def test_a_gap_needs_both_ends() -> None:
    graph = built(observed(), BlueprintInput(blueprint(), {"layers": [{"depth": 1}, {}]}))
    assert not graph.edge_attr["layer", "connects", "layer"].any()


def test_a_strength_that_is_not_finite_is_masked() -> None:
    graph = built(observed(), host(layers=2, adjacency={"layer": [[0, 1, math.inf]]}))
    assert graph.edge_attr["layer", "connects", "layer"][0].tolist() == [0, 1 / 64, 0, 0, 1, 0]


def test_peers_carry_the_gaps_between_two_seeds() -> None:
    graph = built(observed(seed(3, layer_depth=1, metrics={"alpha": 0.25}), seed(4, layer_depth=3)))
    assert edges(graph, "seed", "peer", "seed") == [(0, 1), (1, 0)]
    assert graph.edge_attr["seed", "peer", "seed"].tolist() == [
        pytest.approx([1 / 11, 2 / 64, 0, 1, 1, 0]),
        pytest.approx([-1 / 11, -2 / 64, 0, 1, 1, 0]),
    ]


@pytest.mark.parametrize("seeds", [0, 1, 2, 8, 9, 100, 1_024])
def test_every_seed_has_peers_and_none_is_its_own(seeds: int) -> None:
    found = [tuple(edge) for edge in peer_edges(seeds).T.tolist()]
    assert len(found) == len(set(found)) == (seeds * (seeds - 1) if seeds <= 8 else seeds * 4)
    assert all(source != target for source, target in found)
    assert {source for source, _ in found} == (set(range(seeds)) if seeds > 1 else set())


def test_a_layer_activates_the_activation_that_it_names() -> None:
    given = {
        "layers": [{"activation": "second"}, {"activation": "relu"}, {}, {"activation": "tanh"}],
        "activations": [
            {"activation_id": "first", "type": "relu"},
            {"activation_id": "second", "type": "gelu"},
            {"activation_id": "third", "type": "relu"},
        ],
    }
    graph = built(observed(), BlueprintInput(blueprint(), given))
    assert sorted(edges(graph, "layer", "activates", "activation")) == [(0, 1), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]


def test_a_layer_feeds_the_activations_of_the_layers_it_connects_to() -> None:
    given = {
        "layers": [{"activation": "a"}, {"activation": "b"}, {"activation": "none"}],
        "activations": [{"activation_id": "a"}, {"activation_id": "b"}],
        "adjacency": {"layer": [[0, 1], [0, 1], [1, 2], [2, 0]]},
    }
    graph = built(observed(), BlueprintInput(blueprint(), given))
    assert edges(graph, "layer", "feeds", "activation") == [(0, 1), (2, 0)]


def test_blueprints_own_what_they_brought() -> None:
    other = BlueprintInput(blueprint("other", "d2"), metadata(layers=1, activations=2, parameters=1))
    graph = built(observed(), host(layers=2, activations=1, parameters=1), other)
    assert edges(graph, "blueprint", "composes", "layer") == [(0, 0), (0, 1), (1, 2)]
    assert edges(graph, "blueprint", "energizes", "activation") == [(0, 0), (1, 1), (1, 2)]
    assert edges(graph, "parameter", "targets", "blueprint") == [(0, 0), (1, 1)]
    assert edges(graph, "activation", "configures", "parameter") == [(0, 0), (1, 1), (2, 1)]


def test_seeds_monitor_the_layers_at_their_depth() -> None:
    given = BlueprintInput(blueprint(), {"layers": [{"depth": 2}, {"depth": 5}, {}, {"depth": 2}]})
    graph = built(observed(seed(layer_depth=2), seed(layer_depth=5), seed(layer_depth=3)), given)
    assert edges(graph, "seed", "monitors", "layer") == [(0, 0), (0, 2), (0, 3), (1, 1)]
    assert graph.ignored_inputs == 1  # no layer at depth 3


def test_a_depth_without_any_layers_is_no_bad_index() -> None:
    assert built(observed(seed(layer_depth=3)), host()).ignored_inputs == 0


@pytest.mark.parametrize("stage", range(12))
def test_a_stage_from_blending_to_fossilized_allows_parameters(stage: int) -> None:
    graph = built(observed(seed(stage)), host(parameters=2))
    expected = [(0, 0), (0, 1)] if stage in BLENDED_STAGES else []
    assert edges(graph, "seed", "allowed", "parameter") == expected


def test_a_seed_monitors_the_first_eight_layers_at_its_depth() -> None:
    given = BlueprintInput(blueprint(), {"layers": [{"depth": 2}] * 9})
    graph = built(observed(seed(layer_depth=2)), given)
    assert edges(graph, "seed", "monitors", "layer") == [(0, layer) for layer in range(8)]


def test_the_stages_that_have_a_say_are_the_blended_ones() -> None:
    assert {pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY,
            pb.SEED_STAGE_FOSSILIZED} == BLENDED_STAGES  # fmt: skip


@pytest.mark.parametrize(("allowed", "count"), [(1.0, 2), (0.25, 2), (0.0, 0), (math.nan, 0), (-1.0, 0)])
def test_blend_allowed_allows_parameters(allowed: float, count: int) -> None:
    graph = built(observed(seed(metrics={"blend_allowed": allowed})), host(parameters=2))
    assert len(edges(graph, "seed", "allowed", "parameter")) == count


def test_allowed_edges_are_bounded_and_every_seed_keeps_its_share() -> None:
    seeds = [seed(pb.SEED_STAGE_BLENDING) for _ in range(100)]
    found = edges(built(observed(*seeds), host(parameters=400)), "seed", "allowed", "parameter")
    assert len(found) <= SEED_EDGES_MAX
    assert len(found) == 100 * (SEED_EDGES_MAX // 100)


def test_bounds_of_the_descriptor_become_parameters() -> None:
    bounded = blueprint(allowed_parameters=(("alpha", 0.0, 1.0), ("beta", -1.0, 3.0)))
    graph = built(observed(), BlueprintInput(bounded, {"parameters": [{"name": "beta", "min": 0.0, "max": 0.5}]}))
    assert graph.values("parameter", "max") == [0.5, 1.0]
    assert graph.values("parameter", "span") == [0.5, 1.0]


@pytest.mark.parametrize(
    ("sources", "targets"), [(0, 5), (5, 0), (3, 4), (32, 32), (33, 32), (5, 3_000), (4_096, 4_096)]
)
def test_pairs_grow_with_the_lists_and_not_with_their_product(sources: int, targets: int) -> None:
    found = [tuple(pair) for pair in pairs(np.arange(sources), np.arange(targets)).T.tolist()]
    assert len(found) == len(set(found)) <= max(PAIRS_MAX, sources, targets)
    if sources and targets:
        assert {source for source, _ in found} == set(range(sources))
        assert {target for _, target in found} == set(range(targets))
    else:
        assert found == []


def test_a_run_without_seeds_still_has_its_blueprint() -> None:
    graph = built(observed(), host(layers=2, activations=1, parameters=1))
    assert graph.blueprint_ids == (HOST,)
    assert graph.edge_counts()["layer-activates-activation"] == 2
