"""What each blend mode makes of the host's features and the seed's, forwards and backwards."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tamiyo.core.options import BLEND_MODES
from tamiyo.integrations.kasmina import GraftPoint
from tamiyo.integrations.kasmina.modes import CONVEX, GAIN_MAX, MODES, Channel, Confidence, Residual, stored_mode
from tamiyo.leyline import leyline_pb2 as pb

CHANNELS = 3
JOINED = (pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED)
HEARD = (pb.SEED_STAGE_BLENDING, *JOINED)
ALL = {
    "CONVEX": CONVEX,
    "RESIDUAL": Residual(),
    "CHANNEL": Channel((1.0, 0.5, 4.0)),
    "CONFIDENCE": Confidence(gate_k=4.0, gate_tau=0.2, alpha_lo=0.1, alpha_hi=0.9),
}
every_mode = pytest.mark.parametrize("mode", ALL.values(), ids=ALL)


class Tripled(nn.Module):
    def __init__(self, broken: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("broken", torch.tensor([0.0, broken, 0.0])[None, :, None, None])

    def forward(self, features):
        return self.gain * features + self.broken


def point_at(stage, mode, alpha=0.5, branch=None) -> GraftPoint:
    point = GraftPoint(CHANNELS, depth=1)
    point.plant(branch or Tripled())
    point.stage, point.alpha, point.mode = stage, alpha, mode
    return point


def features(samples: int = 4) -> torch.Tensor:
    return torch.randn(samples, CHANNELS, 2, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()


def gate(h: torch.Tensor, mode: Confidence) -> torch.Tensor:
    """The share of alpha that each sample has, written out once more, a sample at a time."""
    shares = []
    for sample in h.detach():
        scores = [float(channel.mean()) for channel in sample]
        total = sum(math.exp(score) for score in scores)
        first, second = sorted((math.exp(score) / total for score in scores), reverse=True)[:2]
        opened = 1.0 / (1.0 + math.exp(-mode.gate_k * (first - second - mode.gate_tau)))
        shares.append(mode.alpha_lo + (mode.alpha_hi - mode.alpha_lo) * opened)
    return torch.tensor(shares)[:, None, None, None]


def weight(h, mode, alpha):
    if mode.name == "CONFIDENCE":
        return alpha * gate(h, mode)
    if mode.name == "CHANNEL":
        return torch.tensor([min(1.0, alpha * gain) for gain in mode.gains])[None, :, None, None]
    return torch.tensor(alpha)


def kept(mode, w):
    """The weight of the host's features."""
    return torch.ones_like(w) if mode.name == "RESIDUAL" else 1.0 - w


def test_the_modes_are_those_that_the_core_names_in_its_order():
    assert tuple(MODES) == BLEND_MODES == tuple(ALL)


@every_mode
@pytest.mark.parametrize("stage", HEARD)
@pytest.mark.parametrize("alpha", [0.125, 0.5, 1.0])
def test_a_mode_mixes_by_its_formula_at_every_stage_that_is_heard(mode, stage, alpha):
    h = features()
    w = weight(h, mode, alpha)
    torch.testing.assert_close(point_at(stage, mode, alpha)(h), kept(mode, w) * h + w * (3.0 * h))


@every_mode
@pytest.mark.parametrize("stage", HEARD)
def test_a_pass_outside_training_mixes_the_same(mode, stage):
    h, point = features(), point_at(stage, mode)
    trained = point(h)
    assert torch.equal(point.eval()(h), trained)


@every_mode
@pytest.mark.parametrize("stage", pb.SeedLifecycleStage.values())
@pytest.mark.parametrize("broken", [0.0, float("nan"), float("inf")])
def test_at_alpha_zero_the_host_s_features_flow_on_bit_for_bit(mode, stage, broken):
    h = features()
    point = point_at(stage, mode, 0.0, Tripled(broken))
    assert torch.equal(point(h), h)
    assert point.disturbance == 0.0


@every_mode
def test_while_alpha_rises_the_gradient_reaches_the_seed_and_not_the_host(mode):
    h, point = features(), point_at(pb.SEED_STAGE_BLENDING, mode)
    point(h).sum().backward()
    assert h.grad is None
    torch.testing.assert_close(point.branch.gain.grad, (weight(h, mode, 0.5) * h).sum().detach())


@every_mode
@pytest.mark.parametrize("stage", JOINED)
def test_afterwards_the_gradient_reaches_the_host_through_both_branches_and_not_through_the_weight(mode, stage):
    h, point = features(), point_at(stage, mode)
    slope = torch.randn(h.shape, generator=torch.Generator().manual_seed(5))
    (slope * point(h)).sum().backward()
    w = weight(h, mode, 0.5)
    torch.testing.assert_close(h.grad, (kept(mode, w) + 3.0 * w).expand_as(h) * slope)
    torch.testing.assert_close(point.branch.gain.grad, (slope * w * h).sum().detach())


@pytest.mark.parametrize("stage", HEARD)
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_channel_without_a_weight_flows_on_bit_for_bit_whatever_the_seed_makes_of_it(stage, broken):
    h, point = features(), point_at(stage, Channel((1.0, 0.0, 1.0)), branch=Tripled(broken))
    out = point(h)
    assert torch.equal(out[:, 1], h[:, 1])
    torch.testing.assert_close(out[:, ::2], 2.0 * h[:, ::2])
    assert 0.0 < point.disturbance < point.activity < 1.0


def test_a_shut_gate_lets_the_host_s_features_through_bit_for_bit():
    h = torch.zeros(2, CHANNELS, 2, 2)
    h[1, 0] = 9.0
    mode = Confidence(gate_k=1e4, gate_tau=0.5, alpha_lo=0.0, alpha_hi=1.0)
    out = point_at(pb.SEED_STAGE_PROBATIONARY, mode, 0.5)(h)
    assert torch.equal(out[0], h[0])
    torch.testing.assert_close(out[1], 2.0 * h[1])


def test_a_sample_s_gate_does_not_depend_on_the_others_of_its_batch():
    h, point = features(), point_at(pb.SEED_STAGE_PROBATIONARY, ALL["CONFIDENCE"])
    alone = torch.cat([point(h[n : n + 1]) for n in range(len(h))])
    torch.testing.assert_close(alone, point(h))


@pytest.mark.parametrize(
    ("margin", "opened"),
    [(0.2, 0.5), (0.0, 1 / (1 + math.exp(0.8))), (0.7, 1 / (1 + math.exp(-2.0)))],
)
def test_tamiyo_s_gate_is_half_open_at_a_margin_of_a_fifth(margin, opened):
    likely = torch.tensor([(1.0 + margin) / 2, (1.0 - margin) / 2])
    h = likely.log()[None, :, None, None].expand(1, 2, 2, 2)
    gain = Confidence(gate_k=4.0, gate_tau=0.2, alpha_lo=0.0, alpha_hi=1.0).gain(h)
    assert float(gain) == pytest.approx(opened, abs=1e-6)


def test_one_channel_is_one_class_and_sure_of_it():
    gain = Confidence(gate_k=4.0, gate_tau=0.2, alpha_lo=0.0, alpha_hi=1.0).gain(torch.randn(2, 1, 2, 2))
    assert gain.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-3.2))] * 2)


def test_the_steepest_gate_is_a_step_and_a_level_one_is_half_open():
    h = torch.zeros(2, CHANNELS, 2, 2)
    h[1, 0] = 9.0
    steep = Confidence(gate_k=1e300, gate_tau=0.0, alpha_lo=0.2, alpha_hi=0.8)
    assert steep.fault(CHANNELS) == ""
    assert steep.gain(h).flatten().tolist() == pytest.approx([0.5, 0.8]), "at the threshold itself it is half open"
    level = Confidence(gate_k=0.0, gate_tau=0.0, alpha_lo=0.2, alpha_hi=0.8)
    assert level.gain(h).flatten().tolist() == pytest.approx([0.5, 0.5])


@every_mode
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_what_flows_on_has_the_type_of_the_features(mode, dtype):
    h = features().detach()
    out = point_at(pb.SEED_STAGE_PROBATIONARY, mode, branch=Tripled().to(dtype))(h.to(dtype))
    assert out.dtype == dtype
    w = weight(h, mode, 0.5)
    rtol = 2e-2 if dtype != torch.float64 else 1e-6
    torch.testing.assert_close(out.float(), kept(mode, w) * h + w * 3.0 * h, rtol=rtol, atol=rtol)


@every_mode
def test_under_autocast_host_and_seed_may_be_of_two_types(mode):
    h = features()
    point = point_at(pb.SEED_STAGE_BLENDING, mode, branch=nn.Conv2d(CHANNELS, CHANNELS, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = point(h)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in point.branch.parameters())
    torch.testing.assert_close(out, point(h), rtol=2e-2, atol=2e-2)


@every_mode
def test_a_module_that_changes_nothing_changes_nothing_in_half_precision_either(mode):
    h = features().detach().bfloat16()
    out = point_at(pb.SEED_STAGE_PROBATIONARY, mode, branch=nn.Identity())(h)
    expected = 1.5 * h if mode.name == "RESIDUAL" else h
    torch.testing.assert_close(out, expected, rtol=2**-7, atol=0.0)
    if mode.name in {"CHANNEL", "CONFIDENCE"}:
        assert torch.equal(out, h)


@every_mode
def test_risk_is_what_the_mix_changes_and_activity_what_it_would_with_alpha_one(mode):
    h, point = features().detach(), point_at(pb.SEED_STAGE_PROBATIONARY, mode, 0.25)
    told = []
    for alpha in (0.25, 1.0):
        point.alpha = alpha
        change = float((point(h) - h).norm().detach())
        told.append((point.disturbance, change / (change + float(h.norm()))))
    point.alpha = 0.25
    assert told[0][0] == pytest.approx(told[0][1], rel=1e-5)
    assert told[1][0] == pytest.approx(told[1][1], rel=1e-5)
    point(h)
    assert point.activity == pytest.approx(told[1][1], rel=1e-5)


@every_mode
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_risk_is_finite_where_norms_are_past_half_precision(mode, dtype):
    h = torch.full((2, CHANNELS, 256, 256), 200.0, dtype=dtype)
    point = point_at(pb.SEED_STAGE_PROBATIONARY, mode, branch=Tripled().to(dtype))
    point(h)
    assert 0.0 < point.disturbance <= point.activity < 1.0


@every_mode
def test_a_broken_seed_that_is_heard_is_told_as_not_finite(mode):
    point = point_at(pb.SEED_STAGE_PROBATIONARY, mode, branch=Tripled(float("nan")))
    point(features())
    assert math.isnan(point.disturbance)


@every_mode
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_host_that_checkpoints_its_activations_has_the_same_gradients(mode, reentrant):
    told = []
    for run in (lambda point: point, lambda point: partial(checkpoint, point, use_reentrant=reentrant)):
        h, point = features(), point_at(pb.SEED_STAGE_PROBATIONARY, mode)
        run(point)(h).square().sum().backward()
        told.append((h.grad, point.branch.gain.grad, torch.tensor(point.disturbance)))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*told, strict=True))


@every_mode
def test_a_pass_in_inference_mode_leaves_nothing_that_training_trips_over(mode):
    h, point = features(), point_at(pb.SEED_STAGE_PROBATIONARY, mode)
    with torch.inference_mode():
        point.eval()(h)
    point.train()(h).sum().backward()
    assert h.grad is not None


@every_mode
def test_a_stored_mode_comes_back_as_it_was(mode):
    stored = stored_mode(mode)
    assert MODES[stored.pop("name")](**stored) == mode


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        (Channel((1.0, 1.0)), "2 alphas for 3 channels"),
        (Channel((1.0, 1.0, 2.0 * GAIN_MAX)), "times that of the command"),
        (Channel((1.0, 1.0, -1.0)), "times that of the command"),
        (Channel((1.0, 1.0, math.nan)), "times that of the command"),
        (Confidence(-1.0, 0.2, 0.0, 1.0), "gate_k"),
        (Confidence(math.inf, 0.2, 0.0, 1.0), "gate_k"),
        (Confidence(4.0, math.nan, 0.0, 1.0), "gate_tau"),
        (Confidence(4.0, 0.2, 0.8, 0.2), "alpha_lo"),
    ],
)
def test_a_mode_that_cannot_be_says_what_is_wrong(mode, named):
    assert named in mode.fault(CHANNELS)


@every_mode
def test_a_mode_that_can_be_has_no_fault(mode):
    assert mode.fault(CHANNELS) == ""


@every_mode
def test_planting_and_clearing_forget_the_mode(mode):
    for forget in (GraftPoint.clear, partial(GraftPoint.plant, branch=Tripled())):
        point = point_at(pb.SEED_STAGE_PROBATIONARY, mode)
        forget(point)
        assert (point.mode, point.alpha) == (CONVEX, 0.0)
