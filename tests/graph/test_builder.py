import math

import numpy as np
import pytest
from graph.sketch import HOST, INITIAL, blueprint, built, host, metadata, observed, seed, sheet, small_graph

from tamiyo.core import coverage, registries
from tamiyo.core.blueprint import unobserved
from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.norms import NORM_INDEX, NORM_INPUTS, PRIORS, Norm
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.graph import BlueprintInput, GraphBuilder, build, registry_keys
from tamiyo.graph.schema import CLIP, FEATURES, NODE_TYPES, column
from tamiyo.leyline import leyline_pb2 as pb


def test_an_empty_packet_makes_a_graph() -> None:
    graph = built(observed(training_run_id="", packet_id=""))
    assert graph.node_counts() == {**dict.fromkeys(NODE_TYPES, 0), "global": 1}
    assert set(graph.edge_counts().values()) == {0}
    assert graph.candidates == graph.seed_ids == graph.blueprint_ids == graph.norm_inputs == ()
    assert (graph.host_blueprint_index, graph.ignored_inputs) == (-1, 0)


def test_an_empty_packet_has_only_its_counters() -> None:
    graph = built(observed())
    present = {name for _, name, found, _ in graph.coverage if found}
    assert present == {"current_epoch", "global_step"}
    assert coverage.average(graph.coverage) < 0.1


def test_the_small_graph_has_its_nodes_and_edges() -> None:
    graph = small_graph()
    assert graph.node_counts() == {"global": 1, "seed": 4, "blueprint": 1, "layer": 8, "activation": 4, "parameter": 4}
    edges = graph.edge_counts()
    assert edges["seed-peer-seed"] == 12
    assert edges["layer-activates-activation"] == 32
    assert edges["activation-configures-parameter"] == 16
    assert edges["layer-connects-layer"] == 7
    assert edges["seed-allowed-parameter"] == 16
    assert min(edges.values()) > 0


@pytest.mark.parametrize("stage", range(13))
def test_the_candidates_are_the_seeds_with_a_legal_operation(stage: int) -> None:
    graph = built(observed(seed(stage), seed(pb.SEED_STAGE_CULLED), seed(stage)))
    assert graph.candidates == ((0, 2) if stage in OPERATION_BY_STAGE else ())


def test_a_graph_is_a_function_of_its_inputs() -> None:
    first, second = small_graph(), small_graph()
    for kind in NODE_TYPES:
        assert first.features[kind].tobytes() == second.features[kind].tobytes()
        assert first.categories[kind].tobytes() == second.categories[kind].tobytes()
    for relation, index in first.edge_index.items():
        assert index.tobytes() == second.edge_index[relation].tobytes()
        assert first.edge_attr[relation].tobytes() == second.edge_attr[relation].tobytes()
    assert first.coverage == second.coverage


def test_what_the_builder_keeps_does_not_show() -> None:
    builder = GraphBuilder()
    given = (host(layers=3, activations=2, parameters=1),)
    early = observed(seed(), training_metrics={"loss": 0.5})
    late = observed(seed(), seed(), training_metrics={"loss": 4.0})
    for observation in (early, late, early):
        warm = builder.build(observation, norms=PRIORS, registries=INITIAL, blueprints=given)
        fresh = build(observation, norms=PRIORS, registries=INITIAL, blueprints=given)
        assert all(warm.features[kind].tobytes() == fresh.features[kind].tobytes() for kind in NODE_TYPES)
        assert warm.coverage == fresh.coverage


def test_a_log_that_numbers_its_names_otherwise_is_followed() -> None:
    """One that lost its last records may: the blueprints, and what the builder keeps of them, are the same."""
    builder, given = GraphBuilder(), (host(layers=2, activations=1),)
    for names in (["other", "linear"], ["linear"]):
        known = {**INITIAL, "layer_type": {name: index for index, name in enumerate(names, start=1)}}
        graph = builder.build(observed(seed()), norms=PRIORS, registries=known, blueprints=given)
        assert graph.categories["layer"][:, 0].tolist() == [len(names)] * 2


def test_the_arrays_of_a_graph_cannot_be_written() -> None:
    """Neither those made for it nor those that it shares with others."""
    builder, hosts = GraphBuilder(), (host(layers=3, activations=2, parameters=2), host(layers=1))
    given = (
        (observed(seed(), seed()), hosts[:1]),
        (observed(seed(), seed(), training_metrics={"loss": 1.0, "gradient_norm": 2.0}), hosts[:1]),
        (observed(seed(stage=pb.SEED_STAGE_BLENDING)), hosts),
        (observed(), hosts),
        (observed(seed()), ()),
    )
    for observation, blueprints in given:
        graph = builder.build(observation, norms=PRIORS, registries=INITIAL, blueprints=blueprints)
        for arrays in (graph.features, graph.raw, graph.categories, graph.edge_index, graph.edge_attr):
            assert not [kind for kind, array in arrays.items() if array.flags.writeable]


def test_what_graphs_share_cannot_be_exchanged() -> None:
    """A policy that did would do it to every later step's graph."""
    graph = small_graph()
    for shared in (graph.edge_index, graph.node_ids):
        with pytest.raises(TypeError):
            shared[next(iter(shared))] = ()  # type: ignore[index]  # that is what is refused


def test_fields_of_the_packet_and_of_the_hardware_have_their_columns() -> None:
    hardware = pb.HardwareContext(
        device_type="cuda",
        total_memory_gb=80,
        available_memory_gb=40,
        temperature_celsius=50,
        utilization_percent=25,
        compute_capability=90,
    )
    graph = built(observed(training_loss=0.5, validation_loss=0.25, validation_accuracy=0.75, current_epoch=3,
                           global_step=7, hardware_context=hardware))  # fmt: skip
    for name, value in (
        ("training_loss", 0.5), ("validation_loss", 0.25), ("validation_accuracy", 0.75), ("current_epoch", 3),
        ("global_step", 7), ("total_memory_gb", 80), ("available_memory_gb", 40), ("temperature_celsius", 50),
        ("utilization_percent", 25), ("compute_capability", 90),
    ):  # fmt: skip
        assert graph.value("global", 0, name) == value, name


METRICS = [f.name for f in FEATURES["global"] if f.source == f"training_metrics[{f.name}]"]


def test_most_features_of_the_packet_are_metrics() -> None:
    assert len(METRICS) == 22


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_its_column(name: str) -> None:
    graph = built(observed(training_metrics={name: 0.5}))
    assert graph.value("global", 0, name) == 0.5
    assert built(observed()).value("global", 0, name) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_masked(value: float) -> None:
    graph = built(observed(seed(risk_score=value), training_loss=value, training_metrics={"loss": value}))
    for name in ("training_loss", "loss"):
        assert graph.value("global", 0, name) is None
        assert graph.features["global"][0, column("global", name)] == 0.0
    assert graph.scaled("seed", 0, "risk") is None
    assert graph.norm_inputs == ()


def test_activity_success_and_risk_are_a_half_where_nothing_says_more() -> None:
    graph = built(
        observed(seed(risk_score=math.nan), seed(risk_score=0.25, metrics={"activity": 0.75, "success": 1.0}))
    )
    places = [column("seed", name) for name in ("risk", "activity", "success")]
    assert graph.features["seed"][0, places].tolist() == [0.5, 0.5, 0.5]
    assert graph.features["seed"][1, places].tolist() == [0.25, 0.75, 1.0]
    masks = graph.features["seed"][:, [place + len(FEATURES["seed"]) for place in places]]
    assert masks.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_zero_is_absent_for_rates_and_norms_and_a_value_for_ages_depths_and_risk() -> None:
    graph = built(observed(seed()))
    assert graph.value("seed", 0, "learning_rate") is graph.value("seed", 0, "gradient_norm") is None
    assert [graph.value("seed", 0, name) for name in ("age", "layer_depth", "risk")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("feature", [f.name for f in FEATURES["seed"][6:] if f.source.startswith("metrics[")])
def test_a_seed_metric_has_its_column(feature: str) -> None:
    graph = built(observed(seed(metrics={feature: 0.5})))
    assert graph.value("seed", 0, feature) == 0.5


def test_a_normed_feature_is_in_standard_deviations() -> None:
    norms = list(PRIORS)
    norms[NORM_INDEX["loss"]] = Norm(2.0, 0.25 - 1e-6)
    graph = build(observed(training_metrics={"loss": 3.0}), norms=norms, registries=INITIAL, blueprints=())
    assert graph.scaled("global", 0, "loss") == pytest.approx(2.0)
    assert graph.value("global", 0, "loss") == 3.0


def test_a_fixed_feature_is_scaled_as_the_schema_says() -> None:
    graph = built(observed(global_step=99, training_metrics={"step_latency_ms": 60.0}))
    assert graph.scaled("global", 0, "step_latency_ms") == 0.5
    assert graph.scaled("global", 0, "global_step") == pytest.approx(math.log(100) / 10)


def test_scaled_values_are_clipped() -> None:
    graph = built(observed(training_metrics={"loss": 1e30, "samples_per_s": -1e30}))
    assert graph.scaled("global", 0, "loss") == CLIP
    assert graph.scaled("global", 0, "samples_per_s") == -CLIP


def test_a_logarithm_that_does_not_exist_is_masked() -> None:
    graph = built(observed(training_metrics={"grad_var": -1.0, "optimizer_lr": -2.0}))
    assert graph.value("global", 0, "grad_var") is graph.value("global", 0, "optimizer_lr") is None
    assert graph.norm_inputs == ()


def test_the_norm_inputs_are_the_eight_rows() -> None:
    metrics = {"loss": 0.5, "gradient_norm": 1.0, "samples_per_s": 100.0, "hook_latency_ms": 3.0, "optimizer_lr": 0.01,
               "grad_var": 0.002, "optimizer_momentum": 0.9}  # fmt: skip
    graph = built(observed(training_metrics=metrics), host(layers=1))
    found = dict(graph.norm_inputs)
    assert sorted(found) == list(range(len(NORM_INPUTS)))
    assert found[NORM_INDEX["loss"]] == 0.5
    assert found[NORM_INDEX["learning_rate"]] == pytest.approx(math.log1p(0.01))
    assert found[NORM_INDEX["parameter_count"]] == pytest.approx(math.log1p(100))


def test_the_loss_norm_falls_back_on_the_packet_loss() -> None:
    assert built(observed(training_loss=0.5)).norm_inputs == ((NORM_INDEX["loss"], 0.5),)


def test_the_layers_take_turns_in_the_parameter_count_norm() -> None:
    given = host(layers=3)
    found = [
        dict(built(observed(global_step=step), given).norm_inputs)[NORM_INDEX["parameter_count"]] for step in range(4)
    ]
    assert found == pytest.approx([math.log1p(count) for count in (100, 200, 300, 100)])


def test_a_seed_is_known_by_its_registry_index() -> None:
    graph = built(observed(seed(seed_id="b"), seed(seed_id="a"), seed(seed_id="b")))
    assert graph.categories["seed"][:, 0].tolist() == [1, 2, 1]


def test_an_unnumbered_name_is_zero() -> None:
    graph = build(observed(seed()), norms=PRIORS, registries=INITIAL, blueprints=[host(layers=1)])
    assert graph.categories["seed"].tolist() == [[0, 0]]
    assert graph.categories["blueprint"].tolist() == [[0, 0, 0]]
    assert graph.categories["layer"].tolist() == [[0, 0]]


@pytest.mark.parametrize(("index", "name"), list(enumerate(BLENDING_METHODS)))
def test_a_blending_schedule_is_a_registry_key(index: int, name: str) -> None:
    observation = observed(seed(metrics={"alpha_schedule_index": index}))
    assert ("schedule", name) in registry_keys(observation, ())
    assert built(observation).categories["seed"][0, 1] == 1


@pytest.mark.parametrize("index", [-1.0, 4.0, 0.5, math.nan, math.inf, 1e30])
def test_a_schedule_that_does_not_exist_is_ignored_and_counted(index: float) -> None:
    graph = built(observed(seed(metrics={"alpha_schedule_index": index})))
    assert graph.categories["seed"][0, 1] == 0
    assert graph.ignored_inputs == 1


@pytest.mark.parametrize(("index", "found", "ignored"), [(0.0, 0, 0), (3.0, 3, 0), (6.0, 0, 1), (2.5, 0, 1)])
def test_the_optimizer_family_is_an_index_of_its_registry(index: float, found: int, ignored: int) -> None:
    graph = built(observed(training_metrics={"optimizer_family_index": index}))
    assert (graph.categories["global"].item(), graph.ignored_inputs) == (found, ignored)


def test_registry_keys_come_in_a_fixed_order_each_once() -> None:
    observation = observed(
        seed(seed_id="s2"), seed(seed_id="s1", metrics={"alpha_schedule_index": 1}), seed(seed_id="s2")
    )
    other = BlueprintInput(
        blueprint("other", "d2", sheet=sheet()), {"layers": [{"type": "conv2d", "activation": "gelu"}]}
    )
    assert registry_keys(observation, [host(layers=2, activations=2), other]) == [
        ("seed_id", "s2"), ("seed_id", "s1"), ("schedule", "cosine"), ("blueprint_id", HOST), ("blueprint_id", "other"),
        ("hazard_class", "HIGH"), ("layer_type", "linear"), ("layer_type", "conv2d"), ("activation_type", "gelu"),
        ("activation_type", "relu"),
    ]  # fmt: skip


def test_the_builder_gives_the_same_keys() -> None:
    observation, given = observed(seed()), (host(layers=2, activations=1),)
    assert GraphBuilder().registry_keys(observation, given) == registry_keys(observation, given)


@pytest.mark.parametrize("band", range(5))
def test_a_hazard_class_is_the_name_of_the_band(band: int) -> None:
    keys = registry_keys(observed(), [BlueprintInput(blueprint(sheet=sheet(band)), {})])
    names = [key for kind, key in keys if kind == "hazard_class"]
    assert names == ([] if band == 0 else [pb.HazardBand.Name(band).removeprefix("HAZARD_BAND_")])


def test_an_unknown_hazard_band_has_no_class() -> None:
    keys = registry_keys(observed(), [BlueprintInput(blueprint(sheet=sheet(77)), {})])
    assert [key for kind, key in keys if kind == "hazard_class"] == []


def test_a_full_registry_reads_as_zero() -> None:
    full = {**INITIAL, "seed_id": {f"other-{place}": place for place in range(1, 4_097)}}
    keys = registry_keys(observed(seed()), ())
    assert registries.assignments(full, keys)[0] == {}
    assert built(observed(seed()), known=full).categories["seed"].tolist() == [[0, 0]]


def test_an_unobserved_blueprint_is_a_node_with_everything_masked() -> None:
    graph = built(observed(seed()), BlueprintInput(unobserved(HOST), {}))
    assert graph.blueprint_ids == (HOST,)
    assert graph.host_blueprint_index == 0
    assert not graph.features["blueprint"].any()
    assert graph.categories["blueprint"][0, 0] == 1


def test_a_blueprint_shows_its_descriptor_and_its_sheet() -> None:
    graph = built(observed(), BlueprintInput(blueprint(quarantine_only=True, sheet=sheet()), metadata(layers=2)))
    for name, value in (
        ("tier", 1), ("risk", 0.6), ("quarantine_only", 1), ("approval_required", 0), ("hazard_band", 3),
        ("sheet_risk", 0.6), ("layer_count", 2), ("parameter_count", 300),
    ):  # fmt: skip
        assert graph.value("blueprint", 0, name) == pytest.approx(value), name


def test_a_blueprint_with_other_content_under_the_same_empty_digest_is_not_kept() -> None:
    builder = GraphBuilder()
    for layers in (2, 3):
        given = BlueprintInput(unobserved(HOST), metadata(layers=layers))
        graph = builder.build(observed(), norms=PRIORS, registries=INITIAL, blueprints=[given])
        assert graph.node_counts()["layer"] == layers


def test_the_builder_keeps_a_bounded_number_of_plans() -> None:
    builder = GraphBuilder()
    for place in range(200):
        given = BlueprintInput(blueprint(f"b{place}", f"digest-{place}"), metadata(layers=1))
        builder.build(observed(), norms=PRIORS, registries=INITIAL, blueprints=[given])
    assert len(builder._plans.kept) <= 64
    assert len(builder._topologies.kept) <= 8


@pytest.mark.parametrize("field", ["packet_id", "training_run_id"])
def test_the_host_is_the_blueprint_of_packet_or_run(field: str) -> None:
    other = BlueprintInput(blueprint("other", "d2"), metadata(layers=2))
    observation = observed(seed(), training_run_id="", packet_id="")._replace(**{field: HOST})
    graph = built(observation, other, host(layers=3))
    assert graph.host_blueprint_index == 1
    assert graph.edge_index["seed", "monitors", "layer"].tolist() == [[0], [2]]


def test_without_the_host_seeds_are_tied_to_no_layer() -> None:
    graph = built(observed(seed(metrics={"blend_allowed": 1}), training_run_id="x"), host(layers=3, parameters=2))
    assert graph.host_blueprint_index == -1
    assert graph.edge_counts()["seed-monitors-layer"] == graph.edge_counts()["seed-allowed-parameter"] == 0


def test_live_metrics_stand_in_every_row() -> None:
    observation = observed(training_metrics={"loss": 0.5, "gradient_norm": 2.0, "hook_latency_ms": 4.0})
    graph = built(observation, host(layers=2, activations=1))
    for row in range(2):
        assert graph.value("layer", row, "live_loss") == 0.5
        assert graph.value("layer", row, "live_hook_latency_ms") == 4.0
    assert graph.value("activation", 0, "live_gradient_norm") == 2.0


def test_hardware_the_host_lacks_is_not_counted() -> None:
    def counted(**fields: object) -> set[str]:
        return {name for family, name, *_ in built(observed(**fields)).coverage if family == "node.global"}

    gpu, memory = {"gpu_util_percent", "h2d_copy_ms", "compute_capability"}, {"total_memory_gb", "available_memory_gb"}
    assert not counted() & (gpu | memory)
    for without in ("cpu", "CPU", ""):
        found = counted(hardware_context=pb.HardwareContext(device_type=without))
        assert memory <= found
        assert not found & gpu
    assert gpu | memory <= counted(hardware_context=pb.HardwareContext(device_type="cuda"))
    assert "gpu_util_percent" in counted(training_metrics={"gpu_util_percent": 3.0})


def test_a_host_that_moves_to_other_hardware_is_counted_anew() -> None:
    builder = GraphBuilder()
    totals = []
    for device in ("cpu", "cuda", "cpu"):
        observation = observed(seed(), hardware_context=pb.HardwareContext(device_type=device, total_memory_gb=8))
        graph = builder.build(observation, norms=PRIORS, registries=INITIAL, blueprints=())
        totals.append(sum(total for family, _, _, total in graph.coverage if family == "node.global"))
    assert totals == [26, 32, 26]


@pytest.mark.parametrize(("host_id", "place"), [(None, 0), ("packet-1", 1), ("host", 0), ("elsewhere", -1), ("", -1)])
def test_the_host_is_the_blueprint_that_is_named(host_id: str | None, place: int) -> None:
    """The packet's own and the run's may both be there."""
    observation = observed(seed(), packet_id="packet-1", training_run_id="host")
    blueprints = [BlueprintInput(blueprint(name), {}) for name in ("host", "packet-1")]
    graph = GraphBuilder().build(observation, norms=PRIORS, registries=INITIAL, blueprints=blueprints, host_id=host_id)
    assert graph.host_blueprint_index == place


def test_node_types_without_nodes_are_not_counted() -> None:
    families = {family for family, *_ in built(observed()).coverage}
    assert families == {"node.global"}


def test_coverage_is_what_the_masks_say() -> None:
    graph = small_graph()
    counts = {(family, feature): (present, total) for family, feature, present, total in graph.coverage}
    assert counts["node.seed", "gradient_norm"] == (4, 4)
    assert counts["node.seed", "alpha_steps"] == (0, 4)
    assert counts["node.layer", "depth"] == (8, 8)
    assert counts["edges.layer_connects", "strength"] == (0, 7)
    assert counts["edges.layer_connects", "depth_gap"] == (7, 7)


def test_a_value_of_a_whole_column_is_that_of_every_row() -> None:
    graph = built(observed(seed(metrics={"alpha": 0.25}), seed()))
    assert graph.values("seed", "alpha") == [0.25, None]


def test_nodes_over_the_cap_leave_their_blueprint_alone() -> None:
    many = {"layers": [{} for _ in range(4_000)]}
    first, second = BlueprintInput(blueprint(HOST, "d1"), many), BlueprintInput(blueprint("other", "d2"), many)
    graph = built(observed(), first, second)
    assert graph.node_counts()["layer"] == 4_000
    assert graph.node_counts()["blueprint"] == 2
    assert graph.ignored_inputs == 4_000


def test_indices_are_int64_and_features_float32() -> None:
    graph = small_graph()
    assert {array.dtype for array in graph.features.values()} == {np.dtype(np.float32)}
    assert {array.dtype for array in graph.edge_attr.values()} == {np.dtype(np.float32)}
    assert {array.dtype for array in (*graph.edge_index.values(), *graph.categories.values())} == {np.dtype(np.int64)}
