"""The network as a policy: logits to probabilities, scores to a selection.

Threads: this module leaves torch's thread count alone, for it is the process's, trainer included. The compiled engine
needs none of it, it runs on the thread that calls; large graphs and the fallbacks use what the process has.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import torch

from tamiyo.core.proposal import PolicyIdentity, Proposal, argmax
from tamiyo.core.registries import RegistryStamp
from tamiyo.graph.graph import Graph
from tamiyo.policy.ambient import unswayed
from tamiyo.policy.engine import Engine, batch_key
from tamiyo.policy.engine.raw import Numbers
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork
from tamiyo.policy.protocol import Policy

__all__ = ["BUDGET_RUNS", "GnnPolicy", "engine_identity", "measured_budget_ms"]

Answer = TypeVar("Answer")

BUDGET_RUNS = 20
_WARM_UP_RUNS = 3
_HEADROOM = 2.0
"""The raised budget over the measured p95: a process that trains is busier than one that only measures."""


class GnnPolicy:
    """A loaded network; `tamiyo.policy.checkpoint.load_policy` makes one.

    Args:
        network: the reference form, taken over and put into evaluation mode.
        identity: which checkpoint speaks.
        registry_stamps: the registries that it was trained on, by kind; a service that opens with it holds its own
            against them.
        engine: the same network made fast; without one, or where it declines a graph, the reference answers.

    Two calls at a time are safe: what a call writes to is its own.
    """

    def __init__(
        self,
        network: TamiyoNetwork,
        identity: PolicyIdentity,
        registry_stamps: Mapping[str, RegistryStamp] = MappingProxyType({}),
        *,
        engine: Engine | None = None,
    ) -> None:
        self.identity = identity
        self.registry_stamps = registry_stamps
        self.network = network.eval()
        self.engine = engine

    def propose(self, graph: Graph) -> Proposal:
        """Run the network once. What is not finite stays so: the caller refuses the proposal and says why.

        Raises:
            ValueError: the graph has no candidate; the service answers such a step without asking.
        """
        if not graph.candidates:
            raise ValueError("a graph without a candidate seed was given to the network; answer it with a PAUSE")
        numbers = self._engines(graph, Engine.numbers)
        if numbers is None:
            return proposal_of(self.reference_outputs(graph), graph.candidates)
        return _proposal(numbers, graph.candidates)

    def propose_all(self, graphs: Sequence[Graph]) -> list[Proposal]:
        """Propose for many graphs of one `batch_key` at once, in a third of the time and less.

        Raises:
            ValueError: a graph has no candidate.
        """
        found = None
        if self.engine is not None and len(graphs) > 1 and all(graph.candidates for graph in graphs):
            found = self.engine.batch(graphs)
        if found is None:
            return [self.propose(graph) for graph in graphs]
        return [_proposal(each, graph.candidates) for each, graph in zip(found, graphs, strict=True)]

    def batch_key(self, graph: Graph) -> bytes | None:
        """A small graph's topology: for graphs that share it the engine plans once."""
        return batch_key(graph)

    def selection_scores(self, graph: Graph) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The scores of all seeds and of all blueprints."""
        output = self.outputs(graph)
        return tuple(output.seed_scores.tolist()), tuple(output.blueprint_scores.tolist())

    def outputs(self, graph: Graph) -> NetworkOutput:
        """The raw outputs for one graph."""
        output = self._engines(graph, Engine.outputs)
        return self.reference_outputs(graph) if output is None else output

    def _engines(self, graph: Graph, ask: Callable[[Engine, Graph], Answer | None]) -> Answer | None:
        """What the engine says of a graph, None where the reference has to; the identity follows a fallback."""
        if self.engine is None:
            return None
        found = ask(self.engine, graph)
        if self.engine.fallbacks != self.identity.compile_fallbacks:
            self.identity = engine_identity(self.identity, self.engine)
        return found

    def warm_up(self, counts: Mapping[str, int]) -> None:
        """Meet the size of graphs with so many nodes of each type now; for a policy that no step waits for."""
        if self.engine is not None:
            self.engine.warm_up(counts)

    def expect(self, counts: Mapping[str, int]) -> None:
        """Graphs with so many nodes of each type will come: meet their size beside the steps; returns at once."""
        if self.engine is not None:
            self.engine.expect(counts)

    def rest(self) -> None:
        """Another policy speaks: keep no more than it takes to answer."""
        if self.engine is not None:
            self.engine.rest()

    def reference_outputs(self, graph: Graph) -> NetworkOutput:
        """The raw outputs as PyTorch Geometric computes them."""
        with torch.inference_mode(), unswayed():
            data = to_hetero(graph)
            output: NetworkOutput = self.network(
                data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict
            )
            return output


def engine_identity(identity: PolicyIdentity, engine: Engine) -> PolicyIdentity:
    """An identity that says what this engine runs on now."""
    return replace(identity, engine=engine.engine, is_compiled=engine.is_compiled, compile_fallbacks=engine.fallbacks)


def proposal_of(output: NetworkOutput, candidates: tuple[int, ...]) -> Proposal:
    """Final probabilities and scores. The best-scored candidate is selected; ties go to the lowest place."""
    return _proposal({name: tuple(values.flatten().tolist()) for name, values in output._asdict().items()}, candidates)


def _proposal(numbers: Numbers, candidates: tuple[int, ...]) -> Proposal:
    seed_scores, blueprint_scores = numbers["seed_scores"], numbers["blueprint_scores"]
    seed = candidates[argmax(tuple(seed_scores[place] for place in candidates))]
    return Proposal(
        action=_probabilities(numbers["action"]),
        risk=_probabilities(numbers["risk"]),
        value=numbers["value"][0],
        param_deltas=numbers["param_deltas"],
        blending_method=_probabilities(numbers["blending_method"]),
        schedule=numbers["schedule"],
        seed_index=seed,
        seed_score=seed_scores[seed],
        blueprint_index=argmax(blueprint_scores) if blueprint_scores else -1,
        breaker_scores=numbers["breaker_scores"],
    )


def measured_budget_ms(policy: Policy, graph: Graph) -> int:
    """The step budget, in whole milliseconds, that this policy needs on this machine: twice the p95 of 20 runs.

    Plain PyTorch Geometric takes tens of milliseconds where the default budget is 5: under that, a step could only
    ever be answered with a PAUSE; so could one on a large graph. Give it a graph of the size that steps will have.
    """
    for _ in range(_WARM_UP_RUNS):
        policy.propose(graph)
    times_ns = sorted(_timed_ns(policy, graph) for _ in range(BUDGET_RUNS))
    p95_ns = times_ns[math.ceil(0.95 * BUDGET_RUNS) - 1]
    return max(1, math.ceil(_HEADROOM * p95_ns / 1e6))


def _timed_ns(policy: Policy, graph: Graph) -> int:
    started_ns = time.perf_counter_ns()
    policy.propose(graph)
    return time.perf_counter_ns() - started_ns


def _probabilities(logits: tuple[float, ...]) -> tuple[float, ...]:
    """Softmax in float64, so that the probabilities add up as closely as doubles can."""
    most = max(logits)
    raised = [math.exp(value - most) for value in logits]
    total = math.fsum(raised)
    return tuple([value / total for value in raised])
