from dataclasses import replace

import pytest
import torch
from kasmina_rig import Rig
from torch import nn

from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.limits import Limits
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.integrations.kasmina.graft import GraftPoint
from tamiyo.integrations.kasmina.lifecycle import LIVE, name_of_stage
from tamiyo.integrations.kasmina.slot import gradient_norm
from tamiyo.leyline import leyline_pb2 as pb

ALWAYS = {
    "alpha",
    "channels",
    "risk_tolerance",
    "blend_allowed",
    *(f"blend_allowed_{name}" for name in BLENDING_METHODS),
}
ONCE_BLENDED = {"alpha_steps", "alpha_total_steps", "alpha_temperature", "alpha_schedule_index"}
BLENDED = (pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED)


def exported(rig: Rig, seed_id: str = "a") -> pb.SeedState:
    return next(state for state in rig.manager.export_seed_states() if state.seed_id == seed_id)


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_DORMANT, *LIVE, pb.SEED_STAGE_FOSSILIZED], ids=name_of_stage)
def test_an_export_has_the_metrics_of_its_stage(rig, stage):
    rig.bring(stage)
    state = exported(rig)
    assert state.stage == stage
    expected = ALWAYS | (ONCE_BLENDED if stage in BLENDED else set())
    expected |= {"operation_allowed"} if stage in OPERATION_BY_STAGE else set()
    expected |= {"success"} if stage == pb.SEED_STAGE_FOSSILIZED else set()
    expected |= {"activity"} if stage in BLENDED else set()  # what was just planted or trained has not run yet
    assert set(state.metrics) == expected


def test_exports_come_back_from_a_packet_as_they_were(rig):
    rig.bring(pb.SEED_STAGE_BLENDING, blending_method_index=3.0)
    rig.step()
    rig.backward()
    states = rig.manager.export_seed_states()
    packet = pb.SystemStatePacket(training_run_id="r", seed_states=states)
    seeds = read_packet(packet.SerializeToString(), Limits()).seeds
    assert [seed.seed_id for seed in seeds] == ["a", "b"]
    assert (seeds[0].stage, seeds[0].age_epochs, seeds[0].layer_depth) == (pb.SEED_STAGE_BLENDING, 1, 1)
    assert seeds[0].gradient_norm > 0.0
    assert seeds[0].metrics["alpha"] == pytest.approx(rig.host.graft1.alpha)
    assert seeds[0].metrics["alpha"] > 0.0
    assert seeds[0].metrics["alpha_steps"] == 1
    assert seeds[0].metrics["alpha_total_steps"] == rig.pace.blending_steps
    assert seeds[0].metrics["alpha_schedule_index"] == 3.0
    assert (seeds[1].stage, seeds[1].gradient_norm, seeds[1].learning_rate) == (pb.SEED_STAGE_DORMANT, None, None)


def test_an_export_tells_the_manager_s_tolerance_and_the_blend_s_temperature(rig):
    rig.manager.settings = replace(rig.manager.settings, risk_tolerance=0.75, alpha_temperature=0.5)
    rig.bring(pb.SEED_STAGE_BLENDING)
    metrics = exported(rig).metrics
    assert (metrics["risk_tolerance"], metrics["alpha_temperature"]) == (0.75, 0.5)


def test_age_counts_from_the_entry_into_a_stage(rig):
    rig.bring(pb.SEED_STAGE_GERMINATED)
    for expected in (0, 1, 2):
        assert exported(rig).age_epochs == expected
        rig.step()
    rig.order(pb.SEED_OP_START_TRAINING)
    assert exported(rig).age_epochs == 0


def test_learning_rate_is_that_of_whatever_moves_the_seed(rig):
    assert exported(rig).learning_rate == 0.0
    rig.bring(pb.SEED_STAGE_TRAINING)
    assert exported(rig).learning_rate == pytest.approx(1e-3)
    fossil = Rig()
    fossil.bring(pb.SEED_STAGE_FOSSILIZED)
    assert exported(fossil).learning_rate == pytest.approx(0.1)


def test_blending_is_allowed_from_the_moment_the_gate_is_open(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    allowed = []
    for _ in range(3):
        allowed.append(exported(rig).metrics["blend_allowed"])
        rig.step()
    assert allowed == [0.0, 0.0, 1.0]
    assert {exported(rig).metrics[f"blend_allowed_{name}"] for name in BLENDING_METHODS} == {1.0}
    rig.breaker(pb.CIRCUIT_STATE_OPEN)
    assert exported(rig).metrics["blend_allowed"] == 0.0


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, features):
        return self.factor * features


@pytest.mark.parametrize(
    ("factor", "alpha", "risk"), [(1.0, 1.0, 0.0), (2.0, 1.0, 0.5), (2.0, 0.5, 1 / 3), (10.0, 1.0, 0.9)]
)
def test_risk_says_how_much_a_seed_changes_the_hosts_features(rig, factor, alpha, risk):
    rig.bring(pb.SEED_STAGE_PROBATIONARY, alpha=alpha)
    rig.host.graft1.branch = Scaled(factor)
    rig.backward()
    assert exported(rig).risk_score == pytest.approx(risk)


def test_a_seed_that_changes_nothing_has_no_risk(rig):
    rig.bring(pb.SEED_STAGE_PROBATIONARY, alpha=1.0)
    for parameter in rig.host.graft1.branch.outer.parameters():
        parameter.data.zero_()
    rig.backward()
    assert exported(rig).risk_score == 0.0


def test_a_broken_gradient_is_the_highest_risk(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    rig.images = rig.images * float("nan")
    rig.backward()
    assert exported(rig).risk_score == 1.0


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_the_highest_risk_also_once_the_gradients_are_cleared(rig, factor):
    rig.bring(pb.SEED_STAGE_PROBATIONARY, alpha=1.0)
    rig.host.graft1.branch = Scaled(factor)
    rig.backward()
    rig.host.zero_grad()
    assert exported(rig).risk_score == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_risk_and_activity_are_told_of_features_whose_norm_is_past_half_precision(dtype):
    point = GraftPoint(2, depth=1)
    point.plant(Scaled(2.0).to(dtype))
    point.stage, point.alpha = pb.SEED_STAGE_PROBATIONARY, 0.5
    point(torch.full((2, 2, 256, 256), 200.0, dtype=dtype))
    assert (point.disturbance, point.activity) == pytest.approx((1 / 3, 0.5))


def test_a_gradient_whose_norm_is_past_half_precision_is_no_broken_one():
    weight = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    weight.grad = torch.full_like(weight, 50_000.0)
    assert gradient_norm(iter([weight])) == pytest.approx(100_000.0, rel=1e-3)


def test_a_seed_without_a_say_has_no_risk(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    rig.backward()
    assert exported(rig).risk_score == 0.0


def test_a_seed_that_was_culled_has_no_risk_and_is_not_active_any_more(rig):
    rig.bring(pb.SEED_STAGE_PROBATIONARY, alpha=1.0)
    rig.host.graft1.branch = Scaled(2.0)
    rig.backward()
    assert (exported(rig).risk_score, exported(rig).metrics["activity"]) == pytest.approx((0.5, 0.5))
    rig.order(pb.SEED_OP_CULL)
    rig.backward()
    assert exported(rig).risk_score == 0.0
    assert "activity" not in exported(rig).metrics


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_PROBATIONARY], ids=name_of_stage)
@pytest.mark.parametrize(("factor", "activity"), [(1.0, 0.0), (2.0, 0.5), (10.0, 0.9)])
def test_activity_is_the_risk_that_a_seed_would_be_if_it_were_heard_alone(rig, stage, factor, activity):
    rig.bring(stage, alpha=0.25)
    rig.host.graft1.branch = Scaled(factor)
    rig.backward()
    assert exported(rig).metrics["activity"] == pytest.approx(activity)
    assert exported(rig).risk_score < activity or factor == 1.0


def test_activity_is_absent_where_no_module_runs_or_none_that_is_finite(rig):
    rig.backward()
    assert "activity" not in exported(rig).metrics
    rig.bring(pb.SEED_STAGE_TRAINING)
    rig.host.graft1.branch = Scaled(float("nan"))
    rig.backward()
    assert "activity" not in exported(rig).metrics
    assert exported(rig).risk_score == 1.0  # its gradient is not finite either


def test_a_pass_outside_training_leaves_what_the_last_training_pass_was_like(rig):
    rig.bring(pb.SEED_STAGE_PROBATIONARY, alpha=1.0)
    rig.backward()
    before = exported(rig)
    rig.host.eval()
    rig.host(rig.images + 1.0)
    rig.host.train()
    assert exported(rig) == before


def test_success_counts_the_germinations_that_ended(rig):
    assert "success" not in exported(rig).metrics
    for _ in range(2):
        rig.bring_down(pb.SEED_STAGE_DORMANT)
        assert exported(rig).metrics["success"] == 0.0
    rig.bring(pb.SEED_STAGE_PROBATIONARY)
    assert exported(rig).metrics["success"] == 0.0
    for _ in range(rig.pace.probation_steps):
        rig.step()
    assert rig.order(pb.SEED_OP_FOSSILIZE).outcome == "applied"
    assert exported(rig).metrics["success"] == pytest.approx(1 / 3)
    assert "success" not in exported(rig, "b").metrics
