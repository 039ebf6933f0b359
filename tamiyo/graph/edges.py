"""Edge attributes: most copy features of one end, the others are given with the edge."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from tamiyo.graph.graph import FloatArray, IndexArray, RawArray
from tamiyo.graph.schema import CLIP, EDGE_ATTRIBUTES, EDGE_COLUMNS, FEATURES, EdgeType, Relation, column

__all__ = ["attributes_of", "carried"]

Features = Mapping[str, FloatArray]
Gap = tuple[str, str, str, str]
"""(source type, its feature, target type, its feature)."""


_GAPS: Mapping[EdgeType, tuple[Gap | None, ...]] = {
    ("seed", "peer", "seed"): (
        ("seed", "stage", "seed", "stage"),
        ("seed", "layer_depth", "seed", "layer_depth"),
        ("seed", "alpha", "seed", "alpha"),
    ),
    ("layer", "connects", "layer"): (None, ("layer", "depth", "layer", "depth")),
    ("seed", "monitors", "layer"): (None, ("seed", "layer_depth", "layer", "depth")),
    ("layer", "monitored_by", "seed"): (None, ("layer", "depth", "seed", "layer_depth")),
}
"""The relations with attributes of their own, by attribute; None is what came with the edge (strength, weight)."""


def carried(kind: str, attributes: Sequence[str], features: Features) -> FloatArray:
    """What edges copy of the nodes of one type: float32 [N, 6], values and masks of three features."""
    block: FloatArray = features[kind].take(_columns(kind, tuple(attributes)), axis=1)
    return block


def attributes_of(relation: Relation, index: IndexArray, features: Features, given: RawArray | None) -> FloatArray:
    """float32 [E, 6] of one relation; `given` float64 [E] is what came with its edges, NaN where nothing did."""
    if relation.carrier == "given":
        return _given(_GAPS[relation.edge_type], index, features, given)
    kind, end = (relation.source, 0) if relation.carrier == "source" else (relation.target, 1)
    copied: FloatArray = carried(kind, relation.attributes, features).take(index[end], axis=0)
    return copied


def _given(gaps: tuple[Gap | None, ...], index: IndexArray, features: Features, given: RawArray | None) -> FloatArray:
    """What came with the edges where the table says None; a gap is the target's scaled feature less the source's."""
    result = np.zeros((index.shape[1], EDGE_COLUMNS), dtype=np.float32)
    if given is not None and None in gaps:
        mask = np.isfinite(given)
        result[:, gaps.index(None)] = np.where(mask, np.clip(given, -CLIP, CLIP), 0.0)
        result[:, EDGE_ATTRIBUTES + gaps.index(None)] = mask
    first = gaps.count(None)
    sources, targets, width = *_gap_columns(gaps), len(gaps) - first
    before = features[sources[0]].take(sources[1], axis=1).take(index[0], axis=0)
    after = features[targets[0]].take(targets[1], axis=1).take(index[1], axis=0)
    masks = before[:, width:] * after[:, width:]
    result[:, first : first + width] = (after[:, :width] - before[:, :width]) * masks
    result[:, EDGE_ATTRIBUTES + first : EDGE_ATTRIBUTES + first + width] = masks
    return result


@cache
def _gap_columns(gaps: tuple[Gap | None, ...]) -> tuple[tuple[str, IndexArray], tuple[str, IndexArray]]:
    """(node type, columns: values, then masks) of sources and of targets; all gaps of a relation join the same two."""
    there = [gap for gap in gaps if gap is not None]
    (source, _, target, _) = there[0]
    return (
        (source, _columns(source, tuple(gap[1] for gap in there))),
        (target, _columns(target, tuple(gap[3] for gap in there))),
    )


@cache
def _columns(kind: str, names: tuple[str, ...]) -> IndexArray:
    """The columns of some features: values, then masks."""
    columns = [column(kind, name) for name in names]
    return np.array([*columns, *(place + len(FEATURES[kind]) for place in columns)])
