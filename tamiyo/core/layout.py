"""What the numbers of a `GraphObserved` stand for.

Names are long and hardly ever change, so they are journaled once, as a layout, and the graphs that follow give
numbers in its order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.coverage import Count, Coverage

__all__ = ["LAYOUTS_MAX", "REMEMBERED", "GraphLayout", "counts", "coverage_of", "interned", "read_layout"]

LAYOUTS_MAX = 16
REMEMBERED = 64
"""Sums of coverage that are kept: a function of its arguments alone, so what is remembered changes nothing."""


@dataclass(frozen=True)
class GraphLayout:
    """Features as (family, feature), node types and relations, in the order of the counts."""

    features: tuple[tuple[str, str], ...]
    node_types: tuple[str, ...]
    relations: tuple[str, ...]

    def __hash__(self) -> int:
        """Of the names, computed once: a layout is a key of what is remembered of each graph's coverage."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.features, self.node_types, self.relations))

    def fits(self, event: journal.GraphObserved) -> bool:
        """Whether the event has one number for each name."""
        features = len(self.features)
        return (
            len(event.present) == features
            and len(event.total) == features
            and len(event.node_counts) == len(self.node_types)
            and len(event.edge_counts) == len(self.relations)
        )

    def event(self) -> journal.GraphLayoutObserved:
        """The layout as it is journaled."""
        features = [journal.FeatureName(family=family, feature=feature) for family, feature in self.features]
        return journal.GraphLayoutObserved(features=features, node_types=self.node_types, relations=self.relations)


def read_layout(event: journal.GraphLayoutObserved) -> GraphLayout:
    """The layout of its event."""
    features = tuple((name.family, name.feature) for name in event.features)
    return interned(features, tuple(event.node_types), tuple(event.relations))


@lru_cache(maxsize=REMEMBERED)
def interned(
    features: tuple[tuple[str, str], ...], node_types: tuple[str, ...], relations: tuple[str, ...]
) -> GraphLayout:
    """One object for equal names, so that looking something up by it compares no names."""
    return GraphLayout(features, node_types, relations)


def counts(layout: GraphLayout, event: journal.GraphObserved) -> Sequence[Count]:
    """The event's coverage with its names: (family, feature, present, total)."""
    named = zip(layout.features, event.present, event.total, strict=True)
    return [(family, feature, present, total) for (family, feature), present, total in named]


def coverage_of(layout: GraphLayout, event: journal.GraphObserved) -> Coverage:
    """The event's coverage, added up. Graphs of one run hardly differ in it, so the last sums are remembered."""
    counted = journal.GraphObserved(present=event.present, total=event.total)
    return _coverage(layout, counted.SerializeToString())


@lru_cache(maxsize=REMEMBERED)
def _coverage(layout: GraphLayout, counted: bytes) -> Coverage:
    """`counted`: a `GraphObserved` with nothing but its counts; bytes are looked up faster than numbers."""
    return Coverage.of(counts(layout, journal.GraphObserved.FromString(counted)))
