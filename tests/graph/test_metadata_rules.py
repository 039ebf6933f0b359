"""Objects of names in the host's metadata, under both rules: what they lead to counts, or their names alone."""

import math
from dataclasses import replace
from typing import Any

import pytest
from graph.sketch import INITIAL, built, host, observed, seed

from tamiyo.core.behaviour import CURRENT, METADATA_VALUES
from tamiyo.core.norms import PRIORS
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.graph import Graph, GraphBuilder, MetadataRules
from tamiyo.graph.metadata import EDGES_MAX
from tamiyo.leyline import leyline_pb2 as pb

BEFORE, TODAY = MetadataRules(has_values=False), MetadataRules()
NAN = math.nan


def graph_of(rules: MetadataRules, **metadata: Any) -> Graph:
    given = replace(host(layers=4, parameters=2, **metadata), rules=rules)
    return built(observed(seed(pb.SEED_STAGE_DORMANT, layer_depth=0)), given)


def allowed(rules: MetadataRules, row: object, by: str = "id", key: str = "seed-0") -> tuple[list[int], int]:
    """The parameters that a seed may set, and how many inputs were ignored."""
    graph = graph_of(rules, capabilities={f"allowed_parameters_by_seed_{by}": {key: row}})
    return graph.edge_index["seed", "allowed", "parameter"][1].tolist(), graph.ignored_inputs


@pytest.mark.parametrize(
    ("value", "is_allowed", "ignored"),
    [
        (True, True, 0), (False, False, 0), (1, True, 0), (0, False, 0), (0.5, True, 0), (0.0, False, 0),
        (-1, False, 0), (NAN, False, 0), (None, False, 0), ({"min": 0.0, "max": 1.0}, True, 0), ({}, True, 0),
        ([0.0, 1.0], True, 0), ("false", False, 1), ("yes", False, 1), ("", False, 1), (10**400, False, 1),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(("by", "key"), [("id", "seed-0"), ("index", "0")])
def test_a_parameter_is_allowed_by_its_value(value: object, is_allowed: bool, ignored: int, by: str, key: str) -> None:
    row = {"parameter-1": value}
    assert allowed(TODAY, row, by, key) == ([1] if is_allowed else [], ignored)
    assert allowed(BEFORE, row, by, key) == ([1], 0)


def test_an_object_that_refuses_all_is_known_to() -> None:
    """Not the same as one that says nothing of a seed."""
    refused = {"parameter-0": False, "parameter-1": False}
    graph = graph_of(TODAY, capabilities={"allowed_parameters_by_seed_id": {"seed-0": refused}})
    assert graph.allowed_parameters(0) == {"allowed_param_parameter-0": 0.0, "allowed_param_parameter-1": 0.0}
    assert graph.may_set(0, "parameter-0") is False
    assert graph.may_set(0, "no such parameter") is None


def test_before_risks_were_compared_as_they_travel_one_was_over_itself() -> None:
    of_then = replace(
        host(layers=2, monitors={"thresholds": {"risk_max": 0.2}}), rules=MetadataRules(has_singles=False)
    )
    graph = built(observed(seed(layer_depth=0, risk_score=0.2)), of_then)
    assert not graph.edge_index["seed", "monitors", "layer"].size


def test_a_list_of_parameters_is_read_alike_by_both() -> None:
    for rules in (BEFORE, TODAY):
        assert allowed(rules, ["parameter-1", 0, "gamma"]) == ([1, 0], 1)


@pytest.mark.parametrize(
    ("row", "today", "before"),
    [
        ({"1": True}, ([1], 0), ([], 1)),
        ({"0": False, "01": 0.5}, ([1], 0), ([], 2)),
        ({"2": True, "-1": True, "1.0": True, "": True, "\u0661": True}, ([], 5), ([], 5)),
        ({"9999999": True}, ([], 1), ([], 1)),
        ({1: True}, ([1], 0), ([1], 0)),
        (["1"], ([], 1), ([], 1)),
    ],
    ids=repr,
)
def test_a_place_may_be_a_parameter_s_key(
    row: object, today: tuple[list[int], int], before: tuple[list[int], int]
) -> None:
    assert allowed(TODAY, row) == today
    assert allowed(BEFORE, row) == before


def test_a_node_that_is_called_a_number_comes_before_the_one_at_that_place() -> None:
    layers = [{"layer_id": name, "depth": depth} for depth, name in enumerate(("2", "b", "c"))]
    given = replace(host(layers=0, monitors={"by_seed_id": {"seed-0": {"2": 0.5, "1": 0.25}}}), rules=TODAY)
    given = replace(given, metadata={**given.metadata, "layers": layers})
    graph = built(observed(seed(pb.SEED_STAGE_DORMANT)), given)
    edges = graph.edge_index["seed", "monitors", "layer"][1].tolist()
    weights = graph.edge_attr["seed", "monitors", "layer"][:, 0].tolist()
    assert dict(zip(edges, weights, strict=True)) == {0: 0.5, 1: 0.25}


def test_an_unknown_name_is_counted_where_it_is_allowed() -> None:
    assert allowed(TODAY, {"gamma": True, "delta": False, "parameter-0": True}) == ([0], 1)
    assert allowed(BEFORE, {"gamma": True, "delta": False, "parameter-0": True}) == ([0], 2)


def watched(rules: MetadataRules, row: object, by: str = "id", key: str = "seed-0") -> tuple[dict[int, object], int]:
    """The layers that a seed watches with their weights, None for a masked one, and how many inputs were ignored."""
    graph = graph_of(rules, monitors={f"by_seed_{by}": {key: row}})
    edges = zip(
        graph.edge_index["seed", "monitors", "layer"][1].tolist(),
        graph.edge_attr["seed", "monitors", "layer"][:, [0, 3]].tolist(),
        strict=True,
    )
    return {layer: weight if mask else None for layer, (weight, mask) in edges}, graph.ignored_inputs


@pytest.mark.parametrize(
    ("value", "weight", "ignored"),
    [
        (0.75, 0.75, 0), (0, 0.0, 0), (-0.5, -0.5, 0), (NAN, None, 0), (math.inf, None, 0), (None, None, 0),
        (True, None, 0), ("much", None, 1), ([0.5], None, 1), ({"weight": 0.5}, None, 1),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(("by", "key"), [("id", "seed-0"), ("index", "0")])
def test_a_layer_s_value_is_its_weight(value: object, weight: object, ignored: int, by: str, key: str) -> None:
    row = {"layer-2": value}
    assert watched(TODAY, row, by, key) == ({2: weight}, ignored)
    assert watched(BEFORE, row, by, key) == ({2: None}, 0)


def test_a_weight_in_an_object_is_a_weight_in_a_triple() -> None:
    (triple,) = graph_of(TODAY, monitored_layers=[[0, 2, 0.7]]).edge_attr["seed", "monitors", "layer"].tolist()
    monitors = {"by_seed_id": {"seed-0": {"layer-2": 0.7}}}
    assert graph_of(TODAY, monitors=monitors).edge_attr["seed", "monitors", "layer"].tolist() == [triple]


def test_a_layer_s_place_may_be_a_key() -> None:
    assert watched(TODAY, {"2": 0.5, "3": True, "0": False, "4": 1.0}) == ({2: 0.5, 3: None}, 1)
    assert watched(BEFORE, {"2": 0.5}) == ({0: None}, 1)


def test_a_layer_that_is_given_as_false_is_not_watched() -> None:
    row = {"layer-1": False, "layer-2": 0.5, "no such layer": 0.5}
    assert watched(TODAY, row) == ({2: 0.5}, 1)
    assert watched(BEFORE, row) == ({1: None, 2: None}, 1)


def test_a_layer_that_is_given_as_false_is_not_watched_at_the_seed_s_depth_either() -> None:
    """The seed's depth is 0. It stands in for what is not said, and not for what is said."""
    for by, key in (("id", "seed-0"), ("index", "0")):
        assert watched(TODAY, {"layer-0": False}, by, key) == ({}, 0)
        assert watched(TODAY, {"layer-1": False}, by, key) == ({0: None}, 0)
        assert watched(BEFORE, {"layer-0": False}, by, key) == ({0: None}, 0)


def test_that_a_layer_is_not_watched_counts_as_a_mention_of_it() -> None:
    """Of which the first counts."""
    for first, then, expected in ((False, 0.5, {2: 0.25}), (0.5, False, {1: 0.5, 2: 0.25})):
        monitors = {
            "by_seed_id": {"seed-0": {"layer-1": first}},
            "by_seed_index": {"0": {"layer-1": then, "layer-2": 0.25}},
        }
        graph = graph_of(TODAY, monitors=monitors)
        layers = graph.edge_index["seed", "monitors", "layer"][1].tolist()
        weights = graph.edge_attr["seed", "monitors", "layer"][:, 0].tolist()
        assert dict(zip(layers, weights, strict=True)) == expected


def test_a_list_of_layers_is_read_alike_by_both() -> None:
    for rules in (BEFORE, TODAY):
        assert watched(rules, ["layer-1", ["layer-2", 0.5], [3]]) == ({1: None, 2: 0.5, 3: None}, 0)


def methods(rules: MetadataRules, listed: object) -> tuple[list[float | None], bool, int]:
    """What is said of each method, whether a seed has edges by it, and how many inputs were ignored."""
    graph = graph_of(rules, capabilities={"allowed_blending_methods": listed})
    said = [graph.value("seed", 0, f"blend_allowed_{name}") for name in BLENDING_METHODS]
    return said, bool(graph.edge_index["seed", "allowed", "parameter"].size), graph.ignored_inputs


def test_methods_past_the_cap_are_counted_and_not_read() -> None:
    listed = {f"method {place}": "text" for place in range(EDGES_MAX)} | {"linear": True}
    assert methods(TODAY, listed) == (NONE, False, EDGES_MAX + 1)


SILENT, NONE = [None] * 4, [0.0] * 4
FIRST, SECOND = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("listed", "today", "before"),
    [
        (["cosine"], (SECOND, True, 0), (SECOND, True, 0)),
        (["Cosine"], (SECOND, True, 0), (NONE, False, 1)),
        (["WARMUP_HOLD", "Linear", 3], ([1.0, 0.0, 1.0, 1.0], True, 0), ([0.0, 0.0, 0.0, 1.0], True, 2)),
        (["linear", "LINEAR"], (FIRST, True, 0), (FIRST, True, 1)),
        (["linear", "quadratic", 4, None], (FIRST, True, 3), (FIRST, True, 3)),
        (["quadratic", "warmup-hold"], (NONE, False, 2), (NONE, False, 2)),
        ([], (NONE, False, 0), (NONE, False, 0)),
        (None, (SILENT, False, 0), (SILENT, False, 0)),
        ("linear", (SILENT, False, 1), (SILENT, False, 1)),
        ({"Linear": True, "cosine": False, "sigmoid": None}, (FIRST, True, 0), (SILENT, False, 1)),
        ({"linear": "no", "cosine": 1, "quadratic": True}, (SECOND, True, 2), (SILENT, False, 1)),
        ({"linear": False}, (NONE, False, 0), (SILENT, False, 1)),
        ({"1": True, "4": True}, (SECOND, True, 1), (SILENT, False, 1)),
    ],
    ids=repr,
)
def test_methods_are_named_in_any_case_and_allowed_by_their_values(
    listed: object, today: tuple[list[float | None], bool, int], before: tuple[list[float | None], bool, int]
) -> None:
    assert methods(TODAY, listed) == today
    assert methods(BEFORE, listed) == before


@pytest.mark.parametrize("name", ["blending", "Blending", "seed_stage_blending", "Seed_Stage_BLENDING"])
def test_a_stage_is_named_in_any_case(name: str) -> None:
    monitors = {"thresholds": {"stage_min": name}}
    for rules, edges, ignored in ((TODAY, 0, 0), (BEFORE, 1, 1)):
        graph = graph_of(rules, monitors=monitors)
        assert graph.edge_index["seed", "monitors", "layer"].shape[1] == edges
        assert graph.ignored_inputs == ignored


def test_the_rules_are_those_of_a_log_s_flags() -> None:
    assert MetadataRules.under(CURRENT) == TODAY == host().rules
    assert MetadataRules.under([flag for flag in CURRENT if flag != METADATA_VALUES]) == BEFORE
    assert MetadataRules.under(()) == MetadataRules(has_values=False, has_singles=False)


def test_a_builder_keeps_what_it_read_by_one_rule_apart_from_the_other() -> None:
    builder = GraphBuilder()
    given = host(parameters=2, capabilities={"allowed_parameters_by_seed_id": {"seed-0": {"parameter-0": False}}})
    edges = []
    for rules in (BEFORE, TODAY, BEFORE, TODAY):
        graph = builder.build(
            observed(seed()), norms=PRIORS, registries=INITIAL, blueprints=[replace(given, rules=rules)]
        )
        edges.append(graph.edge_index["seed", "allowed", "parameter"].shape[1])
    assert edges == [1, 0, 1, 0]
