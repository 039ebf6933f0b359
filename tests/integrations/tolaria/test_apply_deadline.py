"""The seed manager's budget: training goes on, what comes back late has changed nothing, and it recovers by itself."""

import threading

import pytest
from tolaria_rig import Gullible, Host, Scripted, new_trainer
from torch import nn, optim

from tamiyo.integrations.kasmina import SeedManager
from tamiyo.integrations.tolaria.deadline import InTime
from tamiyo.leyline import leyline_pb2 as pb

SHORT_MS, LONG_MS = 1.0, 60_000.0


class Stuck:
    """Builds modules that wait for their gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, channels: int) -> nn.Module:
        self.entered.release()
        self.gate.wait()
        return nn.Conv2d(channels, channels, 1)


def germinate(seed_id: str = "a", blueprint_id: str = "stuck") -> pb.AdaptationCommand:
    order = pb.CommandSeedOperation(operation=pb.SEED_OP_GERMINATE, blueprint_id=blueprint_id)
    return pb.AdaptationCommand(command_type=pb.COMMAND_SEED, target_seed_id=seed_id, seed_operation=order)


def manager(factory: object, verifier: object | None = None) -> SeedManager:
    host = Host()
    optimizer = optim.SGD(host.parameters(), lr=0.1)
    blueprints = {"stuck": factory}
    return SeedManager({"a": host.graft}, verifier or Gullible(), optimizer=optimizer, blueprints=blueprints)


def out() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tolaria-apply"]


def come_back(factory: Stuck) -> None:
    factory.gate.set()
    for thread in out():
        thread.join()


def test_a_command_that_hangs_is_given_up_and_changes_nothing_when_it_comes_back() -> None:
    factory = Stuck()
    seeds = manager(factory)
    applied = InTime(seeds).apply(germinate(), SHORT_MS)
    assert (applied.outcome, applied.reason) == ("timed_out", "kasmina_timeout")
    factory.entered.acquire()
    come_back(factory)
    assert seeds.stages() == {"a": "DORMANT"}
    assert seeds.slots["a"].germinations == 0


def test_a_verifier_that_hangs_is_given_up_and_its_rejection_counts_no_more() -> None:
    gate, asked = threading.Event(), threading.Event()

    class Slow:
        def verify(self, command: pb.AdaptationCommand) -> object:
            asked.set()
            gate.wait()
            return type("Verdict", (), {"accepted": False, "reason": "stale_command"})

    seeds = manager(None, Slow())
    assert InTime(seeds).apply(pb.AdaptationCommand(), SHORT_MS).outcome == "timed_out"
    asked.wait()
    gate.set()
    for thread in out():
        thread.join()
    assert not seeds.rejections


def test_four_commands_are_out_at_most_and_the_next_is_not_attempted_until_one_is_back() -> None:
    factory = Stuck()
    in_time = InTime(manager(factory))
    outcomes = [in_time.apply(germinate(), SHORT_MS).outcome for _ in range(12)]
    assert outcomes == ["timed_out"] * 4 + ["not_attempted"] * 8
    assert len(out()) == 4
    come_back(factory)
    assert in_time.apply(germinate(), LONG_MS).outcome == "applied"


def test_without_a_thread_to_be_had_a_command_is_not_attempted_and_training_goes_on() -> None:
    trainer = new_trainer()
    object.__setattr__(trainer._settings, "apply_budget_ms", LONG_MS)

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        applied = trainer.advance().applied
    assert (applied.outcome, applied.reason) == ("not_attempted", "kasmina_timeout")
    assert applied.detail == "can't start new thread"
    assert trainer.advance().applied.outcome != "not_attempted"


def test_one_that_may_change_already_is_waited_for() -> None:
    """Past its leave a call only assigns; to go on beside it would be a race."""
    allowed, done = threading.Event(), threading.Event()

    class Assigning:
        def apply(self, command: pb.AdaptationCommand, *, may_change: object = lambda: True) -> object:
            assert may_change()
            allowed.set()
            done.wait()
            return manager(None).apply(pb.AdaptationCommand(command_type=pb.COMMAND_PAUSE))

    in_time, found = InTime(Assigning()), []
    waiter = threading.Thread(target=lambda: found.append(in_time.apply(germinate(), SHORT_MS)))
    waiter.start()
    allowed.wait()
    waiter.join(0.02)
    assert found == []
    done.set()
    waiter.join()
    assert found[0].outcome == "applied"


def test_what_the_manager_raises_is_raised_to_the_trainer() -> None:
    def broken(channels: int) -> nn.Module:
        raise ZeroDivisionError("a blueprint")

    with pytest.raises(ZeroDivisionError, match="a blueprint"):
        InTime(manager(broken)).apply(germinate(), LONG_MS)


@pytest.mark.parametrize("budget_ms", [0.0, LONG_MS])
def test_a_budget_changes_nothing_of_what_is_done_in_time(budget_ms: float) -> None:
    found = []
    for given_ms in (None, budget_ms):
        trainer = new_trainer()  # it begins the random stream anew
        object.__setattr__(trainer._settings, "apply_budget_ms", given_ms)
        trainer.train(30)
        found.append(trainer.state_dict()["model"])
    one, other = found
    assert all(one[name].equal(other[name]) for name in one)


class Naming(Scripted):
    """Gives its commands ids."""

    def evaluate_step(self, packet: pb.SystemStatePacket) -> pb.AdaptationCommand:
        command = super().evaluate_step(packet)
        command.command_id = f"c-{packet.global_step}"
        return command


def test_the_controller_is_told_what_became_of_every_command() -> None:
    controller = Naming()
    trainer = new_trainer(controller=controller)
    results = []
    trainer.train(20, results.append)
    assert [command_id for command_id, _, _ in controller.delivered] == [f"c-{step}" for step in range(1, 21)]
    assert [outcome for _, outcome, _ in controller.delivered] == [result.applied.outcome for result in results]
    refused = [detail for _, outcome, detail in controller.delivered if outcome == "refused"]
    assert refused
    assert all(detail.startswith("gate_closed: ") for detail in refused)


def test_a_missed_budget_is_a_metric_of_the_next_packet_and_training_proceeds() -> None:
    factory, controller = Stuck(), Naming()
    trainer = new_trainer(controller=controller)
    object.__setattr__(trainer._settings, "apply_budget_ms", SHORT_MS)
    trainer.seeds.blueprints = {"conv-residual": factory}
    losses = []
    trainer.train(4, lambda result: losses.append(result.loss))
    assert len(losses) == 4
    assert [outcome for _, outcome, _ in controller.delivered][:3] == ["timed_out"] * 3
    metrics = [packet.training_metrics for packet in controller.packets]
    assert "tolaria.kasmina_timeout" not in metrics[0]
    assert [packet["tolaria.kasmina_timeout"] for packet in metrics[1:]] == [1.0] * 3
    come_back(factory)
    object.__setattr__(trainer._settings, "apply_budget_ms", LONG_MS)
    trainer.train(8)
    assert trainer.seeds.stages()["a"] != "DORMANT"
    assert "tolaria.kasmina_timeout" not in controller.packets[-1].training_metrics
