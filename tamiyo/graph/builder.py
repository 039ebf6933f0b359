"""Packet, blueprints, norms and registries in; one `Graph` out.

The parts that depend on blueprints alone (`Topology`) are kept from step to step, by digest; each step brings its
seeds, its metrics, its norms and its registries.
"""

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from tamiyo.core.blueprint import unobserved
from tamiyo.core.lifecycle import candidates
from tamiyo.core.norms import NORM_INPUTS, Norm
from tamiyo.core.observation import Observation
from tamiyo.core.registries import Registries
from tamiyo.graph import seeds as seed_part
from tamiyo.graph.counts import coverage_counts
from tamiyo.graph.edges import edge_attributes
from tamiyo.graph.graph import Graph, IndexArray, RawArray
from tamiyo.graph.metadata import Tally
from tamiyo.graph.plan import BlueprintInput, Plan, make_plan
from tamiyo.graph.scaling import scaled_features
from tamiyo.graph.schema import CATEGORIES, FEATURES, EdgeType, column
from tamiyo.graph.topology import Topology, lay_out

__all__ = ["GraphBuilder", "build", "registry_keys"]

PLANS_MAX = 64
TOPOLOGIES_MAX = 8

_PACKET_FIELDS = ("training_loss", "validation_loss", "validation_accuracy", "current_epoch", "global_step")
_HARDWARE_FIELDS = (
    "total_memory_gb",
    "available_memory_gb",
    "temperature_celsius",
    "utilization_percent",
    "compute_capability",
)
_METRICS = tuple(
    feature.name for feature in FEATURES["global"] if feature.name not in (*_PACKET_FIELDS, *_HARDWARE_FIELDS)
)

_LIVE = tuple(
    (kind, column(kind, feature.name), feature.name.removeprefix("live_"))
    for kind in FEATURES
    for feature in FEATURES[kind]
    if feature.name.startswith("live_")
)
"""Columns that every node of a type shares: (node type, column, entry of `training_metrics`)."""

_NORM_METRICS = {
    "loss": "loss",
    "gradient_norm": "gradient_norm",
    "samples_per_s": "samples_per_s",
    "hook_latency_ms": "hook_latency_ms",
    "learning_rate": "optimizer_lr",
    "gradient_variance": "grad_var",
    "momentum": "optimizer_momentum",
}
"""Which entry of `training_metrics` feeds which norm; `parameter_count` takes the layers in turn."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


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

    A digest stands for a blueprint's content, metadata included: inputs with equal digests must be equal.
    """

    def __init__(self) -> None:
        self._plans: _Memo[str, Plan] = _Memo(PLANS_MAX, {})
        self._topologies: _Memo[tuple[tuple[str, str], ...], Topology] = _Memo(TOPOLOGIES_MAX, {})

    def build(
        self,
        observation: Observation,
        *,
        norms: Sequence[Norm],
        registries: Registries,
        blueprints: Sequence[BlueprintInput],
    ) -> Graph:
        """The graph of one step; raises nothing, whatever packet and metadata hold.

        Args:
            observation: the packet.
            norms: one for each row of NORM_INPUTS.
            registries: with this step's new keys (`registry_keys`) already in them.
            blueprints: at most BLUEPRINT_CANDIDATES_MAX, the host's own among them where it is known: the first whose
                id is the packet's or the run's.
        """
        tally = Tally()
        topology = self._topology(blueprints)
        host = _host_index(observation, blueprints)
        raw = _raw(observation, topology)
        features = scaled_features(raw, norms)
        edge_index = dict(topology.edges) | _seed_edges(observation, topology, host, tally)
        edge_attr = edge_attributes(edge_index, features, topology.strengths)
        graph = Graph(
            features=features,
            raw=raw,
            categories=_categories(observation, topology, registries, tally),
            edge_index=edge_index,
            edge_attr=edge_attr,
            seed_ids=tuple(seed.seed_id for seed in observation.seeds),
            blueprint_ids=tuple(given.blueprint.blueprint_id for given in blueprints),
            host_blueprint_index=host,
            candidates=candidates(observation),
            coverage=coverage_counts(features, edge_attr, observation.hardware),
            norm_inputs=_norm_inputs(observation, topology),
            ignored_inputs=topology.ignored + tally.ignored,
        )
        _freeze(graph)
        return graph

    def prepare(self, given: BlueprintInput) -> None:
        """Make the plan of a blueprint ahead of its first graph: of a large one it takes longer than a step may."""
        self._plan(given)

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
        return self._plans.get(given.blueprint.digest or None, lambda: make_plan(given))


def build(
    observation: Observation, *, norms: Sequence[Norm], registries: Registries, blueprints: Sequence[BlueprintInput]
) -> Graph:
    """One graph with nothing kept; see `GraphBuilder.build`."""
    return GraphBuilder().build(observation, norms=norms, registries=registries, blueprints=blueprints)


def registry_keys(observation: Observation, blueprints: Sequence[BlueprintInput]) -> list[tuple[str, str]]:
    """One step's registry keys with nothing kept; see `GraphBuilder.registry_keys`."""
    return GraphBuilder().registry_keys(observation, blueprints)


def _key(blueprints: Sequence[BlueprintInput]) -> tuple[tuple[str, str], ...] | None:
    """What the topology depends on, or None where a blueprint without a digest brings content all the same."""
    for given in blueprints:
        blueprint = given.blueprint
        if not blueprint.digest and (given.metadata or blueprint != unobserved(blueprint.blueprint_id)):
            return None
    return tuple((given.blueprint.blueprint_id, given.blueprint.digest) for given in blueprints)


def _host_index(observation: Observation, blueprints: Sequence[BlueprintInput]) -> int:
    own = {observation.packet_id, observation.training_run_id} - {""}
    return next((place for place, given in enumerate(blueprints) if given.blueprint.blueprint_id in own), -1)


def _raw(observation: Observation, topology: Topology) -> dict[str, RawArray]:
    raw = {"global": _global_row(observation), "seed": seed_part.seed_rows(observation.seeds), **topology.raw}
    for kind, place, metric in _LIVE:
        if raw[kind] is topology.raw.get(kind):
            raw[kind] = topology.raw[kind].copy()
        raw[kind][:, place] = observation.metrics.get(metric, math.nan)
    return raw


def _global_row(observation: Observation) -> RawArray:
    nan, hardware = math.nan, observation.hardware
    fields = [getattr(observation, name) for name in _PACKET_FIELDS]
    metrics = [observation.metrics.get(name, nan) for name in _METRICS]
    device = [getattr(hardware, name) if hardware is not None else nan for name in _HARDWARE_FIELDS]
    return np.array([[nan if value is None else value for value in (*fields, *metrics, *device)]], dtype=np.float64)


def _categories(
    observation: Observation, topology: Topology, registries: Registries, tally: Tally
) -> dict[str, IndexArray]:
    families = len(registries["optimizer_family"]) + 1
    family = seed_part.place_of(observation.metrics.get("optimizer_family_index"), families, tally)
    found = {
        "global": np.array([[family or 0]], dtype=np.int64),
        "seed": seed_part.seed_categories(observation.seeds, registries, tally),
    }
    for kind, names in topology.names.items():
        columns = [each.indices(registries) for each in names]
        found[kind] = np.stack(columns, axis=1) if columns else np.empty((len(topology.raw[kind]), 0), dtype=np.int64)
    return {kind: found[kind] for kind in CATEGORIES}


def _seed_edges(observation: Observation, topology: Topology, host: int, tally: Tally) -> dict[EdgeType, IndexArray]:
    seeds = observation.seeds
    count = len(seeds)
    fan = np.stack([np.zeros(count, dtype=np.int64), np.arange(count, dtype=np.int64)])
    monitors, allowed = _host_edges(observation, topology, host, tally)
    return {
        ("global", "influences", "seed"): fan,
        ("seed", "reports", "global"): fan[::-1].copy(),
        ("seed", "peer", "seed"): seed_part.peer_edges(count),
        ("seed", "monitors", "layer"): monitors,
        ("layer", "monitored_by", "seed"): monitors[::-1].copy(),
        ("seed", "allowed", "parameter"): allowed,
        ("parameter", "associated", "seed"): allowed[::-1].copy(),
    }


def _host_edges(observation: Observation, topology: Topology, host: int, tally: Tally) -> tuple[IndexArray, IndexArray]:
    """(monitors, allowed); both empty where the host's blueprint is not known."""
    if host < 0:
        return seed_part.monitor_edges((), {}, 0, tally), seed_part.allowed_edges((), 0, 0)
    plan, starts = topology.plans[host], topology.starts
    return (
        seed_part.monitor_edges(observation.seeds, plan.by_depth, starts["layer"][host], tally),
        seed_part.allowed_edges(observation.seeds, starts["parameter"][host], plan.count("parameter")),
    )


def _norm_inputs(observation: Observation, topology: Topology) -> tuple[tuple[int, float], ...]:
    found = []
    for place, row in enumerate(NORM_INPUTS):
        value = _norm_value(row.name, observation, topology)
        if value is not None and math.isfinite(value) and (value > -1.0 or not row.log1p):
            found.append((place, math.log1p(value) if row.log1p else value))
    return tuple(found)


def _norm_value(name: str, observation: Observation, topology: Topology) -> float | None:
    if name in _NORM_METRICS:
        value = observation.metrics.get(_NORM_METRICS[name])
        return observation.training_loss if value is None and name == "loss" else value
    # One update a step, from layers that differ: each has its turn, so that the norm learns their spread.
    counts = topology.parameter_counts
    return counts[observation.global_step % len(counts)] if counts else None


def _freeze(graph: Graph) -> None:
    for arrays in (graph.features, graph.raw, graph.categories, graph.edge_index, graph.edge_attr):
        for array in arrays.values():
            array.flags.writeable = False
