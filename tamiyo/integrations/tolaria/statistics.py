"""Running statistics of a training loop: small states, one update a step, broken values left out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from tamiyo.core import registries
from tamiyo.integrations.gradients import inner_product

__all__ = ["ConflictRate", "Drift", "family_index", "momentum_of"]

SMOOTHING = 0.1
"""Weight of the newest value, as in Tamiyo's own norms."""

_FAMILIES: Mapping[type[torch.optim.Optimizer], str] = MappingProxyType(
    {
        torch.optim.SGD: "sgd",
        torch.optim.Adam: "adam",
        torch.optim.AdamW: "adamw",
        torch.optim.RMSprop: "rmsprop",
        torch.optim.Adagrad: "adagrad",
    }
)


@dataclass(slots=True)
class Drift:
    """Exponentially weighted mean and variance (West, 1979); the first value is the first mean.

    mean' = mean + a d and var' = (1 - a) (var + a d^2), with d = x - mean and a = 0.1.
    """

    mean: float | None = None
    variance: float = 0.0
    moved: float = 0.0

    def update(self, value: float | None) -> None:
        """Take in one more value; absent and non-finite ones are left out."""
        if value is None or not math.isfinite(value):
            return
        if self.mean is None:
            self.mean = value
            return
        distance = value - self.mean
        self.moved = SMOOTHING * distance
        self.mean += self.moved
        self.variance = (1.0 - SMOOTHING) * (self.variance + SMOOTHING * distance * distance)

    @property
    def deviation(self) -> float:
        """The standard deviation around the moving mean."""
        return math.sqrt(self.variance)


class ConflictRate:
    """How often successive gradients pull against each other, smoothed.

    A step's share is that of the parameter tensors whose gradient has a negative inner product with their own
    gradient of the step before (the sign test of PCGrad, Yu et al., 2020, over time instead of over tasks);
    the rate is its exponentially weighted mean. Keeps one copy of the gradients.
    """

    def __init__(self, shares: Drift | None = None) -> None:
        """Go on from `shares`; the first step of a process has no step before it to be compared with."""
        self.shares = shares or Drift()
        self._before: dict[int, Tensor] = {}

    def update(self, parameters: Iterable[nn.Parameter]) -> None:
        """Compare the gradients there are with those of the last call."""
        now = {id(parameter): parameter.grad for parameter in parameters if parameter.grad is not None}
        shared = [key for key in now if key in self._before and _are_alike(now[key], self._before[key])]
        if shared:
            place = now[shared[0]].device  # a model may lie on several, as `get_total_norm` allows
            products = torch.stack([inner_product(now[key], self._before[key]).to(place) for key in shared])
            self.shares.update(float((products < 0).float().mean()))
        self._before = {key: gradient.detach().clone() for key, gradient in now.items()}

    @property
    def value(self) -> float | None:
        """The rate in 0..1; None before two steps have been compared."""
        return self.shares.mean


def momentum_of(optimizer: torch.optim.Optimizer) -> float | None:
    """The momentum of the first parameter group, or Adam's first beta; None where there is no such thing."""
    group = optimizer.param_groups[0]
    if "momentum" in group:
        return float(group["momentum"])
    betas = group.get("betas")
    return None if betas is None else float(betas[0])


def family_index(optimizer: torch.optim.Optimizer) -> int:
    """The pre-seeded index of the optimizer's family in the registry `optimizer_family`; 0 for any other."""
    name = _FAMILIES.get(type(optimizer), "")
    return registries.lookup(registries.initial(), "optimizer_family", name)


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.layout == other.layout
