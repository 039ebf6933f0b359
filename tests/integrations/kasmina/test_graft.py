"""What flows through a graft point, forwards and backwards."""

from functools import partial

import pytest
import torch
from kasmina_rig import Rig
from torch import nn
from torch.utils.checkpoint import checkpoint

from tamiyo.integrations.kasmina import BLUEPRINTS, GraftPoint
from tamiyo.integrations.kasmina.graft import REACH
from tamiyo.leyline import leyline_pb2 as pb

MIXED = (pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED)


class Tripled(nn.Module):
    def __init__(self, broken: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(3.0))
        self.broken = broken

    def forward(self, features):
        return self.gain * features + self.broken


def point_at(stage: int, alpha: float = 0.0, branch: nn.Module | None = None) -> GraftPoint:
    point = GraftPoint(2, depth=1)
    point.plant(branch or Tripled())
    point.stage, point.alpha = stage, alpha
    return point


def features() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 2, 3, 3, generator=generator).requires_grad_()


@pytest.mark.parametrize("stage", pb.SeedLifecycleStage.values())
def test_at_alpha_zero_every_stage_gives_the_hosts_features_bit_for_bit(stage):
    host = features()
    for branch in (Tripled(), Tripled(broken=float("nan")), Tripled(broken=float("inf"))):
        out = point_at(stage, 0.0, branch)(host)
        assert torch.equal(out, host)


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_BLENDING, *MIXED])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_a_mix_is_convex(stage, alpha):
    host = features()
    expected = (1.0 - alpha) * host + alpha * (3.0 * host)
    torch.testing.assert_close(point_at(stage, alpha)(host), expected)


def test_while_blending_the_gradient_reaches_the_seed_and_not_the_host():
    host, point = features(), point_at(pb.SEED_STAGE_BLENDING, 0.5)
    point(host).sum().backward()
    assert host.grad is None
    torch.testing.assert_close(point.branch.gain.grad, 0.5 * host.detach().sum())


@pytest.mark.parametrize("stage", MIXED)
def test_afterwards_the_gradient_reaches_the_host_through_both_branches(stage):
    host, point = features(), point_at(stage, 0.5)
    point(host).sum().backward()
    torch.testing.assert_close(host.grad, torch.full_like(host, 0.5 + 0.5 * 3.0))
    torch.testing.assert_close(point.branch.gain.grad, 0.5 * host.detach().sum())


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_CULLED])
def test_an_idle_branch_is_not_run(stage):
    point = point_at(stage, 0.0)
    point.branch.forward = None  # calling it would raise
    host = features()
    assert point(host) is host


def test_a_training_seed_is_not_run_outside_training_or_without_gradients():
    point = point_at(pb.SEED_STAGE_TRAINING)
    point.branch.forward = None
    host = features()
    with torch.no_grad():
        assert point(host) is host
    assert point.eval()(host) is host


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("stage", [pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_PROBATIONARY])
def test_a_host_that_checkpoints_its_activations_has_the_same_activity_and_disturbance(stage, reentrant):
    told = []
    for run in (lambda point: point, lambda point: partial(checkpoint, point, use_reentrant=reentrant)):
        point = point_at(stage, 0.5)
        run(point)(features()).sum().backward()
        told.append((point.activity, point.disturbance))
    assert told[0] == told[1]
    assert told[0][0] == pytest.approx(2 / 3)


def test_a_training_seed_is_fitted_to_the_features_moved_against_the_gradient():
    host, point = features(), point_at(pb.SEED_STAGE_TRAINING)
    weights = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(5))
    (weights * point(host)).sum().backward()
    h = host.detach()
    target = h - REACH * h.norm() / weights.norm() * weights
    gain = torch.tensor(3.0, requires_grad=True)
    (((gain * h - target) ** 2).sum() / (2 * len(h))).backward()
    torch.testing.assert_close(point.branch.gain.grad, gain.grad)
    assert torch.equal(host.grad, weights)


def test_a_training_seed_is_fitted_also_where_norms_are_past_half_precision():
    values = torch.full((2, 2, 256, 256), 200.0, dtype=torch.float16, requires_grad=True)
    branch = Shifted(values.shape, torch.float16)
    point_at(pb.SEED_STAGE_TRAINING, branch=branch)(values).backward(torch.full_like(values, 200.0))
    expected = torch.full_like(values, REACH * 200.0 / len(values))
    torch.testing.assert_close(branch.shift.grad, expected, rtol=1e-2, atol=0.0)


class Shifted(nn.Module):
    def __init__(self, shape, dtype) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(shape, dtype=dtype))

    def forward(self, features):
        return features + self.shift


def test_a_loss_without_slope_fits_the_seed_to_the_host_itself():
    host, point = features(), point_at(pb.SEED_STAGE_TRAINING)
    (0.0 * point(host)).sum().backward()
    h = host.detach()
    torch.testing.assert_close(point.branch.gain.grad, (2.0 * h * h).sum() / len(h))


@pytest.mark.parametrize("blueprint_id", BLUEPRINTS)
def test_a_fresh_module_is_the_identity(blueprint_id):
    host = features()
    torch.testing.assert_close(BLUEPRINTS[blueprint_id](2)(host), host, rtol=0, atol=0)


@pytest.mark.parametrize("blueprint_id", BLUEPRINTS)
@pytest.mark.parametrize("stage", [pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING])
def test_a_seed_that_is_not_blended_leaves_outputs_and_gradients_of_the_host_untouched(blueprint_id, stage):
    alone, accompanied = Rig(), Rig()
    for rig, seeds in ((alone, ()), (accompanied, ("a", "b"))):
        for seed_id in seeds:
            rig.order(pb.SEED_OP_GERMINATE, seed_id, blueprint_id)
            if stage == pb.SEED_STAGE_TRAINING:
                rig.order(pb.SEED_OP_START_TRAINING, seed_id)
        for _ in range(6):
            rig.step()
        rig.backward()
    for name, parameter in alone.host.named_parameters():
        twin = accompanied.host.get_parameter(name)
        assert torch.equal(parameter, twin), name
        assert torch.equal(parameter.grad, twin.grad), name
    assert torch.equal(alone.host(alone.images), accompanied.host(accompanied.images))


def test_a_training_seed_learns_while_the_host_does_not_move(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    before = [p.detach().clone() for p in rig.host.graft1.branch.parameters()]
    for _ in range(3):
        rig.step(train_host=False)
    moved = zip(before, rig.host.graft1.branch.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def test_the_local_loss_of_a_training_seed_falls(rig):
    rig.bring(pb.SEED_STAGE_TRAINING)
    distances = []
    for _ in range(60):
        rig.step(train_host=False)
        h = torch.relu(rig.host.first(rig.images)).detach().requires_grad_()
        rest = rig.host.graft2(torch.relu(rig.host.second(h)))
        nn.functional.cross_entropy(rig.host.head(rest.mean(dim=(2, 3))), rig.labels).backward()
        target = h - REACH * h.norm() / h.grad.norm() * h.grad
        distances.append(float((rig.host.graft1.branch(h) - target).norm().detach()))
    assert distances[-1] < 0.95 * distances[0]
