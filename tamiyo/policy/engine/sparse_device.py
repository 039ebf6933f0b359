"""The folded network on edge lists, on a device: large graphs, kernel by kernel.

To queue a kernel takes as long as most of them run, so it is the dense form's few products over all types at once, with
sums over bags where that has matrices: some 150 kernels, whatever the graph. One copy there, nothing back to the host
before the answer, and every sum has a fixed order, so that the same graph gets the same bits. What nodes keep from one
layer to the next, the attention and the outputs are fp32 in bf16 too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, leaky_relu

from tamiyo.graph.graph import FloatArray, Graph
from tamiyo.graph.schema import NODE_TYPES, RELATIONS
from tamiyo.policy.engine.dense import node_inputs
from tamiyo.policy.engine.device import Device
from tamiyo.policy.engine.device_plan import Attended, DevicePlan, device_plan_of
from tamiyo.policy.engine.fold import Attention, Encoder, Folded, Product, vectors
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.packed import Packed
from tamiyo.policy.engine.raw import Raw

__all__ = ["DeviceSparse"]

_PLANS_MAX = 4

_Weights: TypeAlias = tuple[Tensor, Tensor]
"""Of a product, and its bias."""


@dataclass(frozen=True, slots=True)
class _Encoder:
    project: _Weights
    scale: Tensor
    shift: Tensor
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Layer:
    """Attention. Shapes: nodes (in, 2q), what the logits read of sources, then of targets; edges (columns, q)."""

    products: Mapping[str, _Weights]
    nodes: Tensor
    edges: Tensor


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a topology's numbers go: nodes by type, then all edges' attributes; and how many rows are whose."""

    topology: DevicePlan
    inputs: Packed
    nodes: list[int]

    def send(self, graph: Graph, folded: Folded) -> None:
        """Queue a step's numbers for the device."""
        *nodes, attributes = self.inputs.here
        for kind, here in zip(NODE_TYPES, nodes, strict=True):
            np.copyto(here, node_inputs(graph, kind, folded))
        np.concatenate([graph.edge_attr[relation.edge_type] for relation in RELATIONS], out=attributes)
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
        *nodes, attributes = plan.inputs.there
        encoded = states = torch.cat([
            self._encoded(each, self._encoders[kind]) for kind, each in zip(NODE_TYPES, nodes, strict=True)
        ])  # fmt: skip
        means = plan.topology.averaged
        shares = means.shares.to(self._dtype)
        for sage in self._sage:
            received = means.bags.summed(means.nodes, states.to(self._dtype), shares)
            states = self._passed_on(states, received, sage, plan)
        for layer, attended in zip(self._gat, plan.topology.attended, strict=True):
            chosen = self._chosen(states, attributes, layer, attended).to(self._dtype)
            received = attended.bags.summed(attended.nodes, states.to(self._dtype), chosen)
            states = self._passed_on(states, received, layer.products, plan)
        return self._read(torch.split(states, plan.nodes), torch.split(encoded, plan.nodes))

    def _encoded(self, nodes: Tensor, encoder: _Encoder) -> Tensor:
        projected = gelu(_product(encoder.project, nodes))
        return layer_norm(projected, encoder.scale.shape, encoder.scale, encoder.shift, encoder.epsilon)

    def _passed_on(self, states: Tensor, rows: Tensor, weights: Mapping[str, _Weights], plan: _Plan) -> Tensor:
        """What targets make of their rows; zeros for those that no output reads any more."""
        widths = {kind: len(weight) // rows.shape[1] for kind, (weight, _) in weights.items()}
        counts = dict(zip(NODE_TYPES, plan.nodes, strict=True))
        parts = iter(torch.split(rows, [counts[kind] * width for kind, width in widths.items()]))
        width = next(iter(weights.values()))[1].shape[0]
        after = [
            gelu(_product(weights[kind], next(parts).reshape(-1, len(weights[kind][0]))))
            if kind in weights
            else rows.new_zeros(count, width)
            for kind, count in counts.items()
        ]
        passed = torch.cat(after).float()
        return passed.add_(states) if passed.shape == states.shape else passed

    def _chosen(self, states: Tensor, attributes: Tensor, layer: _Layer, attended: Attended) -> Tensor:
        """The attention on each entry: a softmax over those of its row, in float32."""
        by_node, by_edge = (states @ layer.nodes).flatten(), (attributes @ layer.edges).flatten()
        logits = by_edge.index_select(0, attended.edges)
        logits += by_node.index_select(0, attended.sources)
        logits += by_node.index_select(0, attended.targets)
        logits = leaky_relu(logits, self._folded.slope).mul_(attended.chooses)
        most = logits.new_full((attended.bags.rows,), -torch.inf).scatter_reduce_(0, attended.rows, logits, "amax")
        raised = torch.exp(logits.sub_(most.index_select(0, attended.rows)))
        sums = attended.bags.summed(attended.own, raised[:, None]).flatten()
        return raised.div_(sums.index_select(0, attended.rows))

    def _read(self, states: Sequence[Tensor], encoded: Sequence[Tensor]) -> Tensor:
        ends, begins = (dict(zip(NODE_TYPES, parts, strict=True)) for parts in (states, encoded))
        seeds, blueprints = (torch.cat([ends[kind], begins[kind]], dim=1) for kind in ("seed", "blueprint"))
        return torch.cat([
            _product(self._heads, ends["global"]).flatten(),
            _product(self._seeds, seeds).flatten(),
            _product(self._blueprints, blueprints).flatten(),
        ])  # fmt: skip

    def _plan(self, graph: Graph) -> _Plan:
        with self._device.calls():
            topology = device_plan_of(graph, self._folded.gat, self._device.place)
            nodes = [node_inputs(graph, kind, self._folded).shape for kind in NODE_TYPES]
            edges = sum(graph.edge_index[relation.edge_type].shape[1] for relation in RELATIONS)
            inputs = Packed([*nodes, (edges, self._edge_columns)], self._device)
        self._device.finish()
        return _Plan(topology, inputs, [count for count, _ in nodes])

    def _load(self, folded: Folded) -> None:
        self._encoders = {kind: self._encoder(encoder) for kind, encoder in folded.encoders.items()}
        self._sage = [{kind: self._weights(part, self._dtype) for kind, part in layer.items()} for layer in folded.sage]
        self._gat = [self._layer(layer) for layer in folded.gat]
        self._heads, self._seeds, self._blueprints = (
            self._weights(part, torch.float32) for part in (folded.heads, folded.seed_score, folded.blueprint_score)
        )
        self._edge_columns = len(self._gat[0].edges)

    def _encoder(self, encoder: Encoder) -> _Encoder:
        project = self._weights(encoder.project, torch.float32)
        return _Encoder(project, self._there(encoder.scale), self._there(encoder.shift), encoder.epsilon)

    def _layer(self, layer: Mapping[str, Attention]) -> _Layer:
        edges = np.concatenate([part.edge for part in layer.values()], axis=1)
        products = {kind: self._weights(part.product, self._dtype) for kind, part in layer.items()}
        return _Layer(products, self._there(vectors(layer)), self._there(edges))

    def _weights(self, part: Product, dtype: torch.dtype) -> _Weights:
        return self._there(part.weight).to(dtype), self._there(part.bias).to(dtype)

    def _there(self, array: FloatArray) -> Tensor:
        """A copy on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device.place)


def _product(part: _Weights, inputs: Tensor) -> Tensor:
    return torch.addmm(part[1], inputs, part[0])
