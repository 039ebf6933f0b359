"""What the topology of a graph alone fixes, for the sparse form: made with arrays, and kept by topology.

What a relation brings to its targets is written into a table, the bias behind all of them, and one sum over bags adds
up what every target gets of all its relations, and the bias: no pass of its own over all targets. A relation writes
into that table the cheaper of two things:

    near    its sources, transformed; every edge reads one: where fewer sources than targets have edges
    far     its targets' sums over the sources, transformed; every target reads its own

Of means, targets with the same sources share one: where all of one list are joined with all of another, as relations of
a small blueprint are, that is a single row. The attention of each target is its own. But where every target has one
edge it is 1, whatever the logits, and the heads are one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tamiyo.graph.graph import FloatArray, IndexArray
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.fold import INTO, SINGLE
from tamiyo.policy.engine.joined import GraphArrays

__all__ = ["ByHead", "Hop", "Into", "Means", "Plan", "Sum", "plan_of"]

EDGES_EACH_MIN = 2
"""Where targets have fewer edges on average, hardly two have the same, and nobody looks."""


@dataclass(frozen=True, slots=True)
class ByHead:
    """The edges of a far relation, once for each head, by target and head, then by edge.

    Shapes: rows (E * H,) of the sources; shares (E * H,), which of the edges' H shares each takes; bags (T * H,).
    """

    rows: Tensor
    shares: Tensor
    bags: Tensor


@dataclass(frozen=True, slots=True)
class Means:
    """The means of a far relation, D of them: one for all targets with the same sources.

    Shapes: rows (F,) of the sources; shares (F,), 1 over the sources of a mean; bags (D,).
    """

    rows: Tensor
    shares: Tensor
    bags: Tensor


@dataclass(frozen=True, slots=True)
class Hop:
    """One relation that has edges, sorted by target.

    `row` is its place among the relations into its target. `means` is None where it is near as means go, `by_head`
    where it is near as attention goes; `is_lone` where every target has one edge. Shapes: order (E,); ends (2, E), the
    sorted edges; sources (S,) and targets (T,), the distinct nodes with an edge, sources None where all have one;
    target_places (E,), an edge's place among those targets; begins (T,), where each target's edges begin; shares (E,),
    1 over the edges of its target.
    """

    source: str
    row: int
    order: IndexArray
    ends: Tensor
    sources: Tensor | None
    target_places: Tensor
    begins: IndexArray
    shares: Tensor
    means: Means | None
    by_head: ByHead | None
    is_lone: bool


@dataclass(frozen=True, slots=True)
class Sum:
    """What each target gets of all its relations: rows of one table, in which every relation has a block.

    `blocks` are the relations' rows there; the row behind them is the bias, which every target gets once. Shapes: rows
    (M,); shares (M,), which of all near relations' shares each row takes, the one behind the last of them, which is 1,
    where it comes from a far relation or is the bias; bags (N,).
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
    means: list[_Share] = []
    by_head: list[_Share] = []
    for row, relation in enumerate(INTO[kind]):
        edges = graph.edge_index[relation.edge_type]
        if not edges.shape[1]:
            continue
        count = 1 if relation.source == SINGLE else heads
        hop, *shares_of = _hop(edges, relation.source, row, (len(graph.features[relation.source]), nodes), heads=count)
        hops.append(hop)
        for parts, part in zip((means, by_head), shares_of, strict=True):
            parts.append(part)
    mean = _sum(means, nodes)
    near = [hop.shares for hop in hops if hop.means is None]
    shares = torch.cat([*near, torch.ones(1)]).index_select(0, mean.shares)
    return Into(tuple(hops), mean, shares, _sum(by_head, nodes))


def _hop(edges: IndexArray, source: str, row: int, sizes: tuple[int, int], *, heads: int) -> tuple[Hop, _Share, _Share]:
    """A relation, what it brings as means, and as attention."""
    order = _by_target(edges[1], sizes[1])
    ends = edges[:, order]
    counts = np.bincount(ends[1], minlength=sizes[1])
    targets, is_source = np.flatnonzero(counts), np.bincount(ends[0], minlength=sizes[0]) > 0
    sources = np.flatnonzero(is_source)
    starts = np.cumsum(counts) - counts
    begins = starts[targets]
    shares = (1 / counts[ends[1]]).astype(np.float32)
    standing_for = _standing_for(ends, begins, counts[targets])
    has_near_means, is_near = len(sources) <= len(standing_for.first), len(sources) <= len(targets)
    is_lone = len(order) == len(targets)  # there are no more sources than edges: it is near
    hop = Hop(
        source=source,
        row=row,
        order=order,
        ends=torch.from_numpy(ends),
        sources=None if len(sources) == sizes[0] else torch.from_numpy(sources),
        target_places=torch.from_numpy((np.cumsum(counts > 0) - 1)[ends[1]]),
        begins=begins,
        shares=torch.from_numpy(shares),
        means=None if has_near_means else _means(ends[0], shares, begins, counts[targets], standing_for.first),
        by_head=None if is_near else _by_head(ends[0], counts[targets], heads),
        is_lone=is_lone,
    )
    # there are no more means than targets: only a relation that is near as attention goes can be near as means go
    near = _near(ends, counts, starts, is_source) if is_near else None
    return (
        hop,
        near if near is not None and has_near_means else _far(targets, counts, *standing_for),
        _far(targets, counts, *_each_for_itself(targets)) if near is None else _of_heads(near, 1 if is_lone else heads),
    )


def _near(ends: IndexArray, counts: IndexArray, starts: IndexArray, is_source: NDArray[np.bool_]) -> _Share:
    nth = np.arange(ends.shape[1]) - starts[ends[1]]
    places = np.cumsum(is_source) - 1
    return _Share(ends[1], places[ends[0]], nth, counts, int(places[-1]) + 1, 1, is_near=True)


def _far(targets: IndexArray, counts: IndexArray, first: IndexArray, places: IndexArray) -> _Share:
    return _Share(targets, places, np.zeros_like(places), np.minimum(counts, 1), len(first), 1, is_near=False)


def _means(sources: IndexArray, shares: FloatArray, begins: IndexArray, counts: IndexArray, first: IndexArray) -> Means:
    """The edges of the targets that stand for all."""
    if len(first) == len(begins):
        return Means(torch.from_numpy(sources), torch.from_numpy(shares), torch.from_numpy(begins))
    sizes = counts[first]
    bags = np.cumsum(sizes) - sizes
    edges = np.arange(sizes.sum()) + np.repeat(begins[first] - bags, sizes)
    return Means(torch.from_numpy(sources[edges]), torch.from_numpy(shares[edges]), torch.from_numpy(bags))


class _StandingFor(NamedTuple):
    """Which targets stand for all that have the same sources, (D,), and each one's place among those, (T,)."""

    first: IndexArray
    places: IndexArray


def _standing_for(ends: IndexArray, begins: IndexArray, counts: IndexArray) -> _StandingFor:
    """Find the targets with the same sources, as often as they are there; each for itself where that saves little.

    Candidates are found by sums of mixed numbers, and then held against each other edge by edge.
    """
    targets = len(begins)
    if targets == 1 or ends.shape[1] < EDGES_EACH_MIN * targets:
        return _each_for_itself(begins)
    _, first, places = np.unique(np.add.reduceat(_mixed(ends[0]), begins), return_index=True, return_inverse=True)
    if 2 * len(first) > targets:
        return _each_for_itself(begins)
    sources = ends[0][np.lexsort(ends)]
    theirs = np.repeat(begins[first[places]] - begins, counts) + np.arange(len(sources))
    is_same = np.array_equal(counts[first[places]], counts) and np.array_equal(sources[theirs], sources)
    return _StandingFor(first, places) if is_same else _each_for_itself(begins)


def _each_for_itself(targets: IndexArray) -> _StandingFor:
    return _StandingFor(np.arange(len(targets)), np.arange(len(targets)))


def _mixed(numbers: IndexArray) -> NDArray[np.uint64]:
    """Numbers whose sums tell sets apart: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)


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
    """Put every target's rows together, those of its first relation first, the bias last."""
    counts = np.stack([part.counts for part in parts]) if parts else np.zeros((0, nodes), np.int64)
    per_node = counts.sum(axis=0) + 1
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
    rows[begins], shares[begins] = block, shares_end
    return Sum(tuple(blocks), torch.from_numpy(rows), torch.from_numpy(shares), torch.from_numpy(bags))


def _by_target(targets: IndexArray, nodes: int) -> IndexArray:
    """Return the order that sorts edges by target; numpy counts numbers of 16 bits, in linear time."""
    return np.argsort(targets.astype(np.uint16) if nodes <= np.iinfo(np.uint16).max else targets, kind="stable")
