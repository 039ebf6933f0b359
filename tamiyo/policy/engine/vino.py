"""The folded network compiled by OpenVINO for the processor it runs on, for small graphs.

Two models, of the same nodes: one made for USUAL, which is faster, and one whose shapes are free. Which of them takes a
graph is a matter of its size alone (`tamiyo.policy.engine.loading`), so that the same graph always gets the same bits.

A model runs on the thread that calls it (one stream of one thread, not pinned to a core: the cores are the trainer's),
in fp32 (left to itself OpenVINO computes in bf16 where the processor can), and with the interpreter lock released.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from tamiyo.graph.graph import FloatArray
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.fold import Attention, Folded, Product, stacked, vectors
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.runtime import OPENVINO_VERSION, compile_for_cpu, openvino, ops
from tamiyo.policy.engine.sizes import Sizes

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

Array = np.ndarray[Any, Any]


class VinoForm:
    """A model. Each call has a request of its own, so that a late call shares nothing with the next one.

    Args:
        folded: the weights.
        sizes: what every graph has; without them it takes any graph.
    """

    engine = ENGINE

    def __init__(self, folded: Folded, sizes: Sizes | None = None) -> None:
        self._compiled = compile_for_cpu(_Model(folded, sizes).built, _PROPERTIES)
        self._takes_sizes = sizes is None
        self._free: deque[_Request] = deque()  # that no call is in: making one takes as long as a call

    def run(self, dense: Dense) -> Raw:
        """One graph."""
        try:
            request = self._free.pop()
        except IndexError:
            request = _Request(self._compiled, takes_sizes=self._takes_sizes)
        raw = request.run(dense)
        self._free.append(request)  # after a call that failed it is let go
        return raw


class _Request:
    """One call's use of a model, and the arrays that it reads: written for each graph, new when the sizes change.

    To hand a model its arrays once is a sixth of a usual graph's time less than handing them over each time.
    """

    def __init__(self, compiled: Any, *, takes_sizes: bool) -> None:
        self._request = compiled.create_infer_request()
        self._takes_sizes = takes_sizes
        self._counts: Mapping[str, int] = {}
        self._arrays: tuple[FloatArray, ...] = ()
        self._fixed: list[Array] = []

    def run(self, dense: Dense) -> Raw:
        """One graph."""
        if self._counts != dense.sizes.counts:
            self._take(dense)
        for ours, given in zip(self._arrays, _changing(dense), strict=True):
            np.copyto(ours, given)
        heads, seeds, blueprints = self._request.infer().to_tuple()  # copies
        return Raw(heads.reshape(-1), seeds.reshape(-1), blueprints.reshape(-1))

    def _take(self, dense: Dense) -> None:
        self._arrays = tuple(np.empty_like(array) for array in _changing(dense))
        self._fixed = [array.copy() for array in _fixed(dense.sizes)] if self._takes_sizes else []
        for place, array in enumerate([*self._arrays, *self._fixed]):  # which the request reads, but does not keep
            self._request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
        self._counts = dense.sizes.counts


def _changing(dense: Dense) -> tuple[FloatArray, ...]:
    """A model's inputs, the first ones."""
    return (dense.nodes, dense.neighbours, *dense.logits)


def _fixed(sizes: Sizes) -> list[Array]:
    """A model's further inputs; constants of one that is made for these sizes."""
    layers = [array for one in sizes.attended for array in (one.sources, one.targets, one.by_kind)]
    return [sizes.kinds, sizes.nodes, sizes.aggregated, *layers]


class _Model:
    """Builds a model: for the sizes given, or, without any, one that takes them as inputs."""

    def __init__(self, folded: Folded, sizes: Sizes | None) -> None:
        self._folded = folded
        encoders = stacked(folded)
        layers = range(len(folded.gat))
        if sizes is None:
            self._nodes = _input([-1, len(encoders.weight)])
            self._neighbours = _input([-1, -1])
            self._logits = [_input([-1, -1]) for _ in layers]
            lengths = [len(layer) for layer in folded.gat]
            fixed = [
                _input([-1], np.int32),
                _input([len(NODE_TYPES)], np.int64),
                _input([len(NODE_TYPES)], np.int64),
                *(
                    one
                    for length in lengths
                    for one in (_input([-1], np.int32), _input([-1], np.int32), _input([length], np.int64))
                ),
            ]
        else:
            total = len(sizes.kinds)
            self._nodes = _input([total, len(encoders.weight)])
            self._neighbours = _input([int(sizes.aggregated.sum()), total])
            self._logits = [_input([len(one.sources), total + 1]) for one in sizes.attended]
            fixed = [_constant(array) for array in _fixed(sizes)]
        self._kinds, self._counts, self._aggregated, *rows = fixed
        self._rows = [rows[3 * place : 3 * place + 3] for place in layers]
        inputs = [self._nodes, self._neighbours, *self._logits, *(fixed if sizes is None else [])]
        self.built = openvino.Model(self._outputs(), inputs, "tamiyo_gnn_v1")

    def _outputs(self) -> list[Node]:
        """Heads, seed and blueprint scores."""
        folded = self._folded
        encoded = states = self._encoded()
        for sage in folded.sage:
            mixed = _split(ops.matmul(self._neighbours, states, False, False), self._aggregated)
            received = [_received(product, rows) for product, rows in zip(sage.values(), mixed, strict=True)]
            states = ops.add(ops.concat(received, 0), states)
        by_kind = dict(zip(NODE_TYPES, _split(states, self._counts), strict=True))
        width = folded.hidden
        for place, layer in enumerate(folded.gat):
            by_kind = self._attention(layer, by_kind, width, place)
            width = folded.attention
        first = dict(zip(NODE_TYPES, _split(encoded, self._counts), strict=True))
        seeds, blueprints = (ops.concat([by_kind[kind], first[kind]], 1) for kind in ("seed", "blueprint"))
        return [
            _product(folded.heads, by_kind["global"]),
            _product(folded.seed_score, seeds),
            _product(folded.blueprint_score, blueprints),
        ]

    def _encoded(self) -> Node:
        encoders = stacked(self._folded)
        weight = np.ascontiguousarray(encoders.weight.T)
        projected = ops.gelu(ops.matmul(self._nodes, _constant(weight), False, True), "erf")
        normal = ops.mvn(projected, _constant(np.array([1], np.int64)), True, encoders.epsilon, "inside_sqrt")
        scale, shift = (_rows(_constant(rows), self._kinds) for rows in (encoders.scale, encoders.shift))
        return ops.add(ops.multiply(normal, scale), shift)

    def _attention(
        self, layer: Mapping[str, Attention], states: Mapping[str, Node], width: int, place: int
    ) -> dict[str, Node]:
        sources, targets, by_kind = self._rows[place]
        joined = ops.concat(
            [
                *(states[kind] if kind in states else self._zeros(kind, width) for kind in NODE_TYPES),
                _constant(np.zeros((1, width), np.float32)),
            ],
            0,
        )
        read = _constant(np.ascontiguousarray(vectors(layer).T))
        by_node = ops.transpose(ops.matmul(joined, read, False, True), _constant(np.array([1, 0], np.int64)))
        of_target = _rows(ops.reshape(by_node, _constant(np.array([-1], np.int64)), False), targets)
        raw = ops.add(ops.add(self._logits[place], _rows(by_node, sources)), ops.unsqueeze(of_target, 1))
        weights = ops.softmax(ops.prelu(raw, _constant(np.array([self._folded.slope], np.float32))), 1)
        mixed = _split(ops.matmul(weights, joined, False, False), by_kind)
        after = {}
        for (kind, part), rows in zip(layer.items(), mixed, strict=True):
            state = _received(part.product, rows)
            after[kind] = ops.add(state, states[kind]) if width == part.product.weight.shape[1] else state
        return after

    def _zeros(self, kind: str, width: int) -> Node:
        """Rows of zeros, as many as the node type has."""
        rows = _rows(self._counts, _constant(np.array([NODE_TYPES.index(kind)], np.int64)))
        shape = ops.concat([rows, _constant(np.array([width], np.int64))], 0)
        return ops.broadcast(_constant(np.zeros((), np.float32)), shape)


def _received(product: Product, rows: Node) -> Node:
    """One type's rows, those of a target in one."""
    flat = ops.reshape(rows, _constant(np.array([-1, len(product.weight)], np.int64)), False)
    return ops.gelu(_product(product, flat), "erf")


def _product(product: Product, inputs: Node) -> Node:
    weight = np.ascontiguousarray(product.weight.T)
    return ops.add(ops.matmul(inputs, _constant(weight), False, True), _constant(product.bias[None]))


def _rows(table: Node, places: Node) -> Node:
    return ops.gather(table, places, _constant(np.array(0, np.int64)))


def _split(rows: Node, lengths: Node) -> list[Node]:
    found: list[Node] = ops.variadic_split(rows, _constant(np.array(0, np.int64)), lengths).outputs()
    return found


def _input(shape: list[int], kind: type[np.generic] = np.float32) -> Node:
    return ops.parameter(openvino.PartialShape(shape), kind)


def _constant(array: Array) -> Node:
    return ops.constant(array)
