"""From raw values to feature columns, as the schema's scaling says; vectorised over the nodes of a type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tamiyo.core.norms import EPSILON, NORM_INDEX, Norm
from tamiyo.graph.graph import FloatArray, RawArray
from tamiyo.graph.schema import CLIP, FEATURES, NODE_TYPES

__all__ = ["Moving", "NormColumns", "moving_columns", "scaled"]


@dataclass(frozen=True, slots=True)
class NormColumns:
    """The norms as arrays over NORM_INPUTS: float64 [8] each."""

    mean: RawArray
    deviation: RawArray

    @classmethod
    def of(cls, norms: Sequence[Norm]) -> Self:
        """One for each row of NORM_INPUTS."""
        table = np.array(norms, dtype=np.float64)
        return cls(table[:, 0], np.sqrt(table[:, 1] + EPSILON))


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


def scaled(kind: str, raw: RawArray, norms: NormColumns) -> FloatArray:
    """Values and masks of one node type: float64 [N, F] to float32 [N, 2F].

    A value may be any float, and what does not stay finite is masked: call it under `np.errstate(all="ignore")`.
    """
    columns, features = _COLUMNS[kind], raw.shape[1]
    offset, scale, values = columns.offset, columns.scale, raw
    if len(columns.logged):
        values = raw.copy()
        values[:, columns.logged] = np.log1p(values[:, columns.logged])
    if len(columns.normed):
        offset, scale = offset.copy(), scale.copy()
        offset[columns.normed], scale[columns.normed] = norms.mean[columns.norms], norms.deviation[columns.norms]
    present = np.isfinite(values)
    result = np.empty((len(raw), 2 * features), dtype=np.float32)
    limited = np.fmin(np.fmax((values - offset) / scale, -CLIP), CLIP)  # numbers even where a norm is none
    result[:, :features] = np.where(present, limited, columns.default)
    result[:, features:] = present
    return result


@dataclass(frozen=True, slots=True)
class Moving:
    """The columns of nodes that stay, whose values move with a norm all the same.

    `values` float64 [M] are those of all the columns, one behind the other, log1p applied where the schema says so;
    `rows` int64 [M] the norm of each; `columns` are (node type, column, start, end).
    """

    values: RawArray
    present: NDArray[np.bool_]
    rows: NDArray[np.int64]
    columns: tuple[tuple[str, int, int, int], ...]

    def write(self, features: Mapping[str, FloatArray], norms: NormColumns) -> None:
        """Put the scaled values of this step into their columns; masks stay as they are."""
        limited = (self.values - norms.mean[self.rows]) / norms.deviation[self.rows]
        np.fmin(np.fmax(limited, -CLIP, out=limited), CLIP, out=limited)
        limited[~self.present] = 0.0
        for kind, place, start, end in self.columns:
            features[kind][:, place] = limited[start:end]


def moving_columns(raw: Mapping[str, RawArray]) -> Moving:
    """The normed columns of some node types in which anything is present; the others keep their default."""
    values: list[RawArray] = [np.empty(0)]
    rows: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    columns, end = [], 0
    for kind, given in raw.items():
        for place, feature in enumerate(FEATURES[kind]):
            if not feature.norm:
                continue
            with np.errstate(all="ignore"):
                column_ = np.log1p(given[:, place]) if feature.log1p else given[:, place]
            if np.isfinite(column_).any():
                start, end = end, end + len(column_)
                values.append(column_)
                rows.append(np.full(len(column_), NORM_INDEX[feature.norm]))
                columns.append((kind, place, start, end))
    joined = np.concatenate(values)
    return Moving(joined, np.isfinite(joined), np.concatenate(rows), tuple(columns))
