"""All edges of a graph: those of the blueprints, and those of the seeds with the host's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from tamiyo.graph import seeds as seed_part
from tamiyo.graph.edges import attributes_of, carried
from tamiyo.graph.graph import FloatArray, IndexArray, RawArray, freeze
from tamiyo.graph.metadata import Tally
from tamiyo.graph.scaling import Columns
from tamiyo.graph.schema import RELATIONS, EdgeType
from tamiyo.graph.ties import NO_TIES, Ties
from tamiyo.graph.topology import Topology

__all__ = ["Layout", "lay_out_seeds"]

_BY_TYPE = {relation.edge_type: relation for relation in RELATIONS}
_PEER: EdgeType = ("seed", "peer", "seed")
_MONITORS: EdgeType = ("seed", "monitors", "layer")
_MONITORED_BY: EdgeType = ("layer", "monitored_by", "seed")
_ALLOWED: EdgeType = ("seed", "allowed", "parameter")
_ASSOCIATED: EdgeType = ("parameter", "associated", "seed")
_OF_SEEDS: tuple[EdgeType, ...] = (("global", "influences", "seed"), ("seed", "reports", "global"))
_OF_LAYERS: tuple[EdgeType, ...] = (
    ("global", "operates", "layer"),
    ("layer", "feedback", "global"),
    ("blueprint", "composes", "layer"),
    ("layer", "belongs_to", "blueprint"),
)
"""One edge for each node of a type, in its order: what they copy of the nodes is one block for all of them."""


@dataclass(slots=True)
class Layout:
    """The edges of one step and of every other with the same blueprints and the same traits of seeds.

    Shapes: `edges[type]` int64 [2, E]; `weights` float64 [E] beside the edges that monitor; `shares` float64 [S].
    `columns` say how the global node's values and the seeds' are scaled. The edges are read-only.
    """

    topology: Topology
    host: int
    traits: tuple[seed_part.Trait, ...]
    ties: Ties
    edges: Mapping[EdgeType, IndexArray]
    weights: RawArray
    shares: RawArray
    columns: Columns
    ignored: int
    blueprint_ids: tuple[str, ...]
    seed_ids: tuple[str, ...]
    _kept: dict[EdgeType, FloatArray] = field(default_factory=dict)

    def attributes(self, features: Mapping[str, FloatArray]) -> dict[EdgeType, FloatArray]:
        """float32 [E, 6] for every relation.

        Only stage, risk and alpha of seeds and the parameter counts of layers move; what the others carry depends on
        blueprints and on what a layout has in common.
        """
        if not self._kept:
            self._keep(features)
        found = dict(self._kept)
        found[_PEER] = attributes_of(_BY_TYPE[_PEER], self.edges[_PEER], features, None)
        freeze([found[_PEER]])
        for kind, relations in (("seed", _OF_SEEDS), ("layer", _OF_LAYERS)):
            block = carried(kind, _BY_TYPE[relations[0]].attributes, features)
            freeze([block])
            found.update(dict.fromkeys(relations, block))
        return found

    def _keep(self, features: Mapping[str, FloatArray]) -> None:
        kept = dict(self.topology.attributes)
        for kind in (_MONITORS, _MONITORED_BY, _ALLOWED, _ASSOCIATED):
            given = self.weights if kind in {_MONITORS, _MONITORED_BY} else None
            kept[kind] = attributes_of(_BY_TYPE[kind], self.edges[kind], features, given)
        freeze(kept.values())
        self._kept.update((relation.edge_type, kept[relation.edge_type]) for relation in RELATIONS
                          if relation.edge_type in kept)  # fmt: skip


def lay_out_seeds(topology: Topology, host: int, traits: tuple[seed_part.Trait, ...]) -> Layout:
    """Lay the edges of seeds beside those of the blueprints; `host` is the place of the host's own, -1 for none."""
    tally = Tally()
    plan = topology.plans[host] if host >= 0 else None
    first_layer, first_parameter = (topology.starts[kind][host] if plan else 0 for kind in ("layer", "parameter"))
    monitors = seed_part.monitor_edges(traits, plan, first_layer, tally)
    allowed = seed_part.allowed_edges(traits, plan, first_parameter)
    count = len(traits)
    fan = np.stack([np.zeros(count, dtype=np.int64), np.arange(count, dtype=np.int64)])
    edges = {
        **topology.edges,
        ("global", "influences", "seed"): fan,
        ("seed", "reports", "global"): fan[::-1].copy(),
        _PEER: seed_part.peer_edges(count),
        _MONITORS: monitors.index,
        _MONITORED_BY: monitors.index[::-1].copy(),
        _ALLOWED: allowed.index,
        _ASSOCIATED: allowed.index[::-1].copy(),
    }
    freeze(edges.values())
    ties = plan.ties if plan else NO_TIES
    return Layout(
        topology=topology,
        host=host,
        traits=traits,
        ties=ties,
        edges=MappingProxyType({relation.edge_type: edges[relation.edge_type] for relation in RELATIONS}),
        weights=monitors.weights,
        shares=allowed.shares,
        columns=Columns.of({"global": 1, "seed": count}),
        ignored=tally.ignored + ties.beyond(count),
        blueprint_ids=topology.blueprint_ids,
        seed_ids=tuple(seed_id for seed_id, *_ in traits),
    )
