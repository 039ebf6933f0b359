"""From proposal to command: every action class, every lifecycle stage, every pair of proposal and row."""

import pytest
from rig import Bench, packet, proposal, skipped

from tamiyo.core.intent import POLICY_ACTIONS, RANKS, Intent, rank, reason_of, restrict
from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.limits import Limits
from tamiyo.core.observation import read_packet
from tamiyo.core.risk import DOWNGRADE, NOTHING, PAUSE, RISK_ROWS, Triggered
from tamiyo.leyline import leyline_pb2 as pb

STAGES = sorted(pb.SeedLifecycleStage.values())
CANDIDATE = read_packet(packet().SerializeToString(), Limits()).seeds[0]


@pytest.mark.parametrize("stage", STAGES)
def test_the_operation_follows_from_the_stage(stage: int) -> None:
    expected = {
        pb.SEED_STAGE_UNKNOWN: pb.SEED_OP_GERMINATE,
        pb.SEED_STAGE_DORMANT: pb.SEED_OP_GERMINATE,
        pb.SEED_STAGE_GERMINATED: pb.SEED_OP_START_TRAINING,
        pb.SEED_STAGE_TRAINING: pb.SEED_OP_START_GRAFTING,
        pb.SEED_STAGE_BLENDING: pb.SEED_OP_STABILIZE,
        pb.SEED_STAGE_SHADOWING: pb.SEED_OP_EVALUATE,
        pb.SEED_STAGE_PROBATIONARY: pb.SEED_OP_FOSSILIZE,
    }
    assert OPERATION_BY_STAGE.get(stage) == expected.get(stage)
    bench = Bench()
    bench.observe()
    if stage not in expected:
        inputs = bench.inputs(packet(stage), proposal())
        assert "seed_index 0 is no candidate" in inputs.inference.error
        return
    command = bench.step(packet(stage), proposal()).command
    assert command.seed_operation.operation == expected[stage]


@pytest.mark.parametrize("action", range(32))
def test_each_action_class_gives_its_command(action: int) -> None:
    bench = Bench()
    bench.observe()
    decision = bench.step(packet(), proposal(action))
    command = decision.command
    payloads = {
        0: "seed_operation",
        1: "optimizer_adjustment",
        3: "circuit_breaker",
        4: "circuit_breaker",
        5: "seed_operation",
    }
    assert command.WhichOneof("payload") == payloads.get(action)
    assert command.annotations["policy_action"] == str(action)
    if action == 1:
        assert dict(command.optimizer_adjustment.hyperparameters) == pytest.approx({"lr_delta": 0.1})
    if action in (3, 4):
        expected = pb.CIRCUIT_STATE_OPEN if action == 3 else pb.CIRCUIT_STATE_CLOSED
        assert command.circuit_breaker.desired_state == expected
    if action == 5:
        assert command.seed_operation.operation == pb.SEED_OP_CULL
    if action == 2 or action > 5:
        assert command.command_type == pb.COMMAND_PAUSE
    assert decision.reason == ("policy_reserved_action" if action > 5 else "policy")


def test_a_seed_command_carries_its_parameters_in_range() -> None:
    bench = Bench()
    bench.observe()
    command = bench.step(packet(), proposal()).command
    assert command.target_seed_id == "seed-0"
    assert dict(command.seed_operation.parameters) == pytest.approx(
        {"alpha": 0.3, "blending_method_index": 1, "blending_schedule_start": 0.25, "blending_schedule_end": 0.75}
    )
    assert command.annotations["blending_method"] == "cosine"
    assert command.annotations["blending_method_index"] == "1"
    assert command.annotations["blending_schedule_units"] == "fraction_0_1"


INTENTS = {
    "seed": Intent(pb.COMMAND_SEED, operation=pb.SEED_OP_START_GRAFTING, seed=CANDIDATE, blueprint_id="bp-1"),
    "cull": Intent(pb.COMMAND_SEED, operation=pb.SEED_OP_CULL, seed=CANDIDATE, blueprint_id="bp-1"),
    "optimizer": Intent(pb.COMMAND_OPTIMIZER, lr_delta=0.5),
    "breaker": Intent(pb.COMMAND_CIRCUIT_BREAKER, breaker_state=pb.CIRCUIT_STATE_OPEN),
    "pause": Intent(pb.COMMAND_PAUSE),
}


def row_asking(effect: str) -> Triggered:
    return Triggered(next(row for row in RISK_ROWS if row.asks == effect), ())


@pytest.mark.parametrize("kind", INTENTS)
@pytest.mark.parametrize("effect", [NOTHING, DOWNGRADE, PAUSE])
def test_the_most_restrictive_wins_and_only_a_seed_is_downgraded(kind: str, effect: str) -> None:
    intent = INTENTS[kind]
    final = restrict(intent, [row_asking(effect)])
    if effect == PAUSE and kind != "pause":
        assert final == Intent(pb.COMMAND_PAUSE)
    elif effect == DOWNGRADE and kind == "seed":
        assert final == Intent(pb.COMMAND_OPTIMIZER, lr_delta=0.0)
    else:
        assert final == intent
    assert rank(final) >= rank(intent)


def test_the_ranks_are_in_the_order_of_the_requirements() -> None:
    assert RANKS["seed"] < RANKS["optimizer"] == RANKS["cull"] < RANKS["breaker"] < RANKS["pause"]
    assert {name: rank(intent) for name, intent in INTENTS.items()} == RANKS


def named(reason: str, level: int) -> Triggered:
    return Triggered(next(row for row in RISK_ROWS if row.reason == reason and row.level == level), ())


WARNING, CRITICAL = pb.TELEMETRY_LEVEL_WARNING, pb.TELEMETRY_LEVEL_CRITICAL


def test_the_reason_is_the_most_severe_row_that_asks_for_exactly_the_final_command() -> None:
    rows = [named("hook_budget", WARNING), named("rollback_deadline", CRITICAL), named("loss_warning", WARNING)]
    assert reason_of(INTENTS["seed"], Intent(pb.COMMAND_PAUSE), rows) == "rollback_deadline"
    assert reason_of(INTENTS["seed"], Intent(pb.COMMAND_OPTIMIZER), rows) == "loss_warning"


def test_rows_of_one_level_name_the_first_of_the_table() -> None:
    rows = [named("hook_budget", WARNING), named("step_latency_high", WARNING)]
    assert reason_of(INTENTS["seed"], Intent(pb.COMMAND_PAUSE), rows) == "hook_budget"


def test_a_silent_critical_row_names_the_reason_only_where_nothing_else_does() -> None:
    rows = [named("degraded_inputs", CRITICAL), named("hook_budget", WARNING)]
    assert reason_of(INTENTS["seed"], Intent(pb.COMMAND_PAUSE), rows) == "hook_budget"
    assert reason_of(INTENTS["seed"], INTENTS["seed"], rows[:1]) == "degraded_inputs"
    own = Intent(pb.COMMAND_PAUSE, reason="no_seed_candidates")
    assert reason_of(own, own, rows[:1]) == "no_seed_candidates"


def test_an_information_row_never_names_the_reason() -> None:
    assert reason_of(INTENTS["seed"], INTENTS["seed"], [named("bsds_present", pb.TELEMETRY_LEVEL_INFO)]) == "policy"


def test_without_candidates_the_step_pauses_and_says_so() -> None:
    bench = Bench()
    decision = bench.step(packet(pb.SEED_STAGE_FOSSILIZED), skipped("no_seed_candidates"))
    assert decision.command.command_type == pb.COMMAND_PAUSE
    assert decision.reason == "no_seed_candidates"


def test_a_germination_remembers_its_blueprint_for_later_operations() -> None:
    bench = Bench()
    bench.observe("bp-1")
    bench.observe("bp-2")
    ids = ("bp-1", "bp-2")
    grown = bench.step(packet(pb.SEED_STAGE_DORMANT), proposal(blueprint_index=1), blueprints=ids)
    assert grown.command.seed_operation.blueprint_id == "bp-2"
    later = bench.step(packet(pb.SEED_STAGE_TRAINING), proposal(blueprint_index=0), blueprints=ids)
    assert later.command.seed_operation.blueprint_id == "bp-2"


def test_a_seed_of_unknown_origin_names_the_host_s_own_blueprint() -> None:
    assert Bench().step(packet()).command.seed_operation.blueprint_id == "run-1"


def test_nothing_germinates_without_a_blueprint() -> None:
    decision = Bench().step(packet(pb.SEED_STAGE_DORMANT), proposal(blueprint_index=-1), blueprints=())
    assert decision.command.command_type == pb.COMMAND_PAUSE
    assert decision.reason == "no_blueprint_candidates"


def test_the_policy_actions_are_the_documented_six() -> None:
    assert sorted(POLICY_ACTIONS) == [0, 1, 2, 3, 4, 5]
