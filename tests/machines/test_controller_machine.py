"""The machine against Tamiyo itself: no history breaks a law. `HYPOTHESIS_PROFILE` does not matter here."""

import orjson
import pytest

from tamiyo.core import between, draft, evolve, outbox, state, windows
from tamiyo.core.risk import RISK_ROWS
from tamiyo.testing.library import MemoryLibrary
from tamiyo.testing.machine import ControllerMachine, open_controller, run, run_controller_machine
from tamiyo.testing.machine.world import World
from tamiyo.testing.policies import FixedPolicy


def test_no_history_breaks_a_law() -> None:
    run_controller_machine(open_controller, max_examples=200, step_count=20)


@pytest.mark.long
def test_no_long_history_breaks_a_law() -> None:
    run_controller_machine(open_controller, max_examples=2_000, step_count=100)


CAPS = {
    "UNDECIDED_MAX": (state, evolve),
    "BLUEPRINTS_MAX": (state, evolve),
    "SEED_BLUEPRINTS_MAX": (state, evolve),
    "WINDOWS_MAX": (state, evolve, windows),
    "DIRECTIVES_MAX": (state, draft),
    "UNDELIVERED_MAX": (state, between),
    "RETRIES_MAX": (state, between, outbox),
}


def test_a_controller_with_no_room_at_all_keeps_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """With caps that short histories reach, what is kept is cut to them and nothing else changes."""
    for name, modules in CAPS.items():
        for module in modules:
            monkeypatch.setattr(module, name, 2)
    run_controller_machine(open_controller, max_examples=40, step_count=20)


def test_every_cap_of_the_state_is_lowered_above() -> None:
    listed = {name for name in vars(state) if name.endswith("_MAX")}
    beyond = {
        "CONDITIONS_MAX",  # more than there are rows, so that it is never reached
    }
    assert listed == {*CAPS, *beyond}
    assert len(RISK_ROWS) < state.CONDITIONS_MAX


def drawn(examples: int, **options: object) -> list[str]:
    """What each history began with."""
    libraries = list[str]()

    class Recorded(ControllerMachine):
        def teardown(self) -> None:
            libraries.append(repr(self.world.known.records))
            super().teardown()

    run_controller_machine(
        open_controller, machine=Recorded, max_examples=examples, step_count=1, database=None, **options
    )
    return libraries


def test_histories_are_drawn_in_rounds_each_with_others_than_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    once = drawn(8, seed=1)
    assert drawn(8, seed=1) == once
    assert drawn(8, seed=2) != once
    monkeypatch.setattr(run, "ROUND_MAX", 4)
    for options in ({"seed": 1}, {"derandomize": True}):
        rounds = drawn(8, **options)
        assert len(rounds) >= 8
        assert len(set(rounds[4:]) - set(rounds[:4])) > 0


def test_the_machine_is_a_test_case_that_a_host_can_subclass() -> None:
    class Hosts(ControllerMachine):
        opened = 0

        def open_service(self, world: object) -> object:
            Hosts.opened += 1
            return super().open_service(world)

    run_controller_machine(open_controller, machine=Hosts, max_examples=3, step_count=3)
    assert Hosts.opened == 0, "the factory given stands before the machine's own"


def test_of_a_policy_that_was_loaded_twice_the_machine_looks_at_the_one_that_is_asked() -> None:
    """A second load that is not installed, because its version speaks already, is no part of what goes on."""
    world = World(FixedPolicy(), MemoryLibrary())
    try:
        with world.open(open_controller) as service:
            assert world.speaker(service) is world.cast.host
            identity = world.cast.host.identity
            data = orjson.dumps({"version": identity.version, "fault": ""})
            assert world.load(data, "again", service.state.registries).identity.version == identity.version
            assert world.speaker(service) is world.cast.host
    finally:
        world.close()
