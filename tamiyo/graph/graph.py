"""The graph as plain arrays: what a policy is shown, and nothing that it could change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tamiyo.core.coverage import Count
from tamiyo.graph.schema import (
    CATEGORIES,
    EDGE_ATTRIBUTES,
    EDGE_COLUMNS,
    FEATURES,
    NODE_TYPES,
    RELATIONS,
    EdgeType,
    Relation,
    column,
)

__all__ = ["FloatArray", "Graph", "IndexArray", "RawArray", "freeze"]

FloatArray: TypeAlias = NDArray[np.float32]
RawArray: TypeAlias = NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.int64]

_LABELLED = tuple((relation.label, relation.edge_type) for relation in RELATIONS)  # every step asks; they are made once


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """One step's graph; the columns are those of `tamiyo.graph.schema`. The arrays are read-only.

    Shapes: `features[type]` float32 [N, 2F], values then masks; `raw[type]` float64 [N, F], unscaled, NaN where
    absent; `categories[type]` int64 [N, K]; `edge_index[type]` int64 [2, E], sources then targets;
    `edge_attr[type]` float32 [E, 6], values then masks. Every node type and every relation is there, empty ones too.

    `candidates` are the places of the seeds that a policy may select. `host_blueprint_index` is the place of the
    blueprint that is being trained, -1 where it is not among them. `norm_inputs` are (row of NORM_INPUTS, value),
    finite, log1p applied where the row says so. `ignored_inputs` counts bad indices and ill-typed values left out.
    `node_ids[type]` are the names of layers, activations and parameters, "" for one without.
    """

    features: Mapping[str, FloatArray]
    raw: Mapping[str, RawArray]
    categories: Mapping[str, IndexArray]
    edge_index: Mapping[EdgeType, IndexArray]
    edge_attr: Mapping[EdgeType, FloatArray]
    seed_ids: tuple[str, ...]
    blueprint_ids: tuple[str, ...]
    host_blueprint_index: int
    candidates: tuple[int, ...]
    coverage: tuple[Count, ...]
    norm_inputs: tuple[tuple[int, float], ...]
    ignored_inputs: int
    node_ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def allowed_parameters(self, seed: int) -> dict[str, float]:
        """`allowed_param_<name>` of one seed: 1 for a parameter of the host that it may set, else 0.

        Empty where nothing is known of what it may set; a parameter without a name is not among them.
        """
        if self.value("seed", seed, "allowed_parameters") is None:
            return {}
        names = self.node_ids["parameter"]
        parameters, owners = self.edge_index["parameter", "targets", "blueprint"]
        seeds, allowed = self.edge_index["seed", "allowed", "parameter"]
        may = set(allowed[seeds == seed].tolist())
        own = parameters[owners == self.host_blueprint_index].tolist()
        return {f"allowed_param_{names[place]}": float(place in may) for place in own if names[place]}

    def may_set(self, seed: int, parameter: str) -> bool | None:
        """Whether a seed may set one of the host's parameters, by name; None where that is not known of it."""
        share = self.value("seed", seed, "allowed_parameters")
        if share is None or parameter not in self.node_ids["parameter"]:
            return None
        parameters, owners = self.edge_index["parameter", "targets", "blueprint"]
        names = self.node_ids["parameter"]
        own = [place for place in parameters[owners == self.host_blueprint_index].tolist() if names[place] == parameter]
        seeds, allowed = self.edge_index["seed", "allowed", "parameter"]
        return bool(np.isin(allowed[seeds == seed], own).any()) if own else None

    def value(self, node_type: str, row: int, feature: str) -> float | None:
        """A feature as it came, unscaled; None where it is absent or not finite."""
        place = column(node_type, feature)
        return float(self.raw[node_type][row, place]) if self._is_present(node_type, row, place) else None

    def scaled(self, node_type: str, row: int, feature: str) -> float | None:
        """A feature as the network sees it, for a normed one in standard deviations; None where it is absent."""
        place = column(node_type, feature)
        return float(self.features[node_type][row, place]) if self._is_present(node_type, row, place) else None

    def values(self, node_type: str, feature: str) -> list[float | None]:
        """`value` of every row: one call for a whole column."""
        place = column(node_type, feature)
        raw = self.raw[node_type][:, place].tolist()
        masks = self.features[node_type][:, len(FEATURES[node_type]) + place].tolist()
        return [value if mask else None for value, mask in zip(raw, masks, strict=True)]

    def node_counts(self) -> dict[str, int]:
        """Nodes by type, all six."""
        return {kind: len(self.features[kind]) for kind in NODE_TYPES}

    def edge_counts(self) -> dict[str, int]:
        """Edges by relation (`layer-connects-layer`), all 21."""
        return {label: self.edge_index[edge_type].shape[1] for label, edge_type in _LABELLED}

    def validate(self) -> None:
        """Check the graph against its schema.

        Raises:
            ValueError: naming the node or edge type, the rule and the offending number.
        """
        for kind in NODE_TYPES:
            self._validate_nodes(kind)
        for relation in RELATIONS:
            self._validate_edges(relation)
        self._validate_selection()

    def _is_present(self, node_type: str, row: int, place: int) -> bool:
        return bool(self.features[node_type][row, len(FEATURES[node_type]) + place])

    def _validate_nodes(self, kind: str) -> None:
        features, categories = self.features[kind], self.categories[kind]
        width = 2 * len(FEATURES[kind])
        _require(features.shape[1] == width, kind, f"has {width} feature columns", features.shape[1])
        rows = len(features)
        _require(categories.shape == (rows, len(CATEGORIES[kind])), kind, "has a category row a node", len(categories))
        _require(bool(np.isfinite(features).all()), kind, "holds finite features only", int(_faults(features)))
        masks = features[:, width // 2 :]
        _require(bool(((masks == 0) | (masks == 1)).all()), kind, "has masks of 0 and 1", masks.shape[1])
        _require(bool((categories >= 0).all()), kind, "has categories from 0", int(categories.min(initial=0)))

    def _validate_edges(self, relation: Relation) -> None:
        index, attributes, kind = (
            self.edge_index[relation.edge_type],
            self.edge_attr[relation.edge_type],
            relation.label,
        )
        edges = index.shape[1]
        _require(
            attributes.shape == (edges, EDGE_COLUMNS), kind, f"has {EDGE_COLUMNS} attributes an edge", len(attributes)
        )
        _require(bool(np.isfinite(attributes).all()), kind, "holds finite attributes only", int(_faults(attributes)))
        masks = attributes[:, EDGE_ATTRIBUTES:]
        _require(bool(((masks == 0) | (masks == 1)).all()), kind, "has masks of 0 and 1", edges)
        for end, places in ((relation.source, index[0]), (relation.target, index[1])):
            nodes = len(self.features[end])
            _require(int(places.min(initial=0)) >= 0, kind, f"has {end} indices from 0", int(places.min(initial=0)))
            largest = int(places.max(initial=-1))
            _require(largest < nodes, kind, f"has {end} indices below {nodes}", largest)

    def _validate_selection(self) -> None:
        seeds, blueprints = len(self.features["seed"]), len(self.features["blueprint"])
        _require(len(self.seed_ids) == seeds, "seed", f"has {seeds} ids", len(self.seed_ids))
        _require(len(self.blueprint_ids) == blueprints, "blueprint", f"has {blueprints} ids", len(self.blueprint_ids))
        _require(len(self.features["global"]) == 1, "global", "has one node", len(self.features["global"]))
        for place in self.candidates:
            _require(0 <= place < seeds, "seed", f"has candidates below {seeds}", place)


def freeze(arrays: Iterable[NDArray[Any]]) -> None:
    """Let nobody write to these any more. Whoever makes an array of a graph does it, and of those it keeps once."""
    for array in arrays:
        array.setflags(write=False)


def _require(holds: bool, kind: str, rule: str, number: int) -> None:  # noqa: FBT001  the condition of an assertion
    if not holds:
        raise ValueError(f"a valid graph's {kind} {rule}; found {number}")


def _faults(array: FloatArray) -> np.int64:
    return np.int64(array.size - np.isfinite(array).sum())
