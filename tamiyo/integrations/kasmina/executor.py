"""Commands become changes: one handler for each type, one for each seed operation with work of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from tamiyo.integrations.kasmina.lifecycle import TRANSITIONS, gate, name_of_operation, name_of_stage
from tamiyo.integrations.kasmina.orders import TOO_LATE, Refusal, read_blend, read_lr_delta, read_mode
from tamiyo.integrations.kasmina.slot import SeedSlot
from tamiyo.leyline import leyline_pb2 as pb

if TYPE_CHECKING:
    from tamiyo.integrations.kasmina.manager import SeedManager

__all__ = ["execute"]


def execute(manager: SeedManager, command: pb.AdaptationCommand, may_change: Callable[[], bool]) -> Refusal | None:
    """Execute an authentic command, or change nothing and say why. `may_change` is asked before the first change."""
    handler = _HANDLERS.get(command.command_type)
    if command.seed_operation.operation == pb.SEED_OP_GERMINATE and handler is _seed:
        return _germination(manager, command, may_change)  # it builds a module first, and that may take its time
    if not may_change():
        return TOO_LATE
    if handler is None:
        manager.hold()
        return Refusal("unsupported_command", f"seeds do not execute command type {command.command_type}")
    return handler(manager, command)


def _seed(manager: SeedManager, command: pb.AdaptationCommand) -> Refusal | None:
    found = _legal(manager, command)
    if isinstance(found, Refusal):
        return found
    slot, target = found
    return _OPERATIONS.get(command.seed_operation.operation, _advance)(manager, slot, command, target)


def _legal(manager: SeedManager, command: pb.AdaptationCommand) -> tuple[SeedSlot, int] | Refusal:
    """The seed of a SEED command and the stage it leads to."""
    slot, order = manager.slots.get(command.target_seed_id), command.seed_operation
    if slot is None:
        return Refusal("unknown_seed", f"there is no seed {command.target_seed_id!r}")
    if manager.breaker_open and order.operation != pb.SEED_OP_CULL:
        return Refusal("breaker_open", "the trainer's breaker is open; only CULL is taken")
    stage = slot.point.stage
    target = TRANSITIONS.get(order.operation, {}).get(stage)
    if target is None:
        wanted = f"{name_of_operation(order.operation)} at {name_of_stage(stage)}"
        return Refusal("illegal_transition", f"{wanted} of {slot.seed_id} is no legal transition")
    waiting = gate(order.operation, slot.age_steps, blended=slot.blended, pace=manager.settings.pace)
    if waiting:
        return Refusal("gate_closed", f"{name_of_operation(order.operation)} of {slot.seed_id}: {waiting}")
    return slot, target


def _advance(_manager: SeedManager, slot: SeedSlot, _command: pb.AdaptationCommand, target: int) -> None:
    slot.enter(target)


def _germination(manager: SeedManager, command: pb.AdaptationCommand, may_change: Callable[[], bool]) -> Refusal | None:
    found = _legal(manager, command)
    if isinstance(found, Refusal):
        return found
    slot, _ = found
    blueprint_id = command.seed_operation.blueprint_id
    factory = manager.blueprints.get(blueprint_id)
    if factory is None:
        return Refusal("unknown_blueprint", f"nothing here builds blueprint {blueprint_id!r}")
    branch = slot.build(blueprint_id, factory, manager.settings.entropy)
    if not may_change():
        return TOO_LATE
    slot.germinate(blueprint_id, branch, manager.settings.learning_rate)
    return None


def _graft(manager: SeedManager, slot: SeedSlot, command: pb.AdaptationCommand, target: int) -> Refusal | None:
    settings = manager.settings
    parameters = command.seed_operation.parameters
    blend = read_blend(parameters, settings.pace.blending_steps, settings.alpha_temperature)
    if isinstance(blend, Refusal):
        return blend
    mode = read_mode(command.annotations, blend.target, slot.point.channels)
    if isinstance(mode, Refusal):
        return mode
    slot.take_up(replace(blend, mode=mode))
    slot.enter(target)
    return None


def _fossilize(manager: SeedManager, slot: SeedSlot, _command: pb.AdaptationCommand, target: int) -> Refusal | None:
    if manager.optimizer is None:
        return Refusal("no_optimizer", "a fossil's parameters belong to the host's optimizer, and there is none")
    slot.enter(target)
    manager.adopt(slot)
    return None


def _cull(_manager: SeedManager, slot: SeedSlot, _command: pb.AdaptationCommand, target: int) -> None:
    slot.take_up(None)
    slot.enter(target)


def _optimizer(manager: SeedManager, command: pb.AdaptationCommand) -> Refusal | None:
    if manager.optimizer is None:
        return Refusal("no_optimizer", "there is no host optimizer to adjust")
    if manager.breaker_open:
        return Refusal("breaker_open", "the trainer's breaker is open")
    delta = read_lr_delta(command.optimizer_adjustment.hyperparameters)
    if isinstance(delta, Refusal):
        return delta
    _scale_learning_rates(manager, delta)
    return None


def _scale_learning_rates(manager: SeedManager, delta: float) -> None:
    settings = manager.settings
    asked = 1.0 + _clip(delta, -settings.lr_delta_max, settings.lr_delta_max)
    scale = _clip(manager.lr_scale * asked, settings.lr_scale_min, settings.lr_scale_max)
    factor = scale / manager.lr_scale
    manager.lr_scale = scale
    if manager.optimizer is not None:
        for group in manager.optimizer.param_groups:
            group["lr"] *= factor


def _pause(manager: SeedManager, _command: pb.AdaptationCommand) -> None:
    manager.hold()


def _breaker(manager: SeedManager, command: pb.AdaptationCommand) -> Refusal | None:
    desired = command.circuit_breaker.desired_state
    if desired not in _BREAKER_STATES:
        manager.hold()
        return Refusal("invalid_parameters", f"the trainer's breaker is OPEN or CLOSED, not {desired}")
    manager.breaker_open = _BREAKER_STATES[desired]
    return None


def _clip(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


_BREAKER_STATES: Mapping[int, bool] = MappingProxyType({pb.CIRCUIT_STATE_OPEN: True, pb.CIRCUIT_STATE_CLOSED: False})

_HANDLERS: Mapping[int, Callable[[SeedManager, pb.AdaptationCommand], Refusal | None]] = MappingProxyType(
    {
        pb.COMMAND_SEED: _seed,
        pb.COMMAND_OPTIMIZER: _optimizer,
        pb.COMMAND_PAUSE: _pause,
        pb.COMMAND_CIRCUIT_BREAKER: _breaker,
    }
)

_OPERATIONS: Mapping[int, Callable[[SeedManager, SeedSlot, pb.AdaptationCommand, int], Refusal | None]] = (
    MappingProxyType(
        {
            pb.SEED_OP_START_GRAFTING: _graft,
            pb.SEED_OP_FOSSILIZE: _fossilize,
            pb.SEED_OP_CULL: _cull,
        }
    )
)
