"""How a seed's branch is mixed with its host's: the four blend modes, one formula each.

With h the host's features and s = branch(h), both (N, C, H, W), and a alpha, the number that the schedule moves:

    mode        what flows on     weight w                                    shape of w
    CONVEX      (1 - w) h + w s   a                                           a number
    RESIDUAL    h + w s           a                                           a number
    CHANNEL     (1 - w) h + w s   min(1, a v_c / target)                      (1, C, 1, 1)
    CONFIDENCE  (1 - w) h + w s   a (alpha_lo + (alpha_hi - alpha_lo) g_n)    (N, 1, 1, 1)

**CHANNEL.** v is the order's `alpha_vec`: where alpha has arrived at its target, v_c is channel c's alpha. An order
without a vector has its one alpha in every channel.

**CONFIDENCE.** g_n = sigmoid(gate_k (m_n - gate_tau)) of each sample. The bounds are shares of alpha: `alpha_lo` is
what a closed gate lets through, `alpha_hi` an open one. The margin m_n, 0 to 1, is how far apart the two likeliest
classes are: p_n = softmax over the channels of the means of h over its positions, m_n = the largest of p_n minus the
second. A graft point lies within the host and knows no classes of its own; that a channel's mean scores one is how
global average pooling reads features (Lin, Chen and Yan, 2014, "Network in network"). One channel is one class:
m_n = 1.

The gate weighs and does not teach: no gradient flows through it, at no stage, or the host could learn to be less sure
of itself only to shut a seed out. Where a channel's or a sample's w is 0, h flows on bit for bit, as it does at a = 0
everywhere: nothing that the branch computes there, not even a NaN, is part of it. Weights are float32 at least; what
flows on has the type that the mix of h and s with a plain number would have.

RESIDUAL adds s to h. A module that begins as the identity, as all `BLUEPRINTS` do, then scales h by 1 + a.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["CONVEX", "GAIN_MAX", "MODES", "BlendMode", "Channel", "Confidence", "Convex", "Residual", "stored_mode"]

GAIN_MAX = 1e6
"""Of a channel's alpha over that of the command: `alpha_vec` has six decimals, a command's alpha below is 0 there."""


@dataclass(frozen=True, slots=True)
class BlendMode:
    """One mode with the numbers it was ordered with; (1 - w) h + w s where it says nothing else."""

    name: ClassVar[str] = ""

    def fault(self, channels: int) -> str:  # noqa: ARG002  for those that depend on it
        """Say in words why this cannot be at a graft point of so many channels, or ""; NaN fails every comparison."""
        return ""

    def gain(self, host: Tensor) -> float | Tensor:  # noqa: ARG002
        """The weight at alpha 1, not yet cut at 1, of (N, C, H, W) features: a number, or a tensor that broadcasts."""
        return 1.0

    def mixed(self, host: Tensor, grown: Tensor, weight: float | Tensor) -> Tensor:
        """What flows on, (N, C, H, W) as both of these."""
        if isinstance(weight, float):
            return (1.0 - weight) * host + weight * grown
        mix = ((1.0 - weight) * host + weight * grown).to(torch.result_type(host, grown))
        return torch.where(weight == 0.0, host, mix)

    def difference(self, host: Tensor, grown: Tensor) -> Tensor:
        """What a weight of 1 adds to the host's features."""
        return grown - host


@dataclass(frozen=True, slots=True)
class Convex(BlendMode):
    """(1 - a) h + a s."""

    name: ClassVar[str] = "CONVEX"


@dataclass(frozen=True, slots=True)
class Residual(BlendMode):
    """The host's features stay as they are: h + a s."""

    name: ClassVar[str] = "RESIDUAL"

    def mixed(self, host: Tensor, grown: Tensor, weight: float | Tensor) -> Tensor:
        """What flows on, (N, C, H, W) as both of these."""
        return host + weight * grown

    def difference(self, host: Tensor, grown: Tensor) -> Tensor:  # noqa: ARG002
        """What a weight of 1 adds to the host's features."""
        return grown


@dataclass(frozen=True, slots=True)
class Channel(BlendMode):
    """One alpha a channel; `gains` are these over the command's alpha, v_c / target."""

    name: ClassVar[str] = "CHANNEL"
    gains: tuple[float, ...]

    def fault(self, channels: int) -> str:
        """Say in words why this cannot be at a graft point of so many channels, or ""."""
        if len(self.gains) != channels:
            return f"there are {len(self.gains)} alphas for {channels} channels"
        if not all(0.0 <= gain <= GAIN_MAX for gain in self.gains):
            return f"a channel's alpha is {max(self.gains)} times that of the command, and at most {GAIN_MAX:g} is told"
        return ""

    def gain(self, host: Tensor) -> Tensor:
        """v_c / target, (1, C, 1, 1)."""
        gains = torch.tensor(self.gains, dtype=_wide(host))
        return gains.to(host.device, non_blocking=True)[None, :, None, None]  # blocking, it would wait for the device


@dataclass(frozen=True, slots=True)
class Confidence(BlendMode):
    """Alpha follows a gate on the host's confidence, from alpha_lo to alpha_hi of it."""

    name: ClassVar[str] = "CONFIDENCE"
    gate_k: float
    gate_tau: float
    alpha_lo: float
    alpha_hi: float

    def fault(self, channels: int) -> str:  # noqa: ARG002
        """Say in words why this cannot be at a graft point of so many channels, or ""."""
        if not (math.isfinite(self.gate_k) and self.gate_k >= 0.0):
            return f"gate_k {self.gate_k} is not a finite number from 0 on"
        if not 0.0 <= self.gate_tau <= 1.0:
            return f"gate_tau {self.gate_tau} is outside 0..1"
        if not 0.0 <= self.alpha_lo <= self.alpha_hi <= 1.0:
            return f"alpha_lo {self.alpha_lo} to alpha_hi {self.alpha_hi} is not an interval within 0..1"
        return ""

    def gain(self, host: Tensor) -> Tensor:
        """alpha_lo + (alpha_hi - alpha_lo) g_n, (N, 1, 1, 1)."""
        # A steepness past float32 would be infinite, and NaN at the threshold itself.
        k = min(self.gate_k, torch.finfo(torch.float32).max)
        gate = torch.sigmoid(k * (_margin(host.detach()) - self.gate_tau))
        return (self.alpha_lo + (self.alpha_hi - self.alpha_lo) * gate)[:, None, None, None]


CONVEX = Convex()
"""The mode of a blend that names none, and of a seed that is not blended."""

MODES: Mapping[str, type[BlendMode]] = MappingProxyType(
    {mode.name: mode for mode in (Convex, Residual, Channel, Confidence)}
)
"""By the name that a command says, in the order of `tamiyo.core.options.BLEND_MODES`."""


def stored_mode(mode: BlendMode) -> dict[str, Any]:
    """What a checkpoint keeps of a mode; `MODES[name](**rest)` is the way back."""
    return {"name": mode.name, **asdict(mode)}


def _margin(host: Tensor) -> Tensor:
    """(N, C, H, W) to (N,)."""
    scores = host.mean(dim=(2, 3), dtype=_wide(host))
    if scores.shape[1] == 1:
        return torch.ones_like(scores[:, 0])
    likeliest = torch.softmax(scores, dim=1).topk(2, dim=1).values
    return likeliest[:, 0] - likeliest[:, 1]


def _wide(features: Tensor) -> torch.dtype:
    """At least float32: three digits of half precision are too few for a weight and one minus it."""
    return torch.promote_types(features.dtype, torch.float32)
