"""A graph as the journal tells of it: in numbers that replay can check without building it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.coverage import Count
from tamiyo.core.layout import GraphLayout, interned
from tamiyo.core.norms import packed
from tamiyo.graph.graph import Graph, IndexArray
from tamiyo.graph.plan import BlueprintInput
from tamiyo.graph.schema import NODE_TYPES, RELATIONS, EdgeType

__all__ = ["graph_observed"]

_LABELS = tuple(relation.label for relation in RELATIONS)


def graph_observed(
    graph: Graph, blueprints: Sequence[BlueprintInput], *, step_lsn: int, host_id: str
) -> tuple[GraphLayout, journal.GraphObserved]:
    """The graph in numbers, and the names they stand for; the journal links the two."""
    told = _memo.of(graph)
    norms_present, norm_values = packed(graph.norm_inputs)
    event = journal.GraphObserved(
        step_lsn=step_lsn,
        node_counts=graph.node_counts().values(),
        norms_present=norms_present,
        norm_values=norm_values,
        ignored_inputs=graph.ignored_inputs,
        host_blueprint_id=host_id,
    )
    event.MergeFrom(told.counted)
    for given in blueprints:
        event.blueprints.add(blueprint_id=given.blueprint.blueprint_id, digest=given.blueprint.digest)
    return told.layout, event


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told of every graph that has this coverage and these edges, as nearly all of a run have.

    `counted` holds the numbers of both: to merge it takes a quarter of the time of a list for each.
    """

    coverage: tuple[Count, ...]
    edges: Mapping[EdgeType, IndexArray]
    layout: GraphLayout
    counted: journal.GraphObserved


class _Memo:
    """The last of it. A builder gives the very same objects again, so they are not compared, nor hashed."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: _Told | None = None

    def of(self, graph: Graph) -> _Told:
        """What is told of this one; any thread may ask."""
        last = self._last
        if last is None or last.coverage is not graph.coverage or last.edges is not graph.edge_index:
            last = self._last = _Told(
                coverage=graph.coverage,
                edges=graph.edge_index,
                layout=interned(tuple((family, name) for family, name, _, _ in graph.coverage), NODE_TYPES, _LABELS),
                counted=journal.GraphObserved(
                    present=[present for _, _, present, _ in graph.coverage],
                    total=[total for _, _, _, total in graph.coverage],
                    edge_counts=graph.edge_counts().values(),
                ),
            )
        return last


_memo = _Memo()
