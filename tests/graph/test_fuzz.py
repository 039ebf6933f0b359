"""Graphs of fuzzed packets and fuzzed libraries: no exception, no NaN, masks of 0 and 1, indices in range.

A few hundred by default; `pytest -m long tests/graph/test_fuzz.py` builds 100,000. Drawing costs more than building:
an example draws ten packets and ten libraries, and builds the hundred graphs of every one with every other.
"""

import json
import math
from dataclasses import replace

import pytest
from google.protobuf.json_format import ParseError
from graph.sketch import INITIAL
from hypothesis import Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tamiyo.core.blueprint import content_digest, read_blueprint, unobserved
from tamiyo.core.coverage import Coverage
from tamiyo.core.limits import Limits
from tamiyo.core.norms import NORM_INPUTS, PRIORS, Norm
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import malformation
from tamiyo.core.registries import CAPACITIES, assignments, extended
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder, MetadataRules, parse_metadata
from tamiyo.graph.schema import CATEGORIES, CLIP, FEATURES, NODE_TYPES
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import content_of
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.testing.library import MemoryRecord
from tamiyo.testing.strategies import hostile_metadata, packets, records

GRAPHS, PARTS = 100_000, 20
EACH = 10
"""Packets and libraries of one example; each packet meets each library."""
IDS = ("run-1", "run-2", "bp-1", "")
NORMS = st.just(PRIORS) | st.tuples(*(st.builds(Norm, st.floats(), st.floats()) for _ in NORM_INPUTS))


def journaled(blueprint_id: str, record: MemoryRecord) -> BlueprintInput:
    """As the service takes a record in; what cannot be journaled is the library's error, and nothing is known of it."""
    try:
        content = content_of(record)
    except (ParseError, TypeError, ValueError, OverflowError, SystemError):
        return BlueprintInput(unobserved(blueprint_id), {})
    blueprint = read_blueprint(blueprint_id, content_digest(content), content)
    return BlueprintInput(blueprint, parse_metadata(content.graph_metadata))


@st.composite
def inputs(draw: st.DrawFn) -> list[BlueprintInput]:
    """Blueprints as they come out of the journal, and some as no JSON could say them."""
    found = []
    for blueprint_id in draw(st.lists(st.sampled_from(IDS), unique=True, max_size=2)):
        made = journaled(blueprint_id, draw(records(hostile=draw(st.integers(0, 3)) > 0)))
        if draw(st.integers(0, 3)) == 0:
            metadata = draw(hostile_metadata())
            made = BlueprintInput(unobserved(blueprint_id), metadata if isinstance(metadata, dict) else {})
        found.append(replace(made, rules=MetadataRules(draw(st.booleans()))))
    return found


def build_all(
    given_packets: list[pb.SystemStatePacket], libraries: list[list[BlueprintInput]], norms: tuple[Norm, ...]
) -> None:
    """A graph of every packet with every library, all by one builder, so that what it keeps is put to the test too."""
    builder = GraphBuilder()
    for packet in given_packets:
        observation = read_packet(packet.SerializeToString(), Limits())
        for blueprints in libraries:
            keys = builder.registry_keys(observation, blueprints)
            known = extended(INITIAL, assignments(INITIAL, keys)[0])
            graph = builder.build(observation, norms=norms, registries=known, blueprints=blueprints)
            check(graph)
            if graph.candidates:
                assert malformation(BaselinePolicy().propose(graph), observation, len(blueprints)) is None


def check(graph: Graph) -> None:
    graph.validate()
    for kind in NODE_TYPES:
        width = len(FEATURES[kind])
        assert (abs(graph.features[kind][:, :width]) <= CLIP).all()
        for place, registry in enumerate(CATEGORIES[kind]):
            assert graph.categories[kind][:, place].max(initial=0) <= CAPACITIES[registry]
    for attributes in graph.edge_attr.values():
        assert (abs(attributes) <= 2 * CLIP).all()
    assert all(math.isfinite(value) for _, value in graph.norm_inputs)
    assert all(0 <= present <= total and total > 0 for *_, present, total in graph.coverage)
    summed = Coverage.of(graph.coverage)
    assert 0.0 <= summed.average <= 1.0
    assert all(math.isfinite(share) for share in json.loads(summed.annotations["coverage_map"]).values())
    for seed in range(len(graph.seed_ids)):
        assert set(graph.allowed_parameters(seed).values()) <= {0.0, 1.0}


INPUTS = (st.lists(packets(), min_size=EACH, max_size=EACH), st.lists(inputs(), min_size=EACH, max_size=EACH), NORMS)


@settings(max_examples=6)
@given(*INPUTS)
def test_any_packet_and_any_library_make_a_graph(
    given_packets: list[pb.SystemStatePacket], libraries: list[list[BlueprintInput]], norms: tuple[Norm, ...]
) -> None:
    build_all(given_packets, libraries, norms)


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_a_hundred_thousand_graphs(part: int) -> None:
    """In parts, each with a seed of its own, so that several processes may share them."""
    fuzzed = given(*INPUTS)(build_all)
    examples = GRAPHS // (PARTS * EACH * EACH) + 1
    seeded(part)(settings(max_examples=examples, database=None, phases=[Phase.generate])(fuzzed))()
