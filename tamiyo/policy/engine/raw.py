"""What every form of the engine returns, and how it becomes the network's outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from tamiyo.graph.graph import FloatArray, Graph
from tamiyo.policy.engine.fold import GLOBAL_HEADS
from tamiyo.policy.network import NetworkOutput

__all__ = ["Numbers", "Raw", "numbers_of", "output_of"]

Numbers: TypeAlias = Mapping[str, tuple[float, ...]]
"""The fields of a `NetworkOutput`, each flat."""

_BOUNDED = ("param_deltas", "schedule")


@dataclass(frozen=True, slots=True)
class Raw:
    """Shapes: heads (sum of the heads' widths,), before tanh; seed_scores and blueprint_scores (n,), n at least 1."""

    heads: FloatArray
    seed_scores: FloatArray
    blueprint_scores: FloatArray


def output_of(raw: Raw, graph: Graph, widths: tuple[int, ...]) -> NetworkOutput:
    """Cut the heads apart and the scores to the nodes that there are."""
    heads = {name: torch.from_numpy(part)[None] for name, part in _heads(raw, widths).items()}
    scores = {name: torch.from_numpy(part) for name, part in _scores(raw, graph).items()}
    return NetworkOutput(**heads, **scores)


def numbers_of(raw: Raw, graph: Graph, widths: tuple[int, ...]) -> Numbers:
    """The same as plain numbers: ten tensors that nobody computes with take longer than that."""
    parts = _heads(raw, widths) | _scores(raw, graph)
    return {name: tuple(part.tolist()) for name, part in parts.items()}


def _heads(raw: Raw, widths: tuple[int, ...]) -> dict[str, FloatArray]:
    parts, end = {}, 0
    for name, width in zip(GLOBAL_HEADS, widths, strict=True):
        part = raw.heads[end : end + width]
        parts[name] = np.tanh(part) if name in _BOUNDED else part
        end += width
    return parts


def _scores(raw: Raw, graph: Graph) -> dict[str, FloatArray]:
    return {
        "seed_scores": raw.seed_scores[: len(graph.features["seed"])],
        "blueprint_scores": raw.blueprint_scores[: len(graph.features["blueprint"])],
    }
