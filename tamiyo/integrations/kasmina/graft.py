"""The place in a host network where a seed can grow, and what flows through it at each stage.

A `GraftPoint` takes features and returns features of the same shape. What it does depends on the stage:

    stage                     output                       gradient to the host    gradient to the seed
    none, DORMANT,            h                            g                       none
      GERMINATED, CULLED, ...
    TRAINING                  h                            g                       of its local loss
    BLENDING                  mix(h, s), h detached     none at this point      w g
    SHADOWING, PROBATIONARY,  mix(h, s)                 through both branches   w g
      FOSSILIZED

with h the host's features, s = branch(h), g the gradient at the output, and w the weight of s in the mix, which is
alpha or follows it: `modes` has the formula of each blend mode. At alpha 0 every stage gives h itself, so nothing
that the branch computes, not even a NaN, can reach the host. While a seed is being blended in, the host upstream of
it holds still: h is detached where it is mixed, where the branch reads it and where a gate weighs it, in every mode,
so what changes in the loss then is the seed's doing. Outside training mode, or without gradients, TRAINING runs no
branch at all.

**The local loss.** A seed in TRAINING has no say in the output, so the task's loss tells it nothing about
values; it does tell in which direction the features should move. The branch is fitted to the features moved
one step that way (functional gradient descent; Friedman, 2001, "Greedy function approximation"):

    t = h - reach * (|h| / |g|) g          loss = |s - t|^2 / (2 N)          d loss / d s = (s - t) / N

with norms over the whole batch of N samples, so samples that are already right pull little. It takes one
pass: the gradient is formed inside the host's own backward pass, on a detached h.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tamiyo.integrations.kasmina.modes import CONVEX, BlendMode
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["REACH", "GraftPoint"]

REACH = 0.1
"""How far a training seed aims, as a share of the norm of the host's features."""


class GraftPoint(nn.Module):
    """Features in, features out; the identity until a seed is blended in.

    Args:
        channels: C of the (N, C, H, W) features that pass here.
        depth: the number of the host's layer that produces them, for reports.

    Shapes: input and output are (N, C, H, W) floating point tensors.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.depth = depth
        self.branch: nn.Module | None = None
        self.stage: int = pb.SEED_STAGE_DORMANT
        self.alpha = 0.0
        self.mode: BlendMode = CONVEX
        self._disturbance: Tensor | None = None
        self._activity: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Pass the features on as the stage says."""
        flow, passed = _FLOWS.get(self.stage), features
        if flow is not None and self.branch is not None:
            passed = flow(self, self.branch, features)
        # Not before: where a host checkpoints its activations, torch leaves a second pass before the module is watched.
        if self.training and passed is features:
            self._disturbance = self._activity = None
        return passed

    def plant(self, branch: nn.Module) -> None:
        """Put a module here; it is heard from when stage and alpha say so."""
        self.branch = branch
        self.silence()

    def clear(self) -> None:
        """Take the module out."""
        self.branch = None
        self.silence()
        self._disturbance = self._activity = None

    def silence(self) -> None:
        """Let the module have no say any more, and forget how it was mixed."""
        self.alpha = 0.0
        self.mode = CONVEX

    @property
    def disturbance(self) -> float:
        """How much the seed changed the features at the last training pass, 0..1: see `_share`; 0 without a say."""
        return 0.0 if self._disturbance is None else float(self._disturbance)

    @property
    def activity(self) -> float | None:
        """How much it would have changed them there with alpha 1; None where its module did not run."""
        return None if self._activity is None else float(self._activity)

    def mix(self, host: Tensor, grown: Tensor) -> Tensor:
        """The two mixed as the blend mode says, all (N, C, H, W)."""
        gain = self.mode.gain(host)
        if self.training:
            self.watch(host, grown, gain)
        return self.mode.mixed(host, grown, _weight(self.alpha, gain))

    def watch(self, host: Tensor, grown: Tensor, gain: float | Tensor = 1.0) -> None:
        """Put down how much the module changes the features, (N, C, H, W) both; `gain` is that of the blend mode."""
        kept = _norm(host.detach())
        difference = self.mode.difference(host.detach(), grown.detach())
        norms = _norms(difference, gain)
        self._activity = _share(_heard(norms, _weight(1.0, gain)), kept)
        self._disturbance = _share(_heard(norms, _weight(self.alpha, gain)), kept) if self.alpha else None


def _aside(point: GraftPoint, branch: nn.Module, features: Tensor) -> Tensor:
    if not (point.training and torch.is_grad_enabled()):
        return features
    grown = branch(features.detach())
    point.watch(features, grown)
    passed: Tensor = _LearnAside.apply(features, grown)  # type: ignore[no-untyped-call]
    return passed


def _blended(point: GraftPoint, branch: nn.Module, features: Tensor) -> Tensor:
    if point.alpha == 0.0:
        return features
    host = features.detach()
    return point.mix(host, branch(host))


def _joined(point: GraftPoint, branch: nn.Module, features: Tensor) -> Tensor:
    return features if point.alpha == 0.0 else point.mix(features, branch(features))


_FLOWS: Mapping[int, Callable[[GraftPoint, nn.Module, Tensor], Tensor]] = MappingProxyType(
    {
        pb.SEED_STAGE_TRAINING: _aside,
        pb.SEED_STAGE_BLENDING: _blended,
        pb.SEED_STAGE_SHADOWING: _joined,
        pb.SEED_STAGE_PROBATIONARY: _joined,
        pb.SEED_STAGE_FOSSILIZED: _joined,
    }
)


class _LearnAside(torch.autograd.Function):
    """Passes the host's features and their gradient on untouched; gives the branch the gradient of its local loss."""

    @staticmethod
    def forward(ctx: Any, host: Tensor, grown: Tensor) -> Tensor:
        ctx.save_for_backward(host, grown)
        return host.view_as(host)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        host, grown = ctx.saved_tensors
        slope = _norm(gradient)
        stride = REACH * _norm(host) / slope.clamp_min(torch.finfo(slope.dtype).tiny)
        target = host - stride * gradient
        return gradient, (grown - target) / host.shape[0]


def _weight(alpha: float, gain: float | Tensor) -> float | Tensor:
    """The seed's weight in the mix, 0..1."""
    return (alpha * gain).clamp(max=1.0) if isinstance(gain, Tensor) else alpha * gain


def _norms(features: Tensor, gain: float | Tensor) -> Tensor:
    """The norm of each part of (N, C, H, W) features that has a weight of its own: one, or of the gain's shape."""
    if not isinstance(gain, Tensor):
        return _norm(features)
    shared = [dim for dim, size in enumerate(gain.shape) if size == 1]
    dtype = torch.promote_types(features.dtype, torch.float32)
    norms: Tensor = torch.linalg.vector_norm(features, dim=shared, keepdim=True, dtype=dtype)
    return norms


def _heard(norms: Tensor, weight: float | Tensor) -> Tensor:
    """The norm of a change whose parts are weighted; a part of weight 0 does not count: 0 times a NaN would be one."""
    if not isinstance(weight, Tensor):
        return weight * norms
    return _norm(torch.where(weight == 0.0, 0.0, weight * norms))


def _norm(features: Tensor) -> Tensor:
    """At least in float32: in half precision that of a large batch is past the largest number."""
    norm: Tensor = torch.linalg.vector_norm(features, dtype=torch.promote_types(features.dtype, torch.float32))
    return norm


def _share(change: Tensor, kept: Tensor) -> Tensor:
    """The share d / (d + |h|) of a change d of features h: 0.5 for one as large as they are, 0.9 at nine times."""
    share: Tensor = change / (change + kept).clamp_min(torch.finfo(kept.dtype).tiny)
    return share
