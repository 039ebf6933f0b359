"""What the topology of a graph alone fixes, for the sparse form: made with arrays, and kept by topology.

What a relation brings to its targets is written into a table, and one sum over bags adds up what every target gets of
all its relations. A relation writes into that table the cheaper of two things:

    near    its sources, transformed; every edge reads one: where fewer sources than targets have edges
    far     its targets' sums over the sources, transformed; every target reads its own
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tamiyo.graph.graph import IndexArray
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.fold import INTO, SINGLE
from tamiyo.policy.engine.joined import GraphArrays

__all__ = ["ByHead", "Hop", "Into", "Plan", "Sum", "plan_of"]


@dataclass(frozen=True, slots=True)
class ByHead:
    """The edges of a far relation, once for each head, by target and head, then by edge.

    Shapes: rows (E * H,) of the sources; shares (E * H,), which of the edges' H shares each takes; bags (T * H,).
    """

    rows: Tensor
    shares: Tensor
    bags: Tensor


@dataclass(frozen=True, slots=True)
class Hop:
    """One relation that has edges, sorted by target.

    `row` is its place among the relations into its target; `by_head` is None where it is near. Shapes: order (E,);
    ends (2, E), the sorted edges; sources (S,) and targets (T,), the distinct nodes with an edge, sources None where
    all have one; target_places (E,), an edge's place among those targets; begins (T,), where each target's edges begin;
    bags (T,), the same; shares (E,), 1 over the edges of its target.
    """

    source: str
    row: int
    order: IndexArray
    ends: Tensor
    sources: Tensor | None
    target_places: Tensor
    begins: IndexArray
    bags: Tensor
    shares: Tensor
    by_head: ByHead | None


@dataclass(frozen=True, slots=True)
class Sum:
    """What each target gets of all its relations: rows of one table, in which every relation has a block.

    `blocks` are the relations' rows there. Shapes: rows (M,); shares (M,), which of all near relations' shares each
    row takes, the one behind the last of them, which is 1, where it comes from a far relation; bags (N,).
    """

    blocks: tuple[slice, ...]
    rows: Tensor
    shares: Tensor
    bags: Tensor


@dataclass(frozen=True, slots=True)
class Into:
    """All relations into one type. `shares` (M,) are what the rows of `mean` count; they do not change."""

    hops: tuple[Hop, ...]
    mean: Sum
    shares: Tensor
    attention: Sum


Plan = Mapping[str, Into]
"""By target type."""


@dataclass(frozen=True, slots=True)
class _Share:
    """One relation's part of a sum, an entry for each edge (near) or target (far).

    A target's entries are neighbours, and each is `width` neighbouring rows and, where near, shares. Shapes: targets,
    places and nth (n,), the target, the place in the block and the number among its target's; counts (N,) by target.
    """

    targets: IndexArray
    places: IndexArray
    nth: IndexArray
    counts: IndexArray
    block_rows: int
    width: int
    is_near: bool


def plan_of(graph: GraphArrays, heads: int) -> Plan:
    """Sort every relation's edges by target, and find who takes part; `heads` are the attention's."""
    return {kind: _into(graph, kind, heads) for kind in NODE_TYPES}


def _into(graph: GraphArrays, kind: str, heads: int) -> Into:
    nodes = len(graph.features[kind])
    hops: list[Hop] = []
    single: list[_Share] = []
    by_head: list[_Share] = []
    for row, relation in enumerate(INTO[kind]):
        edges = graph.edge_index[relation.edge_type]
        if not edges.shape[1]:
            continue
        count = 1 if relation.source == SINGLE else heads
        hop, share = _hop(edges, relation.source, row, (len(graph.features[relation.source]), nodes), heads=count)
        hops.append(hop)
        single.append(share)
        by_head.append(_of_heads(share, count) if share.is_near else share)
    mean = _sum(single, nodes)
    near = [hop.shares for hop in hops if hop.by_head is None]
    shares = torch.cat([*near, torch.ones(1)]).index_select(0, mean.shares)
    return Into(tuple(hops), mean, shares, _sum(by_head, nodes))


def _hop(edges: IndexArray, source: str, row: int, sizes: tuple[int, int], *, heads: int) -> tuple[Hop, _Share]:
    order = _by_target(edges[1], sizes[1])
    ends = edges[:, order]
    counts = np.bincount(ends[1], minlength=sizes[1])
    targets, is_source = np.flatnonzero(counts), np.bincount(ends[0], minlength=sizes[0]) > 0
    sources = np.flatnonzero(is_source)
    starts = np.cumsum(counts) - counts
    begins = starts[targets]
    is_near = len(sources) <= len(targets)
    hop = Hop(
        source=source,
        row=row,
        order=order,
        ends=torch.from_numpy(ends),
        sources=None if len(sources) == sizes[0] else torch.from_numpy(sources),
        target_places=torch.from_numpy((np.cumsum(counts > 0) - 1)[ends[1]]),
        begins=begins,
        bags=torch.from_numpy(begins),
        shares=torch.from_numpy((1 / counts[ends[1]]).astype(np.float32)),
        by_head=None if is_near else _by_head(ends[0], counts[targets], heads),
    )
    if is_near:
        nth = np.arange(len(order)) - starts[ends[1]]
        places = (np.cumsum(is_source) - 1)[ends[0]]
        return hop, _Share(ends[1], places, nth, counts, len(sources), 1, is_near=True)
    places = np.arange(len(targets))
    return hop, _Share(targets, places, np.zeros_like(places), np.minimum(counts, 1), len(targets), 1, is_near=False)


def _by_head(ends: IndexArray, counts: IndexArray, heads: int) -> ByHead:
    sizes = np.repeat(counts, heads)
    bags = np.cumsum(sizes) - sizes
    begins = np.repeat(np.cumsum(counts) - counts, heads)
    edges = np.arange(len(ends) * heads) + np.repeat(begins - bags, sizes)
    shares = edges * heads + np.repeat(np.tile(np.arange(heads), len(counts)), sizes)
    return ByHead(torch.from_numpy(ends[edges]), torch.from_numpy(shares), torch.from_numpy(bags))


def _of_heads(share: _Share, heads: int) -> _Share:
    """The same with a row for each source and head."""
    return _Share(
        share.targets, share.places, share.nth, share.counts * heads, share.block_rows * heads, heads, is_near=True
    )


def _sum(parts: Sequence[_Share], nodes: int) -> Sum:
    """Put every target's rows together, those of its first relation first."""
    counts = np.stack([part.counts for part in parts]) if parts else np.zeros((0, nodes), np.int64)
    per_node = counts.sum(axis=0)
    bags = (np.cumsum(per_node) - per_node).astype(np.int32)
    rows, shares = (np.empty(int(per_node.sum()), np.int32) for _ in range(2))
    shares_end = sum(len(part.targets) * part.width for part in parts if part.is_near)
    blocks: list[slice] = []
    block = number = 0
    begins = bags
    for part, count in zip(parts, counts, strict=True):
        across = np.arange(part.width, dtype=np.int32)
        at = (begins[part.targets] + part.nth * part.width)[:, None] + across
        rows[at] = (block + part.places * part.width)[:, None] + across
        if part.is_near:
            end = number + at.size
            shares[at] = np.arange(number, end, dtype=np.int32).reshape(at.shape)
            number = end
        else:
            shares[at] = shares_end
        blocks.append(slice(block, block + part.block_rows))
        block += part.block_rows
        begins = begins + count
    return Sum(tuple(blocks), torch.from_numpy(rows), torch.from_numpy(shares), torch.from_numpy(bags))


def _by_target(targets: IndexArray, nodes: int) -> IndexArray:
    """Return the order that sorts edges by target; numpy counts numbers of 16 bits, in linear time."""
    return np.argsort(targets.astype(np.uint16) if nodes <= np.iinfo(np.uint16).max else targets, kind="stable")
