"""Level 3: every graph built again from what the log holds (`tamiyo.audit.graphs`), every inference run again.

Rule 1: small graphs of one topology are asked together; what does not agree in a batch is asked again by itself before
        it counts. No threads of our own: a network between Python's steps waits for the interpreter at each of its
        products, and took longer so.
Rule 2: nothing waits beyond a checkpoint, so that an audit in parts asks the same graphs together, to the last bit.
Rule 3: what cannot be known is counted with its reason, and is neither right nor wrong.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, cast

from tamiyo.audit.agreement import ANOTHER, Agreement, Reinference, agreement
from tamiyo.audit.differences import Difference, differences
from tamiyo.audit.found import Divergence
from tamiyo.audit.graphs import Built, Graphs
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.inputs import Inference, inference_message
from tamiyo.core.observation import Observation
from tamiyo.core.proposal import PolicyIdentity, Proposal, malformation
from tamiyo.errors import CheckpointRejected
from tamiyo.graph import Graph
from tamiyo.policy import Policy, ProposesMany
from tamiyo.policy.past import PastPolicies
from tamiyo.policy.store import PolicyStore
from tamiyo.workers import in_words

__all__ = ["Inferences", "asking_alone", "past_policies"]

logger = logging.getLogger(__name__)

BATCH = 256
"""Graphs in one pass: past this a graph's time hardly falls."""
WAITING_MAX = 1_024
"""Graphs that wait for others of their topology; about 60 kB each."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """An inference to be run again."""

    lsn: int
    step_index: int
    recorded: journal.InferenceObserved
    graph: Graph
    observation: Observation
    blueprints: int
    is_large: bool = False


@dataclass(frozen=True, slots=True)
class _Kin:
    """What graphs with the edges of this one have in common for a policy."""

    policy: Policy
    graph: Graph
    proposes_many: bool
    key: bytes | None

    @classmethod
    def of(cls, policy: Policy, graph: Graph) -> Self:
        """Ask the policy."""
        if not isinstance(policy, ProposesMany):
            return cls(policy, graph, proposes_many=False, key=None)
        try:
            key = policy.batch_key(graph)
        except Exception as error:  # noqa: BLE001  somebody else's code; this graph goes by itself then
            logger.info("which graphs go together: %s", in_words(error))
            key = None
        return cls(policy, graph, proposes_many=True, key=key)


@dataclass(frozen=True, slots=True)
class _Answer:
    asked: _Asked
    found: Agreement
    proposal: Proposal | None  # where it is another
    error: str = ""


class Inferences(Graphs):
    """Follows a replay, and asks `policies`; `finish` says what was found."""

    def __init__(self, policies: PastPolicies) -> None:
        self._policies = policies
        self._waiting: dict[bytes, list[_Asked]] = {}  # by key, all for the policy of `_kin`
        self._kin: _Kin | None = None
        super().__init__()

    def begin(self, base: journal.StateBase | None) -> None:
        """Begin with the log, or after a base. As `Graphs.begin`."""
        super().begin(base)
        self._kin = None

    def finish(self) -> Reinference:
        """Ask what is left."""
        for key in list(self._waiting):
            self._ask(cast("_Kin", self._kin).policy, key)
        return self._found

    def built(self, lsn: int, decision: journal.DecisionMade, built: Built) -> None:  # noqa: ARG002  the step says it all
        """Run the inference again, now or with others."""
        step, graph = built.step, built.graph
        recorded = cast("Inference", step.inference)
        wrong = _fault_of_asking(recorded, graph, may_ask=step.may_ask, is_open=step.is_open)
        if wrong:
            self.diverge(step.inference_lsn, step, wrong)
            return
        if isinstance(recorded, journal.InferenceSkipped):
            self._found.skipped += 1
            return
        if not isinstance(recorded, journal.InferenceObserved):
            self._found.unanswered += 1
            return
        identity = recorded.identity
        try:
            policy = self._policies.find(identity.version, identity.checkpoint_digest, built.registries)
        except CheckpointRejected as rejected:
            self._found.count_unknown(str(rejected))
            return
        asked = _Asked(
            step.inference_lsn, step.received.step_index, recorded, graph, built.observation, len(graph.blueprint_ids)
        )
        kin = self._kin
        if kin is not None and kin.policy is not policy:
            self.finish()  # a network that nothing waits for can go
        if kin is None or kin.policy is not policy or kin.graph.edge_index is not graph.edge_index:
            kin = self._kin = _Kin.of(policy, graph)  # asked anew only then: a builder's graphs share their edges
        if not kin.proposes_many:
            self._take_answers(_answers(policy, [asked]))
            return
        if kin.key is None:
            asked = replace(asked, is_large=True)
        key = kin.key if kin.key is not None else asked.lsn.to_bytes(8, "big")
        self._waiting.setdefault(key, []).append(asked)
        if kin.key is None or len(self._waiting[key]) >= BATCH:
            self._ask(policy, key)
        elif sum(map(len, self._waiting.values())) > WAITING_MAX:
            self._ask(policy, max(self._waiting, key=lambda one: len(self._waiting[one])))

    def _ask(self, policy: Policy, key: bytes) -> None:
        self._take_answers(_answers(policy, self._waiting.pop(key)))

    def _take_answers(self, answers: Sequence[_Answer]) -> None:
        for answer in answers:
            asked, found = answer.asked, answer.found
            if found.grade != ANOTHER:
                self._found.count(asked.lsn, found)
                continue
            what, expected = f"asked again, the policy {answer.error}", list[Difference]()
            if answer.proposal is not None:
                what = f"asked again, the policy says something else (largest difference {found.error:.3g})"
                expected = _differences(asked, answer.proposal)
            self._found.diverge(Divergence(asked.lsn, asked.step_index, what, tuple(expected)))


def past_policies(directory: Path, checkpoints: Iterable[Path], policies: Iterable[Policy]) -> PastPolicies:
    """Whom to ask of a service's log. Raises OSError: a file cannot be read."""
    return PastPolicies(PolicyStore(directory), checkpoints, policies)


def asking_alone(directory: Path, checkpoints: Iterable[Path], torch_threads: int) -> Callable[[], Inferences]:
    """For a process that does nothing else: makes those who follow a part of the log each, with the same policies.

    Raises:
        OSError: a file cannot be read.
    """
    from tamiyo.policy.ambient import threads_from_now_on  # noqa: PLC0415  torch: slow to import

    threads_from_now_on(torch_threads)
    return partial(Inferences, past_policies(directory, checkpoints, ()))


def _fault_of_asking(recorded: Inference, graph: Graph, *, may_ask: bool, is_open: bool) -> str:
    """What speaks against that the policy was asked, or was not; "" where nothing does."""
    cause = (recorded.cause or "no cause") if isinstance(recorded, journal.InferenceSkipped) else ""
    due = "breaker_open" if not may_ask else "" if graph.candidates else "no_seed_candidates"
    if cause == due or (due == "no_seed_candidates" and is_open and cause == "breaker_open"):
        return ""  # of a breaker that had cooled down, and stayed OPEN, the first logs said what is due
    why = {
        "breaker_open": "the inference breaker was open",
        "no_seed_candidates": "no seed is a candidate",
        "": f"seeds {list(graph.candidates)} are candidates and the inference breaker let a call through",
    }[due]
    said = f"InferenceSkipped ({cause!r:.40})" if cause else recorded.DESCRIPTOR.name
    return f"{why}, and {said} is recorded"


def _answers(policy: Policy, asked: Sequence[_Asked]) -> list[_Answer]:
    """Ask all at once where that is cheaper, and whoever does not agree by itself."""
    pairs: Sequence[tuple[_Asked, Proposal | None]] = [(one, None) for one in asked]
    if isinstance(policy, ProposesMany) and len(asked) > 1:
        try:
            pairs = list(zip(asked, policy.propose_all([one.graph for one in asked]), strict=True))
        except Exception as error:  # noqa: BLE001  somebody else's code; each is asked by itself then
            logger.info("many graphs at once: %s", in_words(error))
    return [_answer(policy, one, proposal) for one, proposal in pairs]


def _answer(policy: Policy, asked: _Asked, proposal: Proposal | None) -> _Answer:
    if malformation(proposal, asked.observation, asked.blueprints) is None:
        found = agreement(asked.recorded, cast("Proposal", proposal), is_large=asked.is_large)
        if found.grade != ANOTHER:
            return _Answer(asked, found, None)
    try:
        proposal = policy.propose(asked.graph)
        wrong = malformation(proposal, asked.observation, asked.blueprints)
        if wrong is not None:
            return _Answer(asked, Agreement(ANOTHER), None, f"answers with a malformed proposal: {wrong}")
        scores = policy.selection_scores(asked.graph) if isinstance(policy, ProposesMany) else None
        found = agreement(asked.recorded, proposal, scores, is_large=asked.is_large)
    except Exception as error:  # noqa: BLE001  somebody else's code; that it raises now is the finding
        return _Answer(asked, Agreement(ANOTHER), None, f"raises {in_words(error)}")
    return _Answer(asked, found, proposal if found.grade == ANOTHER else None)


def _differences(asked: _Asked, proposal: Proposal) -> list[Difference]:
    recorded = asked.recorded
    expected = inference_message(
        recorded.step_lsn,
        PolicyIdentity(recorded.identity.version, "", ""),
        proposal,
        observation=asked.observation,
        blueprints=asked.blueprints,
        elapsed_ns=recorded.elapsed_ns,
    )
    expected.identity.CopyFrom(recorded.identity)
    return list(differences(expected, recorded))
