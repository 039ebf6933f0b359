"""From raw values to feature columns, as the schema's scaling says; vectorised over the nodes of a type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamiyo.core.norms import EPSILON, NORM_INDEX, Norm
from tamiyo.graph.graph import FloatArray, RawArray
from tamiyo.graph.schema import CLIP, FEATURES, NODE_TYPES

__all__ = ["scaled_features"]


@dataclass(frozen=True, slots=True)
class _Columns:
    """A node type's scaling as arrays over its F features; `normed` are columns and `norms` their rows."""

    offset: RawArray
    scale: RawArray
    default: RawArray
    logged: NDArray[np.int64]
    normed: NDArray[np.int64]
    norms: NDArray[np.int64]


def _columns(kind: str) -> _Columns:
    features = FEATURES[kind]
    normed = [(place, NORM_INDEX[feature.norm]) for place, feature in enumerate(features) if feature.norm]
    return _Columns(
        offset=np.array([feature.offset for feature in features]),
        scale=np.array([feature.scale for feature in features]),
        default=np.array([feature.default for feature in features]),
        logged=np.array([place for place, feature in enumerate(features) if feature.log1p], dtype=np.int64),
        normed=np.array([place for place, _ in normed], dtype=np.int64),
        norms=np.array([row for _, row in normed], dtype=np.int64),
    )


_COLUMNS: Mapping[str, _Columns] = {kind: _columns(kind) for kind in NODE_TYPES}


def scaled_features(raw: Mapping[str, RawArray], norms: Sequence[Norm]) -> dict[str, FloatArray]:
    """Values and masks of every node type: float64 [N, F] to float32 [N, 2F]."""
    mean = np.array([norm.mean for norm in norms])
    deviation = np.sqrt(np.array([norm.variance for norm in norms]) + EPSILON)
    with np.errstate(all="ignore"):  # a value may be any float; what does not stay finite is masked
        return {kind: _scaled(_COLUMNS[kind], raw[kind], mean, deviation) for kind in NODE_TYPES}


def _scaled(columns: _Columns, raw: RawArray, mean: RawArray, deviation: RawArray) -> FloatArray:
    features = raw.shape[1]
    offset, scale, values = columns.offset, columns.scale, raw
    if len(columns.logged):
        values = raw.copy()
        values[:, columns.logged] = np.log1p(values[:, columns.logged])
    if len(columns.normed):
        offset, scale = offset.copy(), scale.copy()
        offset[columns.normed], scale[columns.normed] = mean[columns.norms], deviation[columns.norms]
    present = np.isfinite(values)
    result = np.empty((len(raw), 2 * features), dtype=np.float32)
    limited = np.minimum(np.maximum((values - offset) / scale, -CLIP), CLIP)
    result[:, :features] = np.where(present, limited, columns.default)
    result[:, features:] = present
    return result
