"""How a small graph is filled up, and which rows the dense form then has: what the numbers of nodes alone fix.

Each node type is filled up to one of SIZES with nodes of zeros that no edge reaches, an empty type too, and a graph
within USUAL up to that: a compiled form pays for every new size it meets, and so meets few.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tamiyo.graph.graph import IndexArray
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.fold import INTO, Attention, Folded

__all__ = ["SIZES", "USUAL", "Attended", "Places", "Sizes", "filled_up", "sizes_of", "starts_of"]

Places: TypeAlias = NDArray[np.int32]

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)

USUAL: Mapping[str, int] = MappingProxyType(
    {"global": 1, "seed": 4, "blueprint": 1, "layer": 8, "activation": 4, "parameter": 4}
)
"""The size of a usual step, which a form may be made for beside all others."""


@dataclass(frozen=True, slots=True)
class Attended:
    """One GAT layer's rows: for each target, relation and head one, target by target; R of them.

    A layer's logits by node are a matrix, (2q, N + 1): by relation and head those of sources, then those of targets.
    Shapes: sources (R,), the row of it that has a row's sources; targets (R,), the flat place that has its target;
    by_kind int64 (types that are targets,), how many rows each has.
    """

    sources: Places
    targets: Places
    by_kind: IndexArray


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of nodes, as filled up, N in all.

    Shapes: kinds (N,), each node's type; nodes and aggregated int64 (types,), how many states and how many rows of
    neighbours each type has.
    """

    counts: Mapping[str, int]
    kinds: Places
    nodes: IndexArray
    aggregated: IndexArray
    attended: tuple[Attended, ...]


def filled_up(counts: Mapping[str, int]) -> dict[str, int]:
    """How many nodes there are once zeros are added."""
    if all(counts[kind] <= most for kind, most in USUAL.items()):
        return dict(USUAL)
    return {kind: next((size for size in SIZES if count <= size), count) for kind, count in counts.items()}


def starts_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Where each type's nodes begin among all."""
    ends = np.cumsum([counts[kind] for kind in NODE_TYPES]).tolist()
    return dict(zip(NODE_TYPES, [0, *ends], strict=False))


def sizes_of(counts: Mapping[str, int], folded: Folded) -> Sizes:
    """Work out the rows for numbers of nodes that are filled up already."""
    each = [counts[kind] for kind in NODE_TYPES]
    return Sizes(
        counts=counts,
        kinds=np.repeat(np.arange(len(NODE_TYPES), dtype=np.int32), each),
        nodes=np.array(each, np.int64),
        aggregated=np.array([counts[kind] * (len(INTO[kind]) + 1) for kind in NODE_TYPES], np.int64),
        attended=tuple(_attended(layer, counts) for layer in folded.gat),
    )


def _attended(layer: Mapping[str, Attention], counts: Mapping[str, int]) -> Attended:
    starts, columns = starts_of(counts), sum(counts.values()) + 1
    q = sum(part.source.shape[1] for part in layer.values())
    sources, targets, begin = [], [], 0
    for kind, part in layer.items():
        # a row of a single head reads any row: a number more or less changes nothing there
        own = begin + np.arange(part.source.shape[1])
        heads = iter(np.split(own, np.cumsum([heads for heads in part.heads if heads > 1])))
        rows = np.concatenate([next(heads) if one > 1 else own[:1] for one in part.heads])
        nodes = starts[kind] + np.arange(counts[kind])
        sources.append(np.tile(rows, counts[kind]))
        targets.append(((q + rows) * columns + nodes[:, None]).reshape(-1))
        begin += len(own)
    return Attended(
        sources=np.concatenate(sources).astype(np.int32),
        targets=np.concatenate(targets).astype(np.int32),
        by_kind=np.array([len(rows) for rows in sources], np.int64),
    )
