"""What the masks of a graph add up to: the coverage counts, feature by feature."""

from collections.abc import Mapping
from types import MappingProxyType

from tamiyo.core.coverage import Count
from tamiyo.core.observation import Hardware
from tamiyo.graph.graph import FloatArray
from tamiyo.graph.schema import EDGE_ATTRIBUTES, FEATURES, NODE_TYPES, RELATIONS, EdgeType, Relation

__all__ = ["CountsMemo", "coverage_counts", "edge_counts"]

NOTHING_KNOWN: Mapping[EdgeType, tuple[Count, ...]] = MappingProxyType({})
_WITHOUT_ACCELERATOR = frozenset({"", "cpu"})


def coverage_counts(
    features: Mapping[str, FloatArray],
    edge_attr: Mapping[EdgeType, FloatArray],
    hardware: Hardware | None,
    known: Mapping[EdgeType, tuple[Count, ...]] = NOTHING_KNOWN,
) -> tuple[Count, ...]:
    """(family, feature, present, total) over what applies here; node types and relations that are empty have no row.

    Relations in `known` are not counted again.
    """
    found = _node_counts(features, _hardware_of(hardware))
    for relation in RELATIONS:
        kind = relation.edge_type
        found.extend(known[kind] if kind in known else edge_counts(relation, edge_attr[kind]))
    return tuple(found)


def edge_counts(relation: Relation, attributes: FloatArray) -> tuple[Count, ...]:
    """The counts of one relation, one for each attribute; none where it has no edge."""
    edges = len(attributes)
    if not edges:
        return ()
    present = attributes[:, EDGE_ATTRIBUTES:].sum(axis=0).tolist()
    return tuple(
        (relation.family, name, int(count), edges) for name, count in zip(relation.attributes, present, strict=False)
    )


class CountsMemo:
    """Keeps the counts of the last graph, for those that have the same parts present: nearly all of a run."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._counts: tuple[Count, ...] = ()

    def of(
        self,
        layout: object,
        features: Mapping[str, FloatArray],
        edge_attr: Mapping[EdgeType, FloatArray],
        hardware: Hardware | None,
        known: Mapping[EdgeType, tuple[Count, ...]],
    ) -> tuple[Count, ...]:
        """`coverage_counts` of a graph.

        With the layout given, all masks are a matter of those of the global node and the seeds: a blueprint's own
        stay as they are, and a live column has the mask of the global node's.
        """
        masks = [features[kind][:, len(FEATURES[kind]) :].tobytes() for kind in ("global", "seed")]
        key = (layout, _hardware_of(hardware), *masks)
        if not self._key or key[0] is not self._key[0] or key[1:] != self._key[1:]:
            self._key, self._counts = key, coverage_counts(features, edge_attr, hardware, known)
        return self._counts


def _hardware_of(hardware: Hardware | None) -> frozenset[str]:
    """The conditions (`Feature.applies`) that hold on this host."""
    if hardware is None:
        return frozenset({"always"})
    if hardware.device_type.lower() in _WITHOUT_ACCELERATOR:
        return frozenset({"always", "hardware"})
    return frozenset({"always", "hardware", "accelerator"})


def _node_counts(features: Mapping[str, FloatArray], holding: frozenset[str]) -> list[Count]:
    found: list[Count] = []
    for kind in NODE_TYPES:
        rows, table = features[kind], FEATURES[kind]
        nodes = len(rows)
        if not nodes:
            continue
        present = rows[:, len(table) :].sum(axis=0).tolist()
        found.extend(
            (f"node.{kind}", feature.name, int(count), nodes)
            for feature, count in zip(table, present, strict=True)
            if count or feature.applies in holding  # what is reported all the same does apply
        )
    return found
