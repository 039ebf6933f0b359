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
from tamiyo.graph.schema import NODE_TYPES, RELATIONS, Relation
from tamiyo.policy.engine.dense import node_inputs
from tamiyo.policy.engine.fold import INTO, Attention, Folded, Product
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.raw import Raw

__all__ = ["SparseForm"]

_PLANS_MAX = 4
"""A plan of 56,000 edges takes a few MB."""


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


FROM = {kind: tuple(relation for relation in RELATIONS if relation.source == kind) for kind in NODE_TYPES}

Plan = Mapping[str, tuple[Hop, ...]]
"""By target type."""


def plan_of(graph: Graph) -> Plan:
    """Sort every relation's edges by target, and find who takes part."""
    return {
        kind: tuple(
            _hop(
                graph.edge_index[relation.edge_type],
                relation.source,
                row,
                (len(graph.features[relation.source]), len(graph.features[kind])),
            )
            for row, relation in enumerate(INTO[kind])
            if graph.edge_index[relation.edge_type].shape[1]
        )
        for kind in NODE_TYPES
    }


def _hop(edges: IndexArray, source: str, row: int, sizes: tuple[int, int]) -> Hop:
    order = np.argsort(edges[1], kind="stable")
    ends = edges[:, order]
    counts = np.bincount(ends[1], minlength=sizes[1])
    targets, is_source = np.flatnonzero(counts), np.bincount(ends[0], minlength=sizes[0]) > 0
    sources = np.flatnonzero(is_source)
    bags = np.cumsum(counts) - counts
    is_near = len(sources) <= len(targets)
    return Hop(
        source=source,
        row=row,
        is_near=is_near,
        order=order,
        ends=torch.from_numpy(ends),
        sources=_unless_all(sources, sizes[0]),
        targets=_unless_all(targets, sizes[1]),
        source_places=torch.from_numpy((np.cumsum(is_source) - 1)[ends[0]]),
        target_places=torch.from_numpy((np.cumsum(counts > 0) - 1)[ends[1]]),
        begins=bags[targets],
        bags=torch.from_numpy(bags if is_near else bags[targets]),
        shares=torch.from_numpy((1 / counts[ends[1]]).astype(np.float32)),
    )


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
        self._vectors = tuple(_vectors(layer) for layer in folded.gat)

    def run(self, graph: Graph, key: bytes) -> Raw:
        """One graph; `key` stands for its topology."""
        plan = self._plans.get(key, lambda: plan_of(graph))
        with torch.inference_mode():
            encoded = {kind: self._encoded(graph, kind) for kind in NODE_TYPES}
            states: Mapping[str, Tensor] = encoded
            for weights, sage in zip(self._sage, self._folded.sage, strict=True):
                states = {
                    kind: _passed_on(states[kind], self._averaged(plan[kind], weights[kind], part, states, kind))
                    for kind, part in sage.items()
                }
            for weights_of, gat, vectors in zip(self._gat, self._folded.gat, self._vectors, strict=True):
                logits = {kind: (states[kind] @ vectors[kind].to(self._dtype)).float() for kind in states}
                states = {
                    kind: _passed_on(
                        states[kind], self._attended(graph, plan[kind], weights_of[kind], part, states, logits, kind)
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
        graph: Graph,
        hops: tuple[Hop, ...],
        weights: tuple[tuple[Tensor, Tensor], ...],
        part: Attention,
        states: Mapping[str, Tensor],
        logits: Mapping[str, Tensor],
        kind: str,
    ) -> Tensor:
        heads = self._folded.attention_heads
        total = torch.from_numpy(part.product.bias).to(self._dtype).repeat(len(states[kind]), 1)
        for hop in hops:
            sources = states[hop.source]
            shares = self._shares(graph.edge_attr[INTO[kind][hop.row].edge_type], hop, part, logits, kind)
            near, far = weights[hop.row]
            if hop.is_near:
                table = (_rows(sources, hop.sources) @ near).view(-1, far.shape[1])
                places = (hop.source_places[:, None] * heads + torch.arange(heads)).flatten()
                total += _bagged(places, table, hop.bags * heads, shares.flatten())
            else:
                by_head = [
                    _bagged(hop.ends[0], sources, hop.bags, shares[:, head].contiguous()) for head in range(heads)
                ]
                _add_rows(total, hop.targets, torch.cat(by_head, dim=1) @ far)
        return total

    def _shares(
        self, attributes: FloatArray, hop: Hop, part: Attention, by_node: Mapping[str, Tensor], kind: str
    ) -> Tensor:
        """Return the attention, (E, H): a softmax over the edges of each target, in float32."""
        heads = self._folded.attention_heads
        source, target = _columns(hop.source, INTO[kind][hop.row]), hop.row
        logits = torch.from_numpy(attributes[hop.order]) @ torch.from_numpy(part.edge[hop.row])
        for end, places, block in ((hop.source, hop.ends[0], source), (kind, hop.ends[1], target)):
            logits += by_node[end][:, block * heads : (block + 1) * heads].contiguous().index_select(0, places)
        logits = leaky_relu(logits, self._folded.slope)
        most = torch.from_numpy(np.maximum.reduceat(logits.numpy(), hop.begins, axis=0))
        raised = torch.exp(logits.sub_(most.index_select(0, hop.target_places)))
        sums = torch.from_numpy(np.add.reduceat(raised.numpy(), hop.begins, axis=0))
        return raised.div_(sums.index_select(0, hop.target_places)).to(self._dtype)

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
        inputs, heads = len(part.source), self._folded.attention_heads
        weight = torch.from_numpy(part.product.weight).to(self._dtype)
        return tuple(
            (far.view(heads, inputs, -1).permute(1, 0, 2).reshape(inputs, -1).contiguous(), far.contiguous())
            for far in torch.split(weight, heads * inputs)
        )


def _bagged(places: Tensor, table: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table; torch's fast way for this is "sum" with weights, not "mean"."""
    return embedding_bag(places, table, bags, mode="sum", per_sample_weights=weights)


def _rows(table: Tensor, places: Tensor | None) -> Tensor:
    return table if places is None else table.index_select(0, places)


def _add_rows(total: Tensor, places: Tensor | None, rows: Tensor) -> None:
    """Add to rows that are all different; `index_add_` would be many times slower."""
    if places is None:
        total += rows
    else:
        total[places] = total.index_select(0, places) + rows


def _columns(kind: str, relation: Relation) -> int:
    """The block of a node type's logits that a relation from it reads; those of relations into it come first."""
    return len(INTO[kind]) + FROM[kind].index(relation)


def _vectors(layer: Mapping[str, Attention]) -> dict[str, Tensor]:
    """All vectors of a layer that one node type is multiplied with, (in, blocks * H), by `_columns`."""
    inputs = len(next(iter(layer.values())).source)
    heads = next(iter(layer.values())).edge.shape[2]
    found = {}
    for kind in NODE_TYPES:
        into = [layer[kind].target] if kind in layer else [np.zeros((inputs, len(INTO[kind]) * heads), np.float32)]
        out = [_source_vectors(layer, relation, inputs, heads) for relation in FROM[kind]]
        found[kind] = torch.from_numpy(np.concatenate([*into, *out], axis=1))
    return found


def _source_vectors(layer: Mapping[str, Attention], relation: Relation, inputs: int, heads: int) -> FloatArray:
    if relation.target not in layer:
        return np.zeros((inputs, heads), np.float32)
    row = INTO[relation.target].index(relation)
    return layer[relation.target].source[:, row * heads : (row + 1) * heads]


def _passed_on(before: Tensor, received: Tensor) -> Tensor:
    state = gelu(received)
    return state + before if state.shape == before.shape else state


def _product(product: Product, inputs: Tensor) -> Tensor:
    return torch.addmm(torch.from_numpy(product.bias), inputs, torch.from_numpy(product.weight))
