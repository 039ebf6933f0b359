"""What can be germinated: blueprint ids and the modules they build.

Every module maps (N, C, H, W) to the same shape and starts out as the identity, because the last layer of its
changing part starts at zero. A seed that has learned nothing therefore changes nothing, whatever its alpha.
There is no batch norm: running statistics of a branch that only listens would not be those of its blend.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["BLUEPRINTS", "BlueprintFactory", "ConvBottleneck", "ConvResidual", "SqueezeGate"]

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

BlueprintFactory = Callable[[int], nn.Module]
"""Builds a module for a number of channels."""


class ConvResidual(nn.Module):
    """x + conv3x3(relu(conv3x3(x))): a plain residual block (He et al., 2016, without batch norm)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = _zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        change: Tensor = self.outer(torch.relu(self.inner(features)))
        return features + change


class ConvBottleneck(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(conv1x1(x))))) over a quarter of the channels, at least 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(4, channels // 4)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.spread = nn.Conv2d(width, width, 3, padding=1)
        self.expand = _zeroed(nn.Conv2d(width, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        narrow = torch.relu(self.spread(torch.relu(self.reduce(features))))
        change: Tensor = self.expand(narrow)
        return features + change


class SqueezeGate(nn.Module):
    """x * 2 sigmoid(W2 relu(W1 mean(x))): one gain a channel (squeeze and excitation, Hu et al., 2018), 1 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(4, channels // 4)
        self.squeeze = nn.Linear(channels, width)
        self.excite = _zeroed(nn.Linear(width, channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        gains = 2.0 * torch.sigmoid(self.excite(torch.relu(self.squeeze(features.mean(dim=(2, 3))))))
        return features * gains[:, :, None, None]


BLUEPRINTS: Mapping[str, BlueprintFactory] = MappingProxyType(
    {"conv-residual": ConvResidual, "conv-bottleneck": ConvBottleneck, "se-gate": SqueezeGate}
)


def _zeroed(layer: Layer) -> Layer:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
