"""Decisions: what they read, what they ask for, what they leave alone, and what follows from them."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Bench, failed, packet, proposal, skipped, timed_out, with_thresholds

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.decide import blueprint_observed
from tamiyo.core.events import encode
from tamiyo.core.signals import METRIC_SIGNALS
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.strategies import packets, tame_packets

RANK_OF = {pb.COMMAND_OPTIMIZER: 1, pb.COMMAND_CIRCUIT_BREAKER: 2, pb.COMMAND_PAUSE: 3}
THIN = (0, 10)


def restrictiveness(command: pb.AdaptationCommand) -> int:
    if command.command_type == pb.COMMAND_SEED:
        return 1 if command.seed_operation.operation == pb.SEED_OP_CULL else 0
    return RANK_OF[command.command_type]


def bench() -> Bench:
    made = Bench()
    made.observe()
    return made


def test_a_quiet_step_does_what_the_policy_proposes() -> None:
    decision = bench().step(packet())
    assert decision.command.command_type == pb.COMMAND_SEED
    assert decision.reason == "policy"
    assert decision.rows == ()


def test_decide_leaves_its_arguments_alone_and_repeats_itself() -> None:
    rig = bench()
    inputs = rig.inputs(packet(training_loss=math.nan), timed_out())
    before = (
        rig.state.digest(),
        copy.deepcopy(inputs.received),
        copy.deepcopy(inputs.graph),
        copy.deepcopy(inputs.inference),
    )
    first, second = rig.decide(inputs), rig.decide(inputs)
    assert [encode(event) for event in first.events] == [encode(event) for event in second.events]
    assert (rig.state.digest(), inputs.received, inputs.graph, inputs.inference) == before


@pytest.mark.parametrize(
    ("answer", "reason", "action"),
    [
        (timed_out(), "timeout_inference", "timeout"),
        (failed(), "inference_failed", "none"),
        (skipped("breaker_open"), "breaker_open", "none"),
    ],
)
def test_inference_that_gave_nothing_pauses(answer: object, reason: str, action: str) -> None:
    decision = bench().step(packet(), answer)
    assert decision.command.command_type == pb.COMMAND_PAUSE
    assert decision.reason == reason
    assert decision.command.annotations["policy_action"] == action
    assert decision.command.annotations["feature_coverage"] == "1.000"
    assert decision.command.annotations["coverage_types"] == '{"node.global":1.0}'


def test_a_command_says_all_of_what_was_proposed_and_of_the_blueprint_that_it_names() -> None:
    rig = Bench()
    sheet = pb.BSDS(
        risk_score=0.25, hazard_band=pb.HAZARD_BAND_MEDIUM, handling_class=pb.HANDLING_CLASS_STANDARD,
        resource_profile=pb.RESOURCE_PROFILE_MIXED, provenance=pb.PROVENANCE_EXTERNAL,
    )  # fmt: skip
    rig.observe("bp-1", sheet=sheet, tier=pb.BLUEPRINT_TIER_HIGH_RISK, stage=2, risk=0.125)
    made = rig.inputs(packet(pb.SEED_STAGE_DORMANT), proposal(risk=(0.25, 0.5, 0.25, 0.0, 0.0)), coverage=(3, 4))
    command = rig.decide(made).command
    assert dict(command.annotations) == {
        "policy_version": rig.state.policy_version, "policy_action": "0", "policy_param_delta": "0.200000",
        "policy_value_estimate": "0.500000", "policy_risk_index": "1", "policy_risk_score": "0.250000",
        "risk_reason": "policy", "feature_coverage": "0.750", "coverage_types": '{"node.global":0.75}',
        "coverage_map": '{"node.global.loss":0.75}',
        "blending_method": "cosine", "blending_method_index": "1", "blending_schedule_units": "fraction_0_1",
        "selected_seed": "seed-0", "selected_blueprint": "bp-1", "blueprint_tier": "3", "blueprint_stage": "2",
        "blueprint_risk": "0.250000", "bsds_risk_score": "0.250000", "bsds_hazard_band": "2",
        "bsds_handling_class": "1", "bsds_resource_profile": "5", "bsds_provenance": "4",
    }  # fmt: skip


def test_a_downgraded_seed_leaves_no_payload_behind() -> None:
    command = bench().step(packet(training_metrics={"grad_var": 2.0})).command
    assert command.command_type == pb.COMMAND_OPTIMIZER
    assert command.target_seed_id == ""
    assert not command.HasField("seed_operation")
    assert dict(command.optimizer_adjustment.hyperparameters) == {"lr_delta": 0.0}
    assert command.annotations["risk_reason"] == "grad_variance_high"


def test_the_journal_names_every_row_with_its_value_and_threshold() -> None:
    decision = bench().step(packet(training_metrics={"grad_var": 2.0, "hook_latency_ms": 60.0}))
    made = next(event for event in decision.events if isinstance(event, journal.DecisionMade))
    found = {row.reason: (row.effect, row.readings[0].value, row.readings[0].threshold) for row in made.rows}
    assert found == {"hook_budget": ("pause", 60.0, 50.0), "grad_variance_high": ("downgrade", 2.0, 1.0)}


@pytest.mark.parametrize(
    ("descriptor", "sheet", "reason", "kind"),
    [
        ({"quarantine_only": True}, None, "bp_quarantine", pb.COMMAND_PAUSE),
        ({"risk": 0.8125}, None, "bp_quarantine", pb.COMMAND_PAUSE),
        ({"risk": 0.5}, None, "blueprint_risk", pb.COMMAND_OPTIMIZER),
        ({"risk": 0.1}, pb.BSDS(risk_score=0.9), "bp_quarantine", pb.COMMAND_PAUSE),
        ({}, pb.BSDS(handling_class=pb.HANDLING_CLASS_QUARANTINE), "bsds_handling_quarantine", pb.COMMAND_PAUSE),
        ({}, pb.BSDS(hazard_band=pb.HAZARD_BAND_CRITICAL), "bsds_hazard_critical", pb.COMMAND_PAUSE),
        ({}, pb.BSDS(hazard_band=pb.HAZARD_BAND_HIGH), "bsds_hazard_high", pb.COMMAND_OPTIMIZER),
        ({}, pb.BSDS(hazard_band=pb.HAZARD_BAND_LOW), "policy", pb.COMMAND_SEED),
    ],
)
def test_the_rows_read_the_blueprint_that_the_command_names(
    descriptor: dict[str, object], sheet: pb.BSDS | None, reason: str, kind: int
) -> None:
    rig = Bench()
    rig.observe(sheet=sheet, **descriptor)
    decision = rig.step(packet(pb.SEED_STAGE_DORMANT))
    assert decision.reason == reason
    assert decision.command.command_type == kind
    other = rig.step(packet(), proposal(1), elapsed_s=2.0)
    assert other.command.command_type in (pb.COMMAND_OPTIMIZER, pb.COMMAND_PAUSE)
    assert other.reason in ("policy", "conservative_mode")


def test_loss_delta_is_that_of_the_last_two_losses_of_one_run() -> None:
    rig = bench()
    assert rig.step(packet(validation_loss=0.5)).reason == "policy"
    assert rig.step(packet(validation_loss=math.nan)).reason == "nonfinite_metric"
    spiked = rig.step(packet(validation_loss=0.75))
    assert spiked.reason == "loss_spike"
    report = pb.FieldReport.FromString(spiked.events[-1].report)
    assert report.metrics["loss_delta"] == pytest.approx(0.25)
    assert report.outcome == pb.FIELD_REPORT_OUTCOME_REGRESSION


def test_a_new_run_id_begins_a_new_loss_memory() -> None:
    rig = bench()
    rig.step(packet(validation_loss=0.5))
    other = packet(validation_loss=5.0)
    other.training_run_id = "run-2"
    assert rig.step(other).reason == "policy"


def test_the_packet_s_own_loss_delta_counts_where_there_are_not_two_losses() -> None:
    assert bench().step(packet(training_metrics={"loss_delta": 0.2})).reason == "loss_spike"
    assert bench().step(packet(training_metrics={"loss_delta": 0.1})).reason == "loss_warning"


def test_every_decision_has_one_field_report() -> None:
    for answer in (None, timed_out(), failed(), skipped("no_seed_candidates")):
        decision = bench().step(packet(), answer)
        reports = [event for event in decision.events if isinstance(event, journal.FieldReportIssued)]
        assert len(reports) == 1
        report = pb.FieldReport.FromString(reports[0].report)
        assert report.report_id == f"fr-{decision.command.command_id}"


def test_conservative_mode_is_entered_held_and_left_by_itself() -> None:
    rig = bench()
    rig.step(packet(training_metrics={"loss": math.inf}))
    assert rig.state.conservative.active
    assert rig.state.conservative.reason == "nonfinite_metric"
    reasons = [rig.step(packet(), elapsed_s=0.1).reason for _ in range(3)]
    assert reasons == ["conservative_mode"] * 3
    assert rig.state.conservative.active, "the cool-down has not passed"
    rig.step(packet(), elapsed_s=1.0)
    assert not rig.state.conservative.active
    assert rig.step(packet()).reason == "policy"


def test_conservative_mode_needs_three_clean_steps_even_after_its_cool_down() -> None:
    rig = bench()
    rig.step(packet(training_metrics={"loss": math.inf}))
    for _ in range(2):
        rig.step(packet(), elapsed_s=5.0)
    rig.step(packet(training_metrics={"hook_latency_ms": 60.0}))
    for _ in range(2):
        rig.step(packet(), elapsed_s=5.0)
        assert rig.state.conservative.active
    rig.step(packet())
    assert not rig.state.conservative.active


@pytest.mark.parametrize(("short_ns", "ends"), [(1, False), (0, True)])
def test_conservative_mode_has_cooled_down_when_its_second_is_over(short_ns: int, ends: bool) -> None:
    rig = Bench(with_thresholds(conservative_clean_steps=1.0))
    rig.step(packet(training_metrics={"loss": math.inf}))
    inputs = rig.inputs(packet())
    at_ns = rig.state.conservative.since_ns + 10**9 - short_ns
    events = rig.decide(inputs._replace(event_time_ns=at_ns)).events
    assert any(isinstance(event, journal.ConservativeModeChanged) for event in events) == ends


def test_a_half_open_breaker_holds_conservative_mode() -> None:
    rig = Bench(with_thresholds(breaker_trials=6.0))
    for _ in range(3):
        rig.step(packet(), failed())
    for _ in range(5):
        rig.step(packet(), elapsed_s=2.0)
        assert (rig.state.breakers["inference"].state, rig.state.conservative.active) == (HALF_OPEN, True)
    rig.step(packet())
    assert (rig.state.breakers["inference"].state, rig.state.conservative.active) == (CLOSED, False)


def test_conservative_mode_names_the_first_row_of_the_table_that_brought_it_on() -> None:
    rig = bench()
    rig.step(packet(training_metrics={"loss": math.inf, "loss_delta": 9.0}))
    assert rig.state.conservative.reason == "nonfinite_metric"


def test_the_inference_breaker_opens_after_three_failures_and_closes_after_two_trials() -> None:
    rig = bench()
    for _ in range(3):
        assert rig.state.breakers["inference"].state == CLOSED
        rig.step(packet(), timed_out())
    assert rig.state.breakers["inference"].state == OPEN
    assert rig.state.conservative.active
    assert rig.step(packet(), skipped("breaker_open")).reason == "breaker_open"
    first = rig.step(packet(), elapsed_s=1.5)
    moves = [event for event in first.events if isinstance(event, journal.BreakerMoved)]
    assert [(move.to_state, move.cause) for move in moves] == [(HALF_OPEN, "cooled_down")]
    assert rig.state.breakers["inference"].state == HALF_OPEN
    rig.step(packet())
    assert rig.state.breakers["inference"].state == CLOSED
    rig.step(packet())
    assert not rig.state.conservative.active


def test_a_failed_trial_opens_the_breaker_again() -> None:
    rig = bench()
    for _ in range(3):
        rig.step(packet(), failed())
    decision = rig.step(packet(), failed(), elapsed_s=1.5)
    moves = [(m.to_state, m.cause) for m in decision.events if isinstance(m, journal.BreakerMoved)]
    assert moves == [(HALF_OPEN, "cooled_down"), (OPEN, "trial_failed")]
    assert rig.state.breakers["inference"].state == OPEN


def test_metadata_faults_are_reported_and_never_pause() -> None:
    rig = bench()
    for _ in range(4):
        decision = rig.step(packet(), faults=(journal.MetadataTimedOut(blueprint_id="bp-2", budget_ms=10),))
        assert decision.command.command_type == pb.COMMAND_SEED
        assert decision.reason == "timeout_urza"
    assert rig.state.breakers["metadata"].state == OPEN
    assert not rig.state.conservative.active


def test_an_answer_of_the_library_in_time_is_a_success_and_a_late_one_is_none() -> None:
    rig = bench()
    for _ in range(3):
        rig.step(packet(), faults=(journal.MetadataTimedOut(blueprint_id="bp-2", budget_ms=10),))
    answer = journal.BlueprintObserved(blueprint_id="bp-2", event_time_ns=rig.state.event_time_ns + 2 * 10**9)
    assert [type(event) for event in blueprint_observed(rig.state, answer)] == [
        journal.BreakerMoved, journal.BlueprintObserved,
    ]  # fmt: skip
    answer.late = True
    assert blueprint_observed(rig.state, answer) == (answer,)
    rig.fold(answer)
    assert (rig.state.breakers["metadata"].state, rig.state.breakers["metadata"].successes) == (OPEN, 0)


def test_coverage_that_is_low_is_named_but_asks_for_nothing() -> None:
    decision = bench().step(packet(), coverage=THIN)
    assert decision.command.command_type == pb.COMMAND_SEED
    assert decision.reason == "degraded_inputs"


@given(tame_packets(), st.sampled_from(sorted(METRIC_SIGNALS)), st.floats(0.0, 1e3, width=32), st.integers(0, 5))
def test_adding_a_signal_never_makes_the_command_less_restrictive(
    made: pb.SystemStatePacket, name: str, value: float, action: int
) -> None:
    made.seed_states.insert(0, pb.SeedState(seed_id="s", stage=pb.SEED_STAGE_TRAINING))
    if name in made.training_metrics:
        return
    before = restrictiveness(bench().step(made, proposal(action)).command)
    made.training_metrics[name] = value
    assert restrictiveness(bench().step(made, proposal(action)).command) >= before


RISING = sorted(set(METRIC_SIGNALS) - {"gpu_mem_free_gb", "optimizer_lr"})


@given(
    tame_packets(), st.sampled_from(RISING), st.floats(0, 200, width=32), st.floats(0, 200, width=32), st.integers(0, 5)
)
def test_raising_a_signal_never_makes_the_command_less_restrictive(
    made: pb.SystemStatePacket, name: str, one: float, other: float, action: int
) -> None:
    made.seed_states.insert(0, pb.SeedState(seed_id="s", stage=pb.SEED_STAGE_TRAINING))
    made.training_metrics[name] = min(one, other)
    before = restrictiveness(bench().step(made, proposal(action)).command)
    made.training_metrics[name] = max(one, other)
    assert restrictiveness(bench().step(made, proposal(action)).command) >= before


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.floats(0, 1))
def test_moving_policy_risk_upwards_never_makes_the_command_less_restrictive(
    weights: list[float], share: float
) -> None:
    total = sum(weights)
    risk = tuple(weight / total for weight in weights) if total else (1.0, 0.0, 0.0, 0.0, 0.0)
    riskier = (*(p * (1 - share) for p in risk[:4]), min(1.0, risk[4] * (1 - share) + share * sum(risk)))
    before = restrictiveness(bench().step(packet(), proposal(risk=risk)).command)
    assert restrictiveness(bench().step(packet(), proposal(risk=riskier)).command) >= before


@settings(max_examples=60)
@given(
    st.lists(st.tuples(packets(), st.sampled_from(["ok", "timeout", "failed", "skipped"]), st.floats(0, 2)), max_size=8)
)
def test_any_history_decides_and_keeps_the_breakers_that_it_moved(
    history: list[tuple[pb.SystemStatePacket, str, float]],
) -> None:
    rig = bench()
    for made, answer, elapsed_s in history:
        made.seed_states.insert(0, pb.SeedState(seed_id="s", stage=pb.SEED_STAGE_TRAINING))
        answers = {"ok": None, "timeout": timed_out(), "failed": failed(), "skipped": skipped("no_seed_candidates")}
        decision = rig.step(made, answers[answer], elapsed_s=elapsed_s + 0.001)
        for event in decision.events:
            if isinstance(event, journal.BreakerMoved):
                last = [
                    e for e in decision.events if isinstance(e, journal.BreakerMoved) and e.breaker == event.breaker
                ][-1]
                assert rig.state.breakers[event.breaker].state == last.to_state
        assert rig.state.undecided == ()
