"""The stages of a step, in the order `tamiyo.service` calls them.

Each takes the step, adds what it found, and either goes on or raises `JournalUnavailable` with the cause that the
safe PAUSE will name. What a collaborator does wrong is an event among `step.observed`, never an exception.
"""

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext

from google.protobuf.message import EncodeError, Message

import wal
from tamiyo import signing
from tamiyo.blueprints import Blueprints
from tamiyo.clock import Clock
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import OPEN, admits
from tamiyo.core.command import safe_pause
from tamiyo.core.decide import decide
from tamiyo.core.events import Event
from tamiyo.core.evolve import Fold, Folded
from tamiyo.core.inputs import identity_message, inference_message, step_inputs
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.core.registries import Registries, assignments, extended, full
from tamiyo.core.state import State
from tamiyo.errors import PacketRejected
from tamiyo.graph import Graph, GraphBuilder, graph_observed, host_of
from tamiyo.journal import Journal
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.outage import Outage
from tamiyo.owed import ReleasedPause
from tamiyo.policy import Policy
from tamiyo.records import JournalUnavailable, Recorded
from tamiyo.speakers import Speaker, Speakers
from tamiyo.step import (
    Step,
    StepTimings,
    Watch,
    fault_event,
    inference_failed,
    linked_graph,
    stage_timings,
    step_received,
    timed,
)
from tamiyo.workers import DeadlineWorker, Returned, TimedOut

__all__ = ["Stages", "Step", "StepTimings", "Watch"]

logger = logging.getLogger(__name__)


class Stages:
    """The stages with their collaborators."""

    def __init__(
        self,
        journal_: Journal,
        blueprints: Blueprints,
        builder: GraphBuilder,
        speakers: Speakers,
        key: bytes,
        settings: Settings,
        clock: Clock,
    ) -> None:
        """Take over collaborators that are already open."""
        self.watch: Watch | None = None
        self._journal = journal_
        self._blueprints = blueprints
        self._speakers = speakers
        self._key = key
        self._settings = settings
        self._clock = clock
        self._builder = builder
        self._inference = DeadlineWorker("tamiyo-inference")
        self._outage = Outage()
        self._told_of_size = False
        self._told_of_full: set[str] = set()

    @property
    def policy(self) -> Policy | None:
        """Whom the next step asks."""
        speaker = self._speakers.of(self._journal.state.policy_version)
        return None if speaker is None else speaker.policy

    def arrive(self, packet: Message | bytes, call: str, budget_ms: int) -> Step:
        """Read the packet and give the step its identity and its time. Raises `PacketRejected`."""
        data = _packet_bytes(packet)
        return Step(
            observation=read_packet(data, self._settings.limits),
            packet=data,
            call=call,
            budget_ms=budget_ms,
            decision_id=str(uuid.uuid4()),
            received_unix_ns=self._clock.wall_ns(),
            commit_left_ns=self._settings.commit_timeout_ms * 1_000_000,
            watch=self.watch,
        )

    def receive(self, step: Step) -> None:
        """Stage the packet, so that a crash from here on keeps it."""
        with timed(step, "receive_ns"):
            self._journal.require()
            self._journal.settle()
            arrival = self._journal.stage(lambda state, now_ns: step_received(step, state, now_ns))
            assert isinstance(arrival.event, journal.StepReceived)  # noqa: S101  it was just made
            step.received, step.lsn, step.state, step.log = (
                arrival.event,
                arrival.staged.lsn,
                arrival.state,
                arrival.log,
            )
            self._await(step, arrival.staged.wait)

    def look_up_blueprints(self, step: Step) -> None:
        """Take what is known of the blueprints, after waiting for unknown ones within their budget."""
        with timed(step, "blueprints_ns"):
            self._blueprints.refresh(step.observation)
            ids, faults = self._blueprints.candidates(step.observation)
            step.observed.extend(fault_event(step, fault, self._settings.metadata_timeout_ms) for fault in faults)
            state = self._journal.state
            step.blueprints = [self._blueprints.input_of(state, blueprint_id) for blueprint_id in ids]

    def build_graph(self, step: Step) -> None:
        """Number what is new, then build the graph from the state the step arrived in."""
        with timed(step, "graph_ns"):
            keys = self._builder.registry_keys(step.observation, step.blueprints)
            known = step.state.registries
            added, overflow = assignments(known, keys)
            step.observed.extend(
                journal.RegistryAssigned(kind=kind, keys=names, first_index=len(known[kind]) + 1)
                for kind, names in added.items()
            )
            registries = extended(known, added) if added else known
            host_id = self._blueprints.host_id(step.observation)
            step.graph = self._builder.build(
                step.observation,
                norms=step.state.norms,
                registries=registries,
                blueprints=step.blueprints,
                host_id=host_of(host_id, step.state.behaviour_flags),
            )
            step.layout, step.graph_event = graph_observed(
                step.graph, step.blueprints, step_lsn=step.lsn, host_id=host_id
            )
            step.graph_event.registry_overflow = overflow
            if overflow:
                self._tell_of_full(registries)
            self._speakers.expect(step.state.policy_version, step.graph.node_counts())

    def _tell_of_full(self, known: Registries) -> None:
        """Say of each registry once that it takes no more names: a policy cannot tell those that come now apart."""
        for kind in full(known):
            if kind not in self._told_of_full:
                self._told_of_full.add(kind)
                logger.warning("the registry %s is full with %d names: any new one reads as 0", kind, len(known[kind]))

    def propose(self, step: Step) -> None:
        """Run the policy under its deadline, unless its breaker is open or there is nothing to select."""
        with timed(step, "inference_ns"):
            step.observed.append(self._inference_event(step))

    def decide(self, step: Step) -> None:
        """Decide, fold and queue under the journal's lock."""
        with timed(step, "decide_ns"):
            try:
                step.recorded = self._journal.record(lambda state, now_ns: _decided(step, state, now_ns), log=step.log)
            except PacketRejected as error:  # the packet is in the log; what does not fit came from elsewhere
                if not self._told_of_size:
                    logger.warning("a step's records do not fit the log, and it is a PAUSE: %s", str(error))
                    self._told_of_size = True
                raise JournalUnavailable("log_full") from error

    def commit(self, step: Step) -> wal.Commit:
        """Wait for durability within what is left of the commit's budget."""
        assert step.recorded is not None  # noqa: S101  `decide` came before
        with timed(step, "commit_ns"):
            try:
                return step.recorded.result(self._clock.patience_s("log", step.commit_left_ns / 1e9))
            except TimeoutError as late:
                raise JournalUnavailable("timeout_wal") from late
            except wal.LogError as error:
                raise JournalUnavailable("log_failed") from error

    def sign(self, step: Step, commit: wal.Commit) -> pb.AdaptationCommand:
        """Sign what the log returned as durable."""
        assert step.recorded is not None  # noqa: S101  a commit has a batch
        with timed(step, "sign_ns"):
            place = _decision_lsn(step.recorded) - commit.first_lsn
            command = signing.release(commit.entries[place], self._key)
        self._journal.note_release()
        self._outage.end()
        return command

    def pause(self, step: Step, unavailable: JournalUnavailable) -> pb.AdaptationCommand:
        """The safe PAUSE; the log says so later: of a step it has by its LSN, of any other by its number."""
        self._outage.meet(unavailable)
        cause = unavailable.cause
        if step.lsn == 0:
            self._journal.count_unrecorded(cause)
        else:
            decision_lsn = _decision_lsn(step.recorded) if step.recorded is not None else 0
            released = ReleasedPause(step.observation, step.received, step.lsn, decision_lsn, cause)
            self._journal.note_pause(released)
        command = safe_pause(step.observation, step.decision_id, step.received_unix_ns, cause, budget_ms=step.budget_ms)
        return signing.sign_safe_pause(command, self._key)

    def close(self) -> None:
        """Let the collaborators' threads end."""
        self._blueprints.close()
        self._inference.close()

    def _await(self, step: Step, wait: Callable[[float], bool]) -> None:
        started_ns = time.perf_counter_ns()
        try:
            wait(self._clock.patience_s("log", step.commit_left_ns / 1e9))
        except wal.LogError as error:
            raise JournalUnavailable("log_failed") from error
        step.commit_left_ns -= time.perf_counter_ns() - started_ns

    def _inference_event(self, step: Step) -> Event:
        graph, version = step.graph, step.state.policy_version  # whatever is installed meanwhile is for the next step
        speaker = self._speakers.of(version)
        identity = PolicyIdentity(version, "", "") if speaker is None else speaker.identity
        assert graph is not None  # noqa: S101  `build_graph` came before
        skipped = self._skip_cause(step, graph)
        if skipped is not None:
            return journal.InferenceSkipped(step_lsn=step.lsn, identity=identity_message(identity), cause=skipped)
        if speaker is None:  # the log came back without the record that replaced it
            error = f"policy {version} is not loaded yet: else roll back, or open again"
            return journal.InferenceFailed(step_lsn=step.lsn, identity=identity_message(identity), error=error)
        patience_s = self._clock.patience_s("policy", step.budget_ms / 1e3)
        outcome = self._inference.call(lambda: self._ask(step, speaker, graph), patience_s)
        if isinstance(outcome, Returned):
            event = outcome.value
            event.elapsed_ns = outcome.elapsed_ns
            return event
        message = identity_message(identity)
        if isinstance(outcome, TimedOut):
            return journal.InferenceTimedOut(
                step_lsn=step.lsn, identity=message, budget_ms=step.budget_ms, elapsed_ns=outcome.elapsed_ns
            )
        return inference_failed(step, message, outcome)

    def _ask(self, step: Step, speaker: Speaker, graph: Graph) -> journal.InferenceObserved | journal.InferenceFailed:
        """Ask the policy and judge its answer, on its own thread: whatever is in there is somebody else's code."""
        with nullcontext() if step.watch is None else step.watch("propose"):
            proposal = speaker.policy.propose(graph)
        now = speaker.policy.identity  # a compiled engine that fell back says so here
        return inference_message(
            step.lsn,
            now if now.version == speaker.identity.version else speaker.identity,
            proposal,
            observation=step.observation,
            blueprints=len(step.blueprints),
        )

    def _skip_cause(self, step: Step, graph: Graph) -> str | None:
        breaker = step.state.breakers["inference"]
        if graph.candidates:
            admitted = admits(breaker, step.received.event_time_ns, step.state.thresholds)
            return None if admitted else "breaker_open"
        # Cooled down or not: without a candidate there is no trial, and an OPEN breaker stays so.
        return "breaker_open" if breaker.state == OPEN else "no_seed_candidates"


def _packet_bytes(packet: object) -> bytes:
    try:
        if isinstance(packet, Message) and packet.DESCRIPTOR.name == "SystemStatePacket":  # of whosever bindings
            return packet.SerializeToString()
        if isinstance(packet, bytes | bytearray | memoryview):
            return bytes(packet)
    except (EncodeError, ValueError) as error:  # over 2 GiB, a required field of other bindings, memory let go of
        raise PacketRejected(
            f"a {type(packet).__name__} gives no bytes: {error}; give a SystemStatePacket or its bytes"
        ) from error
    raise PacketRejected(f"a {type(packet).__name__} is no packet; give a SystemStatePacket or its bytes")


def _decided(step: Step, state: State, now_ns: int) -> Folded:
    """The step's whole batch: what was observed, then what follows from it."""
    observed = [*linked_graph(step, state), *step.observed]
    fold = Fold(state)
    fold.follow(observed)
    inputs = step_inputs(
        step.lsn,
        step.received,
        observed,
        event_time_ns=now_ns,
        timings=stage_timings(step.timings),
        observation=step.observation,
    )
    decided = decide(fold.standing, inputs).events
    fold.follow(decided)
    return Folded((*observed, *decided), fold.state())


def _decision_lsn(recorded: Recorded) -> int:
    made = next(event for event in recorded.events if isinstance(event, journal.DecisionMade))
    return recorded.lsn_of(made)
