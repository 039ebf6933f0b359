"""What is measured of the network's engine beside PyTorch Geometric: the same weights, in turns, in one run.

Wall time is what a step waits; CPU time of the calling thread, beside it, is what is left of it on a busy machine.
Cold: 96 MB are written before each call. Everything here runs torch on one thread, but for the large graph.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from graph.sketch import small_graph
from policy.chance import large_graph, random_graph, random_network

from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine import build
from tamiyo.policy.engine.dense import layout_of
from tamiyo.policy.engine.fold import fold
from tamiyo.policy.engine.sparse import plan_of
from tamiyo.policy.gnn import GnnPolicy, proposal_of
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork

Figures = dict[str, Any]
COLD_BYTES = 96 * 10**6
NOT_YET_HOT = 4
"""After a turn of PyTorch Geometric the caches are its own; the fourth call of the engine was as fast as any later."""

SPREAD = 20.0
"""Heads this much larger do not all prefer one class."""

_IDENTITY = PolicyIdentity("bench", "tamiyo_gnn_v1", "pyg")


def policy_of(network: TamiyoNetwork, *, bf16: bool = False) -> GnnPolicy:
    built = build(network, bf16=bf16)
    assert built.engine is not None, "the engine does not run here; the log says why"
    return GnnPolicy(network, _IDENTITY, engine=built.engine)


def quantiles(seconds: list[float]) -> Figures:
    """p50, p95 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {f"p{share}": round(ordered[int(len(ordered) * share / 100)] * 1e3, 3) for share in (50, 95, 99)}


def in_turns(calls: dict[str, tuple[Callable[[], object], int]], rounds: int, *, cold: bool = False) -> Figures:
    """Each call so often a round, the rounds interleaved; the first round warms up.

    Hot is back to back: a turn begins with calls that are not counted.
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    scratch = np.zeros(COLD_BYTES, np.uint8)
    for number in range(rounds + 1):
        for name, (call, times) in calls.items():
            for _ in range(0 if cold else NOT_YET_HOT):
                call()
            for _ in range(times):
                if cold:
                    scratch.fill(number)
                start, busy = time.perf_counter(), time.thread_time()
                call()
                if number:
                    wall[name].append(time.perf_counter() - start)
                    cpu[name].append(time.thread_time() - busy)
    return {
        name: {"calls": len(wall[name]), "wall_ms": quantiles(wall[name]), "cpu_ms": quantiles(cpu[name])}
        for name in calls
    }


def small(rounds: int = 40) -> Figures:
    """The small graph, from graph to proposal, hot and cold, and PyTorch Geometric beside it."""
    torch.set_num_threads(1)
    network = random_network(1)
    engine, reference, graph = policy_of(network), GnnPolicy(network, _IDENTITY), small_graph()
    calls = {"engine": (lambda: engine.propose(graph), 15), "pyg": (lambda: reference.propose(graph), 2)}
    hot = in_turns(calls, rounds)
    floor = torch.randn(fold_size(network))
    return {
        "engine": engine.engine.engine if engine.engine else "",
        "hot": hot,
        "cold": in_turns({"engine": calls["engine"]}, max(1, rounds // 4), cold=True),
        "reading_the_weights_once": in_turns({"sum": (floor.sum, 5)}, rounds)["sum"],
        "times_faster": {
            clock: round(hot["pyg"][clock]["p50"] / hot["engine"][clock]["p50"], 1) for clock in ("wall_ms", "cpu_ms")
        },
    }


def fold_size(network: TamiyoNetwork) -> int:
    """Weights that are left of a network's layers."""
    folded = fold(network)
    products = [part for layer in folded.sage for part in layer.values()]
    products += [part.product for layer in folded.gat for part in layer.values()]
    return sum(product.weight.size for product in products)


def large(rounds: int = 10, threads: int = 2) -> Figures:
    """10,000 nodes: fp32, bf16 and PyTorch Geometric in turns; and what the plan of a new topology costs."""
    torch.set_num_threads(threads)
    network, graph = random_network(1), large_graph(1)
    exact, half, reference = policy_of(network), policy_of(network, bf16=True), GnnPolicy(network, _IDENTITY)
    calls = {
        "fp32": (lambda: exact.propose(graph), 10),
        "bf16": (lambda: half.propose(graph), 10),
        "pyg": (lambda: reference.propose(graph), 2),
        "plan": (lambda: plan_of(graph), 3),
    }
    found = in_turns(calls, rounds)
    torch.set_num_threads(1)
    return {"edges": sum(graph.edge_counts().values()), "threads": threads, **found}


def layouts() -> Figures:
    """What a new small topology costs before its first run."""
    graph, folded = small_graph(), fold(random_network(1))
    return in_turns({"layout": (lambda: layout_of(graph, folded), 10)}, 5)["layout"]


def agreement(graphs: int = 300) -> Figures:
    """Largest errors and equal decisions over random graphs, where the heads disagree from graph to graph."""
    torch.set_num_threads(1)
    network = random_network(2, spread=SPREAD)
    reference = GnnPolicy(network, _IDENTITY)
    forms = {
        "small fp32": policy_of(network),
        "large fp32": policy_of(network),
        "large bf16": policy_of(network, bf16=True),
    }
    tallies = {name: {"equal": 0, "error": 0.0, "actions": set()} for name in forms}
    stream = np.random.default_rng(3)
    for number in range(graphs):
        sizes = {name: _random_graph(stream, number, large=name.startswith("large")) for name in ("small", "large")}
        expected = {name: reference.outputs(graph) for name, graph in sizes.items()}
        for name, policy in forms.items():
            size = name.partition(" ")[0]
            _tally(tallies[name], policy.outputs(sizes[size]), expected[size], sizes[size])
    return {
        name: {
            "graphs": graphs,
            "equal_percent": round(100 * row["equal"] / graphs, 2),
            "largest_error": float(f"{row['error']:.2g}"),
            "actions_chosen": len(row["actions"]),
        }
        for name, row in tallies.items()
    }


def _random_graph(stream: np.random.Generator, seed: int, *, large: bool) -> Graph:
    most = (1, 12, 4, 200, 60, 40) if large else (1, 9, 4, 16, 8, 8)
    counts = {kind: int(stream.integers(1, end + 1)) for kind, end in zip(NODE_TYPES, most, strict=True)}
    if large:
        counts["layer"] += 130  # past the dense form
    return random_graph(counts, seed, density=float(stream.uniform(0.02, 0.3 if large else 1.0)))


def _tally(row: dict[str, Any], found: NetworkOutput, expected: NetworkOutput, graph: Graph) -> None:
    ours, theirs = (decision(proposal_of(output, graph.candidates)) for output in (found, expected))
    row["equal"] += ours == theirs
    row["actions"].add(ours[0])
    for mine, other in zip(found, expected, strict=True):
        if other.numel():
            error = float((mine - other).abs().max()) / max(1.0, float(other.abs().max()))
            row["error"] = max(row["error"], error)


def decision(proposal: Proposal) -> tuple[int, ...]:
    """Action, risk, blending method, seed and blueprint."""
    classes = (proposal.action, proposal.risk, proposal.blending_method)
    return (*(one.index(max(one)) for one in classes), proposal.seed_index, proposal.blueprint_index)


def load() -> Figures:
    """How busy the machine was, since all of the above depends on it."""
    return {"load_1m": round(os.getloadavg()[0], 2), "cpus": os.cpu_count()}
