"""Telemetry packets, made from the journal alone: the same packet under the same id however often it is made.

`TelemetryReader` folds the journal and gives a packet for each decision, once its batch has been read, and one for
each event outside a decision that tells something. A packet's id is made of the log's id and the LSN that it tells
of, so that a consumer can drop repeats.

Rule 1: a metric is there when its value is known in that step, and left out otherwise; 0 is a value.
Rule 2: a decision's indicators are always all there, as text.
Rule 3: health is that of the rows that triggered; priority is the highest among the events in the packet.
Rule 4: nothing here reads what is not in the journal: no graph, no network, no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.breakers import BREAKERS, Breaker
from tamiyo.core.choice import choice_of
from tamiyo.core.coverage import Coverage
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.evolve import Fold
from tamiyo.core.inputs import Inference, proposal_of
from tamiyo.core.layout import REMEMBERED, coverage_of
from tamiyo.core.notices import Notice, enum_name, notices_of
from tamiyo.core.state import State
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["SOURCE", "StepFacts", "TelemetryReader", "event_packet", "priority_of", "step_packet"]

SOURCE = "tamiyo"
NORMAL = pb.MESSAGE_PRIORITY_NORMAL
INFO, WARNING, CRITICAL = pb.TELEMETRY_LEVEL_INFO, pb.TELEMETRY_LEVEL_WARNING, pb.TELEMETRY_LEVEL_CRITICAL
HEALTHY, DEGRADED = pb.HEALTH_STATUS_HEALTHY, pb.HEALTH_STATUS_DEGRADED
LEVELS: Mapping[int, int] = {HEALTHY: INFO, DEGRADED: WARNING, pb.HEALTH_STATUS_CRITICAL: CRITICAL}
"""The level of a packet, by the health that it reports."""

_BREAKER_NAMES = {name: (f"tamiyo.breaker.{name}_state", f"tamiyo.breaker.{name}_failures") for name in BREAKERS}

Metric = tuple[str, float, str]
"""Name, value, unit."""


@dataclass(slots=True)
class StepFacts:
    """What the journal says of one step, gathered until its decision has been read whole."""

    received: journal.StepReceived
    graph: journal.GraphObserved | None = None
    inference: Inference | None = None
    decision_lsn: int = 0
    made: journal.DecisionMade | None = None
    told: list[Event] = field(default_factory=list)  # what tells something, the decision among it, in order


class TelemetryReader:
    """Reads the journal event by event; holds no more than one step."""

    def __init__(self, state: State | None = None, received: journal.StepReceived | None = None) -> None:
        """Begin after `state`, which is one at a `boundary_lsn` or just after `received`; from LSN 1 on without one."""
        self._fold = Fold(state)
        self._step = None if received is None else StepFacts(received)
        self._step_lsn = 0 if received is None else self._fold.last_lsn
        self.boundary_lsn = self._fold.last_lsn
        """Where a reader may begin again and give the same packets: what lies before has been told in full."""

    @property
    def last_lsn(self) -> int:
        """The LSN of the last event taken."""
        return self._fold.last_lsn

    def take(self, lsn: int, event: Event, *, told: bool = False) -> pb.TelemetryPacket | None:
        """Read one more event; the packet that it completes, if there is one.

        `told` says that what ends here was published before: no packet is made, which is several times as fast.

        Raises:
            InvariantViolation: the event is illegal here, as `evolve` says.
        """
        self._fold.take(lsn, event)
        packet = self._read(lsn, event, told=told)
        if self._step is None:
            self.boundary_lsn = lsn
        return packet

    def _read(self, lsn: int, event: Event, *, told: bool = False) -> pb.TelemetryPacket | None:
        step = self._step
        if isinstance(event, journal.StepReceived):  # one before it that has no decision gets none any more
            self._step, self._step_lsn = StepFacts(event), lsn
        elif isinstance(event, journal.ServiceOpened):
            self._step = None
        elif step is not None and getattr(event, "step_lsn", 0) == self._step_lsn:
            return self._read_of_step(step, lsn, event, told=told)
        elif not told:
            return event_packet(self._fold.standing, lsn, event)
        return None

    def _read_of_step(self, step: StepFacts, lsn: int, event: Event, *, told: bool) -> pb.TelemetryPacket | None:
        if isinstance(event, journal.GraphObserved):
            step.graph = event
        elif isinstance(event, Inference):
            step.inference = event
        elif isinstance(event, journal.StepPaused):
            self._step = None
            return None if told else event_packet(self._fold.standing, lsn, event)
        elif isinstance(event, journal.FieldReportIssued):
            if not event.synthesised and step.made is not None:
                self._step = None
                return None if told else step_packet(self._fold.standing, step, step.made)
        else:
            step.told.append(event)
            if isinstance(event, journal.DecisionMade):
                step.decision_lsn, step.made = lsn, event
        return None


def priority_of(packet: pb.TelemetryPacket) -> int:
    """The Leyline MessagePriority that a packet goes out with."""
    return pb.MessagePriority.Value(packet.system_health.indicators["priority"])


def step_packet(state: Standing, step: StepFacts, made: journal.DecisionMade) -> pb.TelemetryPacket:
    """The packet of a decision. `state` is the state after the whole batch; the step has been read to its end."""
    command = pb.AdaptationCommand.FromString(made.command)
    named = _named(state, command, made)
    packet = _packet(state, step.decision_lsn, step.received.received_unix_ns)
    for name, value, unit in _step_metrics(state, step, made, command, named):
        packet.metrics.add(name=name, value=value, unit=unit)
    packet.MergeFromString(_breaker_metrics(*state.breakers.items()))
    if step.graph is not None:
        packet.MergeFromString(_coverage_metrics(coverage_of(state.layouts[step.graph.layout_lsn], step.graph)))
    priority = _tell(packet, [notice for event in step.told for notice in notices_of(event, state.options)])
    status = _health(made, command)
    packet.level = LEVELS[status]  # type: ignore[assignment]  # a Leyline value
    packet.system_health.status = status  # type: ignore[assignment]  # a Leyline value
    packet.system_health.summary = made.risk_reason
    packet.system_health.indicators.update(_indicators(state, step, made, command, named, priority))
    return packet


def event_packet(state: Standing, lsn: int, event: Event) -> pb.TelemetryPacket | None:
    """The packet of an event outside a decision, None where it tells nothing. `state` is the state after it."""
    notices = notices_of(event, state.options)
    if not notices:
        return None
    packet = _packet(state, lsn, state.event_time_ns)
    for name, value, unit in _standing_metrics(state):
        packet.metrics.add(name=name, value=value, unit=unit)
    packet.MergeFromString(_breaker_metrics(*state.breakers.items()))
    priority = _tell(packet, notices)
    level = max(notice.level for notice in notices)
    packet.level = level  # type: ignore[assignment]  # a Leyline value
    health = next((status for status, of in LEVELS.items() if of == level), DEGRADED)
    packet.system_health.status = health  # type: ignore[assignment]  # a Leyline value
    packet.system_health.summary = notices[0].name
    packet.system_health.indicators.update(
        {
            "reason": notices[0].attributes.get("reason", notices[0].name),
            "priority": enum_name(pb.MessagePriority, priority),
            "step_index": str(state.steps_received),
            "policy": state.policy_version,
            "mode": _mode(state),
        }
    )
    return packet


def _packet(state: Standing, lsn: int, unix_ns: int) -> pb.TelemetryPacket:
    packet = pb.TelemetryPacket(packet_id=f"{SOURCE}-{state.log_id or 'log'}-{lsn}", source_subsystem=SOURCE)
    packet.timestamp.FromNanoseconds(unix_ns)
    return packet


def _tell(packet: pb.TelemetryPacket, notices: Sequence[Notice]) -> int:
    """Put the notices into the packet; the highest of their priorities."""
    for index, notice in enumerate(notices, start=1):
        told = packet.events.add(event_id=f"{packet.packet_id}-{index}", description=notice.name)
        told.level = notice.level  # type: ignore[assignment]  # a Leyline value
        told.attributes.update(notice.attributes)
        told.attributes["priority"] = enum_name(pb.MessagePriority, notice.priority)
    return max((notice.priority for notice in notices), default=NORMAL)


def _health(made: journal.DecisionMade, command: pb.AdaptationCommand) -> int:
    worst = max((row.level for row in made.rows), default=0)
    if worst >= CRITICAL:
        return pb.HEALTH_STATUS_CRITICAL
    return DEGRADED if worst >= WARNING or command.command_type == pb.COMMAND_PAUSE else HEALTHY


def _named(state: Standing, command: pb.AdaptationCommand, made: journal.DecisionMade) -> Blueprint | None:
    """The blueprint that the proposal named, as the rows read it."""
    observed = state.blueprints.get(command.annotations.get("selected_blueprint", ""))
    return observed.blueprint if observed is not None and made.blueprint_digest else None


def _mode(state: Standing) -> str:
    return "conservative" if state.conservative.active else "normal"


def _indicators(
    state: Standing, step: StepFacts, made: journal.DecisionMade, command: pb.AdaptationCommand,
    named: Blueprint | None, priority: int,
) -> dict[str, str]:  # fmt: skip
    identity = step.inference.identity if step.inference is not None else journal.PolicyIdentity()
    return {
        "reason": made.risk_reason,
        "priority": enum_name(pb.MessagePriority, priority),
        "step_index": str(step.received.step_index),
        "policy": identity.version,
        "policy_arch": identity.architecture,
        "policy_compile": str(int(identity.compiled)),
        "mode": _mode(state),
        "timeout_budget_ms": str(step.received.budget_ms),
        "metadata_timeout_budget_ms": str(state.metadata_budget_ms),
        "blending_method": command.annotations.get("blending_method", ""),
        "tier": enum_name(pb.BlueprintTier, named.tier if named is not None else 0),
    }


def _step_metrics(
    state: Standing, step: StepFacts, made: journal.DecisionMade, command: pb.AdaptationCommand,
    named: Blueprint | None,
) -> list[Metric]:  # fmt: skip
    found: list[Metric] = [
        ("tamiyo.inference.latency_ms", made.timings.inference_ns / 1e6, "ms"),
        ("tamiyo.gnn.bsds_missing", float(_lacks_sheet(command, named)), "count"),
    ]
    if made.has_validation_loss:
        found.append(("tamiyo.validation_loss", made.validation_loss, "loss"))
    if made.command_id:  # the first logs did not say
        found.append(("tamiyo.loss_delta", made.loss_delta, "loss"))
    if named is not None:
        found.append(("tamiyo.blueprint.risk", named.risk, "score"))
    if step.inference is not None:
        found += _policy_metrics(step.inference)
    return found + _standing_metrics(state)


def _lacks_sheet(command: pb.AdaptationCommand, named: Blueprint | None) -> bool:
    """A blueprint was named, and no safety sheet is known of it."""
    selected = bool(command.annotations.get("selected_blueprint", ""))
    return selected and (named is None or named.sheet is None)


def _policy_metrics(inference: Inference) -> list[Metric]:
    identity = inference.identity
    found: list[Metric] = [
        ("tamiyo.gnn.compile_enabled", float(identity.compiled), "bool"),
        ("tamiyo.gnn.compile_fallback_total", float(identity.compile_fallbacks), "count"),
        ("tamiyo.gnn.compile_warm_ms", identity.compile_warm_ms, "ms"),
    ]
    if not isinstance(inference, journal.InferenceSkipped):
        found.append(("tamiyo.gnn.inference.latency_ms", inference.elapsed_ns / 1e6, "ms"))
    if isinstance(inference, journal.InferenceObserved):
        proposal = proposal_of(inference)
        choice = choice_of(proposal)
        found += [
            ("tamiyo.policy.value_estimate", choice.value, "score"),
            ("tamiyo.policy.risk_index", float(choice.risk_index), "index"),
            ("tamiyo.policy.risk_score", choice.risk_score, "score"),
            ("tamiyo.blending.method_index", float(choice.method), "index"),
            ("tamiyo.blending.schedule_start", choice.schedule_start, "fraction"),
            ("tamiyo.blending.schedule_end", choice.schedule_end, "fraction"),
            ("tamiyo.selection.seed_index", float(proposal.seed_index), "index"),
            ("tamiyo.selection.seed_score", proposal.seed_score, "score"),
            ("tamiyo.selection.blueprint_index", float(proposal.blueprint_index), "index"),
        ]
    return found


@lru_cache(maxsize=REMEMBERED)
def _coverage_metrics(covered: Coverage) -> bytes:
    """The same for every step with this coverage: a packet of these metrics alone, to be merged into the step's.

    Bytes are merged six times as fast as messages are copied one by one.
    """
    shares = {"": covered.average, **{f".{family}": share for family, share in covered.families.items()}}
    packet = pb.TelemetryPacket()
    for suffix, share in shares.items():
        packet.metrics.add(name=f"tamiyo.gnn.feature_coverage{suffix}", value=share, unit="fraction")
    return packet.SerializeToString()


@lru_cache(maxsize=REMEMBERED)
def _breaker_metrics(*records: tuple[str, Breaker]) -> bytes:
    """The same for every packet until a breaker changes; a packet to be merged, as with coverage."""
    packet = pb.TelemetryPacket()
    for name, breaker in records:
        state_name, failures_name = _BREAKER_NAMES[name]
        packet.metrics.add(name=state_name, value=float(breaker.state), unit="state")
        packet.metrics.add(name=failures_name, value=float(breaker.failures), unit="count")
    return packet.SerializeToString()


def _standing_metrics(state: Standing) -> list[Metric]:
    outbox = state.outbox
    return [
        ("tamiyo.conservative_mode", float(state.conservative.active), "bool"),
        ("tamiyo.field_reports.pending_total", float(state.reports_pending), "count"),
        ("tamiyo.field_reports.published_total", float(outbox.published), "count"),
        ("tamiyo.field_reports.retries_total", float(outbox.retried), "count"),
        ("tamiyo.field_reports.dropped_total", float(outbox.dropped), "count"),
        ("tamiyo.telemetry.dropped_total", float(outbox.telemetry_dropped), "count"),
    ]
