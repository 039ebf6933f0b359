"""From raw values to feature columns, as the schema's scaling says; vectorised over the nodes of a type."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tamiyo.core.norms import EPSILON, NORM_INDEX, Norm
from tamiyo.graph.graph import FloatArray, IndexArray, RawArray
from tamiyo.graph.schema import CLIP, FEATURES, Feature

__all__ = ["Columns", "Moving", "NormColumns", "moving_columns", "scaled"]


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
class Columns:
    """The scaling of some node types' values, laid one behind the other, row by row.

    `types` are (node type, rows). Over all M values: `offset`, `scale` and `default`, float64 [M]; `logged` and
    `normed` are places, and `norms` the norm of each of the latter, int64.
    """

    types: tuple[tuple[str, int], ...]
    offset: RawArray
    scale: RawArray
    default: RawArray
    logged: IndexArray
    normed: IndexArray
    norms: IndexArray

    @classmethod
    def of(cls, rows: Mapping[str, int]) -> Self:
        """For so many rows of each node type."""

        def over_all(said: Callable[[Feature], float]) -> RawArray:
            told = [np.tile(np.array([said(one) for one in FEATURES[kind]]), count) for kind, count in rows.items()]
            return np.concatenate(told)

        norms = over_all(lambda feature: NORM_INDEX[feature.norm] if feature.norm else -1).astype(np.int64)
        normed = np.flatnonzero(norms >= 0)
        return cls(
            types=tuple(rows.items()),
            offset=over_all(lambda feature: feature.offset),
            scale=over_all(lambda feature: feature.scale),
            default=over_all(lambda feature: feature.default),
            logged=np.flatnonzero(over_all(lambda feature: feature.log1p)),
            normed=normed,
            norms=norms[normed],
        )


def scaled(raw: Mapping[str, RawArray], columns: Columns, norms: NormColumns) -> dict[str, FloatArray]:
    """Values and masks of the node types of `columns`: float64 [N, F] to float32 [N, 2F] each.

    All in one pass, because of a step's few rows it is the number of passes that costs. A value may be any float, and
    what does not stay finite is masked: call it under `np.errstate(all="ignore")`.
    """
    values = np.concatenate([raw[kind].ravel() for kind, _ in columns.types])
    values[columns.logged] = np.log1p(values[columns.logged])
    offset, scale = columns.offset.copy(), columns.scale.copy()
    offset[columns.normed], scale[columns.normed] = norms.mean[columns.norms], norms.deviation[columns.norms]
    present = np.isfinite(values)
    limited = np.fmin(np.fmax((values - offset) / scale, -CLIP), CLIP)  # numbers even where a norm is none
    told = np.where(present, limited, columns.default)
    found, end = {}, 0
    for kind, rows in columns.types:
        features = len(FEATURES[kind])
        start, end = end, end + rows * features
        result = np.empty((rows, 2 * features), dtype=np.float32)
        result[:, :features] = told[start:end].reshape(rows, features)
        result[:, features:] = present[start:end].reshape(rows, features)
        found[kind] = result
    return found


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
