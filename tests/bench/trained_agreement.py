"""Agreement of the engine and PyTorch Geometric on trained weights: `python tests/bench/trained_agreement.py`.

    PYTHONPATH=tests python tests/bench/trained_agreement.py [--steps 300] [--graphs 300] [--json FILE]

A random network has heads that prefer one class, whatever the graph. Here one is trained for two minutes, from a seed,
on random graphs: it imitates a teacher that reads actions, risks, blending, schedules and scores off each graph, so
that its heads learn to tell graphs apart. What it has learnt is good for nothing else.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from tamiyo.bench.agreement import MOST, PAST_DENSE, measure_agreement, random_graphs
from tamiyo.bench.chance import random_graph
from tamiyo.bench.machine import facts
from tamiyo.bench.network import Subject, from_network
from tamiyo.bench.timing import Figures
from tamiyo.core.proposal import BLENDING_METHODS, RISK_CLASSES
from tamiyo.graph import Graph
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.ambient import threads
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import TamiyoNetwork

RESULTS = Path(__file__).parent / "results" / "trained-agreement.json"
BATCH = 4
LEARNING_RATE = 1e-3
ACTIONS_TAUGHT = 8
TEACHER_SEED, WEIGHTS_SEED, GRAPHS_SEED = 17, 18, 10_000


class Teacher:
    """Fixed random readings of a graph's numbers: the first features of its global node, of seeds and blueprints."""

    def __init__(self) -> None:
        stream = np.random.default_rng(TEACHER_SEED)
        self.width = 6
        sizes = {"action": ACTIONS_TAUGHT, "risk": RISK_CLASSES, "blending_method": len(BLENDING_METHODS), "value": 1}
        sizes |= {"param_deltas": 4, "schedule": 2, "breaker_scores": 2}
        self.readings = {name: stream.normal(0, 1, (self.width, size)) for name, size in sizes.items()}
        self.scores = stream.normal(0, 1, self.width)

    def targets(self, graph: Graph) -> dict[str, Tensor]:
        """Classes for the heads that choose one, numbers for the others."""
        whole = graph.features["global"][0, : self.width].astype(np.float64)
        read = {name: whole @ reading for name, reading in self.readings.items()}
        found = {name: torch.tensor([int(read[name].argmax())]) for name in ("action", "risk", "blending_method")}
        for name in ("value", "param_deltas", "schedule", "breaker_scores"):
            found[name] = torch.tensor(np.tanh(read[name]), dtype=torch.float32)[None]
        for name, kind in (("seed_scores", "seed"), ("blueprint_scores", "blueprint")):
            features = graph.features[kind][:, : self.width].astype(np.float64)
            found[name] = torch.tensor(features @ self.scores[: features.shape[1]], dtype=torch.float32)
        return found


def graphs_to_learn_from() -> Iterator[Graph]:
    """Random graphs, every fourth past the dense form and sparse; none of those that agreement is measured on."""
    stream = np.random.default_rng(GRAPHS_SEED)
    for number in count(GRAPHS_SEED):
        size = "large" if number % BATCH == 0 else "small"
        counts = {kind: int(stream.integers(1, most + 1)) for kind, most in zip(NODE_TYPES, MOST[size], strict=True)}
        counts["layer"] += PAST_DENSE if size == "large" else 0
        yield random_graph(counts, number, density=float(stream.uniform(0.02, 0.05 if size == "large" else 1.0)))


def loss_of(network: TamiyoNetwork, graph: Graph, targets: dict[str, Tensor]) -> Tensor:
    data = to_hetero(graph)
    output = network(data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict)
    total = torch.zeros(())
    for name, wanted in targets.items():
        given = getattr(output, name)
        total = total + (mse_loss(given, wanted) if wanted.dtype.is_floating_point else cross_entropy(given, wanted))
    return total


def trained(steps: int) -> tuple[TamiyoNetwork, list[float]]:
    """A network after so many steps of Adam, without dropout, and its losses; the same each time on one machine."""
    with torch.random.fork_rng(devices=[]), threads(1):
        torch.manual_seed(WEIGHTS_SEED)
        network, teacher, losses = TamiyoNetwork().eval(), Teacher(), list[float]()
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
        learnt = graphs_to_learn_from()
        for _ in range(steps):
            optimizer.zero_grad()
            batch = [next(learnt) for _ in range(BATCH)]
            loss = torch.stack([loss_of(network, graph, teacher.targets(graph)) for graph in batch]).mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return network.eval().requires_grad_(requires_grad=False), losses


def accuracy(subject: Subject, graphs: int) -> Figures:
    """How often the trained network says what its teacher says, of graphs it has not seen, in percent."""
    teacher, right = Teacher(), dict.fromkeys(("action", "risk", "blending_method"), 0)
    for graph in random_graphs("small")(graphs):
        output, wanted = subject.reference.outputs(graph), teacher.targets(graph)
        for name in right:
            right[name] += int(getattr(output, name).argmax()) == int(wanted[name][0])
    return {name: round(100 * hits / graphs, 1) for name, hits in right.items()}


def run(steps: int, graphs: int) -> dict[str, Any]:
    """Train, then compare."""
    begun_s = time.process_time()
    network, losses = trained(steps)
    trained_s = time.process_time() - begun_s
    subject = from_network(f"trained for {steps} steps", network)
    part = max(1, steps // 10)
    return {
        "machine": {name: value for name, value in facts(Path()).items() if "file" not in name and "mount" not in name},
        "steps": steps,
        "graphs_a_step": BATCH,
        "trained_cpu_s": round(trained_s, 1),
        "first_loss": round(sum(losses[:part]) / part, 3),
        "last_loss": round(sum(losses[-part:]) / part, 3),
        "as_the_teacher_percent": accuracy(subject, graphs),
        "engine": subject.exact.identity.engine,
        "agreement": measure_agreement(subject, graphs, lambda what: sys.stderr.write(f"{what}\n") and None),
    }


def main() -> None:
    """Train, compare, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    given = parser.parse_args()
    text = json.dumps(run(given.steps, given.graphs), indent=2) + "\n"
    given.json.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
