"""What one blueprint contributes to a graph: its rows and the edges among them, in places of its own.

A plan depends on the blueprint's content and the rules it is read by alone, so it is made once for each digest and
these. How the edges come about:

    connects     `adjacency.layer`, else a chain
    activates    a layer to the activation it names by id, else to those of the type it names; a layer that names
                 none goes to all
    feeds        a layer to the activations of the layers it connects to
    configures   every activation to every parameter

"All" and "every" hold while there are at most PAIRS_MAX pairs; beyond, the two lists are laid side by side and
paired by their relative places, so that the edges grow with the nodes and not with their product.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Self

import numpy as np

from tamiyo.core.blueprint import Blueprint
from tamiyo.graph.graph import IndexArray, RawArray
from tamiyo.graph.metadata import (
    EDGES_MAX,
    NODES_MAX,
    Places,
    Tally,
    connections,
    entries,
    number,
    numbers,
    section,
    text,
    texts,
)
from tamiyo.graph.rules import MetadataRules
from tamiyo.graph.schema import FEATURES, column
from tamiyo.graph.ties import NO_TIES, Ties, read_ties
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "PAIRS_MAX",
    "PRIOR_NAMES",
    "BlueprintInput",
    "NameColumn",
    "Plan",
    "hazard_class",
    "make_plan",
    "pairs",
    "without_nodes",
]

PAIRS_MAX = 1_024
FEEDS_TRIED_MAX = 2**20
"""Pairs of a connection and an activation at its end that are looked at: most of a dense graph's are repeats."""

_GIVEN_BY_METADATA = {
    kind: tuple(feature.name for feature in FEATURES[kind] if not feature.name.startswith("live_"))
    for kind in ("layer", "activation", "parameter")
}
PRIOR_NAMES = ("learning_rate", "momentum", "weight_decay")
TODAY = MetadataRules()


@dataclass(frozen=True, slots=True)
class BlueprintInput:
    """One blueprint of a graph; `metadata` is its parsed `graph_metadata`, trusted in nothing and read by `rules`."""

    blueprint: Blueprint
    metadata: Mapping[str, object]
    rules: MetadataRules = TODAY


@dataclass(frozen=True, slots=True)
class NameColumn:
    """A categorical column before it is looked up: the distinct names and, int64 [N], which of them each node has."""

    distinct: tuple[str, ...]
    places: IndexArray

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """The column of one name a node."""
        place_of = dict(zip(dict.fromkeys(names), count(), strict=False))
        return cls(tuple(place_of), np.fromiter(map(place_of.__getitem__, names), np.int64, len(names)))


@dataclass(frozen=True, slots=True)
class Plan:
    """One blueprint's part.

    Shapes: `raw[type]` float64 [N, F] with NaN for what is absent or comes with the step; `edges[relation]` int64
    [2, E]; `strengths` float64 [E] beside `connects`. `depths` are the layers' depths in rising order, `by_depth` the
    layers that have them. `ids[type]` are the names that the metadata gives its nodes, "" where it gives none;
    `names[type]` the columns that registries number. `priors` are the optimizer's rate, momentum and weight decay.
    """

    raw: Mapping[str, RawArray]
    edges: Mapping[str, IndexArray]
    strengths: RawArray
    depths: RawArray
    by_depth: IndexArray
    ids: Mapping[str, tuple[str, ...]]
    names: Mapping[str, tuple[NameColumn, ...]]
    priors: tuple[float, ...]
    optimizer_family: str
    ties: Ties
    ignored: int

    def count(self, kind: str) -> int:
        """Nodes of a type."""
        return len(self.raw[kind])

    def layers_at(self, depth: int) -> IndexArray:
        """The layers at one depth, int64 [N], in the order of the list."""
        start, end = np.searchsorted(self.depths, (float(depth),) * 2), np.searchsorted(self.depths, depth, "right")
        return self.by_depth[start[0] : end]


def make_plan(given: BlueprintInput) -> Plan:
    """Read one blueprint."""
    tally = Tally()
    layers = entries(given.metadata, "layers", tally)
    activations = entries(given.metadata, "activations", tally)
    parameters, parameter_names = _parameters(given, tally)
    raw = {
        "layer": _rows("layer", layers, tally),
        "activation": _rows("activation", activations, tally),
        "parameter": parameters,
    }
    ids = {
        "layer": texts(layers, "layer_id", tally),
        "activation": texts(activations, "activation_id", tally),
        "parameter": parameter_names,
    }
    named = texts(layers, "activation", tally)
    types = texts(activations, "type", tally)
    places = {kind: Places(names) for kind, names in ids.items()}
    connected, strengths = connections(given.metadata, places["layer"], tally)
    activates = _activates(named, places["activation"].by_name, types)
    edges = {
        "connects": connected,
        "activates": activates,
        "feeds": _feeds(connected, activates, len(layers), len(activations)),
        "configures": pairs(np.arange(len(activations)), np.arange(len(parameters))),
    }
    priors = section(given.metadata, "optimizer_priors", tally)
    depths, by_depth = _by_depth(raw["layer"])
    return Plan(
        raw=raw,
        edges=edges,
        strengths=strengths,
        depths=depths,
        by_depth=by_depth,
        ids={kind: tuple(column_) for kind, column_ in ids.items()},
        names={
            "layer": (NameColumn.of(texts(layers, "type", tally)), NameColumn.of(named)),
            "activation": (NameColumn.of(types),),
            "parameter": (),
        },
        priors=tuple(number(priors, name, tally) for name in PRIOR_NAMES),
        optimizer_family=text(priors, "family", tally).lower(),
        ties=read_ties(given.metadata, places["layer"], places["parameter"], tally, given.rules),
        ignored=tally.ignored,
    )


def pairs(sources: IndexArray, targets: IndexArray) -> IndexArray:
    """Every pair, int64 [2, E], or the two lists side by side when those would be too many."""
    if not len(sources) or not len(targets):
        return np.empty((2, 0), dtype=np.int64)
    if len(sources) * len(targets) <= PAIRS_MAX:
        return np.stack([np.repeat(sources, len(targets)), np.tile(targets, len(sources))])
    longest = max(len(sources), len(targets))
    places = np.arange(longest)
    return np.stack([sources[places * len(sources) // longest], targets[places * len(targets) // longest]])


def hazard_class(blueprint: Blueprint) -> str:
    """The registry key of a sheet's hazard band (`HIGH`); "" without a sheet or for a band that Leyline lacks."""
    band = blueprint.sheet.hazard_band if blueprint.sheet is not None else pb.HAZARD_BAND_UNSPECIFIED
    value = pb.HazardBand.DESCRIPTOR.values_by_number.get(band)
    return value.name.removeprefix("HAZARD_BAND_") if value is not None and band else ""


def without_nodes(plan: Plan) -> Plan:
    """The plan of the same blueprint if its metadata had no nodes."""
    nothing = np.empty(0, dtype=np.int64)
    return replace(
        plan,
        raw={kind: np.empty((0, len(FEATURES[kind]))) for kind in plan.raw},
        edges={relation: np.empty((2, 0), dtype=np.int64) for relation in plan.edges},
        strengths=np.empty(0),
        depths=np.empty(0),
        by_depth=nothing,
        ids=dict.fromkeys(plan.ids, ()),
        names={kind: tuple(NameColumn((), nothing) for _ in columns) for kind, columns in plan.names.items()},
        ties=NO_TIES,
    )


def _rows(kind: str, listed: Sequence[Mapping[str, object]], tally: Tally) -> RawArray:
    names = _GIVEN_BY_METADATA[kind]
    rows = np.full((len(listed), len(FEATURES[kind])), math.nan)
    rows[:, [column(kind, name) for name in names]] = numbers(listed, names, tally)
    return rows


def _parameters(given: BlueprintInput, tally: Tally) -> tuple[RawArray, list[str]]:
    """The metadata's parameters, then those that only the descriptor bounds; a span that is missing is computed."""
    listed = entries(given.metadata, "parameters", tally)
    names = texts(listed, "name", tally)
    if given.blueprint.allowed_parameters:
        known = set(names)
        bounds = [bound for bound in given.blueprint.allowed_parameters if bound[0] not in known]
        listed += [{"min": low, "max": high} for _, low, high in bounds]
        names = [*names, *(name for name, *_ in bounds)]
    tally.add(max(len(listed) - NODES_MAX, 0))
    rows = _rows("parameter", listed[:NODES_MAX], tally)
    low, high, span = (column("parameter", name) for name in ("min", "max", "span"))
    with np.errstate(all="ignore"):
        rows[:, span] = np.where(np.isnan(rows[:, span]), rows[:, high] - rows[:, low], rows[:, span])
    return rows, names[:NODES_MAX]


def _activates(named: Sequence[str], by_id: Mapping[str, int], types: Sequence[str]) -> IndexArray:
    direct = np.array(list(map(by_id.get, named)), dtype=np.float64)  # None becomes NaN
    is_direct = np.isfinite(direct)
    found = [np.stack([np.flatnonzero(is_direct), direct[is_direct].astype(np.int64)])]
    groups: dict[str, list[int]] = {}
    for layer in np.flatnonzero(~is_direct).tolist():
        groups.setdefault(named[layer], []).append(layer)
    of_type: dict[str, list[int]] = {"": list(range(len(types)))}
    for place, kind in enumerate(types if groups else ()):
        if kind:
            of_type.setdefault(kind, []).append(place)
    found.extend(
        pairs(np.array(layers, dtype=np.int64), np.array(of_type[name], dtype=np.int64))
        for name, layers in groups.items()
        if name in of_type
    )
    return np.concatenate(found, axis=1)


def _feeds(connected: IndexArray, activates: IndexArray, layers: int, activations: int) -> IndexArray:
    """Each pair once, in the order in which they are come across, up to `EDGES_MAX`."""
    joined = _first_of_each(connected[0] * layers + connected[1])
    sources, targets = np.divmod(joined, max(layers, 1))
    order = np.argsort(activates[0], kind="stable")
    by_layer = activates[1][order]
    counts = np.bincount(activates[0], minlength=layers)
    starts = np.cumsum(counts) - counts
    each = counts[targets]
    taken = int(np.searchsorted(np.cumsum(each), FEEDS_TRIED_MAX, side="right"))
    sources, targets, each = sources[:taken], targets[:taken], each[:taken]
    within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    fed = np.repeat(sources, each) * max(activations, 1) + by_layer[np.repeat(starts[targets], each) + within]
    return np.stack(np.divmod(_first_of_each(fed)[:EDGES_MAX], max(activations, 1)))


def _first_of_each(keys: IndexArray) -> IndexArray:
    """The distinct values in the order of first sight."""
    _, first = np.unique(keys, return_index=True)
    distinct: IndexArray = keys[np.sort(first)]
    return distinct


def _by_depth(layers: RawArray) -> tuple[RawArray, IndexArray]:
    """Layers by depth; one without a whole-numbered depth stands at its place in the list."""
    depths = layers[:, column("layer", "depth")]
    with np.errstate(invalid="ignore"):
        depths = np.where(np.isfinite(depths) & (depths == np.floor(depths)), depths, np.arange(len(depths)))
    order = np.argsort(depths, kind="stable")
    return depths[order], order
