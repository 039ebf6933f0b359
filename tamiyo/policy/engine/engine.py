"""Which form of the folded network takes a graph.

    compiled    dense, by OpenVINO: small graphs
    eager       dense, by torch: small graphs where OpenVINO cannot be loaded or has failed
    sparse      by torch: large graphs, and those with an edge that is there twice
    on device   in place of all of them, where a device was asked for and as long as it does not fail
    None        the caller's reference: inputs past INPUT_MAX or not finite

The compiled form may lose a NaN on its way (its GELU clamps), so none may arise: `bound` shows at load time that no
graph within INPUT_MAX can take any number of the network to FINITE_MAX, and `outputs` looks at each graph's inputs.
What is not finite is the reference's, which passes it on for the caller to refuse. An answer that is not finite is
then a fault of the form that gave it, and another one answers.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from tamiyo.graph.graph import Graph, IndexArray
from tamiyo.graph.schema import NODE_TYPES, RELATIONS
from tamiyo.policy.engine.dense import INPUT_MAX, Dense, Layout, dense_of, layout_of, require_within
from tamiyo.policy.engine.dense_device import DeviceForm
from tamiyo.policy.engine.eager import EagerForm
from tamiyo.policy.engine.fold import Folded, bound
from tamiyo.policy.engine.form import Form, Warms, grown, padded
from tamiyo.policy.engine.joined import join
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.raw import Numbers, Raw, numbers_of, output_of
from tamiyo.policy.engine.sparse import SparseForm
from tamiyo.policy.network import NetworkOutput

__all__ = ["DENSE_NODES_MAX", "FINITE_MAX", "INPUT_MAX", "Engine", "OnDevice", "batch_key"]

DENSE_NODES_MAX = 128
"""The dense form takes time and memory with nodes times targets; beyond about this the sparse form is faster."""

FINITE_MAX = 1e24
"""Far from what float32 holds, and from the `NO_EDGE` that must stay below every logit."""

_LAYOUTS_MAX = 64

logger = logging.getLogger(__name__)


class LargeForm(Protocol):
    """One way to compute any graph."""

    @property
    def engine(self) -> str:
        """Its name and version."""

    def run(self, graph: Graph, key: bytes) -> Raw:
        """One graph; `key` stands for its topology."""


@dataclass(frozen=True, slots=True)
class OnDevice:
    """Both forms on a device, which fail together; `is_exact` where it multiplies fp32 as fp32."""

    small: DeviceForm
    large: LargeForm
    is_exact: bool


class Engine:
    """The folded network. Threads share its weights and its layouts, and nothing that a call writes to.

    Raises:
        ValueError: the weights are so large that a number could overflow; such a network is the reference's.
    """

    def __init__(
        self,
        folded: Folded,
        compile_form: Callable[[Folded], Form],
        large_dtype: torch.dtype = torch.float32,
    ) -> None:
        largest = bound(folded, INPUT_MAX)
        if not largest < FINITE_MAX:  # NaN too
            raise ValueError(f"weights of this size could take a number to {largest:.3g}, past {FINITE_MAX:.0e}")
        self._folded = folded
        self.fallbacks = 0
        self._form: Form = EagerForm(folded)
        self._sparse = SparseForm(folded, large_dtype)
        self._large_dtype = large_dtype
        self._layouts: Kept[bytes, Layout | None] = Kept(_LAYOUTS_MAX)
        try:
            self._form = compile_form(folded)
        except (ImportError, OSError, RuntimeError) as error:  # not installed, not loadable, not for this processor
            self._fall_back(error)
        self._told: Mapping[str, int] = {}
        self._device: OnDevice | None = None
        self._leaving = threading.Lock()

    @property
    def is_compiled(self) -> bool:
        """Small graphs run compiled: by OpenVINO, or captured as CUDA graphs."""
        device = self._device
        return not isinstance(self._form, EagerForm) if device is None else device.small.is_compiled

    @property
    def is_exact(self) -> bool:
        """Small graphs are computed in fp32."""
        device = self._device
        return device is None or device.is_exact

    @property
    def is_on_device(self) -> bool:
        """A device computes."""
        return self._device is not None

    @property
    def engine(self) -> str:
        """What graphs run on, small and large."""
        device = self._device
        small, large = (self._form, self._sparse) if device is None else (device.small, device.large)
        return f"{small.engine}; large {large.engine}"

    def outputs(self, graph: Graph) -> NetworkOutput | None:
        """The network's outputs; None for a graph that only the reference may take."""
        raw = self._raw(graph)
        return None if raw is None else output_of(raw, graph, self._folded.widths)

    def numbers(self, graph: Graph) -> Numbers | None:
        """The same as plain numbers."""
        raw = self._raw(graph)
        return None if raw is None else numbers_of(raw, graph, self._folded.widths)

    def batch(self, graphs: Sequence[Graph]) -> list[Numbers] | None:
        """Many graphs in one pass, on the processor: the numbers of each, equal but for their last bits.

        What it costs per graph is least where neighbouring calls bring graphs of the same topologies, in the same
        order. None where one of them is for the reference, large graphs are computed in half precision, or the answers
        are not finite: then each goes by itself.
        """
        if self._large_dtype != torch.float32:
            return None
        joined = join(graphs)
        by_edges = {id(graph.edge_index): graph for graph in graphs}  # a builder's graphs share their edges
        topologies = {edges: _topology(graph) for edges, graph in by_edges.items()}
        try:
            require_within([*joined.features.values(), *joined.edge_attr.values()])
            raws = self._sparse.run_joined(joined, b"".join(topologies[id(graph.edge_index)] for graph in graphs))
            return [
                numbers_of(_finite(raw), graph, self._folded.widths) for raw, graph in zip(raws, graphs, strict=True)
            ]
        except (OverflowError, RuntimeError):
            return None

    def warm_up(self, counts: Mapping[str, int]) -> None:
        """Meet the size of graphs with so many nodes of each type now, on this thread, before anybody waits for it."""
        device, form = self._device, self._warms()
        if form is None or not _is_small(counts):
            return
        try:
            form.warm_up([padded(counts)])
        except RuntimeError as error:
            self._fall_back(error) if device is None else self._leave(device, error)

    def expect(self, counts: Mapping[str, int]) -> None:
        """Graphs with so many nodes of each type will come, and with more seeds: meet those sizes on another thread."""
        form = self._warms()
        if form is not None and _is_small(counts):
            self._told = counts
            form.expect([grown(counts), padded(counts)])

    def rest(self) -> None:
        """Another network speaks: keep no more than it takes to answer."""
        form = self._warms()
        if form is not None:
            form.rest()

    def settle(self, timeout_s: float) -> bool:
        """Wait until every expected size is met; whether that came to be."""
        form = self._warms()
        return form is None or form.settle(timeout_s)

    def take_device(self, on_device: Callable[[Folded], OnDevice]) -> None:
        """Let a device compute from now on, where there is one."""
        try:
            self._device = on_device(self._folded)
        except (ImportError, OSError, RuntimeError) as error:  # no device, no driver, no memory
            self.leave_device(error)

    def leave_device(self, error: Exception) -> None:
        """Go on without the device: counted, said once, and for good."""
        self._count(f"the device cannot be used, the processor computes: {error}")
        self._device = None
        if self._told:  # which the device's form was told, and nobody tells again
            self.expect(self._told)

    def _leave(self, device: OnDevice, error: Exception) -> None:
        with self._leaving:
            if self._device is device:  # else a call at the same time has left it
                self.leave_device(error)

    def _warms(self) -> Warms | None:
        form = self._form if self._device is None else self._device.small
        return form if isinstance(form, Warms) else None

    def _raw(self, graph: Graph) -> Raw | None:
        nodes = sum(len(features) for features in graph.features.values())
        key = _topology(graph)
        layout = None
        if nodes <= DENSE_NODES_MAX:
            layout = self._layouts.get(key, lambda: layout_of(graph, self._folded))
        try:
            dense = self._dense(graph, layout)
        except OverflowError as error:
            self._count(f"the reference takes a graph: {error}")
            return None
        device = self._device
        if device is not None:
            try:
                return _finite(device.large.run(graph, key) if dense is None else device.small.run(dense))
            except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError are such
                self._leave(device, error)
        if dense is None:
            return self._sparse.run(graph, key)
        try:
            return _finite(self._form.run(dense))
        except RuntimeError as error:  # OpenVINO has no other
            self._fall_back(error)
            return self._form.run(dense)

    def _dense(self, graph: Graph, layout: Layout | None) -> Dense | None:
        """What the dense form takes, with every input looked at; None where the graph goes by its edge lists."""
        if layout is not None:
            return dense_of(graph, layout, self._folded)
        require_within([*graph.features.values(), *graph.edge_attr.values()])
        return None

    def _fall_back(self, error: Exception) -> None:
        self._count(f"the compiled network cannot be used, small graphs run on plain torch: {error}")
        self._form = EagerForm(self._folded)

    def _count(self, reason: str) -> None:
        if self.fallbacks == 0:
            logger.warning("%s; further times are only counted", reason)
        self.fallbacks += 1


def _finite(raw: Raw) -> Raw:
    """Raise RuntimeError where an answer is not finite: within the bound, only what is broken gives one."""
    if not all(np.isfinite(part).all() for part in (raw.heads, raw.seed_scores, raw.blueprint_scores)):
        raise RuntimeError("it answered finite inputs with what is not finite")
    return raw


def _is_small(counts: Mapping[str, int]) -> bool:
    return sum(counts.values()) <= DENSE_NODES_MAX


def batch_key(graph: Graph) -> bytes | None:
    """For `Engine.batch`: what small graphs of one topology share; None for one that goes by its edge lists anyway."""
    is_dense = _is_small(graph.node_counts()) and not any(map(_repeats, graph.edge_index.values()))
    return _topology(graph) if is_dense else None


def _repeats(edges: IndexArray) -> bool:
    """Whether an edge is there twice."""
    pairs: list[tuple[int, int]] = list(zip(*edges.tolist(), strict=True))
    return len(set(pairs)) < len(pairs)


def _topology(graph: Graph) -> bytes:
    counts = [len(graph.features[kind]) for kind in NODE_TYPES]
    edges = [graph.edge_index[relation.edge_type] for relation in RELATIONS]
    sizes = np.array([*counts, *(index.shape[1] for index in edges)])
    return sizes.tobytes() + np.concatenate(edges, axis=1).tobytes()
