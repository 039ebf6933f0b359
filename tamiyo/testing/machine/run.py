"""Running the machine against a service of one's own."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tamiyo.service import TamiyoService
from tamiyo.testing.machine.controller import ControllerMachine
from tamiyo.testing.machine.world import Factory, World

__all__ = ["run_controller_machine"]


def run_controller_machine(
    factory: Factory,
    *,
    machine: type[ControllerMachine] = ControllerMachine,
    max_examples: int = 100,
    step_count: int = 50,
    **options: Any,
) -> None:
    """Run the machine on the services that `factory` opens.

    Args:
        factory: opens a service on the collaborators of the `World` it is given: its directory, disk, clock, policy,
            library and secret. It is called again after each restart and crash, on what the disk then holds.
        machine: a subclass with rules of its own.
        max_examples: how many histories.
        step_count: the most rules of one history.
        options: further settings of Hypothesis, for example `derandomize=True`.

    Raises:
        LawBroken: with the shortest history found that breaks a law; anything else that the service raised.
    """

    class Hosted(machine):  # type: ignore[misc, valid-type]  # the class is the caller's
        def open_service(self, world: World) -> TamiyoService:
            return factory(world)

    chosen = settings(
        max_examples=max_examples,
        stateful_step_count=step_count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    run_state_machine_as_test(Hosted, settings=chosen)
