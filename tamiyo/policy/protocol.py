"""What proposes: one call, from graph to proposal."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph

__all__ = ["Policy", "ProposesMany", "WarmsUp", "require_policy"]


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


@runtime_checkable
class WarmsUp(Protocol):
    """What a policy has beside, if its first graph of a size costs more than the next ones.

    A service says which sizes are coming: nodes by type, all six. Nothing that a policy answers may depend on it.
    """

    def warm_up(self, counts: Mapping[str, int]) -> None:
        """Be ready for this size when this returns; the policy does not speak yet."""

    def expect(self, counts: Mapping[str, int]) -> None:
        """Be ready for this size soon, and return at once: a step may be waiting."""

    def rest(self) -> None:
        """Another policy speaks: keep no more than it takes to answer, and return at once."""


@runtime_checkable
class ProposesMany(Protocol):
    """What a policy has beside, if many graphs at once cost it less than one after the other. For audits.

    The numbers may differ from those of `propose` in their last bits.
    """

    def propose_all(self, graphs: Sequence[Graph]) -> Sequence[Proposal]:
        """Propose for each; graphs with a candidate each, and one `batch_key`."""
        ...

    def batch_key(self, graph: Graph) -> bytes | None:
        """Graphs of equal keys go together best; None for one that goes by itself."""
        ...

    def selection_scores(self, graph: Graph) -> tuple[Sequence[float], Sequence[float]]:
        """The scores of all seeds and of all blueprints, whose best ones a proposal selects."""
        ...


def require_policy(policy: object) -> None:
    """Look at what is given as a policy before anything is begun with it.

    Raises:
        TypeError: it is none.
    """
    identity, why = None, None
    try:
        identity = policy.identity  # type: ignore[attr-defined]  # to see whether it has one
    except AttributeError as error:  # perhaps from within its own property, and then that is what is wrong
        why = error
    if isinstance(policy, type) or not isinstance(identity, PolicyIdentity) or not hasattr(policy, "propose"):
        raise TypeError(
            f"policy={policy!r:.80} is a {type(policy).__name__}, and no policy: give what "
            "`tamiyo.policy.checkpoint.load_policy` makes of a checkpoint, or an object with `propose` and `identity`, "
            "a `tamiyo.core.proposal.PolicyIdentity`"
        ) from why
