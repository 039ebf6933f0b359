"""The folded network on edge lists, on a device: large graphs, kernel by kernel.

As `tamiyo.policy.engine.sparse`, and laid out for many small processors: one copy there, nothing back to the host
before the answer, and every sum over edges is a sum over bags, whose order is fixed, so that the same graph gets the
same bits. Attention and outputs are fp32 in bf16 too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, gelu, layer_norm, leaky_relu

from tamiyo.graph.graph import Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, EdgeType
from tamiyo.policy.engine.dense import node_inputs
from tamiyo.policy.engine.device import Device
from tamiyo.policy.engine.fold import INTO, SINGLE, Attention, Encoder, Folded, Product
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.packed import Packed
from tamiyo.policy.engine.raw import Raw

__all__ = ["DeviceSparse"]

_PLANS_MAX = 4


@dataclass(frozen=True, slots=True)
class _Hop:
    """One relation that has edges, sorted by target, on the device.

    Shapes: order (E,), on the host; sources and targets (E,) nodes; bags (N,), where each target's edges begin; shares
    (E,), 1 over the edges of its target; own (E,), the edges' numbers.
    """

    edge_type: EdgeType
    source: str
    row: int
    order: IndexArray
    sources: Tensor
    targets: Tensor
    bags: Tensor
    shares: Tensor
    own: Tensor


@dataclass(frozen=True, slots=True)
class _Product:
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class _Attention:
    """By relation: `blocks`, (heads * in, out); the vectors of the logits, (in, heads), None where heads are one."""

    bias: Tensor
    blocks: tuple[Tensor, ...]
    source: tuple[Tensor | None, ...]
    target: tuple[Tensor | None, ...]
    edge: tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True)
class _Encoder:
    project: _Product
    scale: Tensor
    shift: Tensor
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """By target type the relations; and where a step's numbers go: nodes by type, attributes by relation, sorted."""

    hops: Mapping[str, tuple[_Hop, ...]]
    inputs: Packed
    orders: Mapping[EdgeType, IndexArray]
    nodes: Mapping[str, Tensor]
    attributes: Mapping[EdgeType, Tensor]

    def send(self, graph: Graph, folded: Folded) -> None:
        """Queue a step's numbers for the device."""
        here = iter(self.inputs.here)
        for kind in self.nodes:
            np.copyto(next(here), node_inputs(graph, kind, folded))
        for edge_type in self.attributes:
            np.take(graph.edge_attr[edge_type], self.orders[edge_type], axis=0, out=next(here), mode="clip")
        self.inputs.send()


class DeviceSparse:
    """Weights of one type on a device. Keeps nothing of a call but its plan.

    Args:
        folded: the weights.
        device: where they go. Raises RuntimeError, here and later, where it fails.
        dtype: float32, or bfloat16.
    """

    def __init__(self, folded: Folded, device: Device, dtype: torch.dtype = torch.float32) -> None:
        self._folded, self._device, self._dtype = folded, device, dtype
        kind = "bfloat16" if dtype == torch.bfloat16 else "float32"
        self.engine = f"{kind} on {device.place}"
        self._plans: Kept[bytes, _Plan] = Kept(_PLANS_MAX)
        with device.calls():
            self._load(folded)
        device.finish()

    def run(self, graph: Graph, key: bytes) -> Raw:
        """One graph; `key` stands for its topology."""
        with self._device.turn:
            plan = self._plans.get(key, lambda: self._plan(graph))
            with self._device.calls():
                plan.send(graph, self._folded)
                result = self._computed(plan)
                answer = self._device.buffer(result.numel())
                answer.copy_(result, non_blocking=True)
            self._device.finish()
        found = answer.numpy()
        seeds, blueprints = len(graph.features["seed"]), len(graph.features["blueprint"])
        width = len(found) - seeds - blueprints
        return Raw(found[:width], found[width : width + seeds], found[width + seeds :])

    def _computed(self, plan: _Plan) -> Tensor:
        encoded = {kind: self._encoded(plan.nodes[kind], kind) for kind in NODE_TYPES}
        states: Mapping[str, Tensor] = encoded
        for sage in self._sage:
            states = {
                kind: _passed_on(states[kind], self._averaged(plan.hops[kind], part, states, states[kind]))
                for kind, part in sage.items()
            }
        for gat in self._gat:
            states = {
                kind: _passed_on(states[kind], self._attended(plan, kind, part, states, states[kind]))
                for kind, part in gat.items()
            }
        seeds, blueprints = (
            torch.cat([states[kind].float(), encoded[kind].float()], dim=1) for kind in ("seed", "blueprint")
        )
        return torch.cat([
            _times(states["global"].float(), self._heads).flatten(),
            _times(seeds, self._seeds).flatten(),
            _times(blueprints, self._blueprints).flatten(),
        ])  # fmt: skip

    def _encoded(self, nodes: Tensor, kind: str) -> Tensor:
        encoder = self._encoders[kind]
        projected = gelu(_times(nodes, encoder.project))
        return layer_norm(projected, encoder.scale.shape, encoder.scale, encoder.shift, encoder.epsilon).to(self._dtype)

    def _averaged(self, hops: tuple[_Hop, ...], part: _Product, states: Mapping[str, Tensor], own: Tensor) -> Tensor:
        weights = torch.split(part.weight, self._folded.hidden)
        total = torch.addmm(part.bias, own, weights[-1])
        for hop in hops:
            total += _bagged(hop.sources, states[hop.source], hop.bags, hop.shares.to(self._dtype)) @ weights[hop.row]
        return total

    def _attended(self, plan: _Plan, kind: str, part: _Attention, states: Mapping[str, Tensor], own: Tensor) -> Tensor:
        total = part.bias.repeat(len(own), 1)
        for hop in plan.hops[kind]:
            sources = states[hop.source]
            shares = self._shares(plan, hop, part, sources, own).to(self._dtype)
            by_head = [_bagged(hop.sources, sources, hop.bags, column.contiguous()) for column in shares.unbind(1)]
            total += torch.cat(by_head, dim=1) @ part.blocks[hop.row]
        return total

    def _shares(self, plan: _Plan, hop: _Hop, part: _Attention, sources: Tensor, targets: Tensor) -> Tensor:
        """The attention, (E, heads): a softmax over the edges of each target, in float32."""
        by_source, by_target, by_edge = part.source[hop.row], part.target[hop.row], part.edge[hop.row]
        if by_source is None or by_target is None or by_edge is None:  # one source: all there is
            return hop.shares[:, None]
        logits = plan.attributes[hop.edge_type] @ by_edge
        logits = logits + (sources.float() @ by_source).index_select(0, hop.sources)
        logits = leaky_relu(logits + (targets.float() @ by_target).index_select(0, hop.targets), self._folded.slope)
        places = hop.targets[:, None].expand_as(logits)
        most = logits.new_full((len(targets), logits.shape[1]), -torch.inf).scatter_reduce(0, places, logits, "amax")
        raised = torch.exp(logits - most.index_select(0, hop.targets))
        sums = embedding_bag(hop.own, raised, hop.bags, mode="sum")
        return raised / sums.index_select(0, hop.targets)

    def _plan(self, graph: Graph) -> _Plan:
        with self._device.calls():
            hops = {
                kind: tuple(
                    self._hop(graph, relation.edge_type, relation.source, row, len(graph.features[kind]))
                    for row, relation in enumerate(INTO[kind])
                    if graph.edge_index[relation.edge_type].shape[1]
                )
                for kind in NODE_TYPES
            }
            orders = {hop.edge_type: hop.order for into in hops.values() for hop in into if hop.source != SINGLE}
            nodes = {kind: node_inputs(graph, kind, self._folded).shape for kind in NODE_TYPES}
            edges = {edge_type: graph.edge_attr[edge_type].shape for edge_type in orders}
            inputs = Packed([*nodes.values(), *edges.values()], self._device)
        self._device.finish()
        there = iter(inputs.there)
        return _Plan(
            hops=hops,
            inputs=inputs,
            orders=orders,
            nodes=dict(zip(nodes, there, strict=False)),
            attributes=dict(zip(edges, there, strict=False)),
        )

    def _hop(self, graph: Graph, edge_type: EdgeType, source: str, row: int, targets: int) -> _Hop:
        edges = graph.edge_index[edge_type]
        order = np.argsort(edges[1], kind="stable")
        sources, ends = edges[:, order]
        counts = np.bincount(ends, minlength=targets)
        return _Hop(
            edge_type=edge_type,
            source=source,
            row=row,
            order=order,
            sources=self._there(sources),
            targets=self._there(ends),
            bags=self._there(np.cumsum(counts) - counts),
            shares=self._there((1 / counts[ends]).astype(np.float32)),
            own=self._there(np.arange(len(ends))),
        )

    def _load(self, folded: Folded) -> None:
        self._encoders = {kind: self._encoder(encoder) for kind, encoder in folded.encoders.items()}
        self._sage = [{kind: self._product(part, self._dtype) for kind, part in layer.items()} for layer in folded.sage]
        self._gat = [{kind: self._attention(part) for kind, part in layer.items()} for layer in folded.gat]
        self._heads, self._seeds, self._blueprints = (
            self._product(part, torch.float32) for part in (folded.heads, folded.seed_score, folded.blueprint_score)
        )

    def _encoder(self, encoder: Encoder) -> _Encoder:
        project = self._product(encoder.project, torch.float32)
        return _Encoder(project, self._there(encoder.scale), self._there(encoder.shift), encoder.epsilon)

    def _product(self, part: Product, dtype: torch.dtype) -> _Product:
        return _Product(self._there(part.weight).to(dtype), self._there(part.bias).to(dtype))

    def _attention(self, part: Attention) -> _Attention:
        whole, inputs = self._product(part.product, self._dtype), len(part.source)
        return _Attention(
            bias=whole.bias,
            blocks=torch.split(whole.weight, [heads * inputs for heads in part.heads]),
            source=self._columns(part.source, part.heads),
            target=self._columns(part.target, part.heads),
            edge=self._columns(part.edge, part.heads),
        )

    def _columns(self, vectors: np.ndarray, heads: tuple[int, ...]) -> tuple[Tensor | None, ...]:
        """By relation its heads' columns; None where there is one head, which has none."""
        found: list[Tensor | None] = []
        end = 0
        for each in heads:
            begin, end = end, end + (each if each > 1 else 0)
            found.append(self._there(vectors[:, begin:end].copy()) if each > 1 else None)
        return tuple(found)

    def _there(self, array: np.ndarray) -> Tensor:
        """A copy on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device.place)


def _bagged(places: Tensor, table: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows of a table, one for each target; of none, zeros."""
    return embedding_bag(places, table, bags, mode="sum", per_sample_weights=weights)


def _times(inputs: Tensor, part: _Product) -> Tensor:
    return torch.addmm(part.bias, inputs, part.weight)


def _passed_on(before: Tensor, received: Tensor) -> Tensor:
    state = gelu(received)
    return state + before if state.shape == before.shape else state
