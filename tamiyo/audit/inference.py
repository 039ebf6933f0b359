"""Level 3: every graph built again from what the log holds, and every inference run again by its policy.

The one module of the audit that knows the graph and the policies. It follows the same events as level 2:

    StepReceived         what the step saw: norms and registries as they were when its packet arrived
    BlueprintObserved    the content that its blueprints name by digest
    GraphObserved        what the graph must come to, in numbers
    RegistryAssigned     the names that it must have numbered
    InferenceObserved    what the policy must say again
    DecisionMade         the step is whole: build, compare, ask

Rule 1: graphs are built in the order of the log, on the caller's thread. Small ones of one topology are then asked
        together; what does not agree in a batch is asked again by itself before it counts. No threads of our own: a
        network between Python's steps waits for the interpreter at each of its products, and took longer so.
Rule 2: nothing waits beyond a checkpoint, so that an audit in parts asks the same graphs together, to the last bit.
Rule 3: what cannot be known is counted with its reason, and is neither right nor wrong.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, cast, get_args

from google.protobuf.message import DecodeError

from tamiyo.audit.agreement import ANOTHER, Agreement, Reinference, agreement
from tamiyo.audit.differences import Difference, differences
from tamiyo.audit.found import Divergence
from tamiyo.audit.memory import observation_of
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS, contents_of
from tamiyo.core.blueprint import read_blueprint, unobserved
from tamiyo.core.breakers import OPEN, admits
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.inputs import Inference, inference_message
from tamiyo.core.norms import Norm
from tamiyo.core.observation import Observation
from tamiyo.core.proposal import PolicyIdentity, Proposal, malformation
from tamiyo.core.registries import Registries, assignments, extended
from tamiyo.core.state import BLUEPRINTS_MAX
from tamiyo.errors import CheckpointRejected
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder, MetadataRules, graph_observed, parse_metadata
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
ROUNDING_ULPS = 8
"""How far two processors' logarithms may be apart in a norm's input."""

SCHEMA = "their graphs were built to another schema: audit them with the version that wrote them"
CONTENT = "the content of a blueprint was taken out of the log"


@dataclass(slots=True)
class _Step:
    """A step that is under way."""

    received: journal.StepReceived
    norms: tuple[Norm, ...]
    registries: Registries
    may_ask: bool
    is_open: bool
    graph_lsn: int = 0
    graph: journal.GraphObserved | None = None
    names: list[journal.RegistryAssigned] = field(default_factory=list)
    inference_lsn: int = 0
    inference: Inference | None = None


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


class Inferences:
    """Follows a replay, and asks `policies`; `finish` says what was found."""

    def __init__(self, policies: PastPolicies) -> None:
        self._policies = policies
        self._found = Reinference()
        self._waiting: dict[bytes, list[_Asked]] = {}  # by key, all for the policy of `_kin`
        self.begin(None)

    def begin(self, base: journal.StateBase | None) -> None:
        """Begin with the log, or after a base, whose contents are taken over.

        What was seen so far is counted no more, but a divergence stays: a record that was taken out mends nothing.
        """
        self._found = Reinference(divergence=self.finish().divergence)
        self._contents: dict[str, bytes] = {} if base is None else contents_of(base)
        self._inputs: dict[tuple[str, str, MetadataRules], BlueprintInput] = {}
        self._builder = GraphBuilder()
        self._steps: dict[int, _Step] = {}
        self._last: _Step | None = None
        self._kin: _Kin | None = None

    def recall(self, lsn: int, event: Event, state: Standing) -> None:
        """Take note of a record up to the base's own."""
        if isinstance(event, journal.BlueprintObserved) or (
            isinstance(event, journal.StepReceived) and lsn == state.last_lsn
        ):
            self.take(lsn, event, state)

    def take(self, lsn: int, event: Event, standing: Standing) -> None:
        """One event that is in order, with the state before it. After a divergence nothing more is looked at."""
        take = self._TAKES.get(type(event))
        if take is not None and self._found.divergence is None:
            try:
                take(self, lsn, event, standing)
            except DecodeError as error:
                self._found.diverge(Divergence(lsn, 0, f"the content of a blueprint does not parse: {error}"))

    @property
    def found(self) -> Reinference:
        """What was found so far; some of it is not asked yet."""
        return self._found

    def finish(self) -> Reinference:
        """Ask what is left."""
        for key in list(self._waiting):
            self._ask(cast("_Kin", self._kin).policy, key)
        return self._found

    def _take_opening(self, _: int, __: journal.ServiceOpened, ___: Standing) -> None:
        self._steps.clear()  # what was not decided when the process ended never is

    def _take_arrival(self, lsn: int, event: journal.StepReceived, standing: Standing) -> None:
        if event.step_index % CHECKPOINT_STEPS == 0:
            self.finish()
        if len(self._contents) > 2 * BLUEPRINTS_MAX:  # now: a step under way may use what is replaced meanwhile
            held = {seen.blueprint.digest for seen in standing.blueprints.values() if seen.blueprint is not None}
            self._contents = {digest: self._contents[digest] for digest in self._contents if digest in held}
        breaker = standing.breakers["inference"]
        may_ask = admits(breaker, event.event_time_ns, standing.thresholds)
        self._steps[lsn] = _Step(event, standing.norms, standing.registries, may_ask, breaker.state == OPEN)

    def _take_graph(self, lsn: int, event: journal.GraphObserved, _: Standing) -> None:
        step = self._last = self._steps.get(event.step_lsn)
        if step is not None:
            step.graph_lsn, step.graph = lsn, event

    def _take_names(self, _: int, event: journal.RegistryAssigned, __: Standing) -> None:
        if self._last is not None:  # they stand behind their graph
            self._last.names.append(event)

    def _take_inference(self, lsn: int, event: Inference, _: Standing) -> None:
        step = self._steps.get(event.step_lsn)
        if step is not None:
            step.inference_lsn, step.inference = lsn, event

    def _take_pause(self, _: int, event: journal.StepPaused, __: Standing) -> None:
        self._steps.pop(event.step_lsn, None)

    def _take_blueprint(self, _: int, event: journal.BlueprintObserved, __: Standing) -> None:
        if event.content:
            self._contents[event.digest] = event.content

    def _take_decision(self, lsn: int, event: journal.DecisionMade, standing: Standing) -> None:
        step = self._steps.pop(event.step_lsn, None)
        self._last = None
        if step is None or step.graph is None or step.inference is None:
            what = f"a decision on step LSN {event.step_lsn}, whose process had ended"
            self._found.diverge(Divergence(lsn, 0, what))
            return
        rules = MetadataRules.under(standing.behaviour_flags)
        try:
            blueprints = [self._input_of(use.blueprint_id, use.digest, rules) for use in step.graph.blueprints]
        except KeyError:
            self._found.count_unknown(CONTENT)
            return
        observation = observation_of(step.received.packet)
        keys = self._builder.registry_keys(observation, blueprints)
        added, overflow = assignments(step.registries, keys)
        registries = extended(step.registries, added) if added else step.registries
        graph = self._builder.build(observation, norms=step.norms, registries=registries, blueprints=blueprints)
        if self._is_as_recorded(step, observation, graph, blueprints, (added, overflow), standing):
            self._found.graphs += 1
            self._consider(step, graph, observation, registries)

    def _input_of(self, blueprint_id: str, digest: str, rules: MetadataRules) -> BlueprintInput:
        """A blueprint as the step's graph took it. Raises KeyError where its content is not there any more."""
        if not digest:
            return BlueprintInput(unobserved(blueprint_id), {}, rules)
        known = self._inputs.get((blueprint_id, digest, rules))
        if known is None:
            content = journal.BlueprintContent.FromString(self._contents[digest])
            if len(self._inputs) >= BLUEPRINTS_MAX:
                self._inputs.clear()
            blueprint, metadata = read_blueprint(blueprint_id, digest, content), parse_metadata(content.graph_metadata)
            known = self._inputs[blueprint_id, digest, rules] = BlueprintInput(blueprint, metadata, rules)
        return known

    def _is_as_recorded(
        self,
        step: _Step,
        observation: Observation,
        graph: Graph,
        blueprints: Sequence[BlueprintInput],
        numbered: tuple[Mapping[str, Sequence[str]], int],
        standing: Standing,
    ) -> bool:
        recorded, (added, overflow) = cast("journal.GraphObserved", step.graph), numbered
        layout, expected = graph_observed(
            graph, blueprints, step_lsn=recorded.step_lsn, host_id=recorded.host_blueprint_id
        )
        if standing.layouts.get(recorded.layout_lsn) != layout:
            self._found.count_unknown(SCHEMA)
            return False
        expected.layout_lsn, expected.registry_overflow = recorded.layout_lsn, overflow
        if recorded.norm_inputs:  # of a log from before there was the shorter form
            expected.norm_inputs.extend(journal.NormInput(index=row, value=value) for row, value in graph.norm_inputs)
            expected.ClearField("norms_present")
            expected.ClearField("norm_values")
        names = [
            journal.RegistryAssigned(kind=kind, keys=keys, first_index=len(step.registries[kind]) + 1)
            for kind, keys in added.items()
        ]
        if names != step.names:
            self._diverge(
                step.graph_lsn, step, f"the step's graph numbers {_told(names)}, and {_told(step.names)} are recorded"
            )
            return False
        if recorded.host_blueprint_id not in {observation.packet_id, observation.training_run_id}:
            self._diverge(
                step.graph_lsn, step, f"{recorded.host_blueprint_id!r} is not what the packet says is trained"
            )
            return False
        if expected == recorded:  # no number in it is NaN
            return True
        found = [one for one in differences(expected, recorded) if not _is_rounding(one)]
        if found:
            self._diverge(step.graph_lsn, step, "the graph is not what its packet and blueprints come to", found)
        return not found

    def _consider(self, step: _Step, graph: Graph, observation: Observation, registries: Registries) -> None:
        """Run the inference again, now or with others."""
        recorded = cast("Inference", step.inference)
        wrong = _fault_of_asking(recorded, graph, may_ask=step.may_ask, is_open=step.is_open)
        if wrong:
            self._diverge(step.inference_lsn, step, wrong)
            return
        if isinstance(recorded, journal.InferenceSkipped):
            self._found.skipped += 1
            return
        if not isinstance(recorded, journal.InferenceObserved):
            self._found.unanswered += 1
            return
        identity = recorded.identity
        try:
            policy = self._policies.find(identity.version, identity.checkpoint_digest, registries)
        except CheckpointRejected as rejected:
            self._found.count_unknown(str(rejected))
            return
        asked = _Asked(
            step.inference_lsn, step.received.step_index, recorded, graph, observation, len(graph.blueprint_ids)
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

    def _diverge(self, lsn: int, step: _Step, what: str, found: Sequence[Difference] = ()) -> None:
        self._found.diverge(Divergence(lsn, step.received.step_index, what, tuple(found)))

    _TAKES: Mapping[type[Event], Callable[[Any, int, Any, Standing], None]] = MappingProxyType(
        {
            journal.ServiceOpened: _take_opening,
            journal.StepReceived: _take_arrival,
            journal.GraphObserved: _take_graph,
            journal.RegistryAssigned: _take_names,
            **dict.fromkeys(get_args(Inference), _take_inference),
            journal.StepPaused: _take_pause,
            journal.BlueprintObserved: _take_blueprint,
            journal.DecisionMade: _take_decision,
        }
    )


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


def _is_rounding(difference: Difference) -> bool:
    return difference.ulps is not None and difference.ulps <= ROUNDING_ULPS


def _told(names: Sequence[journal.RegistryAssigned]) -> str:
    return "; ".join(f"{one.kind} {one.first_index}: {', '.join(one.keys)}" for one in names)[:200] or "no name"
