"""Running the machine against a service of one's own."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tamiyo.service import TamiyoService
from tamiyo.testing.machine.controller import ControllerMachine
from tamiyo.testing.machine.world import Factory, World

__all__ = ["run_controller_machine"]

ROUND_MAX = 100
"""Histories of one run of Hypothesis, which keeps what it drew until it ends: a megabyte for each of 100 rules."""


def run_controller_machine(
    factory: Factory,
    *,
    machine: type[ControllerMachine] = ControllerMachine,
    max_examples: int = 100,
    step_count: int = 50,
    seed: int | None = None,
    **options: Any,
) -> None:
    """Run the machine on the services that `factory` opens.

    Args:
        factory: opens a service on the collaborators of the `World` it is given: its directory, disk, clock, policy,
            library and secret. It is called again after each restart and crash, on what the disk then holds.
        machine: a subclass with rules of its own.
        max_examples: how many histories.
        step_count: the most rules of one history.
        seed: what the histories are drawn from: the same ones for the same number, others each time when None.
        options: further settings of Hypothesis, for example `derandomize=True`.

    Raises:
        LawBroken: with the shortest history found that breaks a law; anything else that the service raised.
    """

    class Hosted(machine):  # type: ignore[misc, valid-type]  # the class is the caller's
        def open_service(self, world: World) -> TamiyoService:
            return factory(world)

    for begun in range(0, max_examples, ROUND_MAX):
        chosen = settings(
            max_examples=min(ROUND_MAX, max_examples - begun),
            stateful_step_count=step_count,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        )
        if seed is not None or (chosen.derandomize and begun):  # else each round would draw what the first one drew
            seeded(f"{seed}, from {begun} on")(Hosted)
        run_state_machine_as_test(Hosted, settings=chosen)
