"""A small graph as the dense form takes it: every relation a matrix, all node types below each other.

The rows that aggregate are ordered by target:

    neighbours  one for each relation into it, the mean over its neighbours, and a last one that is the target itself
    logits      one for each relation and head: what an edge adds to the attention logit, `NO_EDGE` where there is none.
                The last column belongs to a node of zeros, at 0 where the relation brings the target nothing: the
                attention is then on nothing, and the bias alone is left. Where the heads are one, an edge is a 0: of
                one number the softmax is 1, whatever is added to it

What depends on the topology alone is a `Layout`, which `layout_of` makes and the engine keeps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tamiyo.graph.graph import FloatArray, Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, RELATIONS, Relation
from tamiyo.policy.engine.fold import INTO, Attention, Folded
from tamiyo.policy.engine.joined import GraphArrays
from tamiyo.policy.engine.sizes import Sizes, filled_up, sizes_of, starts_of

__all__ = ["INPUT_MAX", "NO_EDGE", "Dense", "Layout", "dense_of", "layout_of", "node_inputs", "require_within"]

INPUT_MAX = 1e4
"""Scaled features stay within 8 and masks within 1: what is past this is no graph of ours."""

NO_EDGE = -1e30
"""Far below any logit, and finite, so that differences of two are."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Where a graph's node inputs go.

    Shapes: blank (N, columns); blocks, each type's features in it, (rows, columns); begins and lengths (C,), the part
    of all embedded tables that a category reads; places (C, width), where in the flat blank it goes.
    """

    blank: FloatArray
    blocks: tuple[tuple[slice, slice], ...]
    begins: IndexArray
    lengths: IndexArray
    places: IndexArray


@dataclass(frozen=True, slots=True)
class Logits:
    """Where the edges' logits go, all layers after each other.

    Shapes: blank flat; shapes, of each layer's part; vectors (columns, sum of q); values, into the flat product of all
    attributes with them, and places, into blank, both flat.
    """

    blank: FloatArray
    shapes: tuple[tuple[int, int], ...]
    vectors: FloatArray
    values: IndexArray
    places: IndexArray


@dataclass(frozen=True, slots=True)
class Layout:
    """What a topology fixes. Shapes: neighbours (sum of `sizes.aggregated`, N)."""

    sizes: Sizes
    nodes: Nodes
    neighbours: FloatArray
    logits: Logits


@dataclass(frozen=True, slots=True)
class Dense:
    """One graph's inputs.

    Shapes: nodes (N, all types' inputs beside each other and the types), in a row its own type's inputs and a 1 for the
    type; neighbours as in Layout; logits[layer] (R, N + 1).
    """

    sizes: Sizes
    nodes: FloatArray
    neighbours: FloatArray
    logits: tuple[FloatArray, ...]


def layout_of(graph: Graph, folded: Folded) -> Layout | None:
    """Lay out a topology; None where an edge is there twice, which a matrix cannot say."""
    sizes = sizes_of(filled_up({kind: len(graph.features[kind]) for kind in NODE_TYPES}), folded)
    neighbours = [_neighbours(graph, kind, sizes) for kind in NODE_TYPES]
    if any(counts.max() > 1 for counts in neighbours):
        return None
    return Layout(
        sizes=sizes,
        nodes=_nodes(graph, folded, sizes),
        neighbours=np.concatenate(
            [_means(counts, starts_of(sizes.counts)[kind]) for kind, counts in zip(NODE_TYPES, neighbours, strict=True)]
        ),
        logits=_logits(graph, folded, sizes),
    )


def dense_of(graph: Graph, layout: Layout, folded: Folded) -> Dense:
    """Fill in what a step brings.

    Raises:
        OverflowError: an input is not finite, or past INPUT_MAX.
    """
    nodes, logits = layout.nodes, layout.logits
    inputs = nodes.blank.copy()
    for kind, block in zip(NODE_TYPES, nodes.blocks, strict=True):
        inputs[block] = graph.features[kind]
    attributes = np.concatenate([graph.edge_attr[relation.edge_type] for relation in RELATIONS])
    require_within((inputs, attributes))
    indices = np.concatenate([graph.categories[kind].ravel() for kind in NODE_TYPES])
    known = np.where(indices < nodes.lengths, indices, 0)
    inputs.reshape(-1)[nodes.places] = folded.embedded[known + nodes.begins]
    filled = logits.blank.copy()
    filled[logits.places] = (attributes @ logits.vectors).reshape(-1)[logits.values]
    parts, end = [], 0
    for rows, columns in logits.shapes:
        begin, end = end, end + rows * columns
        parts.append(filled[begin:end].reshape(rows, columns))
    return Dense(layout.sizes, inputs, layout.neighbours, tuple(parts))


def require_within(inputs: Iterable[FloatArray]) -> None:
    """Look at all inputs: what is not finite, or past what `bound` was worked out for, is for the reference.

    Raises:
        OverflowError: one of them is.
    """
    for array in inputs:
        largest, smallest = array.max(initial=0), array.min(initial=0)
        if not -INPUT_MAX <= smallest <= largest <= INPUT_MAX:  # NaN neither
            raise OverflowError(f"inputs from {smallest:.3g} to {largest:.3g}, not finite or past {INPUT_MAX:.0e}")


def node_inputs(graph: GraphArrays, kind: str, folded: Folded) -> FloatArray:
    """Features beside embedded categories, (N, in); an index past a registry's capacity reads as 0."""
    tables = folded.encoders[kind].tables
    parts: list[FloatArray] = [graph.features[kind]]
    for table, column in zip(tables, graph.categories[kind].T, strict=True):
        parts.append(table[np.where(column < len(table), column, 0)])
    return np.concatenate(parts, axis=1)


def _neighbours(graph: Graph, kind: str, sizes: Sizes) -> FloatArray:
    """How often each node is a neighbour, (targets, relations + 1, N)."""
    starts = starts_of(sizes.counts)
    weights = np.zeros((sizes.counts[kind], len(INTO[kind]) + 1, len(sizes.kinds)), np.float32)
    for row, relation in enumerate(INTO[kind]):
        sources, targets = graph.edge_index[relation.edge_type]
        np.add.at(weights, (targets, row, sources + starts[relation.source]), np.float32(1))
    return weights


def _means(counts: FloatArray, start: int) -> FloatArray:
    """From how often, to the share that a row takes of each node, (rows, N), a target itself in the last."""
    shares: FloatArray = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    own = np.arange(len(shares))
    shares[own, -1, own + start] = 1
    return shares.reshape(-1, shares.shape[2])


def _nodes(graph: Graph, folded: Folded, sizes: Sizes) -> Nodes:
    starts, first_column, first_row = starts_of(sizes.counts), 0, 0
    columns = sum(len(encoder.project.weight) for encoder in folded.encoders.values()) + len(NODE_TYPES)
    blocks, begins, lengths, places = [], [], [], []
    for kind in NODE_TYPES:
        (count, width), tables = graph.features[kind].shape, folded.encoders[kind].tables
        blocks.append((slice(starts[kind], starts[kind] + count), slice(first_column, first_column + width)))
        first_column += width
        rows = (starts[kind] + np.arange(count)) * columns
        ends = [first_row, *(first_row + np.cumsum([len(table) for table in tables], dtype=np.int64))]
        begins.append(np.tile(np.array(ends[: len(tables)], np.int64), count))
        lengths.append(np.tile(np.array([len(table) for table in tables], np.int64), count))
        embedded = folded.embedded.shape[1]
        firsts = first_column + np.arange(len(tables)) * embedded
        places.append((rows[:, None] + firsts).reshape(-1, 1) + np.arange(embedded))
        first_column, first_row = first_column + len(tables) * embedded, ends[-1]
    blank = np.zeros((len(sizes.kinds), columns), np.float32)
    blank[np.arange(len(blank)), first_column + sizes.kinds] = 1
    return Nodes(blank, tuple(blocks), np.concatenate(begins), np.concatenate(lengths), np.concatenate(places))


def _logits(graph: Graph, folded: Folded, sizes: Sizes) -> Logits:
    parts = [(layer[kind], kind) for layer in folded.gat for kind in layer]
    vectors = np.concatenate([part.edge for part, _ in parts], axis=1)
    blanks, places, values, begin, column = [], [], [], 0, 0
    for part, kind in parts:
        blank, heads = _blank(graph, part, kind, sizes), np.cumsum([0, *part.heads])
        for row, relation in enumerate(INTO[kind]):
            sources, targets = graph.edge_index[relation.edge_type]
            first = (targets * heads[-1] + heads[row]) * blank.shape[1] + sources
            first += starts_of(sizes.counts)[relation.source]
            if part.heads[row] == 1:
                blank.reshape(-1)[first] = 0
                continue
            each = np.arange(part.heads[row])
            places.append(begin + first[:, None] + each * blank.shape[1])
            numbers = _first_edge(graph, relation) + np.arange(len(sources))
            values.append(numbers[:, None] * vectors.shape[1] + column + each)
            column += part.heads[row]
        blanks.append(blank.reshape(-1))
        begin += blank.size
    return Logits(
        blank=np.concatenate(blanks),
        shapes=tuple((len(layer.sources), len(sizes.kinds) + 1) for layer in sizes.attended),
        vectors=vectors,
        values=np.concatenate(values),
        places=np.concatenate(places),
    )


def _blank(graph: Graph, part: Attention, kind: str, sizes: Sizes) -> FloatArray:
    """One target type's rows without any edge, (rows, N + 1): on nothing where the relation brings nothing."""
    targets = sizes.counts[kind]
    blank = np.full((targets, sum(part.heads), len(sizes.kinds) + 1), NO_EDGE, np.float32)
    is_reached = [
        np.bincount(graph.edge_index[relation.edge_type][1], minlength=targets) > 0 for relation in INTO[kind]
    ]
    blank[..., -1] = np.where(np.repeat(np.stack(is_reached, axis=1), part.heads, axis=1), NO_EDGE, 0)
    return blank.reshape(-1, blank.shape[2])


def _first_edge(graph: Graph, wanted: Relation) -> int:
    before = RELATIONS[: RELATIONS.index(wanted)]
    return sum(graph.edge_index[relation.edge_type].shape[1] for relation in before)
