"""What the host's metadata says of seeds: the layers they monitor and the parameters they may set."""

import math
from typing import Any

import pytest
from graph.sketch import blueprint, built, host, metadata, observed, seed

from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.graph import BlueprintInput, Graph
from tamiyo.graph.schema import column
from tamiyo.graph.seeds import SEED_EDGES_MAX
from tamiyo.leyline import leyline_pb2 as pb


def monitored(given: dict[str, Any], *seeds: pb.SeedState, layers: int = 5) -> tuple[list[tuple[int, int]], int]:
    """The edges (seed, layer) of a host with these metadata, and how many inputs were ignored."""
    graph = built(observed(*(seeds or (seed(), seed(layer_depth=1)))), host(layers=layers, **given))
    return [tuple(edge) for edge in graph.edge_index["seed", "monitors", "layer"].T.tolist()], graph.ignored_inputs


def test_monitored_layers_are_the_seeds_layers() -> None:
    assert monitored({"monitored_layers": [[0, 3], [1, 2, 0.5], [0, 4]]}) == ([(0, 3), (0, 4), (1, 2)], 0)


def test_monitors_carry_their_weight_and_the_gap_in_depth() -> None:
    graph = built(observed(seed(layer_depth=1)), host(layers=5, monitored_layers=[[0, 3, 0.5], [0, 4]]))
    assert graph.edge_attr["seed", "monitors", "layer"].tolist() == [[0.5, 2 / 64, 0, 1, 1, 0], [0, 3 / 64, 0, 0, 1, 0]]
    assert graph.edge_attr["layer", "monitored_by", "seed"].tolist() == [
        [0.5, -2 / 64, 0, 1, 1, 0],
        [0, -3 / 64, 0, 0, 1, 0],
    ]
    assert ("edges.seed_monitors", "weight", 1, 2) in graph.coverage


@pytest.mark.parametrize("weight", [math.nan, math.inf, None])
def test_a_weight_that_is_not_finite_is_masked(weight: object) -> None:
    graph = built(observed(seed()), host(layers=2, monitored_layers=[[0, 1, weight]]))
    assert graph.edge_attr["seed", "monitors", "layer"][0].tolist() == [0, 1 / 64, 0, 0, 1, 0]


@pytest.mark.parametrize(
    "monitors",
    [
        {"by_seed_id": {"seed-1": [3, [4, 0.5]], "elsewhere": [0]}},
        {"by_seed_index": {"1": [3, [4, 0.5]]}},
        {"by_seed_index": [None, [3, [4, 0.5]]]},
        {"by_seed_id": {"seed-1": ["layer-3", ["layer-4"]]}},
    ],
    ids=("id", "place", "list", "layer ids"),
)
def test_monitors_name_the_layers_of_a_seed_and_the_others_keep_their_depth(monitors: dict[str, Any]) -> None:
    assert monitored({"monitors": monitors}) == ([(0, 0), (1, 3), (1, 4)], 0)


def test_of_several_mentions_of_a_layer_the_first_counts() -> None:
    monitors = {"by_seed_id": {"seed-0": [[1, 0.2], [2, 0.4]]}, "by_seed_index": {"0": [[1, 0.3], [3, 0.6], [2, 0.9]]}}
    graph = built(observed(seed()), host(layers=5, monitored_layers=[[0, 1, 0.1], [0, 1, 0.9]], monitors=monitors))
    layers = graph.edge_index["seed", "monitors", "layer"][1].tolist()
    weights = graph.edge_attr["seed", "monitors", "layer"][:, 0].tolist()
    assert dict(zip(layers, weights, strict=True)) == pytest.approx({1: 0.1, 2: 0.4, 3: 0.6})


BAD_MONITORS = [
    {"monitored_layers": [[0, 9]]},
    {"monitored_layers": [[-1, 0]]},
    {"monitored_layers": [[7, 0]]},  # the packet has two seeds
    {"monitored_layers": [[0.5, 0]]},
    {"monitored_layers": [[0, True]]},
    {"monitored_layers": [[0]]},
    {"monitored_layers": ["01"]},
    {"monitored_layers": {"0": 1}},
    {"monitored_layers": [[0, "no-layer"]]},
    {"monitors": 7},
    {"monitors": {"by_seed_id": []}} | {"monitors": {"by_seed_id": 3}},
    {"monitors": {"by_seed_id": {"seed-0": 3}}},
    {"monitors": {"by_seed_id": {"seed-0": [9]}}},
    {"monitors": {"by_seed_id": {"seed-0": [[]]}}},
    {"monitors": {"by_seed_id": {"seed-0": [[1, 0.5, 0.5]]}}},
    {"monitors": {"by_seed_id": {"": [1]}}},
    {"monitors": {"by_seed_index": {"x": [1]}}},
    {"monitors": {"by_seed_index": {"-1": [1]}}},
    {"monitors": {"by_seed_index": {"12345678": [1]}}},
    {"monitors": {"by_seed_index": {"2": [1]}}},
    {"monitors": {"thresholds": [1]}},
    {"monitors": {"thresholds": {"risk_max": "high"}}},
    {"monitors": {"thresholds": {"stage_min": "LATE"}}},
    {"monitors": {"thresholds": {"stage_min": []}}},
    {"monitors": {"thresholds": {"stage_min": "\ud800"}}},
]


@pytest.mark.parametrize("given", BAD_MONITORS, ids=repr)
def test_a_bad_entry_is_ignored_and_counted_and_the_seeds_keep_their_depth(given: dict[str, Any]) -> None:
    assert monitored(given) == ([(0, 0), (1, 1)], 1)


@pytest.mark.parametrize("risk", [0.1, 0.2, 0.3, 0.7, 0.8])
def test_a_risk_that_is_the_bound_is_not_over_it(risk: float) -> None:
    """A risk travels in single precision, in which 0.2 is a little more than that."""
    thresholds = {"monitors": {"thresholds": {"risk_max": risk}}}
    at, over = seed(risk_score=risk), seed(risk_score=risk + 1e-6)
    assert monitored(thresholds, at, over) == ([(0, 0)], 0)


@pytest.mark.parametrize("risk", [1e300, -1e300])
def test_a_bound_past_single_precision_is_one_that_all_or_none_are_under(risk: float) -> None:
    watching = monitored({"monitors": {"thresholds": {"risk_max": risk}}}, seed(risk_score=3e38))[0]
    assert watching == ([(0, 0)] if risk > 0 else [])


def test_an_ill_typed_weight_is_counted_and_the_edge_stays() -> None:
    assert monitored({"monitored_layers": [[0, 2, "much"]]}, seed()) == ([(0, 2)], 1)


@pytest.mark.parametrize(
    ("thresholds", "watching"),
    [
        ({}, {0, 1, 2}),
        ({"risk_max": 0.5}, {0, 1}),
        ({"risk_max": 0.4}, {0}),
        ({"stage_min": 4}, {1, 2}),
        ({"stage_min": "SHADOWING"}, {2}),
        ({"stage_min": "SEED_STAGE_BLENDING"}, {1, 2}),
        ({"risk_max": 0.5, "stage_min": 5}, set()),
        ({"risk_max": None, "stage_min": None}, {0, 1, 2}),
        ({"risk_max": math.nan, "stage_min": math.nan}, {0, 1, 2}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("named", [True, False], ids=("named", "by depth"))
def test_thresholds_leave_seeds_out(thresholds: dict[str, Any], watching: set[int], named: bool) -> None:
    seeds = [seed(place + 3, risk_score=risk) for place, risk in enumerate((0.25, 0.5, 0.75))]
    given: dict[str, Any] = {"monitors": {"thresholds": thresholds}}
    if named:
        given["monitored_layers"] = [[place, 0] for place in range(3)]
    edges, ignored = monitored(given, *seeds)
    assert {place for place, _ in edges} == watching
    assert ignored == 0


def test_a_risk_that_is_no_number_is_over_every_bound() -> None:
    unknown = seed(risk_score=math.nan)
    assert monitored({"monitors": {"thresholds": {"risk_max": 1.0}}}, unknown)[0] == []
    assert monitored({}, unknown)[0] == [(0, 0)]


def test_only_the_host_monitors_and_allows() -> None:
    more = metadata(layers=2, parameters=1, monitored_layers=[[0, 1]],
                    capabilities={"allowed_parameters_by_seed_id": {"seed-0": [0]}})  # fmt: skip
    graph = built(observed(seed(layer_depth=1)), BlueprintInput(blueprint("other", "d2"), more), host(layers=3))
    assert graph.edge_index["seed", "monitors", "layer"].T.tolist() == [[0, 3]]
    assert graph.edge_index["seed", "allowed", "parameter"].size == 0


def allowing(capabilities: object, *seeds: pb.SeedState, parameters: int = 3) -> Graph:
    return built(observed(*(seeds or (seed(), seed()))), host(parameters=parameters, capabilities=capabilities))


def allowed(graph: Graph) -> list[tuple[int, int]]:
    return [tuple(edge) for edge in graph.edge_index["seed", "allowed", "parameter"].T.tolist()]


NAMED = {"allowed_parameters_by_seed_id": {"seed-0": ["parameter-2", "parameter-0"], "seed-1": []}}


def test_capabilities_name_the_parameters_of_a_seed() -> None:
    graph = allowing(NAMED, seed(), seed(), seed())
    assert allowed(graph) == [(0, 2), (0, 0)]
    assert graph.values("seed", "allowed_parameters") == [pytest.approx(2 / 3), 0.0, None]
    assert [graph.allowed_parameters(place) for place in range(3)] == [
        {"allowed_param_parameter-0": 1.0, "allowed_param_parameter-1": 0.0, "allowed_param_parameter-2": 1.0},
        {"allowed_param_parameter-0": 0.0, "allowed_param_parameter-1": 0.0, "allowed_param_parameter-2": 0.0},
        {},
    ]


BY_INDEX = {"allowed_parameters_by_seed_index": {"0": [1]}}
METHODS = {"allowed_blending_methods": ["linear"]}
BLENDED, DORMANT = seed(pb.SEED_STAGE_BLENDING), seed(pb.SEED_STAGE_DORMANT)
WILLING = seed(pb.SEED_STAGE_DORMANT, metrics={"blend_allowed": 1.0})
ALL = [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("capabilities", "of", "expected"),
    [
        (NAMED | BY_INDEX | METHODS, BLENDED, [(0, 2), (0, 0)]),
        (BY_INDEX | METHODS, BLENDED, [(0, 1)]),
        ({"allowed_parameters_by_seed_index": [["parameter-1"]]}, BLENDED, [(0, 1)]),
        (METHODS, BLENDED, ALL),
        ({}, BLENDED, ALL),
        ({}, WILLING, ALL),
        (METHODS, DORMANT, ALL),
        ({"allowed_blending_methods": []}, DORMANT, []),
        ({}, DORMANT, []),
        (None, DORMANT, []),
    ],
    ids=("id", "index", "list", "blended before methods", "blended", "blend_allowed", "methods", "no method", "none",
         "no capabilities"),
)  # fmt: skip
def test_the_first_that_speaks_of_a_seed_says_what_it_may_set(
    capabilities: object, of: pb.SeedState, expected: list[tuple[int, int]]
) -> None:
    graph = allowing(capabilities, of)
    assert allowed(graph) == expected
    assert graph.ignored_inputs == 0
    known = graph.value("seed", 0, "allowed_parameters")
    assert known == (pytest.approx(len(expected) / 3) if expected else None)


def test_whether_a_seed_may_set_a_parameter_is_known_by_its_name() -> None:
    graph = allowing({"allowed_parameters_by_seed_id": {"seed-0": ["parameter-1"], "seed-1": []}}, *[seed()] * 3)
    assert [graph.may_set(0, f"parameter-{place}") for place in range(3)] == [False, True, False]
    assert [graph.may_set(1, f"parameter-{place}") for place in range(3)] == [False] * 3
    assert graph.may_set(2, "parameter-1") is None, "nothing is said of this seed"
    assert graph.may_set(0, "parameter-9") is None


def test_coverage_shows_whether_allowances_are_known() -> None:
    graph = allowing(NAMED, seed(), seed(), seed())
    assert ("node.seed", "allowed_parameters", 2, 3) in graph.coverage
    assert ("edges.seed_allowed", "min", 2, 2) in graph.coverage
    assert not [row for row in allowing({}).coverage if row[0] == "edges.seed_allowed"]


BAD_CAPABILITIES = [
    7,
    {"allowed_parameters_by_seed_id": {"seed-0": ["gamma"]}},
    {"allowed_parameters_by_seed_id": {"seed-0": [3]}},
    {"allowed_parameters_by_seed_id": {"seed-0": [0.5]}},
    {"allowed_parameters_by_seed_id": {"seed-0": "parameter-0"}},
    {"allowed_parameters_by_seed_id": "all"},
    {"allowed_parameters_by_seed_index": {"two": [0]}},
    {"allowed_parameters_by_seed_index": {"2": [0]}},
    {"allowed_blending_methods": "linear"},
    {"allowed_blending_methods": ["quadratic"]},
    {"allowed_blending_methods": [4]},
]


@pytest.mark.parametrize("capabilities", BAD_CAPABILITIES, ids=repr)
def test_a_bad_capability_is_ignored_and_counted(capabilities: object) -> None:
    graph = allowing(capabilities)
    assert allowed(graph) == []
    assert graph.ignored_inputs == 1


def test_blending_methods_of_the_host_stand_in_where_a_manager_says_nothing() -> None:
    names = [f"blend_allowed_{name}" for name in BLENDING_METHODS]
    graph = allowing({"allowed_blending_methods": ["cosine", 3]}, seed(), seed(metrics={"blend_allowed_linear": 1.0}))
    assert [graph.value("seed", 0, name) for name in names] == [0.0, 1.0, 0.0, 1.0]
    assert [graph.value("seed", 1, name) for name in names] == [1.0, None, None, None]


def test_entries_over_the_bound_are_left_out_and_every_seed_keeps_its_share() -> None:
    named = {f"seed-{place}": list(range(4_000)) for place in range(20)}
    seeds = [seed(layer_depth=place) for place in range(20)]
    graph = built(observed(*seeds), host(layers=4_000, monitors={"by_seed_id": named}))
    per_seed = [int((graph.edge_index["seed", "monitors", "layer"][0] == place).sum()) for place in range(20)]
    assert per_seed == [SEED_EDGES_MAX // 20] * 16 + [1] * 4
    assert graph.ignored_inputs == 4


def test_optimizer_priors_are_features_of_the_blueprint() -> None:
    priors = {"family": "AdamW", "learning_rate": 0.02, "momentum": 0.8, "weight_decay": 0.05}
    graph = built(observed(), host(optimizer_priors=priors), BlueprintInput(blueprint("other", "d2"), {}))
    assert graph.values("blueprint", "prior_learning_rate") == [0.02, None]
    assert graph.values("blueprint", "prior_momentum") == [0.8, None]
    assert graph.scaled("blueprint", 0, "prior_weight_decay") == pytest.approx(0.5)
    assert graph.scaled("blueprint", 0, "prior_momentum") == pytest.approx(-2.0, abs=1e-3)
    assert graph.categories["blueprint"][:, 2].tolist() == [3, 0]  # adamw is one of the families from the start


@pytest.mark.parametrize("priors", [3, {"family": 3}, {"learning_rate": "small"}], ids=repr)
def test_ill_typed_priors_are_masked_and_counted(priors: object) -> None:
    graph = built(observed(), host(optimizer_priors=priors))
    assert graph.ignored_inputs == 1
    masks = graph.features["blueprint"][0, len(graph.features["blueprint"][0]) // 2 :]
    assert not masks[[column("blueprint", f"prior_{name}") for name in ("learning_rate", "momentum")]].any()


def test_names_of_nodes_are_there() -> None:
    graph = built(observed(), host(layers=2, activations=1, parameters=1))
    assert graph.node_ids == {
        "layer": ("layer-0", "layer-1"), "activation": ("activation-0",), "parameter": ("parameter-0",),
    }  # fmt: skip


def test_connections_may_name_layers() -> None:
    graph = built(observed(), host(layers=3, adjacency={"layer": [["layer-2", "layer-0", 0.5], [0, "layer-1"]]}))
    assert graph.edge_index["layer", "connects", "layer"].T.tolist() == [[2, 0], [0, 1]]
