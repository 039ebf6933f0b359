"""What a command does: verified, executed whole, or nothing at all."""

import copy

import pytest
import torch
from kasmina_rig import BLEND, Gullible, Rig

from tamiyo import signing
from tamiyo.integrations.kasmina import SeedManager, stage_counts
from tamiyo.leyline import leyline_pb2 as pb

SECRET = b"a secret of more than sixteen bytes"
NOW_NS = 1_700_000_000 * 10**9


def lr(rig: Rig) -> float:
    return rig.optimizer.param_groups[0]["lr"]


def signed(command_id: str = "c-1", issued_ns: int = NOW_NS) -> pb.AdaptationCommand:
    command = pb.AdaptationCommand(
        command_id=command_id,
        command_type=pb.COMMAND_SEED,
        target_seed_id="a",
        seed_operation=pb.CommandSeedOperation(
            operation=pb.SEED_OP_GERMINATE, blueprint_id="se-gate", parameters=BLEND
        ),
    )
    command.issued_at.FromNanoseconds(issued_ns)
    command.annotations["signature"] = signing.signature_of(command, SECRET)
    return command


def unsigned() -> pb.AdaptationCommand:
    command = signed()
    del command.annotations["signature"]
    return command


def tampered() -> pb.AdaptationCommand:
    command = signed()
    command.target_seed_id = "b"
    return command


def timeless() -> pb.AdaptationCommand:
    command = signed()
    command.ClearField("issued_at")
    command.annotations["signature"] = signing.signature_of(command, SECRET)
    return command


FORGERIES = {
    "missing_signature": unsigned,
    "invalid_signature": tampered,
    "missing_command_id": lambda: signed(command_id=""),
    "missing_timestamp": timeless,
    "stale_command": lambda: signed(issued_ns=NOW_NS - 61 * 10**9),
    "issued_in_future": lambda: signed(issued_ns=NOW_NS + 6 * 10**9),
}


@pytest.fixture
def real() -> Rig:
    """A rig whose commands are verified by the real thing, at a standing clock."""
    return Rig(verifier=signing.Verifier(SECRET, wall_ns=lambda: NOW_NS))


def test_a_signed_command_is_executed(real):
    assert real.manager.apply(signed()).outcome == "applied"
    assert real.host.graft1.stage == pb.SEED_STAGE_GERMINATED


@pytest.mark.parametrize("reason", FORGERIES)
def test_a_command_that_is_not_authentic_changes_nothing_and_is_counted(real, reason):
    before = copy.deepcopy(real.host.state_dict())
    applied = real.manager.apply(FORGERIES[reason]())
    assert (applied.outcome, applied.reason) == ("rejected", reason)
    assert real.manager.rejections == {reason: 1}
    assert real.manager.stages() == {"a": "DORMANT", "b": "DORMANT"}
    assert real.host.state_dict().keys() == before.keys()


def test_a_command_sent_twice_is_executed_once(real):
    real.manager.apply(signed())
    assert real.manager.apply(signed()).reason == "nonce_replayed"
    assert real.manager.rejections == {"nonce_replayed": 1}


def test_every_reason_of_the_verifier_is_tried():
    assert {*FORGERIES, "nonce_replayed"} == set(signing.REASONS)


def test_apply_says_how_long_it_took(rig):
    assert rig.pause().apply_ms > 0.0


HOLDS = {
    "pause": lambda rig: rig.pause(),
    "rejected": lambda rig: (setattr(rig.verifier, "reason", "invalid_signature"), rig.pause()),
    "unsupported": lambda rig: rig.manager.apply(pb.AdaptationCommand(command_type=pb.COMMAND_ROLLBACK)),
    "breaker": lambda rig: rig.breaker(pb.CIRCUIT_STATE_OPEN),
    "odd_breaker": lambda rig: rig.breaker(pb.CIRCUIT_STATE_HALF_OPEN),
}


@pytest.mark.parametrize("hold", HOLDS)
def test_held_seeds_do_not_age_learn_or_blend_while_the_host_trains_on(rig, hold):
    rig.bring(pb.SEED_STAGE_TRAINING, "b")
    rig.bring(pb.SEED_STAGE_BLENDING, "a")
    rig.step()
    before = copy.deepcopy(rig.host.state_dict())
    ages = {key: slot.age_steps for key, slot in rig.manager.slots.items()}
    alpha = rig.host.graft1.alpha
    rig.backward()
    rig.optimizer.step()
    HOLDS[hold](rig)
    rig.manager.finalize_step()
    assert {key: slot.age_steps for key, slot in rig.manager.slots.items()} == ages
    assert rig.host.graft1.alpha == alpha > 0.0
    after = rig.host.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if ".branch." in name)
    assert not torch.equal(after["head.weight"], before["head.weight"])


def test_a_culled_seed_comes_back_while_everything_is_paused(rig):
    rig.bring_down(pb.SEED_STAGE_CULLED)
    for _ in range(7):
        rig.pause()
        rig.step()
    assert rig.manager.stages()["a"] == "DORMANT"


def test_a_pause_holds_for_one_step(rig):
    rig.bring(pb.SEED_STAGE_GERMINATED)
    rig.pause()
    rig.step()
    rig.step()
    assert rig.manager.slots["a"].age_steps == 1


def test_an_open_breaker_holds_until_it_is_closed_and_takes_only_culls(rig):
    rig.bring(pb.SEED_STAGE_GERMINATED)
    assert rig.breaker(pb.CIRCUIT_STATE_OPEN).outcome == "applied"
    for _ in range(3):
        rig.step()
    assert rig.manager.slots["a"].age_steps == 0
    assert rig.order(pb.SEED_OP_START_TRAINING).reason == "breaker_open"
    assert rig.adjust(lr_delta=0.1).reason == "breaker_open"
    assert rig.order(pb.SEED_OP_CULL).outcome == "applied"
    assert rig.breaker(pb.CIRCUIT_STATE_CLOSED).outcome == "applied"
    rig.step()
    rig.step()
    assert rig.manager.stages()["a"] == "EMBARGOED"


@pytest.mark.parametrize(
    "state", [s for s in pb.CircuitBreakerState.values() if s not in (pb.CIRCUIT_STATE_OPEN, pb.CIRCUIT_STATE_CLOSED)]
)
def test_a_breaker_is_opened_or_closed_and_nothing_else(rig, state):
    assert rig.breaker(state).reason == "invalid_parameters"
    assert not rig.manager.breaker_open


EXECUTED = (pb.COMMAND_SEED, pb.COMMAND_OPTIMIZER, pb.COMMAND_PAUSE, pb.COMMAND_CIRCUIT_BREAKER)


@pytest.mark.parametrize("kind", [kind for kind in pb.CommandType.values() if kind not in EXECUTED])
def test_command_types_that_seeds_do_not_execute_are_refused(rig, kind):
    assert rig.manager.apply(pb.AdaptationCommand(command_type=kind)).reason == "unsupported_command"


@pytest.mark.parametrize(("delta", "factor"), [(0.0, 1.0), (0.05, 1.05), (-0.05, 0.95), (0.7, 1.1), (-3.0, 0.9)])
def test_a_learning_rate_is_scaled_by_at_most_a_tenth(rig, delta, factor):
    assert rig.adjust(lr_delta=delta).outcome == "applied"
    assert lr(rig) == pytest.approx(0.1 * factor, rel=1e-6)


@pytest.mark.parametrize(("delta", "limit"), [(1.0, 2.0), (-1.0, 0.1)])
def test_all_adjustments_together_stay_within_bounds_of_where_it_started(rig, delta, limit):
    for _ in range(50):
        rig.adjust(lr_delta=delta)
    assert lr(rig) == pytest.approx(0.1 * limit, rel=1e-6)


@pytest.mark.parametrize("hyperparameters", [{}, {"lr_delta": float("nan")}, {"lr_delta": float("inf")}])
def test_an_adjustment_without_a_finite_delta_is_refused(rig, hyperparameters):
    assert rig.adjust(**hyperparameters).reason == "invalid_parameters"
    assert lr(rig) == 0.1


def test_without_a_host_optimizer_nothing_is_adjusted_or_fossilized(rig):
    manager = SeedManager({"a": rig.host.graft1}, Gullible())
    rig.manager = manager
    assert rig.adjust(lr_delta=0.1).reason == "no_optimizer"
    rig.host.graft1.stage = pb.SEED_STAGE_PROBATIONARY
    manager.slots["a"].age_steps = 100
    assert rig.order(pb.SEED_OP_FOSSILIZE).reason == "no_optimizer"
    assert rig.host.graft1.stage == pb.SEED_STAGE_PROBATIONARY


@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": 1.5},
        {"alpha": float("nan")},
        {"blending_method_index": 0.5},
        {"blending_method_index": 4.0},
        {"blending_method_index": float("nan")},
        {"blending_schedule_start": 0.9, "blending_schedule_end": 0.1},
    ],
)
def test_an_impossible_blend_is_refused_and_the_seed_keeps_training(rig, parameters):
    rig.bring(pb.SEED_STAGE_TRAINING)
    rig.step()
    rig.step()
    assert rig.order(pb.SEED_OP_START_GRAFTING, **parameters).reason == "invalid_parameters"
    assert rig.host.graft1.stage == pb.SEED_STAGE_TRAINING


@pytest.mark.parametrize("missing", BLEND)
def test_a_blend_with_a_parameter_missing_is_refused_by_name(rig, missing):
    rig.bring(pb.SEED_STAGE_TRAINING)
    rig.step()
    rig.step()
    given = {name: value for name, value in BLEND.items() if name != missing}
    operation = pb.CommandSeedOperation(operation=pb.SEED_OP_START_GRAFTING, parameters=given)
    command = pb.AdaptationCommand(command_type=pb.COMMAND_SEED, target_seed_id="a", seed_operation=operation)
    applied = rig.manager.apply(command)
    assert applied.reason == "invalid_parameters"
    assert missing in applied.detail


def test_germination_leaves_the_process_random_stream_alone(rig):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    rig.order(pb.SEED_OP_GERMINATE)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("begun", [False, True], ids=["no device has begun", "two devices"])
def test_germination_leaves_the_random_streams_of_devices_alone(rig, monkeypatch, begun):
    states = {0: "the host's", 1: "the host's"}
    seen = []

    def seed_all(seed):
        states.update(dict.fromkeys(states, seed))
        seen.append(dict(states))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: begun)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    assert rig.order(pb.SEED_OP_GERMINATE).outcome == "applied"
    assert states == {0: "the host's", 1: "the host's"}
    assert len(seen) == begun


def test_the_same_germination_builds_the_same_weights():
    first, second = Rig(), Rig()
    torch.manual_seed(1)
    first.order(pb.SEED_OP_GERMINATE)
    torch.manual_seed(2)
    second.order(pb.SEED_OP_GERMINATE)
    twins = zip(first.host.graft1.branch.parameters(), second.host.graft1.branch.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in twins)


def test_a_seed_with_a_broken_gradient_keeps_its_weights(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    before = [p.detach().clone() for p in rig.host.graft1.branch.parameters()]
    rig.images = rig.images * float("nan")
    rig.backward()
    rig.manager.finalize_step()
    kept = zip(before, rig.host.graft1.branch.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in kept)


def test_seeds_are_counted_by_stage(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    assert stage_counts(list(rig.manager.stages().values())) == {"DORMANT": 1, "TRAINING": 1}
