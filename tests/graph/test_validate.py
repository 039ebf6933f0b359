from dataclasses import replace

import numpy as np
import pytest
from graph.sketch import small_graph

from tamiyo.graph import Graph

CONNECTS = ("layer", "connects", "layer")


Arrays = dict[object, np.ndarray]


def changed(arrays: Arrays, key: object, place: tuple[int, int], value: float) -> Arrays:
    other = arrays[key].copy()
    other[place] = value
    return {**arrays, key: other}


def broken(graph: Graph) -> list[tuple[str, dict[str, object], str]]:
    features, categories = graph.features, graph.categories
    index, attributes = graph.edge_index, graph.edge_attr
    return [
        (
            "columns",
            {"features": {**features, "seed": features["seed"][:, 1:]}},
            "seed has 40 feature columns; found 39",
        ),
        ("rows", {"categories": {**categories, "seed": categories["seed"][1:]}}, "seed has a category row .* found 3"),
        ("nan", {"features": changed(features, "layer", (0, 0), np.nan)}, "layer holds finite features only; found 1"),
        ("mask", {"features": changed(features, "layer", (0, 20), 0.5)}, "layer has masks of 0 and 1"),
        ("category", {"categories": changed(categories, "seed", (1, 0), -3)}, "seed has categories from 0; found -3"),
        ("large", {"edge_index": changed(index, CONNECTS, (1, 0), 8)}, "layer-connects-layer has .* below 8; found 8"),
        ("negative", {"edge_index": changed(index, CONNECTS, (0, 0), -1)}, "layer indices from 0; found -1"),
        ("attribute", {"edge_attr": changed(attributes, CONNECTS, (0, 0), np.inf)}, "finite attributes only; found 1"),
        ("edges", {"edge_attr": {**attributes, CONNECTS: attributes[CONNECTS][1:]}}, "6 attributes an edge; found 6"),
        ("candidates", {"candidates": (0, 4)}, "seed has candidates below 4; found 4"),
        ("seed ids", {"seed_ids": ("a",)}, "seed has 4 ids; found 1"),
        ("blueprint ids", {"blueprint_ids": ()}, "blueprint has 1 ids; found 0"),
    ]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_graph()


@pytest.mark.parametrize(("changes", "message"), [pytest.param(c, m, id=name) for name, c, m in broken(small_graph())])
def test_a_broken_graph_is_named_with_its_rule_and_number(
    graph: Graph, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(graph, **changes).validate()


def test_a_built_graph_is_valid(graph: Graph) -> None:
    graph.validate()
