"""Graphs to warm up on, and one to compare with the reference: every relation there, values made by rule."""

from collections.abc import Mapping

import numpy as np

from tamiyo.graph.graph import FloatArray, Graph, IndexArray
from tamiyo.graph.schema import CATEGORIES, EDGE_COLUMNS, FEATURES, NODE_TYPES, RELATIONS, EdgeType
from tamiyo.policy.engine.sizes import USUAL

__all__ = ["blank_graph", "probe_graph"]


def probe_graph(counts: Mapping[str, int] = USUAL) -> Graph:
    """All pairs of every relation; features and attributes are sines, so that no two are alike."""
    return _graph(counts, {one.edge_type: _all_pairs(counts[one.source], counts[one.target]) for one in RELATIONS})


def blank_graph(counts: Mapping[str, int]) -> Graph:
    """A graph of that size without an edge."""
    return _graph(counts, {one.edge_type: np.zeros((2, 0), np.int64) for one in RELATIONS})


def _graph(counts: Mapping[str, int], index: Mapping[EdgeType, IndexArray]) -> Graph:
    features = {kind: _sines(counts[kind], 2 * len(FEATURES[kind])) for kind in NODE_TYPES}
    return Graph(
        features=features,
        raw={kind: features[kind][:, : len(FEATURES[kind])].astype(np.float64) for kind in NODE_TYPES},
        categories={kind: np.ones((counts[kind], len(CATEGORIES[kind])), np.int64) for kind in NODE_TYPES},
        edge_index=index,
        edge_attr={edge_type: _sines(edges.shape[1], EDGE_COLUMNS) for edge_type, edges in index.items()},
        seed_ids=tuple(str(place) for place in range(counts["seed"])),
        blueprint_ids=tuple(str(place) for place in range(counts["blueprint"])),
        host_blueprint_index=0 if counts["blueprint"] else -1,
        candidates=tuple(range(min(1, counts["seed"]))),
        coverage=(),
        norm_inputs=(),
        ignored_inputs=0,
    )


def _sines(rows: int, columns: int) -> FloatArray:
    return np.sin(np.arange(rows * columns, dtype=np.float32)).reshape(rows, columns)


def _all_pairs(sources: int, targets: int) -> IndexArray:
    pairs: IndexArray = np.indices((sources, targets)).reshape(2, -1).astype(np.int64)
    return pairs
