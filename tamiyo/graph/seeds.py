"""The seeds of a graph: their rows, their registry indices and their edges.

How the edges come about:

    peer        every ordered pair of seeds while there are at most 8, else each seed's two neighbours on either side
    monitors    a seed and the layers of the host's blueprint at its `layer_depth`, 8 at most
    allowed     a seed whose `blend_allowed` is above 0, or whose stage is BLENDING to FOSSILIZED, and the parameters of
                the host's blueprint; the first ones only, where seeds times parameters would be over 16,384
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from tamiyo.core.observation import Observation, Seed
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.core.registries import Registries, lookup
from tamiyo.graph.graph import IndexArray, RawArray
from tamiyo.graph.metadata import Tally
from tamiyo.graph.plan import edge_array
from tamiyo.graph.schema import FEATURES
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "ALLOWED_EDGES_MAX",
    "BLENDED_STAGES",
    "MONITORED_MAX",
    "PEERS_ALL_MAX",
    "allowed_edges",
    "monitor_edges",
    "peer_edges",
    "place_of",
    "seed_categories",
    "seed_keys",
    "seed_rows",
]

PEERS_ALL_MAX = 8
MONITORED_MAX = 8
ALLOWED_EDGES_MAX = 16_384
BLENDED_STAGES = frozenset(
    {pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED}
)
"""The stages of BLENDING or later in which a seed has a say in the host; CULLED and after have a higher number only."""

_FIELDS = ("stage", "learning_rate", "risk", "gradient_norm", "age", "layer_depth")
_METRICS = tuple(feature.name for feature in FEATURES["seed"][len(_FIELDS) :])


def seed_rows(seeds: Sequence[Seed]) -> RawArray:
    """Raw features, float64 [S, F]: six fields, then entries of `metrics` by their own names."""
    return np.array([_row(seed) for seed in seeds], dtype=np.float64).reshape(-1, len(FEATURES["seed"]))


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
    index = edge_array(edges)
    index.flags.writeable = False
    return index


def monitor_edges(
    seeds: Sequence[Seed], by_depth: Mapping[int, tuple[int, ...]], first_layer: int, tally: Tally
) -> IndexArray:
    """int64 [2, E], seeds to layers; a depth at which the host has no layer is counted where it has any."""
    edges: list[tuple[int, int]] = []
    for seed in seeds:
        layers = by_depth.get(seed.layer_depth, ())
        tally.add(int(not layers and bool(by_depth)))
        edges.extend((seed.index, first_layer + layer) for layer in layers[:MONITORED_MAX])
    return edge_array(edges)


def allowed_edges(seeds: Sequence[Seed], first_parameter: int, parameters: int) -> IndexArray:
    """int64 [2, E], seeds to parameters."""
    allowed = [seed.index for seed in seeds if _is_allowed(seed)]
    each = min(parameters, ALLOWED_EDGES_MAX // max(len(allowed), 1))
    sources = np.repeat(np.array(allowed, dtype=np.int64), each)
    targets = np.tile(np.arange(each, dtype=np.int64) + first_parameter, len(allowed))
    return np.stack([sources, targets])


def _row(seed: Seed) -> list[float]:
    nan, metrics = math.nan, seed.metrics
    rate, norm = seed.learning_rate, seed.gradient_norm
    return [
        seed.stage,
        nan if rate is None else rate,
        seed.risk_score,
        nan if norm is None else norm,
        seed.age_epochs,
        seed.layer_depth,
        *[metrics.get(name, nan) for name in _METRICS],
    ]


def _schedule(seed: Seed, tally: Tally) -> str:
    place = place_of(seed.metrics.get("alpha_schedule_index"), len(BLENDING_METHODS), tally)
    return "" if place is None else BLENDING_METHODS[place]


def _is_allowed(seed: Seed) -> bool:
    return seed.stage in BLENDED_STAGES or seed.metrics.get("blend_allowed", 0.0) > 0.0
