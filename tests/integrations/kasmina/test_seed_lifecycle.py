"""Every (stage, operation) pair, and what time does."""

import copy

import pytest
import torch
from kasmina_rig import ON_THE_WAY, PACE, Rig

from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.integrations.kasmina import TRANSITIONS
from tamiyo.integrations.kasmina.lifecycle import (
    LIVE,
    gate,
    name_of_operation,
    name_of_stage,
    tick_target,
)
from tamiyo.leyline import leyline_pb2 as pb

STAGES = tuple(pb.SeedLifecycleStage.values())
OPERATIONS = tuple(pb.SeedOperation.values())
AFTER_CULL = (pb.SEED_STAGE_CULLED, pb.SEED_STAGE_EMBARGOED, pb.SEED_STAGE_RESETTING)
REACHABLE = (pb.SEED_STAGE_DORMANT, *LIVE, pb.SEED_STAGE_FOSSILIZED)

LEGAL = {
    (pb.SEED_STAGE_UNKNOWN, pb.SEED_OP_GERMINATE): pb.SEED_STAGE_GERMINATED,
    (pb.SEED_STAGE_DORMANT, pb.SEED_OP_GERMINATE): pb.SEED_STAGE_GERMINATED,
    (pb.SEED_STAGE_GERMINATED, pb.SEED_OP_START_TRAINING): pb.SEED_STAGE_TRAINING,
    (pb.SEED_STAGE_TRAINING, pb.SEED_OP_START_GRAFTING): pb.SEED_STAGE_BLENDING,
    (pb.SEED_STAGE_BLENDING, pb.SEED_OP_STABILIZE): pb.SEED_STAGE_SHADOWING,
    (pb.SEED_STAGE_SHADOWING, pb.SEED_OP_EVALUATE): pb.SEED_STAGE_PROBATIONARY,
    (pb.SEED_STAGE_PROBATIONARY, pb.SEED_OP_FOSSILIZE): pb.SEED_STAGE_FOSSILIZED,
    (pb.SEED_STAGE_GERMINATED, pb.SEED_OP_CULL): pb.SEED_STAGE_CULLED,
    (pb.SEED_STAGE_TRAINING, pb.SEED_OP_CULL): pb.SEED_STAGE_CULLED,
    (pb.SEED_STAGE_BLENDING, pb.SEED_OP_CULL): pb.SEED_STAGE_CULLED,
    (pb.SEED_STAGE_SHADOWING, pb.SEED_OP_CULL): pb.SEED_STAGE_CULLED,
    (pb.SEED_STAGE_PROBATIONARY, pb.SEED_OP_CULL): pb.SEED_STAGE_CULLED,
}


def at_stage(stage: int) -> Rig:
    """A rig whose seed "a" has come to `stage` and waited out its gate."""
    rig = Rig()
    if stage in AFTER_CULL:
        rig.bring_down(stage)
    elif stage in REACHABLE:
        rig.bring(stage)
        for _ in range(5):
            rig.step()
    else:
        rig.host.graft1.stage = stage  # UNKNOWN and TERMINATED are never entered here, but a host may begin there
    assert rig.manager.slots["a"].point.stage == stage
    return rig


def remembered(rig: Rig) -> dict[str, object]:
    state = copy.deepcopy(rig.manager.state_dict())
    return {"seeds": str(state), "weights": {k: v.clone() for k, v in rig.host.state_dict().items()}}


def assert_unchanged(before: dict[str, object], rig: Rig) -> None:
    after = remembered(rig)
    assert after["seeds"] == before["seeds"]
    assert after["weights"].keys() == before["weights"].keys()
    assert all(torch.equal(after["weights"][name], value) for name, value in before["weights"].items())


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of_operation)
@pytest.mark.parametrize("stage", STAGES, ids=name_of_stage)
def test_an_operation_leads_where_the_table_says_or_is_refused_and_changes_nothing(stage, operation):
    rig = at_stage(stage)
    before = remembered(rig)
    applied = rig.order(operation)
    if (stage, operation) in LEGAL:
        assert (applied.outcome, applied.reason) == ("applied", "")
        assert rig.manager.slots["a"].point.stage == LEGAL[stage, operation]
    else:
        assert (applied.outcome, applied.reason) == ("refused", "illegal_transition")
        assert name_of_stage(stage) in applied.detail
        assert_unchanged(before, rig)


def test_the_table_holds_exactly_the_legal_pairs():
    held = {(stage, op): to for op, moves in TRANSITIONS.items() for stage, to in moves.items()}
    assert held == LEGAL
    assert set(TRANSITIONS) == set(OPERATIONS)


def test_every_operation_that_tamiyo_chooses_for_a_stage_is_legal_there():
    assert all(stage in TRANSITIONS[operation] for stage, operation in OPERATION_BY_STAGE.items())


def test_an_operation_that_leyline_does_not_have_is_refused(rig):
    assert rig.order(99).reason == "illegal_transition"


def test_an_unknown_seed_is_refused(rig):
    assert rig.order(pb.SEED_OP_GERMINATE, seed_id="nobody").reason == "unknown_seed"


def test_an_unknown_blueprint_is_refused_and_the_seed_stays_dormant(rig):
    before = remembered(rig)
    assert rig.order(pb.SEED_OP_GERMINATE, blueprint_id="no-such-thing").reason == "unknown_blueprint"
    assert_unchanged(before, rig)


@pytest.mark.parametrize(
    ("operation", "stage", "steps"),
    [
        (pb.SEED_OP_START_GRAFTING, pb.SEED_STAGE_TRAINING, PACE.training_steps),
        (pb.SEED_OP_EVALUATE, pb.SEED_STAGE_SHADOWING, PACE.shadowing_steps),
        (pb.SEED_OP_FOSSILIZE, pb.SEED_STAGE_PROBATIONARY, PACE.probation_steps),
    ],
)
def test_a_gate_opens_after_exactly_its_steps(rig, operation, stage, steps):
    rig.bring(stage)
    for _ in range(steps):
        assert rig.order(operation).reason == "gate_closed"
        rig.step()
    assert rig.order(operation).outcome == "applied"


def test_a_blend_cannot_be_stabilized_before_alpha_has_arrived(rig):
    rig.bring(pb.SEED_STAGE_BLENDING)
    for _ in range(PACE.blending_steps):
        assert rig.order(pb.SEED_OP_STABILIZE).reason == "gate_closed"
        rig.step()
    assert rig.host.graft1.alpha == 0.5
    assert rig.order(pb.SEED_OP_STABILIZE).outcome == "applied"


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of_operation)
def test_gates_state_what_they_wait_for(operation):
    waiting = gate(operation, 0, blended=False, pace=PACE)
    waits = {
        pb.SEED_OP_START_GRAFTING,
        pb.SEED_OP_STABILIZE,
        pb.SEED_OP_EVALUATE,
        pb.SEED_OP_FOSSILIZE,
    }
    assert bool(waiting) == (operation in waits)
    assert gate(operation, 10, blended=True, pace=PACE) == ""


@pytest.mark.parametrize("stage", STAGES, ids=name_of_stage)
def test_time_moves_only_a_culled_seed(stage):
    after = {
        pb.SEED_STAGE_CULLED: (2, pb.SEED_STAGE_EMBARGOED),
        pb.SEED_STAGE_EMBARGOED: (3, pb.SEED_STAGE_RESETTING),
        pb.SEED_STAGE_RESETTING: (1, pb.SEED_STAGE_DORMANT),
    }
    steps, target = after.get(stage, (1_000, stage))
    assert tick_target(stage, steps, PACE) == target
    if stage in after:
        assert tick_target(stage, steps - 1, PACE) == stage


def test_a_culled_seed_becomes_dormant_again_and_can_germinate_anew(rig):
    rig.bring(pb.SEED_STAGE_SHADOWING)
    first = rig.host.graft1.branch
    rig.order(pb.SEED_OP_CULL)
    seen = []
    for _ in range(7):
        rig.step()
        seen.append(name_of_stage(rig.host.graft1.stage))
    assert seen == ["CULLED", "EMBARGOED", "EMBARGOED", "EMBARGOED", "RESETTING", "DORMANT", "DORMANT"]
    assert rig.host.graft1.branch is None
    assert rig.order(pb.SEED_OP_GERMINATE).outcome == "applied"
    assert rig.host.graft1.branch is not first


def test_a_seed_leads_through_its_whole_life_and_ends_as_part_of_the_host(rig):
    rig.bring(pb.SEED_STAGE_FOSSILIZED)
    adopted = {id(p) for group in rig.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in rig.host.graft1.branch.parameters()} <= adopted
    before = [p.detach().clone() for p in rig.host.graft1.branch.parameters()]
    rig.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, rig.host.graft1.branch.parameters(), strict=True))
    assert rig.manager.stages() == {"a": "FOSSILIZED", "b": "DORMANT"}
    assert len(ON_THE_WAY) == 6


def test_names_of_numbers_that_leyline_does_not_have_are_the_numbers():
    assert (name_of_stage(77), name_of_operation(78)) == ("77", "78")
