"""What the numbers of a `GraphObserved` stand for.

Names are long and hardly ever change, so they are journaled once, as a layout, and the graphs that follow give
numbers in its order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.coverage import Count

__all__ = ["LAYOUTS_MAX", "GraphLayout", "counts", "read_layout"]

LAYOUTS_MAX = 16


@dataclass(frozen=True, slots=True)
class GraphLayout:
    """Features as (family, feature), node types and relations, in the order of the counts."""

    features: tuple[tuple[str, str], ...]
    node_types: tuple[str, ...]
    relations: tuple[str, ...]

    def fits(self, event: journal.GraphObserved) -> bool:
        """Whether the event has one number for each name."""
        lengths = (len(event.present), len(event.total), len(event.node_counts), len(event.edge_counts))
        names = (len(self.features), len(self.features), len(self.node_types), len(self.relations))
        return lengths == names

    def event(self) -> journal.GraphLayoutObserved:
        """The layout as it is journaled."""
        features = [journal.FeatureName(family=family, feature=feature) for family, feature in self.features]
        return journal.GraphLayoutObserved(features=features, node_types=self.node_types, relations=self.relations)


def read_layout(event: journal.GraphLayoutObserved) -> GraphLayout:
    """The layout of its event."""
    features = tuple((name.family, name.feature) for name in event.features)
    return GraphLayout(features, tuple(event.node_types), tuple(event.relations))


def counts(layout: GraphLayout, event: journal.GraphObserved) -> Sequence[Count]:
    """The event's coverage with its names: (family, feature, present, total)."""
    return [
        (family, feature, present, total)
        for (family, feature), present, total in zip(layout.features, event.present, event.total, strict=True)
    ]
