"""Packet, blueprints, norms and registries in; one `Graph` out.

The parts that depend on blueprints alone (`Topology`) are kept from step to step, by digest; so are the edges of the
seeds (`Layout`) while no seed changes its stage or its place. Each step brings its metrics, norms and registries.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from tamiyo.core.blueprint import unobserved
from tamiyo.core.lifecycle import candidates
from tamiyo.core.norms import Norm
from tamiyo.core.observation import Observation
from tamiyo.core.registries import Registries
from tamiyo.graph import seeds as seed_part
from tamiyo.graph.counts import CountsMemo
from tamiyo.graph.graph import Graph, IndexArray, freeze
from tamiyo.graph.layout import Layout, lay_out_seeds
from tamiyo.graph.metadata import Tally
from tamiyo.graph.nodes import node_rows, norm_inputs
from tamiyo.graph.plan import BlueprintInput, Plan, make_plan
from tamiyo.graph.rules import MetadataRules
from tamiyo.graph.scaling import NormColumns
from tamiyo.graph.ties import NO_TIES
from tamiyo.graph.topology import STATIC_TYPES, Topology, lay_out

__all__ = ["GraphBuilder", "build", "registry_keys"]

PLANS_MAX = 64
TOPOLOGIES_MAX = 8

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_TopologyKey = tuple[str, str, MetadataRules]
"""A blueprint's id, its digest, and how its metadata is read."""


@dataclass(slots=True)
class _Memo(Generic[Key, Value]):
    """The last `most` values by key; the oldest goes first."""

    most: int
    kept: dict[Key, Value]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Key | None, make: Callable[[], Value]) -> Value:
        """The value kept for `key`, made when there is none; a key of None is never kept."""
        if key is None:
            return make()
        value = self.kept.get(key)
        if value is None:
            value = make()
            with self.lock:  # another thread may prepare what it keeps
                while len(self.kept) >= self.most and key not in self.kept:
                    del self.kept[next(iter(self.kept))]
                self.kept[key] = value
        return value


class GraphBuilder:
    """Builds graphs and keeps the plans of the blueprints it has seen. One thread builds; any may prepare.

    A digest stands for a blueprint's content, metadata included: inputs with equal digests must be equal, but for the
    rules by which they are read.
    """

    def __init__(self) -> None:
        self._plans: _Memo[tuple[str, MetadataRules], Plan] = _Memo(PLANS_MAX, {})
        self._topologies: _Memo[tuple[_TopologyKey, ...], Topology] = _Memo(TOPOLOGIES_MAX, {})
        self._layout: Layout | None = None
        self._numbered: tuple[Topology, Registries, dict[str, IndexArray]] | None = None
        self._counts = CountsMemo()

    def build(
        self,
        observation: Observation,
        *,
        norms: Sequence[Norm],
        registries: Registries,
        blueprints: Sequence[BlueprintInput],
        host_id: str | None = None,
    ) -> Graph:
        """The graph of one step; raises nothing, whatever packet and metadata hold.

        Args:
            observation: the packet.
            norms: one for each row of NORM_INPUTS.
            registries: with this step's new keys (`registry_keys`) already in them.
            blueprints: at most BLUEPRINT_CANDIDATES_MAX, the host's own among them where it is known.
            host_id: which of them that is; None for the first whose id is the packet's or the run's.
        """
        tally = Tally()
        layout = self._laid_out(observation, blueprints, host_id)
        topology = layout.topology
        seeds = seed_part.seed_rows(observation.seeds, layout.ties, layout.shares)
        with np.errstate(all="ignore"):  # a value may be any float; what does not stay finite is masked
            raw, features = node_rows(observation, layout, seeds, NormColumns.of(norms))
            edge_attr = layout.attributes(features)
        return Graph(
            features=features,
            raw=raw,
            categories=self._categories(observation, topology, registries, tally),
            edge_index=layout.edges,
            edge_attr=edge_attr,
            seed_ids=layout.seed_ids,
            blueprint_ids=layout.blueprint_ids,
            host_blueprint_index=layout.host,
            candidates=candidates(observation),
            coverage=self._counts.of(layout, features, edge_attr, observation.hardware, topology.counts),
            norm_inputs=norm_inputs(observation, topology),
            ignored_inputs=topology.ignored + layout.ignored + tally.ignored,
            node_ids=topology.ids,
        )

    def prepare(self, given: BlueprintInput) -> None:
        """Make the plan of a blueprint ahead of its first graph: of a large one it takes longer than a step may."""
        self._plan(given)

    def node_counts(self, seeds: int, blueprints: Sequence[BlueprintInput]) -> dict[str, int]:
        """Nodes by type of a graph with so many seeds and these blueprints, from their plans; any thread may ask."""
        plans = [self._plan(given) for given in blueprints]
        inner = {kind: sum(plan.count(kind) for plan in plans) for kind in ("layer", "activation", "parameter")}
        return {"global": 1, "seed": seeds, "blueprint": len(plans), **inner}

    def registry_keys(self, observation: Observation, blueprints: Sequence[BlueprintInput]) -> list[tuple[str, str]]:
        """Every (kind, key) that the graph will look up, each once: seeds, schedules, then the blueprints' names."""
        keys = [*seed_part.seed_keys(observation), *self._topology(blueprints).keys]
        return [(kind, key) for kind, key in dict.fromkeys(keys) if key]

    def _topology(self, blueprints: Sequence[BlueprintInput]) -> Topology:
        return self._topologies.get(
            _key(blueprints),
            lambda: lay_out(
                [given.blueprint for given in blueprints],
                [self._plan(given) for given in blueprints],
            ),
        )

    def _plan(self, given: BlueprintInput) -> Plan:
        digest = given.blueprint.digest
        return self._plans.get((digest, given.rules) if digest else None, lambda: make_plan(given))

    def _laid_out(self, observation: Observation, blueprints: Sequence[BlueprintInput], host_id: str | None) -> Layout:
        """The last step's layout while nothing that it depends on has changed."""
        topology, host = self._topology(blueprints), _host_index(observation, blueprints, host_id)
        ties = topology.plans[host].ties if host >= 0 else NO_TIES
        traits = seed_part.traits(observation.seeds, ties)
        last = self._layout
        if last is None or last.topology is not topology or (last.host, last.traits) != (host, traits):
            last = self._layout = lay_out_seeds(topology, host, traits)
        return last

    def _categories(
        self, observation: Observation, topology: Topology, registries: Registries, tally: Tally
    ) -> dict[str, IndexArray]:
        if self._numbered is None or self._numbered[0] is not topology or self._numbered[1] is not registries:
            found = {kind: topology.categories(kind, registries) for kind in STATIC_TYPES}
            freeze(found.values())
            self._numbered = (topology, registries, found)
        families = len(registries["optimizer_family"]) + 1
        family = seed_part.place_of(observation.metrics.get("optimizer_family_index"), families, tally)
        moving = {
            "global": np.array([[family or 0]], dtype=np.int64),
            "seed": seed_part.seed_categories(observation.seeds, registries, tally),
        }
        freeze(moving.values())
        return {**moving, **self._numbered[2]}


def build(
    observation: Observation, *, norms: Sequence[Norm], registries: Registries, blueprints: Sequence[BlueprintInput]
) -> Graph:
    """One graph with nothing kept; see `GraphBuilder.build`."""
    return GraphBuilder().build(observation, norms=norms, registries=registries, blueprints=blueprints)


def registry_keys(observation: Observation, blueprints: Sequence[BlueprintInput]) -> list[tuple[str, str]]:
    """One step's registry keys with nothing kept; see `GraphBuilder.registry_keys`."""
    return GraphBuilder().registry_keys(observation, blueprints)


def _key(blueprints: Sequence[BlueprintInput]) -> tuple[_TopologyKey, ...] | None:
    """What the topology depends on, or None where a blueprint without a digest brings content all the same."""
    for given in blueprints:
        blueprint = given.blueprint
        if not blueprint.digest and (given.metadata or blueprint != unobserved(blueprint.blueprint_id)):
            return None
    return tuple((given.blueprint.blueprint_id, given.blueprint.digest, given.rules) for given in blueprints)


def _host_index(observation: Observation, blueprints: Sequence[BlueprintInput], host_id: str | None) -> int:
    own = ({observation.packet_id, observation.training_run_id} if host_id is None else {host_id}) - {""}
    return next((place for place, given in enumerate(blueprints) if given.blueprint.blueprint_id in own), -1)
