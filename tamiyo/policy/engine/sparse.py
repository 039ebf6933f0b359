"""The folded network on edge lists, in plain torch: graphs of any size, with any edges.

Each relation goes the cheaper of two ways. The function is the same; what is multiplied is not:

    near    transform the sources, then add them up at the targets: where fewer sources than targets have edges
    far     add the sources up at the targets, then transform what came out

What the topology alone fixes is a `Plan`, made with arrays and kept by topology.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, gelu, layer_norm, leaky_relu

from tamiyo.graph.graph import FloatArray, Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, EdgeType
from tamiyo.policy.ambient import unswayed
from tamiyo.policy.engine.dense import node_inputs
from tamiyo.policy.engine.fold import INTO, SINGLE, Attention, Folded, Product
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.raw import Raw

__all__ = ["SparseForm"]

_PLANS_MAX = 4
"""A plan of 56,000 edges takes a few MB."""


@dataclass(frozen=True, slots=True)
class ByHead:
    """A relation's edges, once for each head, in the order in which the attention adds them up.

    near    by target and edge, all heads of an edge together; rows of a table that has one for each source and head
    far     by target and head; rows of the sources

    Shapes: rows (E * H,); shares (E * H,), which of the edges' H shares each takes, None where that is their order;
    bags (N,) near and (T * H,) far.
    """

    rows: Tensor
    shares: Tensor | None
    bags: Tensor


@dataclass(frozen=True, slots=True)
class Hop:
    """One relation that has edges, sorted by target.

    `row` is its place among the relations into its target. Shapes: order (E,); ends (2, E), the sorted edges; sources
    (S,) and targets (T,), the distinct nodes with an edge, None where all have one; source_places and target_places
    (E,), an edge's places among those; begins (T,), where each target's edges begin; bags (N,), the same for every node
    of the target type, or begins where the product comes after; shares (E,), 1 over the edges of its target.
    """

    source: str
    row: int
    is_near: bool
    order: IndexArray
    ends: Tensor
    sources: Tensor | None
    targets: Tensor | None
    source_places: Tensor
    target_places: Tensor
    begins: IndexArray
    bags: Tensor
    shares: Tensor
    by_head: ByHead


@dataclass(frozen=True, slots=True)
class Reads:
    """What a layer's attention reads: by type a matrix (in, columns) for the nodes, by relation one for the edges.

    `sources` and `targets` are a relation's columns of its source and target type's matrix. Shapes: edges (6, H).
    """

    matrices: Mapping[str, Tensor]
    edges: Mapping[EdgeType, Tensor]
    sources: Mapping[EdgeType, slice]
    targets: Mapping[EdgeType, slice]


Plan = Mapping[str, tuple[Hop, ...]]
"""By target type."""


def plan_of(graph: Graph, heads: int) -> Plan:
    """Sort every relation's edges by target, and find who takes part; `heads` are the attention's."""
    return {
        kind: tuple(
            _hop(
                graph.edge_index[relation.edge_type],
                relation.source,
                row,
                (len(graph.features[relation.source]), len(graph.features[kind])),
                heads=1 if relation.source == SINGLE else heads,
            )
            for row, relation in enumerate(INTO[kind])
            if graph.edge_index[relation.edge_type].shape[1]
        )
        for kind in NODE_TYPES
    }


def _hop(edges: IndexArray, source: str, row: int, sizes: tuple[int, int], *, heads: int) -> Hop:
    order = np.argsort(edges[1], kind="stable")
    ends = edges[:, order]
    counts = np.bincount(ends[1], minlength=sizes[1])
    targets, is_source = np.flatnonzero(counts), np.bincount(ends[0], minlength=sizes[0]) > 0
    sources = np.flatnonzero(is_source)
    bags = np.cumsum(counts) - counts
    is_near = len(sources) <= len(targets)
    source_places = (np.cumsum(is_source) - 1)[ends[0]]
    by_head = _near_by_head(source_places, bags, heads) if is_near else _far_by_head(ends[0], counts[targets], heads)
    return Hop(
        source=source,
        row=row,
        is_near=is_near,
        order=order,
        ends=torch.from_numpy(ends),
        sources=_unless_all(sources, sizes[0]),
        targets=_unless_all(targets, sizes[1]),
        source_places=torch.from_numpy(source_places),
        target_places=torch.from_numpy((np.cumsum(counts > 0) - 1)[ends[1]]),
        begins=bags[targets],
        bags=torch.from_numpy(bags if is_near else bags[targets]),
        shares=torch.from_numpy((1 / counts[ends[1]]).astype(np.float32)),
        by_head=by_head,
    )


def _near_by_head(source_places: IndexArray, bags: IndexArray, heads: int) -> ByHead:
    rows = source_places[:, None] * heads + np.arange(heads)
    return ByHead(torch.from_numpy(rows.ravel()), None, torch.from_numpy(bags * heads))


def _far_by_head(ends: IndexArray, counts: IndexArray, heads: int) -> ByHead:
    sizes = np.repeat(counts, heads)
    bags = np.cumsum(sizes) - sizes
    begins = np.repeat(np.cumsum(counts) - counts, heads)
    edges = np.arange(len(ends) * heads) + np.repeat(begins - bags, sizes)
    shares = edges * heads + np.repeat(np.tile(np.arange(heads), len(counts)), sizes)
    return ByHead(torch.from_numpy(ends[edges]), torch.from_numpy(shares), torch.from_numpy(bags))


def _unless_all(places: IndexArray, nodes: int) -> Tensor | None:
    return None if len(places) == nodes else torch.from_numpy(places)


class SparseForm:
    """Weights as tensors of one type. Keeps nothing of a call, so any number of threads may be in it.

    Args:
        folded: the weights.
        dtype: float32, exact; or bfloat16, where attention and outputs stay float32.
    """

    def __init__(self, folded: Folded, dtype: torch.dtype = torch.float32) -> None:
        self._folded, self._dtype = folded, dtype
        self.engine = f"{str(dtype).removeprefix('torch.')}, torch {torch.__version__}"
        self._plans: Kept[bytes, Plan] = Kept(_PLANS_MAX)
        self._sage = tuple({kind: self._cut_sage(part) for kind, part in layer.items()} for layer in folded.sage)
        self._gat = tuple({kind: self._cut_gat(part) for kind, part in layer.items()} for layer in folded.gat)
        self._reads = tuple(_read_by(layer) for layer in folded.gat)

    def run(self, graph: Graph, key: bytes) -> Raw:
        """One graph; `key` stands for its topology."""
        plan = self._plans.get(key, lambda: plan_of(graph, self._folded.attention_heads))
        with torch.inference_mode(), unswayed():
            encoded = {kind: self._encoded(graph, kind) for kind in NODE_TYPES}
            states: Mapping[str, Tensor] = encoded
            for weights, sage in zip(self._sage, self._folded.sage, strict=True):
                states = {
                    kind: _passed_on(states[kind], self._averaged(plan[kind], weights[kind], part, states, kind))
                    for kind, part in sage.items()
                }
            for weights_of, gat, reads in zip(self._gat, self._folded.gat, self._reads, strict=True):
                shares = self._shares(graph, plan, gat, reads, states)
                states = {
                    kind: _passed_on(
                        states[kind], self._attended(plan[kind], weights_of[kind], part, states, shares, kind)
                    )
                    for kind, part in gat.items()
                }
            return self._read(states, encoded)

    def _encoded(self, graph: Graph, kind: str) -> Tensor:
        encoder = self._folded.encoders[kind]
        projected = gelu(_product(encoder.project, torch.from_numpy(node_inputs(graph, kind, self._folded))))
        scale, shift = torch.from_numpy(encoder.scale), torch.from_numpy(encoder.shift)
        return layer_norm(projected, scale.shape, scale, shift, encoder.epsilon).to(self._dtype)

    def _averaged(
        self, hops: tuple[Hop, ...], weights: tuple[Tensor, ...], part: Product, states: Mapping[str, Tensor], kind: str
    ) -> Tensor:
        total = torch.addmm(torch.from_numpy(part.bias).to(self._dtype), states[kind], weights[-1])
        for hop in hops:
            sources, weight = states[hop.source], weights[hop.row]
            shares = hop.shares.to(self._dtype)
            if hop.is_near:
                total += _bagged(hop.source_places, _rows(sources, hop.sources) @ weight, hop.bags, shares)
            else:
                _add_rows(total, hop.targets, _bagged(hop.ends[0], sources, hop.bags, shares) @ weight)
        return total

    def _attended(
        self,
        hops: tuple[Hop, ...],
        weights: tuple[tuple[Tensor, Tensor], ...],
        part: Attention,
        states: Mapping[str, Tensor],
        shares_of: Mapping[EdgeType, Tensor],
        kind: str,
    ) -> Tensor:
        total = torch.from_numpy(part.product.bias).to(self._dtype).repeat(len(states[kind]), 1)
        for hop in hops:
            sources, heads, by_head = states[hop.source], part.heads[hop.row], hop.by_head
            shares = shares_of[INTO[kind][hop.row].edge_type].flatten()
            near, far = weights[hop.row]
            if by_head.shares is None:
                table = (_rows(sources, hop.sources) @ near).view(-1, far.shape[1])
                total += _bagged(by_head.rows, table, by_head.bags, shares)
            else:
                rows = _bagged(by_head.rows, sources, by_head.bags, shares.index_select(0, by_head.shares))
                _add_rows(total, hop.targets, rows.view(-1, heads * sources.shape[1]) @ far)
        return total

    def _shares(
        self,
        graph: Graph,
        plan: Plan,
        layer: Mapping[str, Attention],
        reads: Reads,
        states: Mapping[str, Tensor],
    ) -> dict[EdgeType, Tensor]:
        """By relation the attention, (E, heads): a softmax over the edges of each target, in float32."""
        read = {kind: (states[kind] @ matrix.to(self._dtype)).float() for kind, matrix in reads.matrices.items()}
        found = {}
        for kind in layer:
            for hop in plan[kind]:
                edge_type = INTO[kind][hop.row].edge_type
                if edge_type not in reads.edges:  # one source: all there is
                    found[edge_type] = hop.shares[:, None].to(self._dtype)
                    continue
                logits = torch.from_numpy(graph.edge_attr[edge_type][hop.order]) @ reads.edges[edge_type]
                ends = ((hop.source, reads.sources, hop.ends[0]), (kind, reads.targets, hop.ends[1]))
                for end, columns, places in ends:
                    logits += read[end][:, columns[edge_type]].contiguous().index_select(0, places)
                found[edge_type] = self._softmax(hop, logits).to(self._dtype)
        return found

    def _softmax(self, hop: Hop, logits: Tensor) -> Tensor:
        logits = leaky_relu(logits, self._folded.slope)
        most = torch.from_numpy(np.maximum.reduceat(logits.numpy(), hop.begins, axis=0))
        raised = torch.exp(logits.sub_(most.index_select(0, hop.target_places)))
        sums = torch.from_numpy(np.add.reduceat(raised.numpy(), hop.begins, axis=0))
        return raised.div_(sums.index_select(0, hop.target_places))

    def _read(self, states: Mapping[str, Tensor], encoded: Mapping[str, Tensor]) -> Raw:
        seeds, blueprints = (
            torch.cat([states[kind].float(), encoded[kind].float()], dim=1) for kind in ("seed", "blueprint")
        )
        return Raw(
            heads=_product(self._folded.heads, states["global"].float())[0].numpy(),
            seed_scores=_product(self._folded.seed_score, seeds)[:, 0].numpy(),
            blueprint_scores=_product(self._folded.blueprint_score, blueprints)[:, 0].numpy(),
        )

    def _cut_sage(self, product: Product) -> tuple[Tensor, ...]:
        weight = torch.from_numpy(product.weight).to(self._dtype)
        return tuple(part.contiguous() for part in torch.split(weight, self._folded.hidden))

    def _cut_gat(self, part: Attention) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return each relation's weights, for near (in, H * out) and for far (H * in, out)."""
        inputs = len(part.source)
        weight = torch.from_numpy(part.product.weight).to(self._dtype)
        blocks = torch.split(weight, [heads * inputs for heads in part.heads])
        return tuple(
            (far.view(heads, inputs, -1).permute(1, 0, 2).reshape(inputs, -1).contiguous(), far.contiguous())
            for far, heads in zip(blocks, part.heads, strict=True)
        )


def _bagged(places: Tensor, table: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table; torch's fast way for this is "sum" with weights, not "mean"."""
    return embedding_bag(places, table, bags, mode="sum", per_sample_weights=weights)


def _rows(table: Tensor, places: Tensor | None) -> Tensor:
    return table if places is None else table.index_select(0, places)


def _add_rows(total: Tensor, places: Tensor | None, rows: Tensor) -> None:
    if places is None:
        total += rows
    else:
        total.index_add_(0, places, rows)


def _read_by(layer: Mapping[str, Attention]) -> Reads:
    """Gather what a layer's attention reads of each node type."""
    found: dict[str, list[FloatArray]] = {kind: [] for kind in NODE_TYPES}
    width, edges = dict.fromkeys(NODE_TYPES, 0), {}
    sources: dict[EdgeType, slice] = {}
    targets: dict[EdgeType, slice] = {}
    for kind, part in layer.items():
        end = 0
        for relation, heads in zip(INTO[kind], part.heads, strict=True):
            if heads == 1:
                continue
            begin, end = end, end + heads
            edges[relation.edge_type] = torch.from_numpy(part.edge[:, begin:end].copy())
            ends = ((relation.source, part.source, sources), (kind, part.target, targets))
            for read, vectors, columns in ends:
                found[read].append(vectors[:, begin:end])
                columns[relation.edge_type] = slice(width[read], width[read] + heads)
                width[read] += heads
    matrices = {kind: torch.from_numpy(np.concatenate(parts, axis=1)) for kind, parts in found.items() if parts}
    return Reads(matrices, edges, sources, targets)


def _passed_on(before: Tensor, received: Tensor) -> Tensor:
    state = gelu(received)
    return state.add_(before) if state.shape == before.shape else state


def _product(product: Product, inputs: Tensor) -> Tensor:
    return torch.addmm(torch.from_numpy(product.bias), inputs, torch.from_numpy(product.weight))
