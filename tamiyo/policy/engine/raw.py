"""What every form of the engine returns, and how it becomes the network's outputs."""

from dataclasses import dataclass

import numpy as np
import torch

from tamiyo.graph.graph import FloatArray, Graph
from tamiyo.policy.engine.fold import GLOBAL_HEADS
from tamiyo.policy.network import NetworkOutput

__all__ = ["Raw", "output_of"]

_BOUNDED = ("param_deltas", "schedule")


@dataclass(frozen=True, slots=True)
class Raw:
    """Shapes: heads (sum of the heads' widths,), before tanh; seed_scores and blueprint_scores (n,), n at least 1."""

    heads: FloatArray
    seed_scores: FloatArray
    blueprint_scores: FloatArray


def output_of(raw: Raw, graph: Graph, widths: tuple[int, ...]) -> NetworkOutput:
    """Cut the heads apart and the scores to the nodes that there are."""
    parts, end = {}, 0
    for name, width in zip(GLOBAL_HEADS, widths, strict=True):
        part = raw.heads[end : end + width]
        parts[name] = torch.from_numpy(np.tanh(part) if name in _BOUNDED else part)[None]
        end += width
    seeds, blueprints = len(graph.features["seed"]), len(graph.features["blueprint"])
    return NetworkOutput(
        **parts,
        seed_scores=torch.from_numpy(raw.seed_scores[:seeds]),
        blueprint_scores=torch.from_numpy(raw.blueprint_scores[:blueprints]),
    )
