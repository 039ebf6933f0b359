"""What graphs cost: of a blueprint that the builder knows, and of a new one.

Packets differ from step to step and norms move, as in a run; reading a packet is a part of the step, not of the graph.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle

from tamiyo.bench.samples import INITIAL, LARGE_SEEDS, SMALL_SEEDS, large_host, small_host, training_step
from tamiyo.bench.timing import Figures, Progress, Turn, in_turns
from tamiyo.core import registries
from tamiyo.core.norms import PRIORS, folded
from tamiyo.core.observation import Observation
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder
from tamiyo.graph.plan import make_plan
from tamiyo.graph.topology import lay_out

__all__ = ["HOSTS", "Warm", "measure_builder"]

STEPS = 256

HOSTS: Mapping[str, tuple[int, Callable[[], BlueprintInput]]] = {
    "small": (SMALL_SEEDS, small_host),
    "large": (LARGE_SEEDS, large_host),
}
"""How many seeds, and the host."""


class Warm:
    """A builder that has built before, its steps, and the norms as each finds them."""

    def __init__(self, seeds: int, given: BlueprintInput) -> None:
        self.given, self.builder = (given,), GraphBuilder()
        self.steps = [training_step(seeds, step) for step in range(STEPS)]
        keys = self.builder.registry_keys(self.steps[0], self.given)
        self.registries = registries.extended(INITIAL, registries.assignments(INITIAL, keys)[0])
        self.norms = PRIORS
        self.following: Iterator[Observation] = cycle(self.steps)
        self.graph = self.build(next(self.following))

    def build(self, observation: Observation) -> Graph:
        """One graph, under the norms as they are."""
        self.graph = self.builder.build(
            observation, norms=self.norms, registries=self.registries, blueprints=self.given
        )
        return self.graph

    def next_step(self) -> Observation:
        """Fold the last graph's numbers into the norms; the packet that comes next."""
        self.norms = folded(self.norms, self.graph.norm_inputs)
        return next(self.following)

    def build_next(self) -> Graph:
        """One graph of the next packet; the norms stay, for folding them is not the builder's work."""
        return self.build(next(self.following))


def measure_builder(rounds: int, say: Progress) -> Figures:
    """Both hosts: a graph of a known blueprint, and the plan of a new one (parsed, checked, laid out)."""
    figures: Figures = {}
    for name, (seeds, host) in HOSTS.items():
        say(f"builder, {name} graph")
        given = host()
        warm = Warm(seeds, given)
        for _ in range(STEPS):
            warm.build(warm.next_step())
        turns = {
            "known": Turn(warm.build_next, 100 if name == "small" else 20),
            "new": Turn(lambda given=given: lay_out([given.blueprint], [make_plan(given)]), 2),  # type: ignore[misc]
        }
        counts = warm.graph.node_counts(), warm.graph.edge_counts()
        figures[name] = {
            "nodes": sum(counts[0].values()), "edges": sum(counts[1].values()), **in_turns(turns, rounds)
        }  # fmt: skip
    return figures
