"""Random graphs and networks for the engine's tests, from a seed; valid by `Graph.validate`."""

from collections.abc import Mapping

import numpy as np
import torch

from tamiyo.core.registries import CAPACITIES
from tamiyo.graph import Graph
from tamiyo.graph.schema import CATEGORIES, EDGE_ATTRIBUTES, FEATURES, NODE_TYPES, RELATIONS
from tamiyo.policy.network import TamiyoNetwork

LARGE = {"global": 1, "seed": 32, "blueprint": 1, "layer": 4_000, "activation": 3_000, "parameter": 2_966}
LARGE_EDGES_MAX = 3_505
"""Keeps the large graph at about 56,000 edges."""


def random_graph(counts: Mapping[str, int], seed: int, *, density: float = 0.5, edges_max: int = 10**9) -> Graph:
    """Each relation has about `density` of the edges that it could have, each at most once."""
    stream = np.random.default_rng(seed)
    index = {}
    for relation in RELATIONS:
        sources, targets = counts[relation.source], counts[relation.target]
        possible = sources * targets
        wanted = int(min(stream.binomial(possible, density), edges_max))
        chosen = stream.choice(possible, wanted, replace=False) if wanted else np.zeros(0, np.int64)
        index[relation.edge_type] = np.stack([chosen // max(targets, 1), chosen % max(targets, 1)]).astype(np.int64)
    return graph_of(counts, index, stream)


def large_graph(seed: int) -> Graph:
    """10,000 nodes, about 56,000 edges."""
    return random_graph(LARGE, seed, density=1.0, edges_max=LARGE_EDGES_MAX)


def graph_of(
    counts: Mapping[str, int], index: Mapping[tuple[str, str, str], np.ndarray], stream: np.random.Generator
) -> Graph:
    """Random features, masks, categories and attributes on these edges."""
    features, categories = {}, {}
    for kind in NODE_TYPES:
        features[kind] = _masked(stream, (counts[kind], len(FEATURES[kind])))
        most = [CAPACITIES[name] for name in CATEGORIES[kind]]
        categories[kind] = (
            np.stack([stream.integers(0, end + 2, counts[kind]) for end in most], axis=1)
            if most
            else np.zeros((counts[kind], 0), np.int64)
        )
    attributes = {edge_type: _masked(stream, (edges.shape[1], EDGE_ATTRIBUTES)) for edge_type, edges in index.items()}
    graph = Graph(
        features=features,
        raw={kind: values[:, : values.shape[1] // 2].astype(np.float64) for kind, values in features.items()},
        categories=categories,
        edge_index=index,
        edge_attr=attributes,
        seed_ids=tuple(f"seed-{place}" for place in range(counts["seed"])),
        blueprint_ids=tuple(f"blueprint-{place}" for place in range(counts["blueprint"])),
        host_blueprint_index=0 if counts["blueprint"] else -1,
        candidates=tuple(range(counts["seed"])),
        coverage=(),
        norm_inputs=(),
        ignored_inputs=0,
    )
    graph.validate()
    return graph


def _masked(stream: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Values, 0 where the mask that follows them is."""
    masks = (stream.random(size) < 0.8).astype(np.float32)
    return np.concatenate([stream.normal(0, 1, size).astype(np.float32) * masks, masks], axis=1)


def random_network(seed: int, *, spread: float = 1.0) -> TamiyoNetwork:
    """Weights as drawn, biases and LayerNorms moved too; `spread` scales the heads, so that no class always wins."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # no device is seeded along
        network = TamiyoNetwork().eval().requires_grad_(requires_grad=False)
        for name, weights in network.named_parameters():
            if weights.dim() == 1:
                weights.add_(torch.randn_like(weights) * 0.1)
            if name.startswith(("action", "risk", "blending", "seed_score", "blueprint_score")) and weights.dim() > 1:
                weights.mul_(spread)
    return network
