"""How far the engine and PyTorch Geometric agree: the decisions that are equal, and the largest error."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tamiyo.bench.chance import random_graph
from tamiyo.bench.network import Subject
from tamiyo.bench.timing import Figures, Progress
from tamiyo.core.proposal import Proposal
from tamiyo.graph import Graph
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.ambient import threads
from tamiyo.policy.gnn import GnnPolicy, proposal_of
from tamiyo.policy.network import NetworkOutput

__all__ = ["MOST", "PAST_DENSE", "decision", "measure_agreement", "random_graphs"]

MOST = {"small": (1, 9, 4, 16, 8, 8), "large": (1, 12, 4, 200, 60, 40)}
"""Nodes of each type, at most."""

PAST_DENSE = 130
"""More layers than the form for small graphs takes nodes."""

GRAPHS_SEED = 3

Source = Callable[[int], Iterator[Graph]]


@dataclass(slots=True)
class Tally:
    """Two forms over the same graphs."""

    graphs: int = 0
    equal: int = 0
    error: float = 0.0
    chosen: list[Counter[int]] = field(default_factory=lambda: [Counter() for _ in range(5)])

    def add(self, ours: NetworkOutput, theirs: NetworkOutput, candidates: tuple[int, ...]) -> None:
        """One graph's outputs: ours, and the reference's. An error counts against the largest output of its head."""
        found, expected = (decision(proposal_of(output, candidates)) for output in (ours, theirs))
        self.graphs += 1
        self.equal += found == expected
        for counter, choice in zip(self.chosen, expected, strict=True):
            counter[choice] += 1
        for mine, other in zip(ours, theirs, strict=True):
            if other.numel():
                error = float((mine - other).abs().max()) / max(1.0, float(other.abs().max()))
                self.error = max(self.error, error)

    def figures(self) -> Figures:
        """For JSON; of the choices, how many there were and how often the commonest was taken."""
        return {
            "graphs": self.graphs,
            "equal": self.equal,
            "equal_percent": round(100 * self.equal / self.graphs, 2),
            "largest_error": float(f"{self.error:.2g}"),
            "actions_chosen": len(self.chosen[0]),
            "commonest_action_percent": round(100 * self.chosen[0].most_common(1)[0][1] / self.graphs, 1),
            "risks_chosen": len(self.chosen[1]),
        }


def decision(proposal: Proposal) -> tuple[int, ...]:
    """Action, risk, blending method, seed and blueprint."""
    classes = (proposal.action, proposal.risk, proposal.blending_method)
    return (*(one.index(max(one)) for one in classes), proposal.seed_index, proposal.blueprint_index)


def random_graphs(size: str) -> Source:
    """So many graphs of a size, "small" or "large" (past the dense form); the same ones each time."""

    def graphs(count: int) -> Iterator[Graph]:
        stream = np.random.default_rng(GRAPHS_SEED)
        for number in range(count):
            counts = {
                kind: int(stream.integers(1, most + 1)) for kind, most in zip(NODE_TYPES, MOST[size], strict=True)
            }
            if size == "large":
                counts["layer"] += PAST_DENSE
            yield random_graph(counts, number, density=float(stream.uniform(0.02, 0.3 if size == "large" else 1.0)))

    return graphs


def measure_agreement(
    subject: Subject, graphs: int, say: Progress, sources: Mapping[str, Source] | None = None
) -> Figures:
    """Every form over so many graphs of each source; small graphs are exact, large ones exact and in bf16.

    Args:
        subject: the network.
        graphs: how many of each size.
        say: told what is under way.
        sources: graphs by size, "small" and "large"; random ones where None.
    """
    figures: Figures = {}
    with threads(1):
        for size, source in (sources or {name: random_graphs(name) for name in MOST}).items():
            say(f"agreement, {graphs} {size} graphs")
            forms: dict[str, GnnPolicy] = {f"{size}_fp32": subject.exact}
            if size == "large":
                forms["large_bf16"] = subject.half
            tallies = {name: Tally() for name in forms}
            for graph in source(graphs):
                expected = subject.reference.outputs(graph)
                for name, policy in forms.items():
                    tallies[name].add(policy.outputs(graph), expected, graph.candidates)
            figures |= {name: tally.figures() for name, tally in tallies.items()}
    return figures
