"""Telemetry: every name as it is promised, the same packet however often it is made, told once and not for ever."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Bench, failed, packet, proposal, skipped, timed_out

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.directives import CONSERVATIVE_ON, operator_directed
from tamiyo.core.events import Event
from tamiyo.core.evolve import evolve_all
from tamiyo.core.notices import notices_of
from tamiyo.core.options import Options
from tamiyo.core.outbox import DueReport, publish_attempted
from tamiyo.core.state import State
from tamiyo.core.telemetry import TelemetryReader, priority_of
from tamiyo.leyline import leyline_pb2 as pb

ALWAYS = {
    "tamiyo.loss_delta", "tamiyo.conservative_mode", "tamiyo.inference.latency_ms",
    "tamiyo.gnn.compile_enabled", "tamiyo.gnn.compile_fallback_total", "tamiyo.gnn.compile_warm_ms",
    "tamiyo.gnn.bsds_missing", "tamiyo.gnn.feature_coverage", "tamiyo.gnn.feature_coverage.node.global",
    "tamiyo.breaker.inference_state", "tamiyo.breaker.inference_failures", "tamiyo.breaker.log_state",
    "tamiyo.breaker.log_failures", "tamiyo.breaker.metadata_state", "tamiyo.breaker.metadata_failures",
    "tamiyo.breaker.publishing_state", "tamiyo.breaker.publishing_failures",
    "tamiyo.field_reports.pending_total", "tamiyo.field_reports.published_total",
    "tamiyo.field_reports.retries_total", "tamiyo.field_reports.dropped_total",
    "tamiyo.telemetry.dropped_total",
}  # fmt: skip
ATTEMPTED = {"tamiyo.gnn.inference.latency_ms"}
PROPOSED = {
    "tamiyo.policy.value_estimate", "tamiyo.policy.risk_index", "tamiyo.policy.risk_score",
    "tamiyo.blending.method_index", "tamiyo.blending.schedule_start", "tamiyo.blending.schedule_end",
    "tamiyo.selection.seed_index", "tamiyo.selection.seed_score", "tamiyo.selection.blueprint_index",
}  # fmt: skip
INDICATORS = {
    "reason", "priority", "step_index", "policy", "policy_arch", "policy_compile", "mode", "timeout_budget_ms",
    "metadata_timeout_budget_ms", "blending_method", "tier",
}  # fmt: skip


def condition(edge: str) -> journal.ConditionEdge:
    return journal.ConditionEdge(
        reason="nonfinite_metric", edge=edge, level=pb.TELEMETRY_LEVEL_CRITICAL, priority=pb.MESSAGE_PRIORITY_CRITICAL
    )


class Teller(Bench):
    """A bench that reads its own journal for telemetry as it goes."""

    def __init__(self, **options: object) -> None:
        self.reader = TelemetryReader()
        self.packets: list[pb.TelemetryPacket] = []
        self.journal: list[Event] = []
        super().__init__(**options)

    def fold(self, event: Event) -> None:
        super().fold(event)
        self.journal.append(event)
        told = self.reader.take(self.state.last_lsn, event)
        if told is not None:
            self.packets.append(told)

    def inputs(self, *args: object, **how: object) -> object:
        made = super().inputs(*args, **how)
        for event in (made.graph, made.inference, *made.metadata_faults):
            self.fold(event)
        return made

    def say(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self.fold(event)

    def tell(self, *args: object, **how: object) -> pb.TelemetryPacket:
        """A step, and the packet that tells of it."""
        self.step(*args, **how)
        return self.packets[-1]


def metrics(told: pb.TelemetryPacket) -> dict[str, float]:
    found = {metric.name: metric.value for metric in told.metrics}
    assert len(found) == len(told.metrics), "a name comes twice"
    return found


def names(told: pb.TelemetryPacket) -> list[str]:
    return [event.description for event in told.events]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, ALWAYS | ATTEMPTED | PROPOSED),
        (timed_out(), ALWAYS | ATTEMPTED),
        (failed(), ALWAYS | ATTEMPTED),
        (skipped("no_seed_candidates"), ALWAYS),
    ],
)
def test_a_step_s_metrics_are_exactly_the_promised_ones(answer: object, expected: set[str]) -> None:
    assert set(metrics(Teller().tell(packet(), answer))) == expected


UNITS = {
    "ms": r"(.*\.latency|.*_warm)_ms",
    "loss": r"tamiyo\.(validation_loss|loss_delta)",
    "bool": r"tamiyo\.(conservative_mode|gnn\.compile_enabled)",
    "fraction": r"tamiyo\.(gnn\.feature_coverage.*|blending\.schedule_(start|end))",
    "score": r"tamiyo\.(policy\.(value_estimate|risk_score)|selection\.seed_score|blueprint\.risk)",
    "index": r"tamiyo\..*_index",
    "state": r"tamiyo\.breaker\..*_state",
    "count": r"tamiyo\.(.*_total|breaker\..*_failures|gnn\.bsds_missing)",
}


def test_every_metric_has_its_unit() -> None:
    teller = Teller()
    teller.observe(risk=0.25)
    told = teller.tell(packet(pb.SEED_STAGE_DORMANT, validation_loss=0.5))
    for metric in told.metrics:
        assert [unit for unit, names_ in UNITS.items() if re.fullmatch(names_, metric.name)] == [metric.unit], metric


def test_every_metric_and_indicator_has_the_value_of_its_step() -> None:
    teller = Teller()
    teller.observe("bp-0")
    teller.observe("bp-1", risk=0.25, tier=pb.BLUEPRINT_TIER_EXPERIMENTAL)
    told = teller.tell(
        packet(pb.SEED_STAGE_DORMANT, validation_loss=0.5),
        proposal(risk=(0.0, 0.0, 0.5, 0.5, 0.0), blueprint_index=1)._replace(seed_score=0.75),
        blueprints=("bp-0", "bp-1"), coverage=(2, 4), faults=(journal.MetadataFailed(blueprint_id="bp-2", error="no"),),
    )  # fmt: skip
    closed = float(pb.CIRCUIT_STATE_CLOSED)
    assert metrics(told) == {
        "tamiyo.validation_loss": 0.5, "tamiyo.loss_delta": 0.0, "tamiyo.conservative_mode": 0.0,
        "tamiyo.inference.latency_ms": 0.0, "tamiyo.gnn.inference.latency_ms": 1e-6,
        "tamiyo.gnn.compile_enabled": 0.0, "tamiyo.gnn.compile_fallback_total": 0.0, "tamiyo.gnn.compile_warm_ms": 0.0,
        "tamiyo.gnn.bsds_missing": 1.0,
        "tamiyo.gnn.feature_coverage": 0.5, "tamiyo.gnn.feature_coverage.node.global": 0.5,
        "tamiyo.policy.value_estimate": 0.5, "tamiyo.policy.risk_index": 2.0, "tamiyo.policy.risk_score": 0.625,
        "tamiyo.blending.method_index": 1.0, "tamiyo.blending.schedule_start": 0.25,
        "tamiyo.blending.schedule_end": 0.75,
        "tamiyo.selection.seed_index": 0.0, "tamiyo.selection.seed_score": 0.75,
        "tamiyo.selection.blueprint_index": 1.0, "tamiyo.blueprint.risk": 0.25,
        "tamiyo.breaker.inference_state": closed, "tamiyo.breaker.inference_failures": 0.0,
        "tamiyo.breaker.log_state": closed, "tamiyo.breaker.log_failures": 0.0,
        "tamiyo.breaker.metadata_state": closed, "tamiyo.breaker.metadata_failures": 1.0,
        "tamiyo.breaker.publishing_state": closed, "tamiyo.breaker.publishing_failures": 0.0,
        "tamiyo.field_reports.pending_total": 1.0, "tamiyo.field_reports.published_total": 0.0,
        "tamiyo.field_reports.retries_total": 0.0, "tamiyo.field_reports.dropped_total": 0.0,
        "tamiyo.telemetry.dropped_total": 0.0,
    }  # fmt: skip
    assert dict(told.system_health.indicators) == {
        "reason": "metadata_failed", "priority": "MESSAGE_PRIORITY_HIGH", "step_index": "1", "policy": "test-v1",
        "policy_arch": "fixed", "policy_compile": "0", "mode": "normal", "timeout_budget_ms": "5",
        "metadata_timeout_budget_ms": str(teller.state.metadata_budget_ms), "blending_method": "cosine",
        "tier": "BLUEPRINT_TIER_EXPERIMENTAL",
    }  # fmt: skip


def test_a_breaker_that_opens_and_conservative_mode_are_numbers_too() -> None:
    teller = Teller()
    for _ in range(3):
        told = metrics(teller.tell(packet(), timed_out()))
    assert told["tamiyo.breaker.inference_state"] == float(pb.CIRCUIT_STATE_OPEN)
    assert told["tamiyo.breaker.inference_failures"] == 3.0
    assert told["tamiyo.conservative_mode"] == 1.0


@pytest.mark.parametrize(
    ("event", "level", "priority"),
    [
        (journal.BreakerMoved(breaker="inference", to_state=pb.CIRCUIT_STATE_OPEN), "WARNING", "HIGH"),
        (journal.BreakerMoved(breaker="log", to_state=pb.CIRCUIT_STATE_OPEN), "WARNING", "HIGH"),
        (journal.BreakerMoved(breaker="metadata", to_state=pb.CIRCUIT_STATE_OPEN), "WARNING", "NORMAL"),
        (journal.BreakerMoved(breaker="publishing", to_state=pb.CIRCUIT_STATE_OPEN), "WARNING", "NORMAL"),
        (journal.BreakerMoved(breaker="log", to_state=pb.CIRCUIT_STATE_CLOSED), "INFO", "NORMAL"),
        (journal.ConservativeModeChanged(active=True), "WARNING", "NORMAL"),
        (journal.ConservativeModeChanged(active=False), "INFO", "NORMAL"),
        (journal.PolicyRejected(reason="stale_update"), "WARNING", "NORMAL"),
        (journal.PolicyInstalled(version="v2"), "INFO", "NORMAL"),
        (journal.PolicyRolledBack(cause="malformed"), "WARNING", "HIGH"),
        (journal.PolicyRolledBack(cause="operator"), "INFO", "NORMAL"),
        (journal.DecisionMade(command_id="c", edges=[condition("started")]), "CRITICAL", "CRITICAL"),
        (journal.DecisionMade(command_id="c", edges=[condition("ended")]), "INFO", "CRITICAL"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_an_event_has_the_level_and_priority_of_what_it_tells(event: Event, level: str, priority: str) -> None:
    (notice,) = notices_of(event, Options())
    assert pb.TelemetryLevel.Name(notice.level) == f"TELEMETRY_LEVEL_{level}"
    assert pb.MessagePriority.Name(notice.priority) == f"MESSAGE_PRIORITY_{priority}"


def test_latencies_are_told_in_milliseconds() -> None:
    teller = Teller()
    inputs = teller.inputs(packet(), timed_out())
    inputs.timings.inference_ns = 7_500_000
    teller.say(teller.decide(inputs).events)
    told = metrics(teller.packets[-1])
    assert told["tamiyo.gnn.inference.latency_ms"] == 6.0
    assert told["tamiyo.inference.latency_ms"] == 7.5


def test_what_is_known_of_loss_and_blueprint_is_told() -> None:
    teller = Teller()
    teller.observe(risk=0.25)
    teller.step(packet(validation_loss=0.5))
    told = metrics(teller.tell(packet(pb.SEED_STAGE_DORMANT, validation_loss=0.25), elapsed_s=1.0))
    assert told["tamiyo.validation_loss"] == 0.25
    assert told["tamiyo.loss_delta"] == -0.25
    assert told["tamiyo.blueprint.risk"] == 0.25
    assert told["tamiyo.gnn.bsds_missing"] == 1.0
    assert told["tamiyo.field_reports.pending_total"] == 2.0


def test_a_blueprint_with_a_safety_sheet_lacks_none() -> None:
    teller = Teller()
    teller.observe(sheet=pb.BSDS(risk_score=0.1))
    assert metrics(teller.tell(packet(pb.SEED_STAGE_DORMANT)))["tamiyo.gnn.bsds_missing"] == 0.0


def test_the_policy_s_numbers_are_those_of_its_proposal() -> None:
    told = metrics(Teller().tell(packet(), proposal(risk=(0.0, 0.0, 0.5, 0.5, 0.0))))
    assert told["tamiyo.policy.risk_index"] == 2.0
    assert told["tamiyo.policy.risk_score"] == 0.625
    assert told["tamiyo.blending.method_index"] == 1.0
    assert (told["tamiyo.blending.schedule_start"], told["tamiyo.blending.schedule_end"]) == (0.25, 0.75)
    assert told["tamiyo.selection.seed_index"] == 0.0


@pytest.mark.parametrize(
    "answer",
    [None, timed_out(), failed(), skipped("no_seed_candidates")],
    ids=["proposed", "late", "failed", "skipped"],
)
def test_what_a_policy_runs_on_is_told_whatever_came_of_it(answer: object) -> None:
    message = Bench().inputs(packet(), answer).inference
    message.identity.compiled, message.identity.compile_fallbacks = True, 2
    message.identity.compile_warm_ms = 812.5
    told = Teller().tell(packet(), message)
    assert metrics(told)["tamiyo.gnn.compile_enabled"] == 1.0
    assert metrics(told)["tamiyo.gnn.compile_fallback_total"] == 2.0
    assert metrics(told)["tamiyo.gnn.compile_warm_ms"] == 812.5
    assert told.system_health.indicators["policy_compile"] == "1"
    assert Teller().tell(packet()).system_health.indicators["policy_compile"] == "0"


def test_the_indicators_are_all_there_on_every_path() -> None:
    for answer in (None, timed_out(), failed(), skipped("breaker_open")):
        told = Teller().tell(packet(), answer).system_health.indicators
        assert set(told) == INDICATORS
        assert (told["timeout_budget_ms"], told["policy_arch"], told["step_index"]) == ("5", "fixed", "1")


@pytest.mark.parametrize(
    ("fields", "answer", "health", "level"),
    [
        ({}, None, pb.HEALTH_STATUS_HEALTHY, pb.TELEMETRY_LEVEL_INFO),
        ({}, proposal(2), pb.HEALTH_STATUS_DEGRADED, pb.TELEMETRY_LEVEL_WARNING),
        ({"training_metrics": {"grad_var": 2.0}}, None, pb.HEALTH_STATUS_DEGRADED, pb.TELEMETRY_LEVEL_WARNING),
        ({"training_loss": float("inf")}, None, pb.HEALTH_STATUS_CRITICAL, pb.TELEMETRY_LEVEL_CRITICAL),
    ],
)
def test_health_is_that_of_the_triggered_rows(
    fields: dict[str, object], answer: object, health: int, level: int
) -> None:
    told = Teller().tell(packet(**fields), answer)
    assert (told.system_health.status, told.level) == (health, level)


def test_a_condition_is_told_when_it_starts_and_when_it_ends_and_in_between_now_and_then() -> None:
    teller = Teller(reminder_steps=4)
    told = [names(teller.tell(packet(training_metrics={"grad_var": 2.0}))) for _ in range(9)]
    told.append(names(teller.tell(packet())))
    told.append(names(teller.tell(packet())))
    shown = [index for index, events in enumerate(told) if events]
    assert shown == [0, 4, 8, 9]
    assert {name for events in told for name in events} == {"grad_variance_high"}
    edges = [event.attributes["condition"] for made in teller.packets for event in made.events]
    assert edges == ["started", "lasting", "lasting", "ended"]
    started = teller.packets[0].events[0].attributes
    assert (started["grad_var"], started["grad_var_limit"]) == ("2.0", "> 1.0")


def test_the_priority_is_the_highest_among_the_events_and_normal_again_while_nothing_changes() -> None:
    teller = Teller()
    slow = packet(training_metrics={"hook_latency_ms": 60.0, "grad_var": 2.0})
    first, second = teller.tell(slow), teller.tell(slow)
    assert priority_of(first) == pb.MESSAGE_PRIORITY_HIGH
    assert first.system_health.indicators["priority"] == "MESSAGE_PRIORITY_HIGH"
    assert (priority_of(second), names(second)) == (pb.MESSAGE_PRIORITY_NORMAL, [])
    assert second.system_health.status == pb.HEALTH_STATUS_DEGRADED, "health is not an event"


def test_an_escalation_is_a_start_of_its_own() -> None:
    teller = Teller()
    assert priority_of(teller.tell(packet(), coverage=(2, 10))) == pb.MESSAGE_PRIORITY_HIGH
    escalated = teller.tell(packet(), coverage=(1, 10))
    assert names(escalated) == ["degraded_inputs"]
    assert priority_of(escalated) == pb.MESSAGE_PRIORITY_CRITICAL
    assert [e.attributes["condition"] for e in teller.tell(packet(), coverage=(2, 10)).events] == ["ended"]


def test_conservative_mode_is_told_with_its_reason_and_its_row_as_a_pause() -> None:
    teller = Teller()
    entered = teller.tell(packet(training_loss=float("nan")))
    assert names(entered) == ["nonfinite_metric", "conservative_entered"]
    assert entered.events[1].attributes["reason"] == "nonfinite_metric"
    assert entered.system_health.indicators["mode"] == "conservative"
    assert names(teller.tell(packet())) == ["pause_triggered", "nonfinite_metric"]
    for _ in range(2):
        left = teller.tell(packet(), elapsed_s=2.0)
    assert names(left) == ["conservative_exited"]


def test_each_move_of_a_breaker_is_told() -> None:
    teller = Teller()
    for _ in range(3):
        teller.step(packet(), timed_out())
    assert names(teller.packets[-1]) == ["breaker_moved", "conservative_entered"]
    assert teller.packets[-1].events[0].attributes["to_state"] == "CIRCUIT_STATE_OPEN"
    assert priority_of(teller.packets[-1]) == pb.MESSAGE_PRIORITY_HIGH


def test_what_happens_between_steps_is_told_in_packets_of_its_own() -> None:
    teller = Teller(report_retries_max=0)
    teller.step(packet())
    now_ns = teller.state.event_time_ns + 1
    teller.say(operator_directed(teller.state, CONSERVATIVE_ON, operator="ada", reason="why", now_ns=now_ns))
    assert [names(told) for told in teller.packets[1:]] == [["operator_directed"], ["conservative_entered"]]
    report = DueReport(teller.state.last_lsn - 2, "fr-x")
    teller.say(publish_attempted(teller.state, [report], succeeded=False, cause="no", now_ns=now_ns + 1))
    assert names(teller.packets[-1]) == ["field_report_drop"]
    assert metrics(teller.packets[-1])["tamiyo.field_reports.dropped_total"] == 1.0


def test_a_refused_report_that_is_tried_again_is_a_retry() -> None:
    teller = Teller()
    teller.step(packet())
    report = DueReport(teller.state.last_lsn, "fr-x")
    teller.say(publish_attempted(
        teller.state, [report], succeeded=False, cause="no", now_ns=teller.state.event_time_ns + 1))  # fmt: skip
    assert names(teller.packets[-1]) == ["field_report_retry"]
    assert dict(teller.packets[-1].events[0].attributes)["report_id"] == "fr-x"


def test_a_synthesised_report_is_told_with_the_step_that_ended_its_window() -> None:
    teller = Teller(observation_window=2)
    told = [names(teller.tell(packet())) for _ in range(3)]
    assert told == [[], [], ["field_report_synthesised"]]


def test_a_late_commit_is_told_as_a_condition() -> None:
    teller = Teller()
    decision = teller.step(packet())
    made = next(event for event in decision.events if isinstance(event, journal.DecisionMade))
    from tamiyo.core.decide import pause_released
    from tamiyo.core.limits import UNLIMITED
    from tamiyo.core.observation import read_packet

    received = next(event for event in teller.journal if isinstance(event, journal.StepReceived))
    teller.say(pause_released(
        teller.state, read_packet(received.packet, UNLIMITED), received, step_lsn=made.step_lsn,
        decision_lsn=5, cause="timeout_wal", event_time_ns=teller.state.event_time_ns + 1,
    ))  # fmt: skip
    assert names(teller.packets[-1]) == ["timeout_wal"]
    assert priority_of(teller.packets[-1]) == pb.MESSAGE_PRIORITY_HIGH
    assert names(teller.tell(packet())) == [], "whether commits are in time again is not known yet"
    assert names(teller.tell(packet())) == ["timeout_wal"]


HISTORIES = st.lists(
    st.sampled_from(["ok", "slow", "nan", "timeout", "failed", "direct", "refused", "open"]), max_size=12
)


def live(history: list[str]) -> Teller:
    teller = Teller(observation_window=3, reminder_steps=2)
    for what in history:
        now_ns = teller.state.event_time_ns + 1
        if what == "direct":
            teller.say(operator_directed(teller.state, CONSERVATIVE_ON, operator="ada", reason="", now_ns=now_ns))
        elif what == "refused":
            teller.say(publish_attempted(teller.state, (), succeeded=False, cause="no", now_ns=now_ns))
        elif what == "open":
            teller.fold(journal.ServiceOpened(event_time_ns=now_ns, behaviour_flags=teller.state.behaviour_flags))
        else:
            made = packet(training_metrics={"hook_latency_ms": 60.0}) if what == "slow" else packet()
            made.training_loss = float("nan") if what == "nan" else 0.0
            teller.step(made, {"timeout": timed_out(), "failed": failed()}.get(what), elapsed_s=0.5)
    return teller


@settings(max_examples=60)
@given(HISTORIES, st.integers(0, 200))
def test_a_reader_that_begins_again_at_any_boundary_gives_the_same_packets(history: list[str], place: int) -> None:
    teller = live(history)
    first = TelemetryReader()
    state, restarts = State(), [(0, State())]
    for lsn, event in enumerate(teller.journal, start=1):
        first.take(lsn, event)
        state = evolve_all(state, [event])
        if first.boundary_lsn == lsn:
            restarts.append((lsn, state))
    boundary, begun = restarts[place % len(restarts)]
    again = TelemetryReader(begun)
    told = [again.take(lsn, event) for lsn, event in enumerate(teller.journal, start=1) if lsn > boundary]
    later = [made.SerializeToString(deterministic=True) for made in told if made is not None]
    before = [made.SerializeToString(deterministic=True) for made in teller.packets]
    assert before[len(before) - len(later) :] == later
    assert len({made.packet_id for made in teller.packets}) == len(teller.packets)
    assert all(int(made.packet_id.rsplit("-", 1)[1]) <= boundary for made in teller.packets[: len(before) - len(later)])


@settings(max_examples=30)
@given(HISTORIES, st.integers(0, 200))
def test_a_reader_that_is_told_what_was_published_gives_the_rest(history: list[str], place: int) -> None:
    teller = live(history)
    plain, reader = TelemetryReader(), TelemetryReader()
    published = place % (len(teller.journal) + 1)
    expected, found = [], []
    for lsn, event in enumerate(teller.journal, start=1):
        whole = plain.take(lsn, event)
        rest = reader.take(lsn, event, told=lsn <= published)
        assert plain.boundary_lsn == reader.boundary_lsn
        if whole is not None and lsn > published:
            expected.append(whole)
        if rest is not None:
            found.append(rest)
    assert found == expected
