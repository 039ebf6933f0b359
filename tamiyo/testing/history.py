"""Writes journals without a service: event after event, each one legal and each one what follows from those before.

The events are those of the core itself (`decide`, `log_trial`, `blueprint_observed`...), so that a history is valid by
construction: it folds, and an audit finds nothing in it. No clock, no disk, no thread.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from google.protobuf.message import Message

import wal
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.blueprint import content_digest
from tamiyo.core.breakers import OPEN, admits
from tamiyo.core.decide import blueprint_observed, decide, log_trial, pause_released
from tamiyo.core.directives import command_delivered, operator_directed
from tamiyo.core.events import Event, encode
from tamiyo.core.evolve import evolve
from tamiyo.core.inputs import Inference, identity_message, inference_message, step_inputs
from tamiyo.core.layout import GraphLayout
from tamiyo.core.lifecycle import candidates
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import Observation, read_packet
from tamiyo.core.outbox import (
    DueReport,
    FreshReports,
    publish_attempted,
    publishing_admitted,
    retries_due,
    telemetry_drained,
    telemetry_dropped,
)
from tamiyo.core.policies import failed_probation
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.core.registries import stamps
from tamiyo.core.state import State
from tamiyo.fingerprint import service_opened
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.library import MemoryRecord
from tamiyo.testing.policies import fitted

__all__ = ["History"]

IDENTITY = PolicyIdentity("history-v1", "fixed", "python")
LAYOUT = GraphLayout((("node.global", "loss"),), (), ())
GRAPH = journal.GraphObserved(present=[1], total=[1])
EPOCH_NS = 1_700_000_000_000_000_000
MOMENT_NS = 1_000
REPORTS_MAX = 64
"""Reports of one attempt, as many as a service hands over together."""


class History:
    """A journal under way. `events` are its records from LSN 1 on, `state` what they come to.

    One that is longer than memory is written as it grows: `handed_over` gives the records that are new.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        layout: GraphLayout = LAYOUT,
        graph: journal.GraphObserved = GRAPH,
    ) -> None:
        """Begin with a service that opens an empty log.

        Args:
            settings: the service's.
            layout: of every graph.
            graph: the counts and norm inputs of every graph, in the layout's order.
        """
        self.events: list[Event] = []
        self.state = State()
        self._settings = settings or Settings()
        self._layout, self._graph = layout, graph
        self._forgotten = self._taken = 0  # up to these LSNs records were forgotten, and handed over
        self._layout_lsn = 0
        self._last: tuple[Observation, journal.StepReceived, int, int] | None = None
        self._arrived = self.state  # just after the last packet was received
        self._contents: dict[str, bytes] = {}
        self.open()

    def entries(self) -> list[wal.Entry]:
        """The records as a log holds them: what `tamiyo.audit.replay` and projections read."""
        return [wal.Entry(lsn, *encode(event)) for lsn, event in enumerate(self.events, start=self._forgotten + 1)]

    def handed_over(self) -> list[Event]:
        """The records since it was last asked; of `events` only those are kept that publishing has still to read."""
        new = self.events[self._taken - self._forgotten :]
        self._taken = self._forgotten + len(self.events)
        read_lsn = min(self.state.outbox.reports_lsn, self._taken)
        del self.events[: max(read_lsn - self._forgotten, 0)]
        self._forgotten = max(self._forgotten, read_lsn)
        return new

    def pass_time(self, seconds: float) -> None:
        """Let so much event time lie between the last event and the next."""
        self._pause_ns = int(seconds * 1e9)

    def open(self) -> None:
        """The process ends, and another service takes up the log."""
        self._pause_ns, self._last = 0, None
        now_ns = max(self._now_ns(), EPOCH_NS)
        held = self.state.policies.current
        identity = IDENTITY if held is None else replace(IDENTITY, version=held.version)
        self._fold(service_opened(self._settings, identity, now_ns, now_ns))

    def step(self, packet: pb.SystemStatePacket, answer: Proposal | str) -> None:
        """A step that is decided: on a proposal, fitted to the packet, or on "timeout" or "failure" of the policy."""
        received, lsn, observation = self._receive(packet)
        self._in_force = self.state.policy_version
        if not self._layout_lsn:
            self._fold(self._layout.event())
            self._layout_lsn = self.state.last_lsn
        inference = self._inference(received, lsn, observation, answer)
        graph = journal.GraphObserved(
            step_lsn=lsn, layout_lsn=self._layout_lsn, host_blueprint_id=observation.training_run_id,
            blueprints=self._uses(),
        )  # fmt: skip
        graph.MergeFrom(self._graph)
        observed = [graph, inference]
        self._fold(*observed)
        inputs = step_inputs(
            lsn, received, observed, event_time_ns=self._now_ns(), timings=journal.StageTimings(),
            observation=observation,
        )  # fmt: skip
        events = decide(self.state, inputs).events
        self._fold(*events)
        made = next(place for place, event in enumerate(events) if isinstance(event, journal.DecisionMade))
        self._last = observation, received, lsn, self.state.last_lsn - len(events) + 1 + made

    def paused_step(self, packet: pb.SystemStatePacket, cause: str) -> None:
        """A step whose packet is recorded and whose decision is not; `cause` as in a `StepPaused`."""
        received, lsn, observation = self._receive(packet)
        self._fold(*self._released(observation, received, lsn, 0, cause))
        self._last = None

    def undecided_step(self, packet: pb.SystemStatePacket) -> None:
        """A packet that killed its process; another takes over."""
        self._receive(packet)
        self.open()

    def commit_is_late(self) -> None:
        """The last decision's commit was late, and a PAUSE superseded it; nothing where that is settled."""
        if self._last is not None and self.state.unsettled is not None:
            self._fold(*self._released(*self._last, "timeout_wal"))
        self._last = None

    def unrecorded_steps(self, count: int) -> None:
        """So many steps were answered while the log's writer was dead; it is back."""
        first, failed_at_ns = self.state.steps_received + 1, self._now_ns()
        cooled_ns = failed_at_ns + int(self.state.thresholds.breaker_cool_down_s * 1e9)
        unrecorded = journal.StepsUnrecorded(
            first_step_index=first, last_step_index=first + count - 1, count=count, event_time_ns=cooled_ns,
            cause="log_failed",
        )  # fmt: skip
        self._fold(*log_trial(self.state, unrecorded, writer_failed_at_ns=failed_at_ns))
        self._last = None

    def observe(self, record: MemoryRecord) -> None:
        """The library answers with a record whose extras are well formed."""
        descriptor, sheet = record.descriptor, record.extras.get("bsds")
        content = journal.BlueprintContent(
            descriptor=_bytes(descriptor), safety_sheet=_bytes(sheet) if isinstance(sheet, Message) else b""
        )
        blueprint_id = str(getattr(descriptor, "blueprint_id", ""))
        digest = content_digest(content)
        observed = journal.BlueprintObserved(
            blueprint_id=blueprint_id, digest=digest, event_time_ns=self._now_ns(), content=_bytes(content)
        )
        self._fold(*blueprint_observed(self.state, observed))
        self._contents[digest] = observed.content

    def look_back(self) -> None:
        """The state of the last packet's arrival is named; nothing where none has arrived."""
        state = self._arrived
        if state.last_lsn:
            self._fold(
                journal.SnapshotTaken(at_lsn=state.last_lsn, digest=state.digest(), event_time_ns=self._now_ns())
            )

    def base(self) -> None:
        """The state of the last packet's arrival is written down whole; the one of now where none has arrived."""
        state = self._arrived if self._arrived.last_lsn else self.state
        self._fold(base_of(state, self._contents, self._now_ns()))

    def direct(self, directive: str) -> None:
        """An operator asks for something."""
        self._fold(*operator_directed(self.state, directive, operator="ada", reason="why", now_ns=self._now_ns()))

    def install(self) -> None:
        """Another policy speaks from here on."""
        number = len(self.events)
        registries = [
            journal.RegistryStamp(kind=kind, count=stamp.count, digest=stamp.digest)
            for kind, stamp in stamps(self.state.registries).items()
        ]
        self._fold(
            journal.PolicyInstalled(
                version=f"history-{number}", architecture="fixed", checkpoint_digest=f"{number:064x}",
                policy_id=f"update-{number}", issued_unix_ns=EPOCH_NS + number, registries=registries,
                event_time_ns=self._now_ns(),
            )
        )  # fmt: skip

    def reject(self) -> None:
        """A policy update is refused."""
        self._fold(journal.PolicyRejected(reason="stale_update", detail="late", event_time_ns=self._now_ns()))

    def roll_back(self) -> None:
        """The policy from before speaks again, for failing its probation or for an operator; nothing without one."""
        held, back = self.state.policies.current, self.state.policies.previous
        if held is None or held.version != self.state.policy_version:
            return
        self._fold(
            journal.PolicyRolledBack(
                from_version=held.version, version=IDENTITY.version if back is None else back.version,
                checkpoint_digest="" if back is None else back.checkpoint_digest,
                cause=failed_probation(self.state) or "operator", event_time_ns=self._now_ns(),
            )
        )  # fmt: skip

    def import_names(self) -> None:
        """An operator brings a name that nobody has numbered here."""
        index = len(self.state.registries["layer_type"]) + 1
        imported = journal.RegistryImported(
            kind="layer_type", keys=[f"layer-{index}"], first_index=index, event_time_ns=self._now_ns()
        )
        self._fold(imported)

    def deliver(self, outcome: str) -> None:
        """Somebody says what became of the oldest command that nobody has spoken of; nothing where there is none."""
        command_id = next(iter(self.state.undelivered), None)
        if command_id is not None:
            self._fold(*command_delivered(command_id, outcome, "", now_ns=self._now_ns()))

    def publish(self, *, succeeded: bool) -> None:
        """The bus takes, or refuses, the reports that were never tried; nothing where none is certain."""
        reading = FreshReports(REPORTS_MAX)
        for lsn in range(self.state.outbox.reports_lsn + 1, self._certain_lsn() + 1):
            event = self.events[lsn - 1 - self._forgotten]
            reading.take(lsn, event, _report_id(event))
        self._attempt(reading.reports(), succeeded=succeeded)

    def retry(self, *, succeeded: bool) -> None:
        """The bus is asked again for the refused reports that are due, those of one attempt; nothing where none is."""
        due = retries_due(self.state, self._now_ns())
        self._attempt([report for report in due if report.attempt == due[0].attempt], succeeded=succeeded)

    def _attempt(self, reports: Sequence[DueReport], *, succeeded: bool) -> None:
        if reports and self._may_publish():
            cause, now_ns = "" if succeeded else "OSError: refused", self._now_ns()
            self._fold(*publish_attempted(self.state, reports, succeeded=succeeded, cause=cause, now_ns=now_ns))

    def drain(self, *, dropped: str = "") -> None:
        """The bus takes all telemetry that is certain, but for a packet of this id; nothing where none is."""
        through_lsn = self._certain_lsn()
        if through_lsn > self.state.outbox.telemetry_lsn and self._may_publish():
            if dropped:
                self._fold(telemetry_dropped(dropped, attempts=4, cause="OSError: refused", now_ns=self._now_ns()))
            self._fold(*telemetry_drained(self.state, through_lsn=through_lsn, packets=1, now_ns=self._now_ns()))

    def _may_publish(self) -> bool:
        return publishing_admitted(self.state, self._now_ns())

    def _certain_lsn(self) -> int:
        """Up to where the journal says what was released: a commit that may still be late is not certain."""
        unsettled = self.state.unsettled
        return self.state.last_lsn if unsettled is None else unsettled.step_lsn - 1

    def _now_ns(self) -> int:
        return self.state.event_time_ns + MOMENT_NS + self._pause_ns

    def _fold(self, *events: Event) -> None:
        for event in events:
            self.state = evolve(self.state, self.state.last_lsn + 1, event)
            self.events.append(event)
        self._pause_ns = 0

    def _receive(self, packet: pb.SystemStatePacket) -> tuple[journal.StepReceived, int, Observation]:
        index, now_ns = self.state.steps_received + 1, self._now_ns()
        received = journal.StepReceived(
            step_index=index, event_time_ns=now_ns, received_unix_ns=now_ns, decision_id=str(UUID(int=index)),
            call="step", budget_ms=self._settings.step_timeout_ms, packet=_bytes(packet),
        )  # fmt: skip
        self._fold(received)
        self._arrived = self.state
        return received, self.state.last_lsn, read_packet(received.packet, UNLIMITED)

    def _inference(
        self, received: journal.StepReceived, lsn: int, observation: Observation, answer: Proposal | str
    ) -> Inference:
        """What the policy said, where its breaker let it be asked and there was something to ask."""
        speaker = replace(IDENTITY, version=self._in_force)
        identity = identity_message(speaker)
        places = candidates(observation)
        breaker = self.state.breakers["inference"]
        admitted = admits(breaker, received.event_time_ns, self.state.thresholds)
        if not admitted or (breaker.state == OPEN and not places):
            return journal.InferenceSkipped(step_lsn=lsn, identity=identity, cause="breaker_open")
        if not places:
            return journal.InferenceSkipped(step_lsn=lsn, identity=identity, cause="no_seed_candidates")
        if answer == "timeout":
            return journal.InferenceTimedOut(step_lsn=lsn, identity=identity, budget_ms=5, elapsed_ns=6_000_000)
        if not isinstance(answer, Proposal):
            return journal.InferenceFailed(step_lsn=lsn, identity=identity, error="RuntimeError: no", attempted=True)
        uses = len(self._uses())
        proposal = fitted(answer, places, uses)
        return inference_message(lsn, speaker, proposal, observation=observation, blueprints=uses)

    def _uses(self) -> list[journal.BlueprintUse]:
        """The versions that a graph shows now."""
        known = {name: seen.blueprint for name, seen in self.state.blueprints.items()}
        return [journal.BlueprintUse(blueprint_id=name, digest=b.digest) for name, b in known.items() if b is not None]

    def _released(
        self, observation: Observation, received: journal.StepReceived, step_lsn: int, decision_lsn: int, cause: str
    ) -> tuple[Event, ...]:
        return pause_released(
            self.state, observation, received, step_lsn=step_lsn, decision_lsn=decision_lsn, cause=cause,
            event_time_ns=self._now_ns(),
        )  # fmt: skip


def _report_id(event: Event) -> str:
    if isinstance(event, journal.FieldReportIssued):
        return pb.FieldReport.FromString(event.report).report_id
    return ""


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
