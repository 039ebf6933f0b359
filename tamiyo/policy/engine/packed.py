"""Arrays that go to a device in one copy, out of memory that the copy need not wait for."""

from collections.abc import Sequence

import numpy as np
import torch

from tamiyo.graph.graph import FloatArray
from tamiyo.policy.engine.device import Device

__all__ = ["Packed"]


class Packed:
    """Made and sent within the device's `calls`. `here` is to be left alone from then on until the device is finished.

    Shapes: `here` and `there`, float32, each as it was asked for, here and on the device.

    Args:
        shapes: of the arrays.
        device: where they go.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], device: Device) -> None:
        ends = np.cumsum([0, *(np.prod(shape, dtype=np.int64) for shape in shapes)]).tolist()
        cuts = list(zip(ends, ends[1:], shapes, strict=False))
        self._given = device.buffer(ends[-1])
        self._sent = torch.empty(ends[-1], dtype=torch.float32, device=device.place)
        host = self._given.numpy()
        self.here: list[FloatArray] = [host[begin:end].reshape(shape) for begin, end, shape in cuts]
        self.there = [self._sent[begin:end].view(shape) for begin, end, shape in cuts]

    def send(self) -> None:
        """Queue the copy."""
        self._sent.copy_(self._given, non_blocking=True)
