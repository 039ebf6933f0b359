"""Several graphs as one that has no edge between them, so that one pass over the weights answers all of them.

A row's sums and products stay those of its own graph. Only their order in a product of many rows is another, and with
it the last bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from tamiyo.graph.graph import FloatArray, Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, RELATIONS, EdgeType

__all__ = ["GraphArrays", "Joined", "join"]


class GraphArrays(Protocol):
    """What a form reads of a graph; shapes as in `tamiyo.graph.Graph`."""

    @property
    def features(self) -> Mapping[str, FloatArray]:
        """By node type."""

    @property
    def categories(self) -> Mapping[str, IndexArray]:
        """By node type."""

    @property
    def edge_index(self) -> Mapping[EdgeType, IndexArray]:
        """By relation."""

    @property
    def edge_attr(self) -> Mapping[EdgeType, FloatArray]:
        """By relation."""


@dataclass(frozen=True)
class Joined:
    """Graphs one behind the other in every array; `counts[type]` says how many nodes each brought."""

    graphs: Sequence[Graph]
    features: Mapping[str, FloatArray]
    categories: Mapping[str, IndexArray]
    edge_attr: Mapping[EdgeType, FloatArray]
    counts: Mapping[str, IndexArray]

    @cached_property
    def edge_index(self) -> Mapping[EdgeType, IndexArray]:
        """By relation; made when it is asked for, because whoever has a plan of these topologies never does."""
        starts = {kind: np.cumsum(count) - count for kind, count in self.counts.items()}
        found: dict[EdgeType, IndexArray] = {}
        for relation in RELATIONS:
            parts = [graph.edge_index[relation.edge_type] for graph in self.graphs]
            first = np.stack([starts[relation.source], starts[relation.target]])
            edges = [part.shape[1] for part in parts]
            found[relation.edge_type] = np.concatenate(parts, axis=1) + np.repeat(first, edges, axis=1)
        return found


def join(graphs: Sequence[Graph]) -> Joined:
    """Join at least one graph."""
    types = [relation.edge_type for relation in RELATIONS]
    return Joined(
        graphs=graphs,
        features={kind: np.concatenate([graph.features[kind] for graph in graphs]) for kind in NODE_TYPES},
        categories={kind: np.concatenate([graph.categories[kind] for graph in graphs]) for kind in NODE_TYPES},
        edge_attr={kind: np.concatenate([graph.edge_attr[kind] for graph in graphs]) for kind in types},
        counts={kind: np.array([len(graph.features[kind]) for graph in graphs]) for kind in NODE_TYPES},
    )
