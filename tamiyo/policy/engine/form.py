"""What a form for small graphs is, and the sizes that it meets."""

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sizes import SIZES, filled_up

__all__ = ["Form", "Size", "grown", "padded", "size_of"]

Size: TypeAlias = tuple[int, ...]
"""Nodes by type, in the order of NODE_TYPES, filled up as the dense form fills them."""


class Form(Protocol):
    """One way to compute a dense graph; any number of threads may call it at a time."""

    @property
    def engine(self) -> str:
        """Its name and version."""

    def run(self, dense: Dense) -> Raw:
        """One graph."""


def size_of(dense: Dense) -> Size:
    """The size that a form sees."""
    return tuple(dense.sizes.counts[kind] for kind in NODE_TYPES)


def padded(counts: Mapping[str, int]) -> Size:
    """The size of graphs with so many nodes of each type."""
    filled = filled_up({kind: counts[kind] for kind in NODE_TYPES})
    return tuple(filled[kind] for kind in NODE_TYPES)


def grown(counts: Mapping[str, int]) -> Size:
    """The next size that a run comes to when it plants seeds: nothing else of a blueprint's graph grows by itself."""
    size = padded(counts)
    larger = (padded({**counts, "seed": each}) for each in SIZES if each > counts["seed"])
    return next((each for each in larger if each != size), size)
