"""What one blueprint contributes to a graph: its rows and the edges among them, in places of its own.

A plan depends on the blueprint's content alone, so it is made once for each digest. How the edges come about:

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
from dataclasses import dataclass

import numpy as np

from tamiyo.core.blueprint import Blueprint
from tamiyo.graph.graph import IndexArray, RawArray
from tamiyo.graph.metadata import EDGES_MAX, NODES_MAX, Tally, connections, entries, number, text
from tamiyo.graph.schema import FEATURES, column
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["PAIRS_MAX", "BlueprintInput", "Plan", "edge_array", "hazard_class", "make_plan", "pairs"]

PAIRS_MAX = 1_024

_GIVEN_BY_METADATA = {
    kind: tuple(feature.name for feature in FEATURES[kind] if not feature.name.startswith("live_"))
    for kind in ("layer", "activation", "parameter")
}


@dataclass(frozen=True, slots=True)
class BlueprintInput:
    """One blueprint of a graph; `metadata` is its parsed `graph_metadata`, trusted in nothing."""

    blueprint: Blueprint
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """One blueprint's part.

    Shapes: `raw[type]` float64 [N, F] with NaN for what is absent or comes with the step; `edges[relation]` int64
    [2, E]; `strengths` float64 [E] beside `connects`. `by_depth` are the layers at each depth. `layer_names` are
    (type, activation) of each layer, `activation_types` one for each activation.
    """

    raw: Mapping[str, RawArray]
    edges: Mapping[str, IndexArray]
    strengths: RawArray
    by_depth: Mapping[int, tuple[int, ...]]
    layer_names: tuple[tuple[str, str], ...]
    activation_types: tuple[str, ...]
    ignored: int

    def count(self, kind: str) -> int:
        """Nodes of a type."""
        return len(self.raw[kind])


def make_plan(given: BlueprintInput) -> Plan:
    """Read one blueprint."""
    tally = Tally()
    layers = entries(given.metadata, "layers", tally)
    activations = entries(given.metadata, "activations", tally)
    raw = {
        "layer": _rows("layer", layers, tally),
        "activation": _rows("activation", activations, tally),
        "parameter": _parameters(given, tally),
    }
    layer_names = tuple((text(row, "type", tally), text(row, "activation", tally)) for row in layers)
    ids = tuple(text(row, "activation_id", tally) for row in activations)
    types = tuple(text(row, "type", tally) for row in activations)
    connected = connections(given.metadata, len(layers), tally)
    activates = _activates([activation for _, activation in layer_names], ids, types)
    edges = {
        "connects": edge_array([(source, target) for source, target, _ in connected]),
        "activates": edge_array(activates),
        "feeds": edge_array(_feeds(connected, activates)),
        "configures": edge_array(pairs(range(len(activations)), range(len(raw["parameter"])))),
    }
    strengths = np.array([strength for *_, strength in connected], dtype=np.float64)
    return Plan(raw, edges, strengths, _by_depth(raw["layer"]), layer_names, types, tally.ignored)


def pairs(sources: Sequence[int], targets: Sequence[int]) -> list[tuple[int, int]]:
    """Every pair, or the two lists side by side when those would be too many."""
    if not sources or not targets:
        return []
    if len(sources) * len(targets) <= PAIRS_MAX:
        return [(source, target) for source in sources for target in targets]
    longest = max(len(sources), len(targets))
    places = range(longest)
    return [(sources[i * len(sources) // longest], targets[i * len(targets) // longest]) for i in places]


def edge_array(edges: Sequence[tuple[int, int]]) -> IndexArray:
    """Pairs as int64 [2, E]."""
    return np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy()


def hazard_class(blueprint: Blueprint) -> str:
    """The registry key of a sheet's hazard band (`HIGH`); "" without a sheet or for a band that Leyline lacks."""
    band = blueprint.sheet.hazard_band if blueprint.sheet is not None else pb.HAZARD_BAND_UNSPECIFIED
    value = pb.HazardBand.DESCRIPTOR.values_by_number.get(band)
    return value.name.removeprefix("HAZARD_BAND_") if value is not None and band else ""


def _rows(kind: str, listed: Sequence[Mapping[str, object]], tally: Tally) -> RawArray:
    names = _GIVEN_BY_METADATA[kind]
    rows = np.full((len(listed), len(FEATURES[kind])), math.nan)
    if listed:
        columns = [column(kind, name) for name in names]
        rows[:, columns] = [[number(entry, name, tally) for name in names] for entry in listed]
    return rows


def _parameters(given: BlueprintInput, tally: Tally) -> RawArray:
    """The metadata's parameters, then those that only the descriptor bounds; a span that is missing is computed."""
    listed = entries(given.metadata, "parameters", tally)
    named = {text(entry, "name", tally) for entry in listed}
    bounds = [bound for bound in given.blueprint.allowed_parameters if bound[0] not in named]
    listed += [{"min": low, "max": high} for _, low, high in bounds]
    tally.add(max(len(listed) - NODES_MAX, 0))
    rows = _rows("parameter", listed[:NODES_MAX], tally)
    low, high, span = (column("parameter", name) for name in ("min", "max", "span"))
    with np.errstate(all="ignore"):
        rows[:, span] = np.where(np.isnan(rows[:, span]), rows[:, high] - rows[:, low], rows[:, span])
    return rows


def _activates(named: Sequence[str], ids: Sequence[str], types: Sequence[str]) -> list[tuple[int, int]]:
    by_id = {name: place for place, name in enumerate(ids) if name}
    groups: dict[str, list[int]] = {}
    edges = []
    for layer, name in enumerate(named):
        if name in by_id:
            edges.append((layer, by_id[name]))
        else:
            groups.setdefault(name, []).append(layer)
    for name, layers in groups.items():
        targets = [place for place, kind in enumerate(types) if not name or kind == name]
        edges.extend(pairs(layers, targets))
    return edges


def _feeds(connected: Sequence[tuple[int, int, float]], activates: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    activations: dict[int, list[int]] = {}
    for layer, activation in activates:
        activations.setdefault(layer, []).append(activation)
    fed: dict[tuple[int, int], None] = {}
    for source, target in dict.fromkeys((source, target) for source, target, _ in connected):
        if len(fed) >= EDGES_MAX:
            break
        fed.update(dict.fromkeys((source, activation) for activation in activations.get(target, ())))
    return list(fed)


def _by_depth(layers: RawArray) -> dict[int, tuple[int, ...]]:
    """Layers by depth; one without a whole-numbered depth stands at its place in the list."""
    found: dict[int, list[int]] = {}
    for place, depth in enumerate(layers[:, column("layer", "depth")].tolist()):
        found.setdefault(int(depth) if depth.is_integer() else place, []).append(place)
    return {depth: tuple(places) for depth, places in found.items()}
