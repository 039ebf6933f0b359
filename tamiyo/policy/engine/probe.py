"""A graph to warm up on and to compare with the reference: every relation there, values made by rule."""

import numpy as np

from tamiyo.graph.graph import FloatArray, Graph, IndexArray
from tamiyo.graph.schema import CATEGORIES, EDGE_COLUMNS, FEATURES, NODE_TYPES, RELATIONS
from tamiyo.policy.engine.sizes import USUAL

__all__ = ["probe_graph"]


def probe_graph() -> Graph:
    """All pairs of every relation; features and attributes are sines, so that no two are alike."""
    features = {kind: _sines(count, 2 * len(FEATURES[kind])) for kind, count in USUAL.items()}
    index = {one.edge_type: _all_pairs(USUAL[one.source], USUAL[one.target]) for one in RELATIONS}
    return Graph(
        features=features,
        raw={kind: features[kind][:, : len(FEATURES[kind])].astype(np.float64) for kind in NODE_TYPES},
        categories={kind: np.ones((count, len(CATEGORIES[kind])), np.int64) for kind, count in USUAL.items()},
        edge_index=index,
        edge_attr={edge_type: _sines(edges.shape[1], EDGE_COLUMNS) for edge_type, edges in index.items()},
        seed_ids=tuple(str(place) for place in range(USUAL["seed"])),
        blueprint_ids=("0",),
        host_blueprint_index=0,
        candidates=(0,),
        coverage=(),
        norm_inputs=(),
        ignored_inputs=0,
    )


def _sines(rows: int, columns: int) -> FloatArray:
    return np.sin(np.arange(rows * columns, dtype=np.float32)).reshape(rows, columns)


def _all_pairs(sources: int, targets: int) -> IndexArray:
    pairs: IndexArray = np.indices((sources, targets)).reshape(2, -1).astype(np.int64)
    return pairs
