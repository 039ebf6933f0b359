"""A graph as the journal tells of it: in numbers that replay can check without building it again."""

from collections.abc import Sequence
from functools import lru_cache

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.coverage import Count
from tamiyo.core.layout import REMEMBERED, GraphLayout
from tamiyo.core.norms import packed
from tamiyo.graph.graph import Graph
from tamiyo.graph.plan import BlueprintInput

__all__ = ["graph_observed"]


def graph_observed(
    graph: Graph, blueprints: Sequence[BlueprintInput], *, step_lsn: int, host_id: str
) -> tuple[GraphLayout, journal.GraphObserved]:
    """The graph in numbers, and the names they stand for; the journal links the two."""
    nodes, edges = graph.node_counts(), graph.edge_counts()
    features, present, total = _columns(graph.coverage)
    norms_present, norm_values = packed(graph.norm_inputs)
    uses = [journal.BlueprintUse(blueprint_id=i.blueprint.blueprint_id, digest=i.blueprint.digest) for i in blueprints]
    return GraphLayout(features, tuple(nodes), tuple(edges)), journal.GraphObserved(
        step_lsn=step_lsn,
        present=present,
        total=total,
        node_counts=nodes.values(),
        edge_counts=edges.values(),
        norms_present=norms_present,
        norm_values=norm_values,
        blueprints=uses,
        ignored_inputs=graph.ignored_inputs,
        host_blueprint_id=host_id,
    )


@lru_cache(maxsize=REMEMBERED)
def _columns(coverage: tuple[Count, ...]) -> tuple[tuple[tuple[str, str], ...], tuple[int, ...], tuple[int, ...]]:
    """The names, and what is present of each and in total: of the same counts, as nearly all steps of a run have."""
    return (
        tuple((family, feature) for family, feature, _, _ in coverage),
        tuple(present for _, _, present, _ in coverage),
        tuple(total for _, _, _, total in coverage),
    )
