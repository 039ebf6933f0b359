"""The plans of a step's blueprints, laid one behind the other: everything of a graph that no packet changes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np

from tamiyo.core.blueprint import Blueprint
from tamiyo.core.coverage import Count
from tamiyo.core.norms import PRIORS
from tamiyo.core.registries import Registries
from tamiyo.graph.counts import edge_counts
from tamiyo.graph.edges import attributes_of
from tamiyo.graph.graph import FloatArray, IndexArray, RawArray, freeze
from tamiyo.graph.metadata import NODES_MAX
from tamiyo.graph.plan import PRIOR_NAMES, NameColumn, Plan, hazard_class, without_nodes
from tamiyo.graph.scaling import Columns, Moving, NormColumns, moving_columns, scaled
from tamiyo.graph.schema import CATEGORIES, FEATURES, RELATIONS, EdgeType, Relation, column

__all__ = ["STATIC_TYPES", "Topology", "lay_out"]

STATIC_TYPES = ("blueprint", "layer", "activation", "parameter")
_BY_TYPE = {relation.edge_type: relation for relation in RELATIONS}
_NODES_OF_PLANS = ("layer", "activation", "parameter")


@dataclass(frozen=True, slots=True)
class Topology:
    """Rows, names and edges of all blueprints.

    Shapes: `raw[type]` float64 [N, F] and `features[type]` float32 [N, 2F] for blueprint, layer, activation and
    parameter; `edges[type]` int64 [2, E] for every relation that has no seed in it, with their coverage in `counts`;
    `attributes[type]` float32 [E, 6] for those of them whose attributes no norm moves. `moving` are the columns that a
    norm moves, `moved` the node types with a column that a step moves. `starts[type][i]` is the place of the first node
    of blueprint i; `ids[type]` the names of the nodes; `parameter_counts` are the layers' values that a norm can take.
    The arrays are read-only.
    """

    plans: tuple[Plan, ...]
    blueprint_ids: tuple[str, ...]
    raw: Mapping[str, RawArray]
    features: Mapping[str, FloatArray]
    moving: Moving
    moved: tuple[str, ...]
    names: Mapping[str, tuple[NameColumn, ...]]
    ids: Mapping[str, tuple[str, ...]]
    edges: Mapping[EdgeType, IndexArray]
    attributes: Mapping[EdgeType, FloatArray]
    counts: Mapping[EdgeType, tuple[Count, ...]]
    starts: Mapping[str, tuple[int, ...]]
    keys: tuple[tuple[str, str], ...]
    parameter_counts: tuple[float, ...]
    ignored: int

    def categories(self, kind: str, registries: Registries) -> IndexArray:
        """int64 [N, K], 0 where a registry does not know the name."""
        columns = [
            np.array([registries[registry].get(name, 0) for name in names.distinct], dtype=np.int64)[names.places]
            for registry, names in zip(CATEGORIES[kind], self.names[kind], strict=True)
        ]
        return np.stack(columns, axis=1) if columns else np.empty((len(self.raw[kind]), 0), dtype=np.int64)


def lay_out(blueprints: Sequence[Blueprint], plans: Sequence[Plan]) -> Topology:
    """Put the plans together; one that no longer fits under `NODES_MAX` of a type brings its node alone."""
    fitting, left_out = _fitting(plans)
    starts = {kind: _starts([plan.count(kind) for plan in fitting]) for kind in _NODES_OF_PLANS}
    raw = {kind: np.concatenate([_no_rows(kind), *(plan.raw[kind] for plan in fitting)]) for kind in _NODES_OF_PLANS}
    raw = {"blueprint": _blueprint_rows(blueprints, fitting), **raw}
    names = {"blueprint": _blueprint_names(blueprints, fitting)} | {
        kind: tuple(_joined_names(columns) for columns in zip(*(plan.names[kind] for plan in fitting), strict=True))
        or (NameColumn.of(()),) * len(CATEGORIES[kind])
        for kind in _NODES_OF_PLANS
    }
    with np.errstate(all="ignore"):
        columns = Columns.of({kind: len(rows) for kind, rows in raw.items()})
        features = scaled(raw, columns, NormColumns.of(PRIORS))
    edges = _edges(fitting, starts)
    strengths = np.concatenate([np.empty(0), *(plan.strengths for plan in fitting)])
    attributes = _attributes(edges, features, strengths)
    moving = moving_columns(raw)
    counts = raw["layer"][:, column("layer", "parameter_count")]
    topology = Topology(
        plans=tuple(fitting),
        blueprint_ids=tuple(blueprint.blueprint_id for blueprint in blueprints),
        raw=raw,
        features=features,
        moving=moving,
        moved=tuple(dict.fromkeys((*(kind for kind, *_ in moving.columns), "layer", "activation"))),
        names=names,
        ids=MappingProxyType(
            {kind: tuple(chain.from_iterable(plan.ids[kind] for plan in fitting)) for kind in _NODES_OF_PLANS}
        ),
        edges=edges,
        attributes={kind: rows for kind, rows in attributes.items() if not _is_moved(_BY_TYPE[kind])},
        counts={kind: edge_counts(_BY_TYPE[kind], rows) for kind, rows in attributes.items()},
        starts=starts,
        keys=tuple(
            (registry, name)
            for kind in STATIC_TYPES
            for registry, names_ in zip(CATEGORIES[kind], names[kind], strict=True)
            for name in names_.distinct
            if name
        ),
        parameter_counts=tuple(counts[np.isfinite(counts) & (counts > -1.0)].tolist()),
        ignored=left_out + sum(plan.ignored for plan in plans),
    )
    for arrays in (topology.raw, topology.features, topology.edges, topology.attributes):
        freeze(arrays.values())
    return topology


def _attributes(
    edges: Mapping[EdgeType, IndexArray], features: Mapping[str, FloatArray], strengths: RawArray
) -> dict[EdgeType, FloatArray]:
    return {
        relation.edge_type: attributes_of(relation, edges[relation.edge_type], features, strengths)
        for relation in RELATIONS
        if relation.edge_type in edges
    }


def _is_moved(relation: Relation) -> bool:
    """What copies a layer is: its parameter count is normed."""
    carrier = relation.source if relation.carrier == "source" else relation.target
    return relation.carrier != "given" and carrier == "layer"


def _fitting(plans: Sequence[Plan]) -> tuple[list[Plan], int]:
    totals = dict.fromkeys(_NODES_OF_PLANS, 0)
    fitting, left_out = [], 0
    for plan in plans:
        if any(totals[kind] + plan.count(kind) > NODES_MAX for kind in totals):
            left_out += sum(plan.count(kind) for kind in totals)
            fitting.append(without_nodes(plan))
            continue
        totals = {kind: total + plan.count(kind) for kind, total in totals.items()}
        fitting.append(plan)
    return fitting, left_out


def _starts(counts: Sequence[int]) -> tuple[int, ...]:
    starts, total = [], 0
    for count in counts:
        starts.append(total)
        total += count
    return tuple(starts)


def _no_rows(kind: str) -> RawArray:
    return np.empty((0, len(FEATURES[kind])))


def _blueprint_names(blueprints: Sequence[Blueprint], plans: Sequence[Plan]) -> tuple[NameColumn, ...]:
    return (
        NameColumn.of([blueprint.blueprint_id for blueprint in blueprints]),
        NameColumn.of([hazard_class(blueprint) for blueprint in blueprints]),
        NameColumn.of([plan.optimizer_family for plan in plans]),
    )


def _joined_names(columns: Sequence[NameColumn]) -> NameColumn:
    if len(columns) == 1:
        return columns[0]
    place_of: dict[str, int] = {}
    places = [
        np.array([place_of.setdefault(name, len(place_of)) for name in each.distinct], dtype=np.int64)[each.places]
        for each in columns
    ]
    return NameColumn(tuple(place_of), np.concatenate(places))


def _blueprint_rows(blueprints: Sequence[Blueprint], plans: Sequence[Plan]) -> RawArray:
    rows = [_blueprint_row(blueprint, plan) for blueprint, plan in zip(blueprints, plans, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES["blueprint"]))


def _blueprint_row(blueprint: Blueprint, plan: Plan) -> list[float]:
    """In column order. An enum of 0 is unspecified, and so absent; so is all of a blueprint nobody has observed."""
    sheet, observed = blueprint.sheet, bool(blueprint.digest)
    counts = plan.raw["layer"][:, column("layer", "parameter_count")]
    counts = counts[np.isfinite(counts)]
    values = {
        "tier": blueprint.tier or math.nan,
        "stage": blueprint.stage if observed else math.nan,
        "risk": blueprint.risk if observed else math.nan,
        "quarantine_only": blueprint.quarantine_only if observed else math.nan,
        "approval_required": blueprint.approval_required if observed else math.nan,
        "sheet_risk": sheet.risk_score if sheet else math.nan,
        "hazard_band": (sheet.hazard_band if sheet else 0) or math.nan,
        "handling_class": (sheet.handling_class if sheet else 0) or math.nan,
        "resource_profile": (sheet.resource_profile if sheet else 0) or math.nan,
        "provenance": (sheet.provenance if sheet else 0) or math.nan,
        "layer_count": plan.count("layer") or math.nan,
        "parameter_count": sum(counts.tolist()) if len(counts) else math.nan,
        **{f"prior_{name}": value for name, value in zip(PRIOR_NAMES, plan.priors, strict=True)},
    }
    return [float(values[feature.name]) for feature in FEATURES["blueprint"]]


def _edges(plans: Sequence[Plan], starts: Mapping[str, tuple[int, ...]]) -> dict[EdgeType, IndexArray]:
    """Every relation without a seed; half of them are another one read backwards."""
    found = _forward_edges(plans, starts)
    backwards = {
        ("blueprint", "monitored_by", "global"): found["global", "annotates", "blueprint"],
        ("layer", "feedback", "global"): found["global", "operates", "layer"],
        ("activation", "affects", "layer"): found["layer", "activates", "activation"],
        ("parameter", "modulates", "activation"): found["activation", "configures", "parameter"],
        ("layer", "belongs_to", "blueprint"): found["blueprint", "composes", "layer"],
    }
    found.update({kind: index[::-1].copy() for kind, index in backwards.items()})
    return {relation.edge_type: found[relation.edge_type] for relation in RELATIONS if relation.edge_type in found}


def _forward_edges(plans: Sequence[Plan], starts: Mapping[str, tuple[int, ...]]) -> dict[EdgeType, IndexArray]:
    layers = sum(plan.count("layer") for plan in plans)
    return {
        ("global", "annotates", "blueprint"): _fan(len(plans)),
        ("global", "operates", "layer"): _fan(layers),
        ("layer", "activates", "activation"): _joined(plans, "activates", starts["layer"], starts["activation"]),
        ("activation", "configures", "parameter"): _joined(
            plans, "configures", starts["activation"], starts["parameter"]
        ),
        ("blueprint", "composes", "layer"): _owned(plans, "layer"),
        ("blueprint", "energizes", "activation"): _owned(plans, "activation"),
        ("parameter", "targets", "blueprint"): _owned(plans, "parameter")[::-1].copy(),
        ("layer", "connects", "layer"): _joined(plans, "connects", starts["layer"], starts["layer"]),
        ("layer", "feeds", "activation"): _joined(plans, "feeds", starts["layer"], starts["activation"]),
    }


def _fan(count: int) -> IndexArray:
    return np.stack([np.zeros(count, dtype=np.int64), np.arange(count, dtype=np.int64)])


def _owned(plans: Sequence[Plan], kind: str) -> IndexArray:
    counts = [plan.count(kind) for plan in plans]
    owners = np.repeat(np.arange(len(plans), dtype=np.int64), np.array(counts, dtype=np.int64))
    return np.stack([owners, np.arange(sum(counts), dtype=np.int64)])


def _joined(plans: Sequence[Plan], relation: str, sources: Sequence[int], targets: Sequence[int]) -> IndexArray:
    moved = [
        plan.edges[relation] + np.array([[source], [target]], dtype=np.int64)
        for plan, source, target in zip(plans, sources, targets, strict=True)
    ]
    return np.concatenate([np.empty((2, 0), dtype=np.int64), *moved], axis=1)
