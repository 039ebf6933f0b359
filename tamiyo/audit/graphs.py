"""Every step's graph built again from what the log holds, for whoever goes on from there.

It follows the same events as level 2:

    StepReceived         what the step saw: norms and registries as they were when its packet arrived
    BlueprintObserved    the content that its blueprints name by digest
    GraphObserved        what the graph must come to, in numbers
    RegistryAssigned     the names that it must have numbered
    Inference...         what came of asking the policy
    DecisionMade         the step is whole: build, compare, hand over

Rule 1: graphs are built in the order of the log, on the caller's thread.
Rule 2: what cannot be known is counted with its reason, and is neither right nor wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, cast, get_args

from google.protobuf.message import DecodeError

from tamiyo.audit.agreement import Reinference
from tamiyo.audit.differences import Difference, differences
from tamiyo.audit.found import Divergence
from tamiyo.audit.memory import observation_of
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS, contents_of
from tamiyo.core.blueprint import read_blueprint, unobserved
from tamiyo.core.breakers import OPEN, admits
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.inputs import Inference
from tamiyo.core.norms import Norm
from tamiyo.core.observation import Observation
from tamiyo.core.registries import Registries, assignments, extended
from tamiyo.core.state import BLUEPRINTS_MAX
from tamiyo.graph import (
    BlueprintInput,
    Graph,
    GraphBuilder,
    MetadataRules,
    graph_observed,
    host_of,
    parse_metadata,
)

__all__ = ["Built", "Graphs", "SeenStep"]

ROUNDING_ULPS = 8
"""How far two processors' logarithms may be apart in a norm's input."""

SCHEMA = "their graphs were built to another schema: audit them with the version that wrote them"
CONTENT = "the content of a blueprint was taken out of the log"


@dataclass(slots=True)
class SeenStep:
    """A step that is under way: what it arrived in, and what was observed of it."""

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
class Built:
    """A decided step with the graph that it comes to; `registries` are those that number it."""

    step: SeenStep
    observation: Observation
    graph: Graph
    registries: Registries


class Graphs:
    """Follows a replay. Whoever makes one of these says in `built` what becomes of each graph."""

    def __init__(self) -> None:
        self._found = Reinference()
        self.begin(None)

    def begin(self, base: journal.StateBase | None) -> None:
        """Begin with the log, or after a base, whose contents are taken over.

        What was seen so far is counted no more, but a divergence stays: a record that was taken out mends nothing.
        """
        self._found = Reinference(divergence=self.finish().divergence)
        self._contents: dict[str, bytes] = {} if base is None else contents_of(base)
        self._inputs: dict[tuple[str, str, MetadataRules], BlueprintInput] = {}
        self._builder = GraphBuilder()
        self._steps: dict[int, SeenStep] = {}
        self._last: SeenStep | None = None

    def built(self, lsn: int, decision: journal.DecisionMade, built: Built) -> None:
        """A graph that is what its record says, with the decision that was made on it."""
        raise NotImplementedError

    def finish(self) -> Reinference:
        """End here, and at every checkpoint: nothing waits beyond one."""
        return self._found

    @property
    def found(self) -> Reinference:
        """What was found so far."""
        return self._found

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

    def diverge(self, lsn: int, step: SeenStep, what: str, found: Sequence[Difference] = ()) -> None:
        """Keep what does not follow."""
        self._found.diverge(Divergence(lsn, step.received.step_index, what, tuple(found)))

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
        self._steps[lsn] = SeenStep(event, standing.norms, standing.registries, may_ask, breaker.state == OPEN)

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
        graph = self._builder.build(
            observation,
            norms=step.norms,
            registries=registries,
            blueprints=blueprints,
            host_id=host_of(step.graph.host_blueprint_id, standing.behaviour_flags),
        )
        if self._is_as_recorded(step, observation, graph, blueprints, (added, overflow), standing):
            self._found.graphs += 1
            self.built(lsn, event, Built(step, observation, graph, registries))

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
        step: SeenStep,
        observation: Observation,
        graph: Graph,
        blueprints: Sequence[BlueprintInput],
        numbered: tuple[Mapping[str, Sequence[str]], int],
        standing: Standing,
    ) -> bool:
        recorded, (added, overflow) = cast("journal.GraphObserved", step.graph), numbered
        if recorded.host_blueprint_id not in {observation.packet_id, observation.training_run_id}:
            self.diverge(step.graph_lsn, step, f"{recorded.host_blueprint_id!r} is not what the packet says is trained")
            return False
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
            self.diverge(
                step.graph_lsn, step, f"the step's graph numbers {_told(names)}, and {_told(step.names)} are recorded"
            )
            return False
        if expected == recorded:  # no number in it is NaN
            return True
        found = [one for one in differences(expected, recorded) if not _is_rounding(one)]
        if found:
            self.diverge(step.graph_lsn, step, "the graph is not what its packet and blueprints come to", found)
        return not found

    _TAKES: ClassVar[Mapping[type[Event], Callable[[Any, int, Any, Standing], None]]] = MappingProxyType(
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


def _is_rounding(difference: Difference) -> bool:
    return difference.ulps is not None and difference.ulps <= ROUNDING_ULPS


def _told(names: Sequence[journal.RegistryAssigned]) -> str:
    return "; ".join(f"{one.kind} {one.first_index}: {', '.join(one.keys)}" for one in names)[:200] or "no name"
