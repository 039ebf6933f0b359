"""A graph in numbers: each says what that graph holds, whatever was told before it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tamiyo.bench.samples import built, host, observed, seed, small_graph
from tamiyo.core.layout import counts
from tamiyo.core.norms import NORM_INPUTS
from tamiyo.graph import BlueprintInput, Graph, graph_observed
from tamiyo.graph.schema import NODE_TYPES, RELATIONS

TWO = (host(layers=3, activations=2, parameters=1), host(layers=1))


def graphs() -> dict[str, Graph]:
    """Graphs that differ from their neighbours in one thing, or in all."""
    first = small_graph()
    return {
        "the first": first,
        "the same again": first,
        "another coverage, the same edges": replace(first, coverage=first.coverage[:-1]),
        "the first, second time": first,
        "other edges, the same coverage": replace(first, edge_index=built(observed(seed()), *TWO).edge_index),
        "the first, third time": first,
        "equal, of another builder": small_graph(),
        "one seed": built(observed(seed()), *TWO),
        "no seed": built(observed(), *TWO),
        "no blueprint": built(observed(seed(), seed())),
        "an input that is ignored": built(observed(seed()), host(layers=3, adjacency={"layer": 7})),
        "another norm's input": built(observed(seed(), training_metrics={"loss": 0.25}), *TWO),
        "the first once more": first,
    }


@pytest.mark.parametrize("order", [1, -1])
def test_each_graph_tells_its_own_numbers(order: int) -> None:
    for name, graph in list(graphs().items())[::order]:
        blueprints = TWO[: len(graph.blueprint_ids)]
        layout, event = graph_observed(graph, blueprints, step_lsn=7, host_id="host")
        assert tuple(counts(layout, event)) == graph.coverage, name
        assert (layout.node_types, layout.relations) == (NODE_TYPES, tuple(one.label for one in RELATIONS)), name
        assert layout.fits(event), name
        assert list(event.node_counts) == list(graph.node_counts().values()), name
        assert list(event.edge_counts) == list(graph.edge_counts().values()), name
        assert _norms(event.norms_present, event.norm_values) == dict(graph.norm_inputs), name
        assert _uses(blueprints) == [(use.blueprint_id, use.digest) for use in event.blueprints], name
        ignored = int(name == "an input that is ignored")
        assert (event.step_lsn, event.host_blueprint_id, event.ignored_inputs) == (7, "host", ignored), name


def test_graphs_with_equal_names_have_one_layout() -> None:
    """So that holding it against the log's compares no names."""
    one, other = (graph_observed(built(observed(seed()), *TWO), TWO, step_lsn=1, host_id="")[0] for _ in range(2))
    assert one is other


def _norms(present: int, values: Sequence[float]) -> dict[int, float]:
    rows = [row for row in range(len(NORM_INPUTS)) if present >> row & 1]
    return dict(zip(rows, values, strict=True))


def _uses(blueprints: Sequence[BlueprintInput]) -> list[tuple[str, str]]:
    return [(given.blueprint.blueprint_id, given.blueprint.digest) for given in blueprints]
