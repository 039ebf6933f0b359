"""The network as a policy: logits to probabilities, scores to a selection.

Threads: this module leaves torch's thread count alone, for it is the process's, trainer included. One thread is best
for the graphs of a step (`torch.set_num_threads(1)` before the first call, where the process is the controller's own).
"""

import math
import time
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from tamiyo.core.proposal import PolicyIdentity, Proposal, argmax
from tamiyo.core.registries import RegistryStamp
from tamiyo.graph.graph import Graph
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork
from tamiyo.policy.protocol import Policy

__all__ = ["BUDGET_RUNS", "GnnPolicy", "measured_budget_ms"]

BUDGET_RUNS = 20
_WARM_UP_RUNS = 3
_HEADROOM = 2.0
"""The raised budget over the measured p95: a process that trains is busier than one that only measures."""


class GnnPolicy:
    """A loaded network; `tamiyo.policy.checkpoint.load_policy` makes one.

    Args:
        network: taken over and put into evaluation mode.
        identity: which checkpoint speaks.
        registry_stamps: the registries that it was trained on, by kind; a service that opens with it holds its own
            against them.
    """

    def __init__(
        self,
        network: TamiyoNetwork,
        identity: PolicyIdentity,
        registry_stamps: Mapping[str, RegistryStamp] = MappingProxyType({}),
    ) -> None:
        self.identity = identity
        self.registry_stamps = registry_stamps
        self.network = network.eval()

    def propose(self, graph: Graph) -> Proposal:
        """Run the network once. What is not finite stays so: the caller refuses the proposal and says why.

        Raises:
            ValueError: the graph has no candidate; the service answers such a step without asking.
        """
        if not graph.candidates:
            raise ValueError("a graph without a candidate seed was given to the network; answer it with a PAUSE")
        return proposal_of(self.outputs(graph), graph.candidates)

    def outputs(self, graph: Graph) -> NetworkOutput:
        """The raw outputs for one graph."""
        data = to_hetero(graph)
        with torch.inference_mode():
            output: NetworkOutput = self.network(
                data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict
            )
            return output


def proposal_of(output: NetworkOutput, candidates: tuple[int, ...]) -> Proposal:
    """Final probabilities and scores. The best-scored candidate is selected; ties go to the lowest place."""
    seed_scores = _floats(output.seed_scores)
    blueprint_scores = _floats(output.blueprint_scores)
    seed = candidates[argmax(tuple(seed_scores[place] for place in candidates))]
    return Proposal(
        action=_probabilities(output.action),
        risk=_probabilities(output.risk),
        value=_floats(output.value)[0],
        param_deltas=_floats(output.param_deltas),
        blending_method=_probabilities(output.blending_method),
        schedule=_floats(output.schedule),
        seed_index=seed,
        seed_score=seed_scores[seed],
        blueprint_index=argmax(blueprint_scores) if blueprint_scores else -1,
        breaker_scores=_floats(output.breaker_scores),
    )


def measured_budget_ms(policy: Policy, graph: Graph) -> int:
    """The step budget, in whole milliseconds, that this policy needs on this machine: twice the p95 of 20 runs.

    Plain PyTorch Geometric takes tens of milliseconds where the default budget is 5: under that, a step could only
    ever be answered with a PAUSE. Give it a graph of the size that steps will have.
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


def _probabilities(logits: Tensor) -> tuple[float, ...]:
    """Softmax in float64, so that the probabilities add up as closely as doubles can."""
    return _floats(torch.softmax(logits.double(), dim=-1))


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.flatten().tolist())
