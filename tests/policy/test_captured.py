"""What a size on a device keeps: all that its captured graph reads, and nothing once it is let go."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from policy.processor import Processor
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tamiyo.bench.chance import random_network
from tamiyo.policy.engine.dense_device import DeviceForm, _Work
from tamiyo.policy.engine.fold import fold
from tamiyo.policy.engine.form import padded
from tamiyo.policy.engine.loading import sample
from tamiyo.policy.engine.sizes import USUAL


class _Read(TorchDispatchMode):
    """The memory that was read within, but not made within."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[int] = set()
        self.read: dict[int, StorageWeakRef] = {}
        self._kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        for tensor in given:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.made:
                self.read[storage.data_ptr()] = StorageWeakRef(storage)
        found = func(*args, **(kwargs or {}))
        made = [one for one in torch.utils._pytree.tree_leaves(found) if isinstance(one, Tensor)]
        self._kept += made  # so that none of their addresses comes again
        self.made |= {one.untyped_storage().data_ptr() for one in made} - self.read.keys()
        return found


class Recording(Processor):
    """As a CUDA graph does: it knows the addresses of what was computed with, and holds none of it."""

    read: dict[int, StorageWeakRef]

    def captured(self, compute: Callable[[], Tensor], answer: Tensor) -> Callable[[], None]:
        with torch.inference_mode(), _Read() as mode:
            compute()
        self.read = mode.read
        return lambda: None


def test_all_that_a_captured_graph_reads_is_kept() -> None:
    folded, device = fold(random_network(1)), Recording()
    form = DeviceForm(folded, device, lambda size: sample(folded, size))
    form.warm_up([padded(USUAL)])
    assert len(device.read) > 20
    assert not any(storage.expired() for storage in device.read.values())


@pytest.mark.parametrize("capture", [True, False])
def test_a_size_that_is_let_go_leaves_nothing_for_the_collector(capture: bool) -> None:
    folded, device = fold(random_network(1)), Processor()
    form, dense = DeviceForm(folded, device, lambda size: sample(folded, size)), sample(folded, padded(USUAL))
    work = _Work(form._program, device, dense, capture=capture)
    work.run(dense)
    left = weakref.ref(work)
    del work
    assert left() is None
