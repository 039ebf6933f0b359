"""The folded network on edge lists, in plain torch: graphs of any size, with any edges.

What the topology alone fixes is a `Plan`, kept by topology.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, gelu, layer_norm, leaky_relu

from tamiyo.graph.graph import FloatArray, Graph
from tamiyo.graph.schema import NODE_TYPES, EdgeType
from tamiyo.policy.ambient import unswayed
from tamiyo.policy.engine.dense import node_inputs
from tamiyo.policy.engine.fold import INTO, Attention, Folded, Product
from tamiyo.policy.engine.joined import GraphArrays, Joined
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.memory import keep_freed_memory
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sparse_plan import Hop, Into, Plan, Sum, plan_of

__all__ = ["SparseForm"]

_PLANS_MAX = 4
"""A plan of 56,000 edges takes a few MB."""

_READ_BY_HEADS = frozenset({"global", "seed", "blueprint"})
"""Few nodes, and all that the outputs are made of: exact sums and products cost little here."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What a layer's attention reads: by type a matrix (in, columns) for the nodes, by relation one for the edges.

    `sources` and `targets` are a relation's columns of its source and target type's matrix. Shapes: edges (6, H).
    """

    matrices: Mapping[str, Tensor]
    edges: Mapping[EdgeType, Tensor]
    sources: Mapping[EdgeType, slice]
    targets: Mapping[EdgeType, slice]


@dataclass(frozen=True, slots=True)
class Heads:
    """One relation's weights in an attention layer. Shapes: near (in, H * out), far (H * in, out), lone (in, out)."""

    near: Tensor
    far: Tensor
    lone: Tensor


class SparseForm:
    """Weights as tensors of one type. Keeps nothing of a call, so any number of threads may be in it.

    Args:
        folded: the weights.
        dtype: float32, exact; or bfloat16 for what layers, activations and parameters receive. What the heads read,
            what every node keeps from layer to layer, and the attention stay float32.
    """

    def __init__(self, folded: Folded, dtype: torch.dtype = torch.float32) -> None:
        keep_freed_memory()
        self._folded, self._dtype = folded, dtype
        self.engine = f"{str(dtype).removeprefix('torch.')}, torch {torch.__version__}"
        self._plans: Kept[bytes, Plan] = Kept(_PLANS_MAX)
        self._sage = tuple({kind: self._cut_sage(kind, part) for kind, part in layer.items()} for layer in folded.sage)
        self._gat = tuple({kind: self._cut_gat(kind, part) for kind, part in layer.items()} for layer in folded.gat)
        self._reads = tuple(_read_by(layer) for layer in folded.gat)

    def run(self, graph: Graph, key: bytes) -> Raw:
        """One graph; `key` stands for its topology."""
        with torch.inference_mode(), unswayed():
            heads, seeds, blueprints = self._outputs(graph, key)
        return Raw(heads[0], seeds, blueprints)

    def run_joined(self, joined: Joined, key: bytes) -> list[Raw]:
        """Several graphs in one pass, an answer each; `key` stands for the topologies of all, in order."""
        with torch.inference_mode(), unswayed():
            heads, seeds, blueprints = self._outputs(joined, key)
        ends = (np.cumsum(joined.counts[kind])[:-1] for kind in ("seed", "blueprint"))
        parts = (np.split(scores, end) for scores, end in zip((seeds, blueprints), ends, strict=True))
        return [Raw(*each) for each in zip(heads, *parts, strict=True)]

    def _outputs(self, graph: GraphArrays, key: bytes) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The heads of each global node, (G, sum of widths), and all seeds' and all blueprints' scores."""
        plan = self._plans.get(key, lambda: plan_of(graph, self._folded.attention_heads))
        states: Mapping[str, Tensor] = {kind: self._encoded(graph, kind) for kind in NODE_TYPES}
        encoded = {kind: states[kind] for kind in ("seed", "blueprint")}  # the scores read these; the others may go
        for weights, sage in zip(self._sage, self._folded.sage, strict=True):
            seen = self._rounded(states)
            states = {
                kind: _passed_on(states[kind], self._averaged(plan[kind], weights[kind], part, seen[kind], kind))
                for kind, part in sage.items()
            }
        for weights_of, gat, reads in zip(self._gat, self._folded.gat, self._reads, strict=True):
            seen = self._rounded(states)
            shares = self._shares(graph, plan, gat, reads, states)
            states = {
                kind: _passed_on(
                    states[kind], self._attended(plan[kind], weights_of[kind], part, seen[kind], shares, kind)
                )
                for kind, part in gat.items()
            }
        return self._read(states, encoded)

    def _type_of(self, kind: str) -> torch.dtype:
        """What the nodes of a type compute with."""
        return torch.float32 if kind in _READ_BY_HEADS else self._dtype

    def _rounded(self, states: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
        """By target type all states, in the type that it computes with."""
        rounded = {kind: state.to(self._dtype) for kind, state in states.items()}
        return {kind: states if self._type_of(kind) == torch.float32 else rounded for kind in NODE_TYPES}

    def _encoded(self, graph: GraphArrays, kind: str) -> Tensor:
        encoder = self._folded.encoders[kind]
        projected = gelu(_product(encoder.project, torch.from_numpy(node_inputs(graph, kind, self._folded))))
        scale, shift = torch.from_numpy(encoder.scale), torch.from_numpy(encoder.shift)
        return layer_norm(projected, scale.shape, scale, shift, encoder.epsilon)

    def _averaged(
        self, into: Into, weights: tuple[Tensor, ...], part: Product, states: Mapping[str, Tensor], kind: str
    ) -> Tensor:
        bias = torch.from_numpy(part.bias).to(self._type_of(kind))
        if not into.hops:
            return torch.addmm(bias, states[kind], weights[-1])
        table = _table(into.mean, bias)
        for hop, block in zip(into.hops, into.mean.blocks, strict=True):
            sources = states[hop.source]
            if hop.means is None:
                rows = _rows(sources, hop.sources)
            else:
                rows = _bagged(hop.means.rows, sources, hop.means.bags, hop.means.shares.to(bias.dtype))
            torch.mm(rows, weights[hop.row], out=table[block])
        total = _bagged(into.mean.rows, table, into.mean.bags, into.shares.to(bias.dtype))
        return total.addmm_(states[kind], weights[-1])

    def _attended(
        self,
        into: Into,
        weights: tuple[Heads, ...],
        part: Attention,
        states: Mapping[str, Tensor],
        shares_of: Mapping[EdgeType, Tensor],
        kind: str,
    ) -> Tensor:
        bias = torch.from_numpy(part.product.bias).to(self._type_of(kind))
        if not into.hops:
            return bias.repeat(len(states[kind]), 1)
        table, near_shares = _table(into.attention, bias), []
        for hop, block in zip(into.hops, into.attention.blocks, strict=True):
            sources, heads, by_head = states[hop.source], part.heads[hop.row], hop.by_head
            shares = shares_of[INTO[kind][hop.row].edge_type].to(bias.dtype).flatten()
            if by_head is None:
                near = weights[hop.row].lone if hop.is_lone else weights[hop.row].near
                near_shares.append(shares)
                torch.mm(_rows(sources, hop.sources), near, out=table[block].view(-1, near.shape[1]))
            else:
                rows = _bagged(by_head.rows, sources, by_head.bags, shares.index_select(0, by_head.shares))
                torch.mm(rows.view(-1, heads * sources.shape[1]), weights[hop.row].far, out=table[block])
        shares = torch.cat([*near_shares, bias.new_ones(1)]).index_select(0, into.attention.shares)
        return _bagged(into.attention.rows, table, into.attention.bags, shares)

    def _shares(
        self,
        graph: GraphArrays,
        plan: Plan,
        layer: Mapping[str, Attention],
        reads: Reads,
        states: Mapping[str, Tensor],
    ) -> dict[EdgeType, Tensor]:
        """By relation the attention, (E, heads): a softmax over the edges of each target, in float32."""
        read = {kind: states[kind] @ matrix for kind, matrix in reads.matrices.items()}
        found = {}
        for kind in layer:
            for hop in plan[kind].hops:
                edge_type = INTO[kind][hop.row].edge_type
                if hop.is_lone or edge_type not in reads.edges:  # one edge, or one source: all there is
                    found[edge_type] = hop.shares[:, None]
                    continue
                logits = torch.from_numpy(graph.edge_attr[edge_type][hop.order]) @ reads.edges[edge_type]
                ends = ((hop.source, reads.sources, hop.ends[0]), (kind, reads.targets, hop.ends[1]))
                for end, columns, places in ends:
                    logits += read[end][:, columns[edge_type]].contiguous().index_select(0, places)
                found[edge_type] = self._softmax(hop, logits)
        return found

    def _softmax(self, hop: Hop, logits: Tensor) -> Tensor:
        logits = leaky_relu(logits, self._folded.slope)
        most = torch.from_numpy(np.maximum.reduceat(logits.numpy(), hop.begins, axis=0))
        raised = torch.exp(logits.sub_(most.index_select(0, hop.target_places)))
        sums = torch.from_numpy(np.add.reduceat(raised.numpy(), hop.begins, axis=0))
        return raised.div_(sums.index_select(0, hop.target_places))

    def _read(
        self, states: Mapping[str, Tensor], encoded: Mapping[str, Tensor]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        seeds, blueprints = (torch.cat([states[kind], encoded[kind]], dim=1) for kind in ("seed", "blueprint"))
        return (
            _product(self._folded.heads, states["global"]).numpy(),
            _product(self._folded.seed_score, seeds)[:, 0].numpy(),
            _product(self._folded.blueprint_score, blueprints)[:, 0].numpy(),
        )

    def _cut_sage(self, kind: str, product: Product) -> tuple[Tensor, ...]:
        weight = torch.from_numpy(product.weight).to(self._type_of(kind))
        return tuple(part.contiguous() for part in torch.split(weight, self._folded.hidden))

    def _cut_gat(self, kind: str, part: Attention) -> tuple[Heads, ...]:
        """Return each relation's weights."""
        inputs, dtype = len(part.source), self._type_of(kind)
        blocks = torch.split(torch.from_numpy(part.product.weight), [heads * inputs for heads in part.heads])
        return tuple(
            Heads(
                near=far.view(heads, inputs, -1).permute(1, 0, 2).reshape(inputs, -1).to(dtype).contiguous(),
                far=far.to(dtype).contiguous(),
                lone=far.view(heads, inputs, -1).sum(0).to(dtype),
            )
            for far, heads in zip(blocks, part.heads, strict=True)
        )


def _bagged(places: Tensor, table: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table; torch's fast way for this is "sum" with weights, not "mean"."""
    return embedding_bag(places, table, bags, mode="sum", per_sample_weights=weights)


def _rows(table: Tensor, places: Tensor | None) -> Tensor:
    return table if places is None else table.index_select(0, places)


def _table(summed: Sum, bias: Tensor) -> Tensor:
    """A table for what the relations bring, (rows + 1, out); the bias, (out,), stands in it."""
    table = bias.new_empty((summed.blocks[-1].stop + 1, len(bias)))
    table[-1] = bias
    return table


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
    """Float32, whatever was computed with."""
    state: Tensor = torch.ops.aten.gelu_(received).float()
    return state.add_(before) if state.shape == before.shape else state


def _product(product: Product, inputs: Tensor) -> Tensor:
    return torch.addmm(torch.from_numpy(product.bias), inputs, torch.from_numpy(product.weight))
