"""A state machine that hunts for a history in which a controller breaks its word.

    world        the collaborators, in memory, all of which can go wrong
    controller   the rules: what may happen
    subject      the controller under test, and the checks after each deed
    shadow       a second controller, rebuilt from the log after every step
    breakers, decisions, commands, monotone, bounds    the laws, stated apart from the code that keeps them

`run_controller_machine(factory)` runs it against a host's own service; docs/testing.md shows how.
"""

from tamiyo.testing.machine.controller import SETTINGS, ControllerMachine, open_controller
from tamiyo.testing.machine.law import LawBroken
from tamiyo.testing.machine.run import run_controller_machine
from tamiyo.testing.machine.world import Factory, World

__all__ = [
    "SETTINGS",
    "ControllerMachine",
    "Factory",
    "LawBroken",
    "World",
    "open_controller",
    "run_controller_machine",
]
