"""What a form for small graphs is, and the sizes that it meets."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sizes import SIZES, filled_up

__all__ = ["Form", "Sample", "Size", "Warms", "grown", "padded", "size_of"]

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


Sample: TypeAlias = Callable[[Size], Dense]
"""Any graph of a size."""


@runtime_checkable
class Warms(Protocol):
    """What a form has beside, if a size may be met ahead of its graphs."""

    def warm_up(self, sizes: Iterable[Size]) -> None:
        """Meet these sizes now, on this thread. For a form that nobody waits for yet. Raises what running raises."""

    def expect(self, sizes: Iterable[Size]) -> None:
        """Meet these sizes soon, on another thread; returns at once."""

    def rest(self) -> None:
        """Nobody calls for now: keep no more than it takes to answer."""

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is expected any more; whether that came to be."""
