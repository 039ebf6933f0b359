"""What proposes: one call, from graph to proposal."""

from typing import Protocol

from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph

__all__ = ["Policy"]


class Policy(Protocol):
    """A policy: the documented baseline, the network, or a double for tests.

    `propose` runs on a worker thread under a deadline and may be called again while an earlier call is late:
    it keeps no state that a late call could spoil. Whatever it raises is journaled as `InferenceFailed`.
    """

    @property
    def identity(self) -> PolicyIdentity:
        """Which policy this is; journaled beside every proposal."""
        ...

    def propose(self, graph: Graph) -> Proposal:
        """Propose for a graph with at least one candidate seed; final probabilities, no logits to interpret."""
        ...
