"""A small graph as the dense form takes it: every relation a matrix over all nodes, one row for each target.

Each node type is filled up to one of SIZES with nodes of zeros that no edge reaches, an empty type too: a compiled form
pays for every new size it meets, and so meets few. `neighbours[type]` averages: row (i, r) is node i's
mean over relation r, and a last row r = k is the node itself. `logits[type]` holds, for each target, relation and head,
what the edge adds to the attention logit, `NO_EDGE` where there is none; its last column belongs to a node of zeros, at
0 where the relation brings the target nothing: the attention is then on nothing, and the bias alone is left.

What depends on the topology alone is a `Layout`, which `layout_of` makes and the engine keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tamiyo.graph.graph import FloatArray, Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, RELATIONS, Relation
from tamiyo.policy.engine.fold import INTO, Attention, Folded

__all__ = ["NO_EDGE", "SIZES", "Dense", "Layout", "dense_of", "layout_of", "node_inputs"]

Flags: TypeAlias = NDArray[np.bool_]

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)

NO_EDGE = -1e30
"""Far below any logit, and finite, so that differences of two are."""


@dataclass(frozen=True, slots=True)
class Attended:
    """One GAT layer's logits of one target type, but for what the edges' attributes add.

    Shapes: blank (n * k * H * (N + 1),), flat; places int64 (E, H) into it; edges int64 (E,) rows of all attributes;
    vectors (E, columns, H).
    """

    shape: tuple[int, int, int]
    blank: FloatArray
    places: IndexArray
    edges: IndexArray
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class Layout:
    """What a topology fixes. Shapes: neighbours[type] (n, k + 1, N), N and n as filled up."""

    counts: Mapping[str, int]
    neighbours: Mapping[str, FloatArray]
    attended: tuple[Mapping[str, Attended], ...]


@dataclass(frozen=True, slots=True)
class Dense:
    """One graph's inputs. Shapes: nodes[type] (n, in); neighbours as in Layout; logits[layer][type] (n, k*H, N+1)."""

    nodes: Mapping[str, FloatArray]
    neighbours: Mapping[str, FloatArray]
    logits: tuple[Mapping[str, FloatArray], ...]


def layout_of(graph: Graph, folded: Folded) -> Layout | None:
    """Lay out a topology; None where an edge is there twice, which a matrix cannot say."""
    counts = {kind: _padded_count(len(graph.features[kind])) for kind in NODE_TYPES}
    starts = dict(zip(NODE_TYPES, np.cumsum([0, *counts.values()]).tolist(), strict=False))
    total = sum(counts.values())
    neighbours, present = {}, {}
    for kind in NODE_TYPES:
        weights = np.zeros((counts[kind], len(INTO[kind]) + 1, total), np.float32)
        for row, relation in enumerate(INTO[kind]):
            sources, targets = graph.edge_index[relation.edge_type]
            np.add.at(weights, (targets, row, sources + starts[relation.source]), np.float32(1))
        if weights.max() > 1:
            return None
        present[kind] = weights[:, :-1] > 0
        weights /= np.maximum(weights.sum(axis=2, keepdims=True), 1)
        own = np.arange(counts[kind])
        weights[own, -1, own + starts[kind]] = 1
        neighbours[kind] = weights
    attended = tuple(
        {
            kind: _attended(graph, part, kind, present[kind], starts, folded.attention_heads)
            for kind, part in layer.items()
        }
        for layer in folded.gat
    )
    return Layout(counts, neighbours, attended)


def dense_of(graph: Graph, layout: Layout, folded: Folded) -> Dense:
    """Fill in what a step brings."""
    attributes = np.concatenate([graph.edge_attr[relation.edge_type] for relation in RELATIONS])
    nodes = {kind: _padded(node_inputs(graph, kind, folded), layout.counts[kind]) for kind in NODE_TYPES}
    return Dense(
        nodes,
        layout.neighbours,
        tuple({kind: _logits(part, attributes) for kind, part in layer.items()} for layer in layout.attended),
    )


def node_inputs(graph: Graph, kind: str, folded: Folded) -> FloatArray:
    """Features beside embedded categories, (N, in); an index past a registry's capacity reads as 0."""
    tables = folded.encoders[kind].tables
    parts: list[FloatArray] = [graph.features[kind]]
    for table, column in zip(tables, graph.categories[kind].T, strict=True):
        parts.append(table[np.where(column < len(table), column, 0)])
    return np.concatenate(parts, axis=1)


def _padded_count(nodes: int) -> int:
    return next((size for size in SIZES if nodes <= size), nodes)


def _padded(inputs: FloatArray, count: int) -> FloatArray:
    if len(inputs) == count:
        return inputs
    padded = np.zeros((count, inputs.shape[1]), np.float32)
    padded[: len(inputs)] = inputs
    return padded


def _attended(
    graph: Graph, part: Attention, kind: str, present: Flags, starts: Mapping[str, int], heads: int
) -> Attended:
    targets, relations, total = present.shape
    shape = (targets, relations, heads, total + 1)
    blank = np.full(shape, NO_EDGE, np.float32)
    blank[..., -1] = np.where(present.any(axis=2), np.float32(NO_EDGE), np.float32(0))[:, :, None]
    places, edges, vectors = [], [], []
    for row, relation in enumerate(INTO[kind]):
        ends = graph.edge_index[relation.edge_type]
        first = (ends[1] * relations + row) * heads * (total + 1) + ends[0] + starts[relation.source]
        places.append(first[:, None] + np.arange(heads) * (total + 1))
        edges.append(np.arange(ends.shape[1]) + _first_edge(graph, relation))
        vectors.append(np.broadcast_to(part.edge[row], (ends.shape[1], *part.edge[row].shape)))
    return Attended(
        shape=(targets, relations * heads, total + 1),
        blank=blank.reshape(-1),
        places=np.concatenate(places),
        edges=np.concatenate(edges),
        vectors=np.concatenate(vectors),
    )


def _first_edge(graph: Graph, wanted: Relation) -> int:
    before = RELATIONS[: RELATIONS.index(wanted)]
    return sum(graph.edge_index[relation.edge_type].shape[1] for relation in before)


def _logits(part: Attended, attributes: FloatArray) -> FloatArray:
    filled = part.blank.copy()
    filled[part.places] = np.matmul(attributes[part.edges][:, None, :], part.vectors)[:, 0]
    return filled.reshape(part.shape)
