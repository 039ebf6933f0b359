"""The folded network on the dense form, on a device: for small graphs one copy there, one graph of work, one copy back.

A size that was met while nothing trained (`warm_up`) has its work captured as a whole, with buffers of its own. Any
other runs kernel by kernel, which takes a few times as long and nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, leaky_relu

from tamiyo.graph.graph import FloatArray
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.device import Device
from tamiyo.policy.engine.fold import Attention, Folded, Product, stacked, vectors
from tamiyo.policy.engine.form import Sample, Size, size_of
from tamiyo.policy.engine.packed import Packed
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sizes import Sizes

__all__ = ["KEPT_MAX", "DeviceForm"]

KEPT_MAX = 32
"""Sizes that keep buffers; a few MB of the device each. Those past it get new ones for every graph."""

Weights: TypeAlias = tuple[Tensor, Tensor]
"""Of a product, and its bias."""


class DeviceForm:
    """Weights on a device. Calls take turns, for the device does one thing at a time; each waits for its own answer.

    Args:
        folded: the weights.
        device: where they go. Raises RuntimeError, here and later, where it fails.
        sample: any graph of a size.
        may_capture: nothing trains on the device yet.
    """

    def __init__(self, folded: Folded, device: Device, sample: Sample, *, may_capture: bool = True) -> None:
        self._device, self._sample = device, sample
        self._program = _Program(folded, device)
        self._kept: dict[Size, _Work] = {}
        self._may_capture = may_capture
        self.engine = f"folded on {device.name}, torch {torch.__version__}"

    @property
    def is_compiled(self) -> bool:
        """Some sizes run as one."""
        return any(work.is_captured for work in tuple(self._kept.values()))  # a call on another thread may add one

    def run(self, dense: Dense) -> Raw:
        """One graph."""
        with self._device.turn:
            size = size_of(dense)
            work = self._kept.get(size) or self._made(size, dense, capture=False)
            return work.run(dense)

    def warm_up(self, sizes: Iterable[Size]) -> None:
        """Capture the work of these sizes, unless steps have begun. Raises RuntimeError where the device fails."""
        for size in sizes:
            with self._device.turn:
                known = self._kept.get(size)
                is_kept = known is not None or len(self._kept) < KEPT_MAX
                if self._may_capture and is_kept and (known is None or not known.is_captured):
                    self._made(size, self._sample(size), capture=True)

    def expect(self, sizes: Iterable[Size]) -> None:  # noqa: ARG002  none is captured any more
        """Steps have begun, and a trainer with them: from here on nothing is captured."""
        self._may_capture = False

    def rest(self) -> None:
        """What is captured stays: it could not be captured again beside a trainer."""

    def settle(self, timeout_s: float) -> bool:  # noqa: ARG002  there is nothing to wait for
        """Nothing is done beside the steps."""
        return True

    def _made(self, size: Size, dense: Dense, *, capture: bool) -> "_Work":
        work = _Work(self._program, self._device, dense, capture=capture)
        if size in self._kept or len(self._kept) < KEPT_MAX:
            self._kept[size] = work
        return work


class _Work:
    """One size's buffers, and what fills the second from the first."""

    def __init__(self, program: "_Program", device: Device, dense: Dense, *, capture: bool) -> None:
        sizes = dense.sizes
        self._device, self._program = device, program
        self._scores = (sizes.counts["seed"], sizes.counts["blueprint"])
        with device.calls():
            self._inputs = Packed([array.shape for array in _arrays(dense)], device)
            # kept beside the inputs: a captured graph goes on reading where they are, and holds none of them itself
            self._rows = _Rows(sizes, device.place)
            if capture:
                self._write(dense)
        device.finish()  # nothing of this may be under way on another stream
        rows, parts = self._rows, self._inputs.there  # so that what is captured does not lead back here
        self._answer = device.buffer(program.width + sum(self._scores))
        self._again = device.captured(lambda: program.computed(rows, parts), self._answer) if capture else None

    @property
    def is_captured(self) -> bool:
        """It runs as one."""
        return self._again is not None

    def run(self, dense: Dense) -> Raw:
        """One graph of this size."""
        with self._device.calls():
            self._write(dense)
            if self._again is None:
                self._answer.copy_(self._program.computed(self._rows, self._inputs.there), non_blocking=True)
            else:
                self._again()
        self._device.finish()
        found = self._answer.numpy().copy()
        heads, seeds, blueprints = np.split(found, [len(found) - sum(self._scores), len(found) - self._scores[1]])
        return Raw(heads, seeds, blueprints)

    def _write(self, dense: Dense) -> None:
        for part, array in zip(self._inputs.here, _arrays(dense), strict=True):
            np.copyto(part, array)
        self._inputs.send()


class _Rows:
    """The parts of a size that are places, on the device; and how its rows are cut."""

    def __init__(self, sizes: Sizes, place: torch.device) -> None:
        self.kinds = torch.from_numpy(sizes.kinds).to(place)
        self.nodes = sizes.nodes.tolist()
        self.aggregated = sizes.aggregated.tolist()
        self.sources = [torch.from_numpy(one.sources).to(place) for one in sizes.attended]
        self.targets = [torch.from_numpy(one.targets).to(place) for one in sizes.attended]
        self.by_kind = [one.by_kind.tolist() for one in sizes.attended]


class _Program:
    """The function, on tensors that are all on the device: nothing in it waits, so that it can be captured."""

    def __init__(self, folded: Folded, device: Device) -> None:
        with device.calls():
            self._load(folded, device.place)
        device.finish()

    def _load(self, folded: Folded, place: torch.device) -> None:
        def there(array: FloatArray) -> Tensor:
            return torch.from_numpy(array).to(place)

        def product(part: Product) -> Weights:
            return there(part.weight), there(part.bias)

        encoders = stacked(folded)
        self._encoders, self._epsilon = there(encoders.weight), encoders.epsilon
        self._scale, self._shift = there(encoders.scale), there(encoders.shift)
        self._sage = [[product(part) for part in layer.values()] for layer in folded.sage]
        self._gat = [{kind: product(part.product) for kind, part in layer.items()} for layer in folded.gat]
        self._vectors = [there(_read(layer)) for layer in folded.gat]
        self._heads, self._seeds, self._blueprints = map(
            product, (folded.heads, folded.seed_score, folded.blueprint_score)
        )
        self._attention, self._slope = folded.attention, folded.slope
        self.width = sum(folded.widths)

    def computed(self, rows: _Rows, given: list[Tensor]) -> Tensor:
        """Heads, seed scores and blueprint scores after each other; `given` as `_arrays` has it."""
        nodes, neighbours, *logits = given
        encoded = states = self._encoded(nodes, rows)
        for sage in self._sage:
            mixed = torch.split(neighbours @ states, rows.aggregated)
            states = torch.cat([_received(part, each) for part, each in zip(sage, mixed, strict=True)]) + states
        for place in range(len(self._gat)):
            states = self._attended(states, rows, logits[place], place)
        by_kind = dict(zip(NODE_TYPES, torch.split(torch.cat([states, encoded], dim=1), rows.nodes), strict=True))
        return torch.cat([
            _product(self._heads, by_kind["global"][:, : self._attention]).flatten(),
            _product(self._seeds, by_kind["seed"]).flatten(),
            _product(self._blueprints, by_kind["blueprint"]).flatten(),
        ])  # fmt: skip

    def _encoded(self, nodes: Tensor, rows: _Rows) -> Tensor:
        projected = gelu(nodes @ self._encoders)
        normal = layer_norm(projected, projected.shape[1:], eps=self._epsilon)
        return normal * self._scale.index_select(0, rows.kinds) + self._shift.index_select(0, rows.kinds)

    def _attended(self, states: Tensor, rows: _Rows, logits: Tensor, place: int) -> Tensor:
        joined = torch.cat([states, states.new_zeros(1, states.shape[1])])
        by_node = (joined @ self._vectors[place]).T.contiguous()
        sources = by_node.index_select(0, rows.sources[place])
        targets = by_node.flatten().index_select(0, rows.targets[place])[:, None]
        weights = torch.softmax(leaky_relu(logits + sources + targets, self._slope), dim=1)
        mixed = iter(torch.split(weights @ joined, rows.by_kind[place]))
        after = []
        for kind, before in zip(NODE_TYPES, torch.split(states, rows.nodes), strict=True):
            if kind not in self._gat[place]:
                after.append(states.new_zeros(len(before), self._attention))
                continue
            state = _received(self._gat[place][kind], next(mixed))
            after.append(state + before if state.shape == before.shape else state)
        return torch.cat(after)


def _read(layer: Mapping[str, Attention]) -> FloatArray:
    return np.ascontiguousarray(vectors(layer))


def _arrays(dense: Dense) -> tuple[FloatArray, ...]:
    return (dense.nodes, dense.neighbours, *dense.logits)


def _received(part: Weights, rows: Tensor) -> Tensor:
    """One type's rows, those of a target in one."""
    return gelu(_product(part, rows.reshape(-1, len(part[0]))))


def _product(part: Weights, inputs: Tensor) -> Tensor:
    return torch.addmm(part[1], inputs, part[0])
