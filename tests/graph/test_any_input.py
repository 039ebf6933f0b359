"""Whatever a packet and a library say, a valid graph comes out and its masks add up to its coverage."""

import math

import numpy as np
from graph.sketch import HOST, INITIAL, blueprint, built
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.core.blueprint import SafetySheet
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import read_packet
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder, registry_keys
from tamiyo.graph.schema import CLIP, EDGE_ATTRIBUTES, FEATURES, NODE_TYPES, RELATIONS
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.strategies import packets

KEYS = st.sampled_from(
    (
        "layers", "activations", "parameters", "adjacency", "layer", "type", "depth", "activation", "activation_id",
        "parameter_count", "name", "min", "max", "span", "saturation_rate", "latency_ms",
    )
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.integers(0, 4)
    | st.sampled_from(("relu", "conv2d"))
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=25
)
ROWS = st.lists(st.dictionaries(KEYS, SCALARS, max_size=6) | SCALARS, max_size=5)
EDGES = st.lists(st.lists(st.integers(-1, 5) | SCALARS, max_size=4) | SCALARS, max_size=6)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "layers": ROWS | JSON,
        "activations": ROWS | JSON,
        "parameters": ROWS | JSON,
        "adjacency": st.fixed_dictionaries({"layer": EDGES}) | JSON,
    },
)
RISKS = st.floats(width=32)
SHEETS = st.none() | st.builds(
    SafetySheet, RISKS, st.integers(-1, 9), st.integers(-1, 9), st.integers(0, 9), st.integers(0, 9), st.just("")
)
BOUNDS = st.lists(st.tuples(st.text(max_size=4), st.floats(), st.floats()), max_size=3).map(tuple)


@st.composite
def blueprints(draw: st.DrawFn) -> list[BlueprintInput]:
    ids = draw(st.lists(st.sampled_from((HOST, "run-2", "other", "")), unique=True, max_size=3))
    return [
        BlueprintInput(
            blueprint(name, draw(st.sampled_from(("", f"digest-{name}"))), descriptor_risk=draw(RISKS),
                      sheet=draw(SHEETS), tier=draw(st.integers(-1, 9)), allowed_parameters=draw(BOUNDS)),
            draw(METADATA),
        )
        for name in ids
    ]  # fmt: skip


def read(packet: pb.SystemStatePacket) -> object:
    return read_packet(packet.SerializeToString(), Limits())


@settings(max_examples=60, deadline=None)
@given(packets(), blueprints())
def test_a_valid_graph_comes_out(packet: pb.SystemStatePacket, given_blueprints: list[BlueprintInput]) -> None:
    graph = built(read(packet), *given_blueprints)
    for kind in NODE_TYPES:
        assert np.abs(graph.features[kind]).max(initial=0.0) <= CLIP
    assert all(math.isfinite(value) for _, value in graph.norm_inputs)
    assert graph.ignored_inputs >= 0


def sums_of_masks(graph: Graph) -> dict[tuple[str, str], tuple[int, int]]:
    found = {}
    for kind in NODE_TYPES:
        rows, table = graph.features[kind], FEATURES[kind]
        for place, feature in enumerate(table):
            found[f"node.{kind}", feature.name] = (int(rows[:, len(table) + place].sum()), len(rows))
    for relation in RELATIONS:
        rows = graph.edge_attr[relation.edge_type]
        for place, name in enumerate(relation.attributes):
            found[relation.family, name] = (int(rows[:, EDGE_ATTRIBUTES + place].sum()), len(rows))
    return found


@settings(max_examples=40, deadline=None)
@given(packets(), blueprints())
def test_coverage_counts_the_masks(packet: pb.SystemStatePacket, given_blueprints: list[BlueprintInput]) -> None:
    graph = built(read(packet), *given_blueprints)
    masks = sums_of_masks(graph)
    counted = {(family, feature): (present, total) for family, feature, present, total in graph.coverage}
    assert len(counted) == len(graph.coverage)
    assert all(masks[key] == share for key, share in counted.items())
    assert all(present == 0 for key, (present, _) in masks.items() if key not in counted)


@settings(max_examples=40, deadline=None)
@given(packets(), blueprints())
def test_masked_values_are_the_default_and_masks_tell_what_was_finite(
    packet: pb.SystemStatePacket, given_blueprints: list[BlueprintInput]
) -> None:
    graph = built(read(packet), *given_blueprints)
    for kind in NODE_TYPES:
        table = FEATURES[kind]
        values, masks = graph.features[kind][:, : len(table)], graph.features[kind][:, len(table) :]
        defaults = np.array([feature.default for feature in table], dtype=np.float32)
        assert (np.where(masks == 0, values, defaults) == defaults).all()
        assert not (masks.astype(bool) & ~np.isfinite(graph.raw[kind])).any()


@settings(max_examples=40, deadline=None)
@given(packets(), blueprints())
def test_keys_can_be_journaled_and_are_all_that_a_graph_looks_up(
    packet: pb.SystemStatePacket, given_blueprints: list[BlueprintInput]
) -> None:
    observation = read(packet)
    keys = registry_keys(observation, given_blueprints)
    assert len(keys) == len(set(keys))
    for kind, key in keys:
        assert key
        assert key.encode()
        assert kind in INITIAL
    given_ids = {("seed_id", seed.seed_id) for seed in observation.seeds if seed.seed_id}
    assert given_ids <= set(keys)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(packets(), blueprints()), max_size=4))
def test_one_builder_builds_what_a_fresh_one_does(
    steps: list[tuple[pb.SystemStatePacket, list[BlueprintInput]]],
) -> None:
    builder, contents = GraphBuilder(), {}
    for packet, given_blueprints in steps:
        # A digest names its content: the first content seen under one is the only one.
        fixed = [
            contents.setdefault(one.blueprint.digest, one) if one.blueprint.digest else one for one in given_blueprints
        ]
        arguments = {"norms": PRIORS, "registries": INITIAL, "blueprints": fixed}
        warm = builder.build(read(packet), **arguments)
        fresh = GraphBuilder().build(read(packet), **arguments)
        assert all(warm.features[kind].tobytes() == fresh.features[kind].tobytes() for kind in NODE_TYPES)
        assert warm.edge_counts() == fresh.edge_counts()
        assert warm.coverage == fresh.coverage
        assert warm.ignored_inputs == fresh.ignored_inputs
