"""What the network costs: its engine beside PyTorch Geometric, the same weights, in turns, in one run.

From graph to proposal, as a step has it. The small graph runs on one thread, the large one on `LARGE_THREADS`.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tamiyo.bench.chance import large_graph, random_network
from tamiyo.bench.samples import small_graph
from tamiyo.bench.timing import Figures, Progress, Turn, in_turns
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.policy.ambient import threads
from tamiyo.policy.checkpoint import load_policy
from tamiyo.policy.engine import build
from tamiyo.policy.engine.dense import layout_of
from tamiyo.policy.engine.fold import Folded, fold
from tamiyo.policy.engine.sparse_plan import plan_of
from tamiyo.policy.gnn import GnnPolicy, engine_identity
from tamiyo.policy.network import ARCHITECTURE_VERSION, TamiyoNetwork

__all__ = [
    "SPREAD",
    "Subject",
    "folded_weights",
    "from_checkpoint",
    "from_network",
    "from_seed",
    "measure_network",
]

SPREAD = 20.0
"""How much larger a random network's heads are made, so that they do not all prefer one class."""

LARGE_THREADS = 2
"""Where there are so many processors."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One network in three forms; `label` says what its weights are.

    `exact` computes in fp32, `half` large graphs in bf16 where the processor has it; without an engine both are the
    reference.
    """

    label: str
    exact: GnnPolicy
    half: GnnPolicy
    reference: GnnPolicy

    @property
    def network(self) -> TamiyoNetwork:
        """The weights."""
        return self.reference.network


def from_seed(seed: int) -> Subject:
    """A network that nothing has trained, its heads enlarged."""
    network = random_network(seed, spread=SPREAD)
    return from_network(f"untrained, from seed {seed}", network, version=f"gnn-untrained-{seed}")


def from_checkpoint(path: Path) -> Subject:
    """The network of a checkpoint.

    Raises:
        CheckpointRejected: as `load_policy`.
    """
    loaded = load_policy(path, reference=True)
    return from_network(loaded.identity.version, loaded.network, version=loaded.identity.version)


def from_network(label: str, network: TamiyoNetwork, *, version: str = "gnn-measured") -> Subject:
    """Any network, in evaluation mode."""
    identity = PolicyIdentity(version, ARCHITECTURE_VERSION, f"pyg, torch {torch.__version__}")

    def form(*, bf16: bool) -> GnnPolicy:
        engine = build(network, bf16=bf16).engine
        named = identity if engine is None else engine_identity(identity, engine)
        return GnnPolicy(network, named, engine=engine)

    return Subject(label, form(bf16=False), form(bf16=True), GnnPolicy(network, identity))


def measure_network(subject: Subject, rounds: int, say: Progress) -> Figures:
    """The small graph hot and cold, the large one, and what a new topology costs; PyTorch Geometric beside them."""
    folded = fold(subject.network)
    say("network, small graph")
    with threads(1):
        small = _small(subject, folded, rounds)
    say("network, large graph (PyTorch Geometric takes a while)")
    with threads(min(LARGE_THREADS, os.cpu_count() or 1)) as count:
        large = {"threads": count, **_large(subject, max(1, rounds // 8))}
    engine = subject.exact.engine
    return {
        "policy": subject.label,
        "engine": subject.exact.identity.engine,
        "half_engine": subject.half.identity.engine,
        "compiled": engine is not None and engine.is_compiled,
        "fallbacks": 1 if engine is None else engine.fallbacks,
        "weights": sum(one.numel() for one in subject.network.parameters()),
        "weights_folded": folded_weights(folded),
        "small": small,
        "large": large,
    }


def _small(subject: Subject, folded: Folded, rounds: int) -> Figures:
    graph = small_graph()
    engine = Turn(partial(subject.exact.propose, graph), 15)
    hot = in_turns({"engine": engine, "pyg": Turn(partial(subject.reference.propose, graph), 2, lead=1)}, rounds)
    cold = in_turns({"engine": engine}, max(1, rounds // 4), cold=True)
    layout = in_turns({"layout": Turn(partial(layout_of, graph, folded), 10)}, max(1, rounds // 8))
    floor = torch.randn(folded_weights(folded))
    return {
        "nodes": sum(graph.node_counts().values()),
        "hot": hot["engine"],
        "cold": cold["engine"],
        "pyg": hot["pyg"],
        "times_faster": _times_faster(hot["pyg"], hot["engine"]),
        "reading_the_weights": in_turns({"sum": Turn(floor.sum, 5)}, rounds)["sum"],
        "new_topology": layout["layout"],
    }


def _large(subject: Subject, rounds: int) -> Figures:
    graph = large_graph(1)
    found = in_turns(
        {
            "fp32": Turn(partial(subject.exact.propose, graph), 10, lead=1),
            "bf16": Turn(partial(subject.half.propose, graph), 10, lead=1),
            "pyg": Turn(partial(subject.reference.propose, graph), 1, lead=0),
            "new_topology": Turn(partial(plan_of, graph, subject.network.config.heads), 3, lead=1),
        },
        rounds,
    )
    counts = graph.node_counts(), graph.edge_counts()
    return {
        "nodes": sum(counts[0].values()),
        "edges": sum(counts[1].values()),
        **found,
        "times_faster": _times_faster(found["pyg"], found["fp32"]),
    }


def _times_faster(slow: Figures, fast: Figures) -> Figures:
    return {clock: round(slow[clock]["p50"] / fast[clock]["p50"], 1) for clock in ("wall_ms", "cpu_ms")}


def folded_weights(folded: Folded) -> int:
    """Weights that are left of the layers: those that each proposal reads."""
    products = [part for layer in folded.sage for part in layer.values()]
    products += [part.product for layer in folded.gat for part in layer.values()]
    return sum(product.weight.size for product in products)
