"""Policies for tests: ones that propose what they are told, and ones that go wrong."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tamiyo.core.proposal import ACTIONS, BLENDING_METHODS, PolicyIdentity, Proposal
from tamiyo.graph import Graph
from tamiyo.policy import Policy
from tamiyo.testing.faults import Faults

__all__ = ["FailingPolicy", "FaultPolicy", "FixedPolicy", "HangingPolicy", "ScriptedPolicy", "fitted"]


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
class ScriptedPolicy:
    """Proposes `script`, its selections fitted to the graph (`fitted`); a test changes the script between steps."""

    script: Proposal
    identity: PolicyIdentity = field(default=PolicyIdentity("scripted-v1", "fixed", "python"))

    def propose(self, graph: Graph) -> Proposal:
        """The script."""
        return fitted(self.script, graph.candidates, len(graph.blueprint_ids))


class FaultPolicy(Faults):
    """Does what another policy does, until it is told not to (`Faults`, method "propose")."""

    def __init__(self, inner: Policy | None = None) -> None:
        """Wrap `inner`, or a `FixedPolicy`."""
        super().__init__("propose")
        self.inner: Policy = FixedPolicy() if inner is None else inner

    @property
    def identity(self) -> PolicyIdentity:
        """That of `inner`."""
        return self.inner.identity

    def propose(self, graph: Graph) -> Proposal:
        """What `inner` proposes."""
        return self._perform("propose", lambda: self.inner.propose(graph))


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


def fitted(proposal: Proposal, candidates: Sequence[int], blueprints: int) -> Proposal:
    """The proposal with its selections turned into ones that exist.

    Args:
        proposal: any integers select: a seed counted among the candidates, round and round; a blueprint likewise,
            with -1 for none among them.
        candidates: places of the seeds that may be selected, one at least.
        blueprints: how many the graph has.
    """
    return proposal._replace(
        seed_index=candidates[proposal.seed_index % len(candidates)],
        blueprint_index=(proposal.blueprint_index + 1) % (blueprints + 1) - 1,
    )


def _one_hot(index: int, width: int) -> tuple[float, ...]:
    return tuple(1.0 if place == index else 0.0 for place in range(width))
