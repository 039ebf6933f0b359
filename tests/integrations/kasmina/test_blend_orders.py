"""From a command's annotations to a blend: what is taken, what is refused, and a seed's whole life in each mode."""

import math

import pytest
import torch
from kasmina_rig import NOTES, ON_THE_WAY, Rig
from test_seed_lifecycle import assert_unchanged, remembered
from test_seed_snapshot import carry_on, revived, through_a_file, weights_equal

from tamiyo.core.blend import CHANNELS_MAX, blend_notes
from tamiyo.core.intent import Intent
from tamiyo.core.limits import Limits
from tamiyo.core.observation import read_packet
from tamiyo.core.options import BLEND_MODES, Options
from tamiyo.integrations.kasmina import SeedStateRejected
from tamiyo.integrations.kasmina.lifecycle import name_of_stage
from tamiyo.integrations.kasmina.modes import CONVEX, Channel, Confidence, Residual
from tamiyo.integrations.kasmina.orders import read_mode
from tamiyo.leyline import leyline_pb2 as pb

ORDERED = {
    "CONVEX": CONVEX,
    "RESIDUAL": Residual(),
    "CHANNEL": Channel((1.0, 0.5, 0.0, 2.0)),
    "CONFIDENCE": Confidence(4.0, 0.2, 0.25, 0.75),
}
HEARD = (pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED)
every_name = pytest.mark.parametrize("name", BLEND_MODES)


def ready(**notes: str) -> Rig:
    """A rig whose seed "a" may be grafted, with what its commands will say."""
    rig = Rig()
    rig.bring(pb.SEED_STAGE_TRAINING)
    rig.step()
    rig.step()
    rig.annotations = notes
    return rig


def rig_in(name: str, stage: int = pb.SEED_STAGE_BLENDING) -> Rig:
    rig = Rig()
    rig.annotations = NOTES[name]
    rig.bring(stage)
    return rig


@every_name
def test_the_command_that_starts_a_blend_names_its_mode(name):
    rig = ready(**NOTES[name])
    assert rig.order(pb.SEED_OP_START_GRAFTING).outcome == "applied"
    assert rig.host.graft1.mode == rig.manager.slots["a"].blend.mode == ORDERED[name]


def test_a_command_that_names_no_mode_starts_a_convex_blend_whatever_else_it_says():
    numbers = {name: "nonsense" for notes in NOTES.values() for name in notes if name != "blend_mode"}
    rig = ready(**numbers)
    assert rig.order(pb.SEED_OP_START_GRAFTING).outcome == "applied"
    assert rig.host.graft1.mode == CONVEX


@every_name
def test_annotations_of_other_modes_say_nothing(name):
    numbers = {key: text for notes in NOTES.values() for key, text in notes.items()}
    rig = ready(**numbers | {"blend_mode": name})
    assert rig.order(pb.SEED_OP_START_GRAFTING).outcome == "applied"
    assert rig.host.graft1.mode == ORDERED[name]


@pytest.mark.parametrize("operation", [op for op in ON_THE_WAY if op != pb.SEED_OP_START_GRAFTING])
def test_annotations_of_a_command_that_starts_no_blend_say_nothing(operation):
    rig = Rig()
    for each in ON_THE_WAY:
        rig.annotations = {"blend_mode": "nonsense"} if each == operation else NOTES["RESIDUAL"]
        assert rig.order(each).outcome == "applied"
        for _ in range(4):
            rig.step()
    assert rig.host.graft1.mode == Residual()


@every_name
@pytest.mark.parametrize("channels", [1, 4, CHANNELS_MAX, CHANNELS_MAX + 1])
@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.3, 1.0])
def test_what_tamiyo_writes_is_read(name, channels, alpha):
    state = pb.SeedState(seed_id="a", stage=pb.SEED_STAGE_TRAINING, metrics={"channels": channels})
    packet = pb.SystemStatePacket(training_run_id="r", seed_states=[state])
    seed = read_packet(packet.SerializeToString(), Limits()).seeds[0]
    options = Options(blend_mode_annotations=True, blend_mode_default=name)
    notes = blend_notes(Intent(pb.COMMAND_SEED, operation=pb.SEED_OP_START_GRAFTING, seed=seed), alpha, options)
    mode = read_mode(notes, alpha, channels)
    assert (mode.name, mode.fault(channels)) == (name, "")
    if name == "CHANNEL" and alpha > 1e-6:
        assert mode.gains == pytest.approx((1.0,) * channels)


def test_channel_without_a_vector_has_the_command_s_alpha_in_every_channel():
    rig = ready(blend_mode="CHANNEL")
    assert rig.order(pb.SEED_OP_START_GRAFTING).outcome == "applied"
    assert rig.host.graft1.mode == Channel((1.0,) * 4)


def test_a_vector_of_zeros_goes_with_an_alpha_of_zero():
    rig = ready(blend_mode="CHANNEL", alpha_vec="[0,0,0,0]", alpha_vec_len="4")
    assert rig.order(pb.SEED_OP_START_GRAFTING, alpha=0.0).outcome == "applied"


VECTORS = {  # alpha_vec, alpha_vec_len and what the refusal names
    "shorter": ("[0.5,0.5,0.5]", "3", "3 alphas for 4 channels"),
    "longer": ("[0.5,0.5,0.5,0.5,0.5]", "5", "5 alphas for 4 channels"),
    "empty": ("[]", "0", "0 alphas for 4 channels"),
    "another length": ("[0.5,0.5,0.5,0.5]", "5", "alpha_vec_len"),
    "no length": ("[0.5,0.5,0.5,0.5]", "four", "alpha_vec_len"),
    "below": ("[0.5,-0.1,0.5,0.5]", "4", "-0.1"),
    "above": ("[0.5,1.1,0.5,0.5]", "4", "1.1"),
    "far above": ("[0.5,1" + "0" * 400 + ",0.5,0.5]", "4", "outside"),
    "digits without end": ("[0.5,1" + "0" * 9_999 + ",0.5,0.5]", "4", "JSON"),
    "NaN": ("[0.5,NaN,0.5,0.5]", "4", "nan"),
    "Infinity": ("[0.5,Infinity,0.5,0.5]", "4", "inf"),
    "text": ('[0.5,"0.5",0.5,0.5]', "4", "list of numbers"),
    "true": ("[0.5,true,0.5,0.5]", "4", "list of numbers"),
    "null": ("[0.5,null,0.5,0.5]", "4", "list of numbers"),
    "nested": ("[[0.5,0.5,0.5,0.5]]", "1", "list of numbers"),
    "object": ('{"0":0.5}', "1", "list of numbers"),
    "a number": ("0.5", "1", "list of numbers"),
    "cut short": ("[0.5,0.5", "2", "JSON"),
    "nothing": ("", "0", "JSON"),
    "brackets without end": ("[" * 100_000, "1", "JSON"),
}
GATES = {  # an annotation of CONFIDENCE and its text
    "gate_k": ("", "steep", "nan", "inf", "-inf", "-1", "4,0"),
    "gate_tau": ("", "low", "nan", "inf", "-0.1", "1.1"),
    "alpha_lo": ("", "low", "nan", "-inf", "-0.1", "0.8", "1.1"),
    "alpha_hi": ("", "high", "nan", "inf", "-0.1", "0.2", "1.1"),
}
REFUSED = (
    [({"blend_mode": name}, "no blend mode") for name in ("", "convex", "CONVEX ", "ADDITIVE", "0")]
    + [
        ({"blend_mode": "CHANNEL", "alpha_vec": vector, "alpha_vec_len": length}, named)
        for vector, length, named in VECTORS.values()
    ]
    + [({key: text for key, text in NOTES["CHANNEL"].items() if key != gone}, "only")
       for gone in ("alpha_vec", "alpha_vec_len")]
    + [(NOTES["CONFIDENCE"] | {key: text}, key) for key, texts in GATES.items() for text in texts]
    + [({key: text for key, text in NOTES["CONFIDENCE"].items() if key != gone}, f"needs {gone}") for gone in GATES]
)  # fmt: skip


@pytest.mark.parametrize(("notes", "named"), REFUSED)
def test_an_impossible_mode_is_refused_by_name_and_changes_nothing(notes, named):
    rig = ready(**notes)
    before = remembered(rig)
    applied = rig.order(pb.SEED_OP_START_GRAFTING)
    assert (applied.outcome, applied.reason) == ("refused", "invalid_parameters")
    assert named in applied.detail
    assert_unchanged(before, rig)
    assert rig.host.graft1.mode == CONVEX
    rig.annotations = {}
    assert rig.order(pb.SEED_OP_START_GRAFTING).outcome == "applied", "and may be ordered anew"


@pytest.mark.parametrize("alpha", [0.0, 1e-8])
def test_no_multiple_of_almost_no_alpha_is_a_channel_s(alpha):
    rig = ready(**NOTES["CHANNEL"])
    before = remembered(rig)
    applied = rig.order(pb.SEED_OP_START_GRAFTING, alpha=alpha)
    assert applied.reason == "invalid_parameters"
    assert "times that of the command" in applied.detail
    assert_unchanged(before, rig)


@every_name
def test_a_blend_rises_from_the_host_s_features_to_what_was_ordered(name):
    rig = rig_in(name)
    point, h = rig.host.graft1, torch.rand(2, 4, 5, 5)
    assert torch.equal(point(h), h)
    moved = []
    for _ in range(rig.pace.blending_steps):
        rig.step(train_host=False)
        moved.append(point.alpha)
    assert moved == [0.125, 0.25, 0.375, 0.5]
    s = point.branch(h)
    if name == "CHANNEL":
        w = torch.tensor([0.5, 0.25, 0.0, 1.0])[None, :, None, None]  # as in `alpha_vec`
    else:
        w = 0.5 * torch.as_tensor(ORDERED[name].gain(h))
    torch.testing.assert_close(point(h), ((0.0 if name == "RESIDUAL" else -w) + 1.0) * h + w * s)


@every_name
def test_a_whole_life_in_a_mode_keeps_it_from_the_blend_to_the_fossil(name):
    rig = Rig()
    rig.annotations = NOTES[name]
    for operation in ON_THE_WAY:
        assert rig.order(operation).outcome == "applied"
        before = rig.host.head.weight.clone()
        for _ in range(4):
            loss = rig.step()
            assert loss.isfinite()
        heard = rig.host.graft1.stage in HEARD
        assert rig.host.graft1.mode == (ORDERED[name] if heard else CONVEX)
        assert not torch.equal(rig.host.head.weight, before)
        if rig.host.graft1.stage == pb.SEED_STAGE_BLENDING:
            assert rig.host.first.weight.grad is None, "upstream of the seed the host holds still"
    assert rig.manager.stages()["a"] == "FOSSILIZED"
    rig.backward()
    assert rig.host.first.weight.grad.any()
    rig.step()
    assert all(parameter.isfinite().all() for parameter in rig.host.parameters())


@every_name
@pytest.mark.parametrize("stage", HEARD, ids=name_of_stage)
def test_an_export_tells_the_same_facts_in_every_mode(name, stage):
    rig = rig_in(name, stage)
    rig.step()
    rig.backward()
    plain = rig_in("CONVEX", stage)
    plain.step()
    plain.backward()
    state, other = rig.manager.export_seed_states()[0], plain.manager.export_seed_states()[0]
    assert set(state.metrics) == set(other.metrics)
    for metric in ("alpha", "channels", "alpha_steps", "alpha_total_steps", "alpha_schedule_index"):
        assert state.metrics[metric] == other.metrics[metric]
    assert state.risk_score == pytest.approx(rig.host.graft1.disturbance)
    assert 0.0 < state.risk_score < state.metrics["activity"] < 1.0


@every_name
def test_a_broken_seed_is_the_highest_risk_in_every_mode(name):
    rig = rig_in(name, pb.SEED_STAGE_PROBATIONARY)
    for parameter in rig.host.graft1.branch.parameters():
        parameter.data.fill_(math.nan)
    rig.backward()
    rig.host.zero_grad()
    assert rig.manager.export_seed_states()[0].risk_score == 1.0


@every_name
def test_a_culled_seed_forgets_its_mode_and_its_successor_has_its_own(name):
    rig = rig_in(name, pb.SEED_STAGE_SHADOWING)
    assert rig.order(pb.SEED_OP_CULL).outcome == "applied"
    assert (rig.host.graft1.mode, rig.host.graft1.alpha) == (CONVEX, 0.0)
    while rig.host.graft1.stage != pb.SEED_STAGE_DORMANT:
        rig.step()
    rig.annotations = {}
    rig.bring(pb.SEED_STAGE_SHADOWING)
    assert rig.host.graft1.mode == CONVEX


@every_name
@pytest.mark.parametrize("stage", HEARD, ids=name_of_stage)
def test_a_revived_run_goes_on_in_its_mode_bit_for_bit(name, stage):
    rig = rig_in(name, stage)
    rig.step()
    twin = revived(rig)
    twin.annotations = rig.annotations
    assert twin.host.graft1.mode == twin.manager.slots["a"].blend.mode == ORDERED[name]
    carry_on(rig)
    carry_on(twin)
    assert weights_equal(rig, twin)
    assert str(twin.manager.state_dict()) == str(rig.manager.state_dict())


def before_modes(state: dict) -> None:
    state["version"] = 1
    for stored in state["seeds"].values():
        if stored["blend"]:
            del stored["blend"]["mode"]


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_TRAINING, *HEARD], ids=name_of_stage)
def test_a_snapshot_from_before_there_were_modes_is_of_convex_blends(stage):
    rig = rig_in("CONVEX", stage)
    rig.step()
    twin = revived(rig, before_modes)
    twin.annotations = rig.annotations
    assert twin.host.graft1.mode == CONVEX
    assert str(twin.manager.state_dict()) == str(rig.manager.state_dict())
    carry_on(rig)
    carry_on(twin)
    assert weights_equal(rig, twin)


def unknown_mode(blend: dict) -> None:
    blend["mode"] = {"name": "ADDITIVE"}


def other_channels(blend: dict) -> None:
    blend["mode"]["gains"] = (1.0, 1.0)


@pytest.mark.parametrize(("spoil", "named"), [(unknown_mode, "ADDITIVE"), (other_channels, "2 alphas for 4 channels")])
def test_a_snapshot_whose_mode_does_not_fit_changes_nothing(spoil, named):
    state = through_a_file(rig_in("CHANNEL").manager.state_dict())
    spoil(state["seeds"]["a"]["blend"])
    twin = Rig()
    with pytest.raises(SeedStateRejected, match=named):
        twin.manager.load_state_dict(state)
    assert twin.manager.stages() == {"a": "DORMANT", "b": "DORMANT"}
    assert twin.host.graft1.branch is None


@every_name
def test_two_seeds_of_one_host_have_each_its_own_mode(name):
    rig = rig_in(name, pb.SEED_STAGE_PROBATIONARY)
    rig.annotations = NOTES["RESIDUAL"]
    rig.bring(pb.SEED_STAGE_PROBATIONARY, "b")
    assert (rig.host.graft1.mode, rig.host.graft2.mode) == (ORDERED[name], Residual())
