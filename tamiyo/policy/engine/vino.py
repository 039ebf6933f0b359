"""The folded network compiled by OpenVINO for the processor it runs on, for small graphs.

One model takes every size: shapes are free, and the weights stay packed as they are whatever the size. It runs on the
thread that calls it (one stream of one thread, not pinned to a core: the cores are the trainer's), in fp32 (left to
itself OpenVINO computes in bf16 where the processor can), and with the interpreter lock released.
"""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.fold import INTO, Attention, Encoder, Folded, Product
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.runtime import OPENVINO_VERSION, openvino, ops

__all__ = ["ENGINE", "VinoForm"]

ENGINE = f"folded fp32, openvino {OPENVINO_VERSION}"

_PROPERTIES = {
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "PERFORMANCE_HINT": "LATENCY",
}

Node = Any
"""OpenVINO's graph nodes have no type to name."""


class VinoForm:
    """A compiled model. Each thread has a request of its own, so that a late call shares nothing with the next one."""

    engine = ENGINE

    def __init__(self, folded: Folded) -> None:
        self._compiled = openvino.Core().compile_model(_model(folded), "CPU", _PROPERTIES)
        self._own = threading.local()

    def run(self, dense: Dense) -> Raw:
        """One graph."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        arrays = [
            *dense.nodes.values(),
            *dense.neighbours.values(),
            *(array for layer in dense.logits for array in layer.values()),
        ]
        request.infer(dict(enumerate(arrays)), share_inputs=True)
        heads, seeds, blueprints = (request.get_output_tensor(place).data.copy().reshape(-1) for place in range(3))
        return Raw(heads, seeds, blueprints)


def _model(folded: Folded) -> Node:
    """Inputs: nodes and neighbours by type, logits by layer and type. Outputs: heads, seed and blueprint scores."""
    nodes = {kind: _input([-1, len(folded.encoders[kind].project.weight)]) for kind in NODE_TYPES}
    neighbours = {kind: _input([-1, len(INTO[kind]) + 1, -1]) for kind in NODE_TYPES}
    logits = [{kind: _input([-1, part.source.shape[1], -1]) for kind, part in layer.items()} for layer in folded.gat]
    encoded = {kind: _encoded(folded.encoders[kind], nodes[kind]) for kind in NODE_TYPES}
    states = encoded
    for sage in folded.sage:
        joined = ops.concat([states[kind] for kind in NODE_TYPES], 0)
        states = {
            kind: ops.add(
                ops.gelu(_product(product, _flat(ops.matmul(neighbours[kind], joined, False, False), product)), "erf"),
                states[kind],
            )
            for kind, product in sage.items()
        }
    width = folded.hidden
    for layer, given in zip(folded.gat, logits, strict=True):
        states = _attention(layer, states, given, width, folded.slope, nodes)
        width = folded.attention
    seeds, blueprints = (ops.concat([states[kind], encoded[kind]], 1) for kind in ("seed", "blueprint"))
    outputs = [
        _product(folded.heads, states["global"]),
        _product(folded.seed_score, seeds),
        _product(folded.blueprint_score, blueprints),
    ]
    inputs = [*nodes.values(), *neighbours.values(), *(one for layer in logits for one in layer.values())]
    return openvino.Model(outputs, inputs, "tamiyo_gnn_v1")


def _attention(
    layer: Mapping[str, Attention],
    states: Mapping[str, Node],
    logits: Mapping[str, Node],
    width: int,
    slope: float,
    nodes: Mapping[str, Node],
) -> dict[str, Node]:
    joined = ops.concat(
        [
            *(states[kind] if kind in states else _zeros(nodes[kind], width) for kind in NODE_TYPES),
            _constant(np.zeros((1, width), np.float32)),
        ],
        0,
    )
    after = {}
    for kind, part in layer.items():
        sources = ops.matmul(_constant(part.source), joined, True, True)
        targets = ops.unsqueeze(ops.matmul(states[kind], _constant(part.target), False, False), 2)
        raw = ops.add(ops.add(logits[kind], sources), targets)
        weights = ops.softmax(ops.prelu(raw, _constant(np.array([slope], np.float32))), 2)
        mixed = _flat(ops.matmul(weights, joined, False, False), part.product)
        state = ops.gelu(_product(part.product, mixed), "erf")
        after[kind] = ops.add(state, states[kind]) if width == part.product.weight.shape[1] else state
    return after


def _encoded(encoder: Encoder, nodes: Node) -> Node:
    projected = ops.gelu(_product(encoder.project, nodes), "erf")
    normal = ops.mvn(projected, _constant(np.array([1], np.int64)), True, encoder.epsilon, "inside_sqrt")
    return ops.add(ops.multiply(normal, _constant(encoder.scale)), _constant(encoder.shift))


def _product(product: Product, inputs: Node) -> Node:
    weight = np.ascontiguousarray(product.weight.T)
    return ops.add(ops.matmul(inputs, _constant(weight), False, True), _constant(product.bias[None]))


def _flat(rows: Node, product: Product) -> Node:
    return ops.reshape(rows, _constant(np.array([-1, len(product.weight)], np.int64)), False)


def _zeros(like: Node, width: int) -> Node:
    """Rows of zeros, as many as the node type has."""
    rows = ops.gather(ops.shape_of(like), _constant(np.array([0], np.int64)), _constant(np.array(0, np.int64)))
    shape = ops.concat([rows, _constant(np.array([width], np.int64))], 0)
    return ops.broadcast(_constant(np.zeros((), np.float32)), shape)


def _input(shape: list[int]) -> Node:
    return ops.parameter(openvino.PartialShape(shape), np.float32)


def _constant(array: np.ndarray[Any, Any]) -> Node:
    return ops.constant(array)
