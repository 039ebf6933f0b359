"""The trainer: packets in, commands carried out, killed and continued."""

import os

import pytest
import torch
from tolaria_rig import Numbers, Scripted, new_trainer
from torch import Tensor

from tamiyo.integrations.kasmina import stage_counts
from tamiyo.integrations.tolaria import (
    HardwareReader,
    RunCheckpointRejected,
    Trainer,
    read_checkpoint,
    write_checkpoint,
)


class Killed(BaseException):
    """As sudden as a signal: nothing catches it."""


def run_to(trainer: Trainer, last_step: int, killed_at: int | None = None) -> list[float]:
    losses = []

    def on_step(result):
        losses.append(result.loss)
        if result.step == killed_at:
            raise Killed

    trainer.train(last_step, on_step)
    return losses


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return trainer.state_dict()["model"]


def assert_same_weights(left: Trainer, right: Trainer) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("killed_at", [1, 3, 4, 6, 9, 13, 17, 26, 33])
def test_a_killed_run_continues_to_bit_for_bit_the_same_model(tmp_path, killed_at):
    whole = new_trainer(tmp_path / "whole.pt")
    run_to(whole, 40)
    with pytest.raises(Killed):
        run_to(new_trainer(tmp_path / "parts.pt"), 40, killed_at)
    second = new_trainer(tmp_path / "parts.pt")
    torch.rand(5)  # another process has another random stream
    resumed_at = second.resume()
    assert resumed_at == (killed_at - 1) // 4 * 4
    run_to(second, 40)
    assert_same_weights(whole, second)
    assert second.seeds.stages() == whole.seeds.stages()
    assert second.validated == whole.validated


def test_a_run_goes_on_from_the_random_streams_of_its_devices(tmp_path, monkeypatch):
    """A host's dropout draws there."""
    states = {0: torch.tensor([1, 2], dtype=torch.uint8), 1: torch.tensor([3, 4], dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state.clone() for state in states.values()])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    new_trainer(tmp_path / "run.pt").save()
    states.update(dict.fromkeys(states, torch.zeros(2, dtype=torch.uint8)))
    new_trainer(tmp_path / "run.pt").resume()
    assert [state.tolist() for state in states.values()] == [[1, 2], [3, 4]]
    del states[1]  # a machine with fewer
    new_trainer(tmp_path / "run.pt").resume()
    assert [state.tolist() for state in states.values()] == [[1, 2]]


def test_the_scripted_run_visits_a_whole_life_and_a_cull(tmp_path):
    controller = Scripted()
    trainer = new_trainer(controller=controller)
    stages = set()
    trainer.train(60, lambda _: stages.add(trainer.seeds.stages()["a"]))
    assert stages == {
        "DORMANT", "GERMINATED", "TRAINING", "BLENDING", "SHADOWING", "PROBATIONARY", "FOSSILIZED",
        "CULLED", "EMBARGOED", "RESETTING",
    }  # fmt: skip
    assert stage_counts(list(trainer.seeds.stages().values())) == {"FOSSILIZED": 1}


def test_every_step_sends_one_packet_with_its_seeds(tmp_path):
    controller = Scripted()
    run_to(new_trainer(controller=controller), 7)
    assert [packet.global_step for packet in controller.packets] == [1, 2, 3, 4, 5, 6, 7]
    assert [packet.current_epoch for packet in controller.packets] == [0, 0, 0, 1, 1, 1, 1]
    assert all(len(packet.seed_states) == 1 for packet in controller.packets)
    assert [packet.validation_loss > 0 for packet in controller.packets] == [
        False, False, True, False, False, True, False,
    ]  # fmt: skip


def test_what_control_cost_is_told_with_the_next_packet():
    controller = Scripted()
    run_to(new_trainer(controller=controller), 2)
    told = {"tamiyo_latency_ms", "kasmina.apply_ms", "kasmina.finalize_ms"}
    assert not told & set(controller.packets[0].training_metrics)
    assert told <= set(controller.packets[1].training_metrics)


def test_a_trainer_with_a_reader_tells_of_its_hardware():
    controller = Scripted()
    run_to(new_trainer(controller=controller, hardware=HardwareReader(interval_ms=0)), 2)
    assert [packet.hardware_context.device_type for packet in controller.packets] == ["cpu", "cpu"]
    without = Scripted()
    run_to(new_trainer(controller=without), 2)
    assert not any(packet.HasField("hardware_context") for packet in without.packets)


def test_a_run_that_is_complete_trains_no_further(tmp_path):
    run_to(new_trainer(tmp_path / "c.pt"), 8)
    again = new_trainer(tmp_path / "c.pt")
    assert again.resume() == 8
    assert run_to(again, 8) == []


def test_a_run_without_a_checkpoint_starts_at_the_beginning(tmp_path):
    assert new_trainer(tmp_path / "none.pt").resume() == 0
    assert new_trainer(None).resume() == 0


class Broken(Numbers):
    """Step 3 holds a NaN."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        images, labels = super().batch(step)
        return (images * float("nan") if step == 3 else images), labels


def test_gradients_that_are_not_finite_leave_the_weights_alone_and_are_reported():
    controller = Scripted()
    trainer = new_trainer(batches=Broken(), controller=controller)
    run_to(trainer, 2)
    before = {name: value.clone() for name, value in weights(trainer).items()}
    run_to(trainer, 3)
    assert torch.tensor(controller.packets[-1].training_loss).isnan()
    assert all(torch.equal(weights(trainer)[name], value) for name, value in before.items() if "graft" not in name)
    run_to(trainer, 6)
    assert all(value.isfinite().all() for value in weights(trainer).values())


def test_a_checkpoint_of_another_run_is_refused_and_nothing_is_taken_up(tmp_path):
    run_to(new_trainer(tmp_path / "c.pt", run_id="one"), 4)
    other = new_trainer(tmp_path / "c.pt", run_id="two")
    fresh = {name: value.clone() for name, value in weights(other).items()}
    with pytest.raises(RunCheckpointRejected, match=r"'one'.*'two'"):
        other.resume()
    assert all(torch.equal(weights(other)[name], value) for name, value in fresh.items())


def written(tmp_path) -> bytes:
    write_checkpoint(tmp_path / "c.pt", {"weights": torch.arange(64.0), "step": 3})
    return (tmp_path / "c.pt").read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 500, -1, -20])
def test_a_checkpoint_cut_short_is_refused(tmp_path, cut):
    (tmp_path / "c.pt").write_bytes(written(tmp_path)[:cut])
    with pytest.raises(RunCheckpointRejected, match="move it away"):
        read_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_with_a_flipped_bit_in_its_data_is_refused(tmp_path):
    data = bytearray(written(tmp_path))
    at = data.index(torch.arange(64.0).numpy().tobytes()) + 17
    data[at] ^= 4
    (tmp_path / "c.pt").write_bytes(data)
    with pytest.raises(RunCheckpointRejected, match="checksum"):
        read_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_that_holds_code_is_not_unpickled(tmp_path):
    torch.save({"step": Scripted()}, tmp_path / "c.pt")
    with pytest.raises(RunCheckpointRejected):
        read_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_that_is_no_dictionary_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(RunCheckpointRejected, match="list"):
        read_checkpoint(tmp_path / "c.pt")


def test_writing_replaces_the_checkpoint_and_leaves_nothing_beside_it(tmp_path):
    written(tmp_path)
    write_checkpoint(tmp_path / "c.pt", {"step": 4})
    assert read_checkpoint(tmp_path / "c.pt") == {"step": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    written(tmp_path)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "c.pt", {"step": 4})
    assert read_checkpoint(tmp_path / "c.pt")["step"] == 3
