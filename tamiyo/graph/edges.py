"""Edge attributes: most copy features of one end, the others are given with the edge."""

from collections.abc import Mapping

import numpy as np

from tamiyo.graph.graph import FloatArray, IndexArray, RawArray
from tamiyo.graph.schema import CLIP, EDGE_ATTRIBUTES, EDGE_COLUMNS, FEATURES, RELATIONS, EdgeType, Relation, column

__all__ = ["edge_attributes"]

Features = Mapping[str, FloatArray]
Gap = tuple[str, str, str, str]
"""(source type, its feature, target type, its feature)."""


def _copied_columns(relation: Relation) -> tuple[str, int, list[int]]:
    """(node type, row of the index with its places, its columns: values, then masks)."""
    kind, end = (relation.source, 0) if relation.carrier == "source" else (relation.target, 1)
    columns = [column(kind, name) for name in relation.attributes]
    return kind, end, [*columns, *(place + len(FEATURES[kind]) for place in columns)]


_COPIED = {relation.edge_type: _copied_columns(relation) for relation in RELATIONS if relation.carrier != "given"}
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


def edge_attributes(
    edge_index: Mapping[EdgeType, IndexArray], features: Features, strengths: RawArray
) -> dict[EdgeType, FloatArray]:
    """float32 [E, 6] for every relation; `strengths` float64 [E] belong to layer-connects-layer, NaN where absent."""
    blocks: dict[tuple[str, tuple[int, ...]], FloatArray] = {}
    found: dict[EdgeType, FloatArray] = {}
    for relation in RELATIONS:
        kind = relation.edge_type
        if kind in _COPIED:
            found[kind] = _copy(_COPIED[kind], edge_index[kind], features, blocks)
        else:
            given = strengths if kind == ("layer", "connects", "layer") else None
            found[kind] = _given(_GAPS[kind], edge_index[kind], features, given)
    return found


def _copy(
    carrier: tuple[str, int, list[int]],
    index: IndexArray,
    features: Features,
    blocks: dict[tuple[str, tuple[int, ...]], FloatArray],
) -> FloatArray:
    kind, end, columns = carrier
    key = (kind, tuple(columns))
    if key not in blocks:
        blocks[key] = features[kind][:, columns]
    copied: FloatArray = blocks[key].take(index[end], axis=0)
    return copied


def _given(
    gaps: tuple[Gap | None, ...],
    index: IndexArray,
    features: Features,
    given: RawArray | None,
) -> FloatArray:
    result = np.zeros((index.shape[1], EDGE_COLUMNS), dtype=np.float32)
    for place, gap in enumerate(gaps):
        if gap is not None:
            value, mask = _gap(gap, index, features)
        elif given is not None:
            mask = np.isfinite(given)
            value = np.clip(given, -CLIP, CLIP)
        else:
            continue
        result[:, place] = np.where(mask, value, 0.0)
        result[:, EDGE_ATTRIBUTES + place] = mask
    return result


def _gap(
    gap: Gap, index: IndexArray, features: Features
) -> tuple[FloatArray, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """The target's scaled feature minus the source's, where both are there."""
    source, source_feature, target, target_feature = gap
    (value_from, mask_from) = _ends(features[source], source, source_feature, index[0])
    (value_to, mask_to) = _ends(features[target], target, target_feature, index[1])
    return value_to - value_from, (mask_from * mask_to) > 0.0


def _ends(rows: FloatArray, kind: str, feature: str, places: IndexArray) -> tuple[FloatArray, FloatArray]:
    place = column(kind, feature)
    return rows[places, place], rows[places, place + len(FEATURES[kind])]
