"""The seeds of a graph: their rows, their registry indices and their edges.

How the edges come about, with the layers and parameters of the host's blueprint and no other's:

    peer        every ordered pair of seeds while there are at most 8, else each seed's two neighbours on either side
    monitors    the layers that the blueprint names for a seed (`tamiyo.graph.ties`), else those at its `layer_depth`,
                8 at most; none for a seed that the thresholds leave out
    allowed     the first of these that speaks of a seed: the parameters that the blueprint names for its id, or for
                its place; all of them while its `blend_allowed` is above 0 or its stage is BLENDING to FOSSILIZED; all
                of them where the blueprint allows any blending method. Where none does, nothing is known of what the
                seed may set: no edge, and `allowed_parameters` is absent

Edges of one relation are bounded; past the bound every seed keeps its first ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tamiyo.core.observation import Observation, Seed
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.core.registries import Registries, lookup
from tamiyo.graph.graph import IndexArray, RawArray
from tamiyo.graph.metadata import Tally
from tamiyo.graph.plan import Plan
from tamiyo.graph.schema import FEATURES, column
from tamiyo.graph.ties import Ties
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "BLENDED_STAGES",
    "MONITORED_MAX",
    "PEERS_ALL_MAX",
    "SEED_EDGES_MAX",
    "SeedEdges",
    "allowed_edges",
    "monitor_edges",
    "peer_edges",
    "place_of",
    "seed_categories",
    "seed_keys",
    "seed_rows",
    "traits",
]

PEERS_ALL_MAX = 8
MONITORED_MAX = 8
SEED_EDGES_MAX = 16_384
"""Edges from seeds to layers, and from seeds to parameters, each."""
BLENDED_STAGES = frozenset(
    {pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED}
)
"""The stages of BLENDING or later in which a seed has a say in the host; CULLED and after have a higher number only."""

_FIELDS = ("stage", "learning_rate", "risk", "gradient_norm", "age", "layer_depth")
_METRICS = tuple(feature.name for feature in FEATURES["seed"][len(_FIELDS) : column("seed", "blend_allowed_linear")])
_METHODS = tuple(f"blend_allowed_{name}" for name in BLENDING_METHODS)

Trait = tuple[str, int, int, bool, bool]
"""All of a seed that its edges depend on: id, stage, depth, whether it may watch, whether its blend is allowed."""


@dataclass(frozen=True, slots=True)
class SeedEdges:
    """Edges from seeds, int64 [2, E], with their weights, float64 [E]; `shares` float64 [S]; NaN where not known."""

    index: IndexArray
    weights: RawArray
    shares: RawArray


def traits(seeds: Sequence[Seed], ties: Ties) -> tuple[Trait, ...]:
    """The seeds as far as their edges go: while these stay the same, so do the edges."""
    return tuple(
        (seed.seed_id, seed.stage, seed.layer_depth, ties.is_watching(seed.stage, seed.risk_score), _is_allowed(seed))
        for seed in seeds
    )


def seed_rows(seeds: Sequence[Seed], ties: Ties, shares: RawArray) -> RawArray:
    """Raw features, float64 [S, F]: six fields, then entries of `metrics`, then the share of the parameters."""
    methods = ties.blending_methods or (math.nan,) * len(_METHODS)
    rows = [_row(seed, methods, share) for seed, share in zip(seeds, shares.tolist(), strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES["seed"]))


def seed_keys(observation: Observation) -> list[tuple[str, str]]:
    """What the seeds bring to the registries: ids in packet order, then blending schedules."""
    schedules = (_schedule(seed, Tally()) for seed in observation.seeds)
    return [
        *(("seed_id", seed.seed_id) for seed in observation.seeds),
        *(("schedule", name) for name in schedules),
    ]


def seed_categories(seeds: Sequence[Seed], registries: Registries, tally: Tally) -> IndexArray:
    """Registry indices of seed id and blending schedule, int64 [S, 2]."""
    rows = [
        (lookup(registries, "seed_id", seed.seed_id), lookup(registries, "schedule", _schedule(seed, tally)))
        for seed in seeds
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def place_of(value: float | None, count: int, tally: Tally) -> int | None:
    """A number that should be an index below `count`; anything else that is there is counted."""
    if value is None:
        return None
    if value.is_integer() and 0 <= value < count:
        return int(value)
    tally.add()
    return None


@lru_cache(maxsize=64)
def peer_edges(seeds: int) -> IndexArray:
    """int64 [2, E], read-only: the same for every graph with so many seeds."""
    if seeds <= PEERS_ALL_MAX:
        edges = [(source, target) for source in range(seeds) for target in range(seeds) if source != target]
    else:
        edges = [(source, (source + step) % seeds) for source in range(seeds) for step in (-2, -1, 1, 2)]
    index = np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy()
    index.flags.writeable = False
    return index


def monitor_edges(seeds: Sequence[Trait], plan: Plan | None, first_layer: int, tally: Tally) -> SeedEdges:
    """Seeds to layers, with weights; a depth at which the host has no layer is counted where it has any."""
    each = max(SEED_EDGES_MAX // max(len(seeds), 1), 1)
    found = [_watched(place, seed, plan, tally)[:each] for place, seed in enumerate(seeds)] if plan else []
    edges = [(place, first_layer + layer) for place, row in enumerate(found) for layer, _ in row]
    weights = [weight for row in found for _, weight in row]
    return SeedEdges(_index(edges), np.array(weights, dtype=np.float64), np.empty(0))


def allowed_edges(seeds: Sequence[Trait], plan: Plan | None, first_parameter: int) -> SeedEdges:
    """Seeds to parameters, and which share of the parameters each may set."""
    shares = np.full(len(seeds), math.nan)
    count = plan.count("parameter") if plan else 0
    if plan is None or not count:
        return SeedEdges(_index([]), np.empty(0), shares)
    found = [_settable(place, seed, plan.ties, count) for place, seed in enumerate(seeds)]
    each = SEED_EDGES_MAX // max(sum(bool(row) for row in found), 1)
    edges = [(place, first_parameter + at) for place, row in enumerate(found) if row for at in row[:each]]
    shares[:] = [math.nan if row is None else len(row) / count for row in found]
    return SeedEdges(_index(edges), np.full(len(edges), math.nan), shares)


def _watched(place: int, seed: Trait, plan: Plan, tally: Tally) -> list[tuple[int, float]]:
    seed_id, _, depth, is_watching, _ = seed
    named = plan.ties.monitored(place, seed_id)
    watched = [(layer, weight) for layer, weight in named.items() if weight is not None]
    if not watched:
        layers = plan.layers_at(depth)[: MONITORED_MAX + len(named)].tolist()
        tally.add(int(not layers and plan.count("layer") > 0))
        watched = [(layer, math.nan) for layer in layers if layer not in named][:MONITORED_MAX]
    return watched if is_watching else []


def _settable(place: int, seed: Trait, ties: Ties, count: int) -> Sequence[int] | None:
    """The order of precedence; None where nothing is known."""
    seed_id, *_, is_allowed = seed
    named = ties.allowed(place, seed_id)
    if named is not None:
        return named
    if is_allowed or any(ties.blending_methods or ()):
        return range(count)
    return None


def _index(edges: Sequence[tuple[int, int]]) -> IndexArray:
    return np.array(edges, dtype=np.int64).reshape(-1, 2).T.copy()


def _row(seed: Seed, methods: Sequence[float], share: float) -> list[float]:
    nan, get = math.nan, seed.metrics.get
    rate, norm = seed.learning_rate, seed.gradient_norm
    own = [get(name, nan) for name in _METHODS]
    return [
        seed.stage,
        nan if rate is None else rate,
        seed.risk_score,
        nan if norm is None else norm,
        seed.age_epochs,
        seed.layer_depth,
        *[get(name, nan) for name in _METRICS],
        *(own if any(name in seed.metrics for name in _METHODS) else methods),
        share,
    ]


def _schedule(seed: Seed, tally: Tally) -> str:
    place = place_of(seed.metrics.get("alpha_schedule_index"), len(BLENDING_METHODS), tally)
    return "" if place is None else BLENDING_METHODS[place]


def _is_allowed(seed: Seed) -> bool:
    return seed.stage in BLENDED_STAGES or seed.metrics.get("blend_allowed", 0.0) > 0.0
