"""Policies for tests: one that always proposes the same, one that fails, one that hangs until it is released."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tamiyo.core.proposal import ACTIONS, BLENDING_METHODS, PolicyIdentity, Proposal
from tamiyo.graph import Graph

__all__ = ["FailingPolicy", "FixedPolicy", "HangingPolicy"]


@dataclass(frozen=True)
class FixedPolicy:
    """Proposes one action on the first candidate, whatever the graph says.

    Args:
        action: class of the action head, 0 to 31.
        risk: five probabilities.
        delay_ms: how long it takes.
        param_deltas: four parameter outputs in [-1, 1].
    """

    action: int = 0
    risk: Sequence[float] = (1, 0, 0, 0, 0)
    delay_ms: float = 0
    param_deltas: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
    blending_method: int = 0
    identity: PolicyIdentity = field(default=PolicyIdentity("fixed-v1", "fixed", "python"))

    def propose(self, graph: Graph) -> Proposal:
        """The proposal, after `delay_ms`."""
        if self.delay_ms:
            time.sleep(self.delay_ms / 1e3)
        return Proposal(
            action=_one_hot(self.action, ACTIONS),
            risk=tuple(map(float, self.risk)),
            value=0.0,
            param_deltas=tuple(map(float, self.param_deltas)),
            blending_method=_one_hot(self.blending_method, len(BLENDING_METHODS)),
            schedule=(-1.0, 1.0),
            seed_index=graph.candidates[0],
            seed_score=1.0,
            blueprint_index=0 if graph.blueprint_ids else -1,
            breaker_scores=(0.0, 0.0),
        )


@dataclass
class FailingPolicy:
    """Raises `error` while `failing` is set, else proposes as `FixedPolicy(action)` does."""

    error: Exception = field(default_factory=lambda: RuntimeError("the network fell over"))
    failing: bool = True
    action: int = 1
    identity: PolicyIdentity = field(default=PolicyIdentity("failing-v1", "fixed", "python"))

    def propose(self, graph: Graph) -> Proposal:
        """Raise, or propose."""
        if self.failing:
            raise self.error
        return FixedPolicy(self.action).propose(graph)


@dataclass
class HangingPolicy:
    """Blocks every proposal until `release()`; what is proposed after that does not wait."""

    action: int = 1
    identity: PolicyIdentity = field(default=PolicyIdentity("hanging-v1", "fixed", "python"))
    released: threading.Event = field(default_factory=threading.Event)

    def propose(self, graph: Graph) -> Proposal:
        """Propose once released."""
        self.released.wait()
        return FixedPolicy(self.action).propose(graph)

    def release(self) -> None:
        """Let every waiting and later call go."""
        self.released.set()


def _one_hot(index: int, width: int) -> tuple[float, ...]:
    return tuple(1.0 if place == index else 0.0 for place in range(width))
