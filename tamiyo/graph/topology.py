"""The plans of a step's blueprints, laid one behind the other: everything of a graph that no packet changes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tamiyo.core.blueprint import Blueprint
from tamiyo.core.registries import Registries
from tamiyo.graph.graph import IndexArray, RawArray
from tamiyo.graph.metadata import NODES_MAX
from tamiyo.graph.plan import Plan, edge_array, hazard_class
from tamiyo.graph.schema import CATEGORIES, FEATURES, RELATIONS, EdgeType, column

__all__ = ["Names", "Topology", "lay_out", "without_nodes"]

STATIC_TYPES = ("blueprint", "layer", "activation", "parameter")
_NODES_OF_PLANS = ("layer", "activation", "parameter")


@dataclass(frozen=True, slots=True)
class Names:
    """A categorical column before it is looked up: the distinct names and, for each node, which of them."""

    kind: str
    distinct: tuple[str, ...]
    places: IndexArray

    def indices(self, registries: Registries) -> IndexArray:
        """int64 [N], 0 where the registry does not know the name."""
        known = registries[self.kind]
        return np.array([known.get(name, 0) for name in self.distinct], dtype=np.int64)[self.places]


@dataclass(frozen=True, slots=True)
class Topology:
    """Rows, names and edges of all blueprints.

    Shapes: `raw[type]` float64 [N, F] for blueprint, layer, activation and parameter; `edges[type]` int64 [2, E] for
    every relation that has no seed in it; `strengths` float64 [E] beside layer-connects-layer. `starts[type][i]` is the
    place of the first node of blueprint i; `parameter_counts` are the layers' values that a norm can take.
    """

    plans: tuple[Plan, ...]
    raw: Mapping[str, RawArray]
    names: Mapping[str, tuple[Names, ...]]
    edges: Mapping[EdgeType, IndexArray]
    strengths: RawArray
    starts: Mapping[str, tuple[int, ...]]
    keys: tuple[tuple[str, str], ...]
    parameter_counts: tuple[float, ...]
    ignored: int


def lay_out(blueprints: Sequence[Blueprint], plans: Sequence[Plan]) -> Topology:
    """Put the plans together; one that no longer fits under `NODES_MAX` of a type brings its node alone."""
    fitting, left_out = _fitting(plans)
    starts = {kind: _starts([plan.count(kind) for plan in fitting]) for kind in _NODES_OF_PLANS}
    raw = {kind: np.concatenate([_no_rows(kind), *(plan.raw[kind] for plan in fitting)]) for kind in _NODES_OF_PLANS}
    raw["blueprint"] = _blueprint_rows(blueprints, fitting)
    layer_names = [names for plan in fitting for names in plan.layer_names]
    columns = {
        "blueprint": ([b.blueprint_id for b in blueprints], [hazard_class(b) for b in blueprints]),
        "layer": ([kind for kind, _ in layer_names], [activation for _, activation in layer_names]),
        "activation": ([kind for plan in fitting for kind in plan.activation_types],),
        "parameter": (),
    }
    names = {
        kind: tuple(
            _names(registry, column_) for registry, column_ in zip(CATEGORIES[kind], columns[kind], strict=True)
        )
        for kind in STATIC_TYPES
    }
    counts = raw["layer"][:, column("layer", "parameter_count")]
    return Topology(
        plans=tuple(fitting),
        raw=raw,
        names=names,
        edges=_edges(fitting, starts),
        strengths=np.concatenate([np.empty(0), *(plan.strengths for plan in fitting)]),
        starts=starts,
        keys=tuple(
            (each.kind, name) for kind in STATIC_TYPES for each in names[kind] for name in each.distinct if name
        ),
        parameter_counts=tuple(counts[np.isfinite(counts) & (counts > -1.0)].tolist()),
        ignored=left_out + sum(plan.ignored for plan in plans),
    )


def without_nodes(plan: Plan) -> Plan:
    """The plan of the same blueprint if its metadata were empty."""
    empty = np.empty((2, 0), dtype=np.int64)
    return replace(
        plan,
        raw={kind: _no_rows(kind) for kind in _NODES_OF_PLANS},
        edges=dict.fromkeys(plan.edges, empty),
        strengths=np.empty(0),
        by_depth={},
        layer_names=(),
        activation_types=(),
    )


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


def _names(kind: str, column_: Sequence[str]) -> Names:
    distinct = tuple(dict.fromkeys(column_))
    place_of = {name: place for place, name in enumerate(distinct)}
    return Names(kind, distinct, np.array([place_of[name] for name in column_], dtype=np.int64))


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
    return np.concatenate([edge_array([]), *moved], axis=1)
