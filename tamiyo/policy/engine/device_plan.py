"""What the topology of a large graph fixes, for the form on a device: made with arrays, sent in one copy, and kept.

What a layer's targets receive is one table of sums over bags, for all types at once: the rows of a target beside each
other, as the dense form has them. A thread of the device adds up a bag edge by edge, so one of more than PIECE_MAX is
cut into pieces, which are added up after it: a global node that hears of thousands of layers would hold up all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from tamiyo.graph.graph import Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, RELATIONS
from tamiyo.policy.engine.fold import INTO, Attention
from tamiyo.policy.engine.sizes import starts_of

__all__ = ["PIECE_MAX", "Attended", "Averaged", "Bags", "DevicePlan", "device_plan_of"]

PIECE_MAX = 64
"""Few nodes have more edges of one relation. Both passes of some thousands are then short."""


@dataclass(frozen=True, slots=True)
class Bags:
    """R sums over entries that are ordered by row; those of long rows come last, in P pieces.

    Shapes: begins (R + P,), where each row's entries begin, a long one having none, then each piece's; long (L,), the
    rows that have pieces; pieces (P,), where their sums are; piece_begins (L,), where each long row's begin.
    """

    rows: int
    begins: Tensor
    long: Tensor
    pieces: Tensor
    piece_begins: Tensor

    def summed(self, entries: Tensor, table: Tensor, weights: Tensor | None = None) -> Tensor:
        """(R, columns): sums of rows of a table, which are the entries, with their weights; of none, zeros."""
        found = embedding_bag(entries, table, self.begins, mode="sum", per_sample_weights=weights)
        if len(self.long):
            found.index_copy_(0, self.long, embedding_bag(self.pieces, found, self.piece_begins, mode="sum"))
        return found[: self.rows]


@dataclass(frozen=True, slots=True)
class Averaged:
    """What all targets have the means of: a row for each relation, and a last one that is the target itself.

    Shapes: nodes (E,), the entries; shares (E,), 1 over the entries of a row.
    """

    bags: Bags
    nodes: Tensor
    shares: Tensor


@dataclass(frozen=True, slots=True)
class Attended:
    """One layer's attention: a row for each target, relation and head.

    Shapes, all (E,): nodes, the entries; rows, each entry's; edges, sources and targets, the places of what its logit
    is the sum of, in the flat products of attributes and of states; chooses, 0 where the heads are one, whose logits
    mean nothing; own, an entry's number.
    """

    bags: Bags
    nodes: Tensor
    rows: Tensor
    edges: Tensor
    sources: Tensor
    targets: Tensor
    chooses: Tensor
    own: Tensor


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A topology, on a device. Attributes of edges are taken as they come, by relation in the order of the schema."""

    averaged: Averaged
    attended: tuple[Attended, ...]


_Numbers: TypeAlias = tuple[int, Sequence[IndexArray]]
"""How many rows there are, and what is sent: four arrays of the bags, then those of the entries."""


def device_plan_of(graph: Graph, layers: Sequence[Mapping[str, Attention]], place: torch.device) -> DevicePlan:
    """Lay out a topology for these layers of attention."""
    parts = [_averaged(graph), *(_attended(graph, layer) for layer in layers)]
    arrays = [array for _, each in parts for array in each]
    whole = np.concatenate(arrays, dtype=np.int32, casting="same_kind")  # 64 bits are twice as much to send and to read
    sent = iter(torch.split(torch.from_numpy(whole).to(place), [len(array) for array in arrays]))
    bags, nodes, entries = _bags(parts[0][0], sent), next(sent), next(sent)
    averaged = Averaged(bags, nodes, entries.float().reciprocal())
    attended = []
    for rows, _ in parts[1:]:
        bags, nodes, places = _bags(rows, sent), next(sent), next(sent).long()
        edges, sources, targets, chooses, own = (next(sent) for _ in range(5))
        attended.append(Attended(bags, nodes, places, edges, sources, targets, chooses.float(), own))
    return DevicePlan(averaged, tuple(attended))


def _bags(rows: int, sent: Iterator[Tensor]) -> Bags:
    begins, long, pieces, piece_begins = (next(sent) for _ in range(4))
    return Bags(rows, begins, long.long(), pieces, piece_begins)


def _averaged(graph: Graph) -> _Numbers:
    counts = graph.node_counts()
    starts, nodes, rows, begin = starts_of(counts), [], [], 0
    for kind in NODE_TYPES:
        each = len(INTO[kind]) + 1
        for number, relation in enumerate(INTO[kind]):
            sources, targets = graph.edge_index[relation.edge_type]
            nodes.append(sources + starts[relation.source])
            rows.append(begin + targets * each + number)
        own = np.arange(counts[kind])
        nodes.append(own + starts[kind])
        rows.append(begin + own * each + each - 1)
        begin += counts[kind] * each
    every = np.concatenate(rows)
    per_row, order, bags = _cut(every, begin)
    return begin, [*bags, np.concatenate(nodes)[order], per_row[every[order]]]


def _attended(graph: Graph, layer: Mapping[str, Attention]) -> _Numbers:
    """`q`, columns and heads are as `vectors` has them."""
    counts = graph.node_counts()
    starts, q = starts_of(counts), sum(part.source.shape[1] for part in layer.values())
    edges = np.cumsum([0, *(graph.edge_index[relation.edge_type].shape[1] for relation in RELATIONS)]).tolist()
    first_edges = dict(zip(RELATIONS, edges, strict=False))
    parts: list[tuple[IndexArray, ...]] = []
    begin = column = 0
    for kind, part in layer.items():
        each = sum(part.heads)
        row = 0
        for relation, heads in zip(INTO[kind], part.heads, strict=True):
            sources, targets = graph.edge_index[relation.edge_type]
            head = np.arange(heads)[:, None]
            columns = column + head if heads > 1 else head
            of_edges = first_edges[relation] + np.arange(len(sources))
            found = (
                begin + targets * each + row + head,
                sources + starts[relation.source] + 0 * head,
                of_edges * q + columns,
                (sources + starts[relation.source]) * 2 * q + columns,
                (targets + starts[kind]) * 2 * q + q + columns,
            )
            parts.append((*(one.reshape(-1) for one in found), np.full(found[0].size, int(heads > 1))))
            column += heads if heads > 1 else 0
            row += heads
        begin += counts[kind] * each
    rows, nodes, *others = (np.concatenate(one) for one in zip(*parts, strict=True))
    _, order, bags = _cut(rows, begin)
    return begin, [*bags, nodes[order], rows[order], *(one[order] for one in others), np.arange(len(rows))]


def _cut(rows: IndexArray, count: int) -> tuple[IndexArray, IndexArray, Sequence[IndexArray]]:
    """How many entries each row has, the order of the entries, and the four arrays of the bags."""
    per_row = np.bincount(rows, minlength=count)
    is_long = per_row > PIECE_MAX
    order = _sorted(rows + count * is_long[rows])
    short, long = np.where(is_long, 0, per_row), np.flatnonzero(is_long)
    sizes = per_row[long]
    pieces = -(-sizes // PIECE_MAX)
    piece_begins = np.cumsum(pieces) - pieces
    begins = short.sum() + np.cumsum(sizes) - sizes
    numbers = np.arange(pieces.sum())
    of_pieces = np.repeat(begins - piece_begins * PIECE_MAX, pieces) + numbers * PIECE_MAX
    return per_row, order, (np.concatenate([np.cumsum(short) - short, of_pieces]), long, count + numbers, piece_begins)


def _sorted(numbers: IndexArray) -> IndexArray:
    """The stable order of numbers below 2**32: numpy sorts numbers of 16 bits in linear time, the low ones first."""
    by_low = np.argsort(numbers.astype(np.uint16), kind="stable")
    return by_low[np.argsort((numbers >> 16).astype(np.uint16)[by_low], kind="stable")]
