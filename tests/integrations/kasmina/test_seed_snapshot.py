"""A run goes on from a snapshot as if nothing had happened."""

import io
from collections.abc import Callable

import pytest
import torch
from kasmina_rig import Rig

from tamiyo.integrations.kasmina import SeedStateRejected
from tamiyo.integrations.kasmina.lifecycle import LIVE, name_of_stage
from tamiyo.leyline import leyline_pb2 as pb


def through_a_file(content: dict[str, object]) -> dict:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def revived(rig: Rig, alter: Callable[[dict], None] = lambda seeds: None) -> Rig:
    stored = through_a_file(
        {
            "seeds": rig.manager.state_dict(),
            "model": rig.host.state_dict(),
            "optimizer": rig.optimizer.state_dict(),
        }
    )
    alter(stored["seeds"])
    twin = Rig()
    twin.manager.load_state_dict(stored["seeds"])
    twin.host.load_state_dict(stored["model"])
    twin.optimizer.load_state_dict(stored["optimizer"])
    return twin


def weights_equal(left: Rig, right: Rig) -> bool:
    ours, theirs = left.host.state_dict(), right.host.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def carry_on(rig: Rig) -> None:
    for operation in (pb.SEED_OP_STABILIZE, pb.SEED_OP_EVALUATE, pb.SEED_OP_FOSSILIZE, pb.SEED_OP_GERMINATE):
        rig.adjust(lr_delta=-0.02)
        rig.order(operation)
        for _ in range(3):
            rig.step()


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_DORMANT, *LIVE, pb.SEED_STAGE_FOSSILIZED], ids=name_of_stage)
def test_a_revived_run_is_bit_for_bit_the_run_it_was(rig, stage):
    rig.bring(pb.SEED_STAGE_TRAINING, "b")
    rig.bring(stage, "a")
    rig.step()
    twin = revived(rig)
    assert twin.manager.stages() == rig.manager.stages()
    carry_on(rig)
    carry_on(twin)
    assert weights_equal(rig, twin)
    assert str(twin.manager.state_dict()) == str(rig.manager.state_dict())


@pytest.mark.parametrize(
    "stage", [pb.SEED_STAGE_CULLED, pb.SEED_STAGE_EMBARGOED, pb.SEED_STAGE_RESETTING], ids=name_of_stage
)
def test_a_culled_seed_is_revived_on_its_way_back(rig, stage):
    rig.bring_down(stage)
    twin = revived(rig)
    for _ in range(7):
        rig.step()
        twin.step()
        assert twin.manager.stages() == rig.manager.stages()
    assert twin.manager.stages()["a"] == "DORMANT"
    carry_on(rig)
    carry_on(twin)
    assert weights_equal(rig, twin)


def test_fossils_return_to_the_hosts_optimizer_in_the_order_they_came(rig):
    rig.bring(pb.SEED_STAGE_FOSSILIZED, "b")
    rig.bring(pb.SEED_STAGE_FOSSILIZED, "a")
    assert revived(rig).manager.fossils == ["b", "a"]


def test_breaker_bounds_and_counts_survive(rig):
    rig.breaker(pb.CIRCUIT_STATE_OPEN)
    rig.verifier.reason = "stale_command"
    rig.pause()
    twin = revived(rig)
    assert twin.manager.breaker_open
    assert twin.manager.rejections == {"stale_command": 1}


def another_version(state: dict) -> None:
    state["version"] = 3


def another_seed(state: dict) -> None:
    state["seeds"]["z"] = state["seeds"].pop("a")


def another_blueprint(state: dict) -> None:
    state["seeds"]["a"]["blueprint_id"] = "from-elsewhere"


@pytest.mark.parametrize("spoil", [another_version, another_seed, another_blueprint])
def test_a_snapshot_that_does_not_fit_changes_nothing(rig, spoil):
    rig.bring(pb.SEED_STAGE_BLENDING)
    state = through_a_file(rig.manager.state_dict())
    spoil(state)
    twin = Rig()
    with pytest.raises(SeedStateRejected):
        twin.manager.load_state_dict(state)
    assert twin.manager.stages() == {"a": "DORMANT", "b": "DORMANT"}
    assert twin.host.graft1.branch is None


def test_a_manager_whose_seeds_have_grown_takes_no_snapshot(rig):
    state = rig.manager.state_dict()
    rig.bring(pb.SEED_STAGE_GERMINATED)
    with pytest.raises(SeedStateRejected, match="fresh"):
        rig.manager.load_state_dict(state)
