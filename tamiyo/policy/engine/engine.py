"""Which form of the folded network takes a graph.

    compiled    dense, by OpenVINO: small graphs
    eager       dense, by torch: small graphs where OpenVINO cannot be loaded or has failed
    sparse      by torch: large graphs, and those with an edge that is there twice
    None        the caller's reference: inputs past INPUT_MAX or not finite

The compiled form may lose a NaN on its way (its GELU clamps), so none may arise: `bound` shows at load time that no
graph within INPUT_MAX can take any number of the network to FINITE_MAX, and `outputs` looks at each graph's inputs.
What is not finite is the reference's, which passes it on for the caller to refuse.
"""

import logging
from collections.abc import Callable, Mapping

import numpy as np
import torch

from tamiyo.graph.graph import Graph
from tamiyo.graph.schema import NODE_TYPES, RELATIONS
from tamiyo.policy.engine.dense import Layout, dense_of, layout_of
from tamiyo.policy.engine.eager import EagerForm
from tamiyo.policy.engine.fold import Folded, bound
from tamiyo.policy.engine.form import Form, grown, padded
from tamiyo.policy.engine.kept import Kept
from tamiyo.policy.engine.raw import Raw, output_of
from tamiyo.policy.engine.sparse import SparseForm
from tamiyo.policy.engine.warming import WarmedForm
from tamiyo.policy.network import NetworkOutput

__all__ = ["DENSE_NODES_MAX", "FINITE_MAX", "INPUT_MAX", "Engine"]

DENSE_NODES_MAX = 128
"""The dense form takes time and memory with nodes times targets; beyond about this the sparse form is faster."""

INPUT_MAX = 1e4
"""Scaled features stay within 8 and masks within 1: what is past this is no graph of ours."""

FINITE_MAX = 1e24
"""Far from what float32 holds, and from the `NO_EDGE` that must stay below every logit."""

_LAYOUTS_MAX = 64

logger = logging.getLogger(__name__)


class Engine:
    """The folded network. Threads share its weights and its layouts, and nothing that a call writes to.

    Raises:
        ValueError: the weights are so large that a number could overflow; such a network is the reference's.
    """

    def __init__(
        self, folded: Folded, compile_form: Callable[[Folded], Form], large_dtype: torch.dtype = torch.float32
    ) -> None:
        largest = bound(folded, INPUT_MAX)
        if not largest < FINITE_MAX:  # NaN too
            raise ValueError(f"weights of this size could take a number to {largest:.3g}, past {FINITE_MAX:.0e}")
        self._folded = folded
        self.fallbacks = 0
        self._form: Form = EagerForm(folded)
        self._sparse = SparseForm(folded, large_dtype)
        self._layouts: Kept[bytes, Layout | None] = Kept(_LAYOUTS_MAX)
        try:
            self._form = compile_form(folded)
        except (ImportError, OSError, RuntimeError) as error:  # not installed, not loadable, not for this processor
            self._fall_back(error)

    @property
    def is_compiled(self) -> bool:
        """Small graphs run compiled."""
        return not isinstance(self._form, EagerForm)

    @property
    def engine(self) -> str:
        """What graphs run on, small and large."""
        return f"{self._form.engine}; large {self._sparse.engine}"

    def outputs(self, graph: Graph) -> NetworkOutput | None:
        """The network's outputs; None for a graph that only the reference may take."""
        if not _is_within(graph):
            self._count("a graph has inputs that are not finite or past all measure, the reference takes it")
            return None
        return output_of(self._raw(graph), graph, self._folded.widths)

    def warm_up(self, counts: Mapping[str, int]) -> None:
        """Meet the size of graphs with so many nodes of each type now, on this thread, before anybody waits for it."""
        if isinstance(self._form, WarmedForm) and _is_small(counts):
            try:
                self._form.warm_up([padded(counts)])
            except RuntimeError as error:
                self._fall_back(error)

    def expect(self, counts: Mapping[str, int]) -> None:
        """Graphs with so many nodes of each type will come, and with more seeds: meet those sizes on another thread."""
        if isinstance(self._form, WarmedForm) and _is_small(counts):
            self._form.expect([grown(counts), padded(counts)])

    def settle(self, timeout_s: float) -> bool:
        """Wait until every expected size is met; whether that came to be."""
        return self._form.settle(timeout_s) if isinstance(self._form, WarmedForm) else True

    def _raw(self, graph: Graph) -> Raw:
        nodes = sum(len(features) for features in graph.features.values())
        key = _topology(graph)
        layout = None
        if nodes <= DENSE_NODES_MAX:
            layout = self._layouts.get(key, lambda: layout_of(graph, self._folded))
        if layout is None:
            return self._sparse.run(graph, key)
        dense = dense_of(graph, layout, self._folded)
        try:
            return self._form.run(dense)
        except RuntimeError as error:  # OpenVINO has no other
            self._fall_back(error)
            return self._form.run(dense)

    def _fall_back(self, error: Exception) -> None:
        self._count(f"the compiled network cannot be used, small graphs run on plain torch: {error}")
        self._form = EagerForm(self._folded)

    def _count(self, reason: str) -> None:
        if self.fallbacks == 0:
            logger.warning("%s; further times are only counted", reason)
        self.fallbacks += 1


def _is_small(counts: Mapping[str, int]) -> bool:
    return sum(counts.values()) <= DENSE_NODES_MAX


def _is_within(graph: Graph) -> bool:
    """Every input is finite and of a size that the bound was worked out for."""
    inputs = np.concatenate([array.ravel() for array in (*graph.features.values(), *graph.edge_attr.values())])
    return bool((np.abs(inputs) <= INPUT_MAX).all())  # one look at all: looking costs more than copying


def _topology(graph: Graph) -> bytes:
    counts = [len(graph.features[kind]) for kind in NODE_TYPES]
    edges = [graph.edge_index[relation.edge_type] for relation in RELATIONS]
    sizes = np.array([*counts, *(index.shape[1] for index in edges)])
    return sizes.tobytes() + np.concatenate(edges, axis=1).tobytes()
