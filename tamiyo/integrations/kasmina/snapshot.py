"""The manager's state for a checkpoint, and back: plain numbers, strings and tensors, no weights.

The weights are in the network's own `state_dict`, under the graft points' `branch`, so they are stored once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tamiyo.errors import HostError
from tamiyo.integrations.kasmina.alpha import Blend
from tamiyo.integrations.kasmina.lifecycle import PLANTED
from tamiyo.integrations.kasmina.modes import CONVEX, MODES, BlendMode, stored_mode
from tamiyo.integrations.kasmina.slot import SeedSlot

if TYPE_CHECKING:
    from tamiyo.integrations.kasmina.manager import SeedManager

__all__ = ["VERSION", "SeedStateRejected", "restore", "snapshot"]

VERSION = 2
"""Of what is written. Version 1, from before there were blend modes, is read as well: its blends are CONVEX."""

_READ = (1, VERSION)


class SeedStateRejected(HostError, ValueError):
    """A stored seed state does not fit this manager; nothing has been changed."""


def snapshot(manager: SeedManager) -> dict[str, object]:
    """Everything that time and commands changed in `manager`."""
    return {
        "version": VERSION,
        "fossils": list(manager.fossils),
        "breaker_open": manager.breaker_open,
        "lr_scale": manager.lr_scale,
        "rejections": dict(manager.rejections),
        "seeds": {slot.seed_id: _slot_state(slot) for slot in manager.slots.values()},
    }


def restore(manager: SeedManager, state: Mapping[str, Any]) -> None:
    """Take up a snapshot; see `SeedManager.load_state_dict`."""
    fault = _fault(manager, state)
    if fault:
        raise SeedStateRejected(f"cannot take up the stored seeds: {fault}")
    for seed_id, stored in state["seeds"].items():
        _restore_slot(manager, manager.slots[seed_id], stored)
    for seed_id in state["fossils"]:
        manager.adopt(manager.slots[seed_id])
    manager.breaker_open = state["breaker_open"]
    manager.lr_scale = state["lr_scale"]
    manager.rejections = Counter(state["rejections"])


def _slot_state(slot: SeedSlot) -> dict[str, object]:
    return {
        "stage": slot.point.stage,
        "alpha": slot.point.alpha,
        "age_steps": slot.age_steps,
        "blueprint_id": slot.blueprint_id,
        "germinations": slot.germinations,
        "blend": _blend_state(slot.blend) if slot.blend else None,
        "optimizer": slot.optimizer.state_dict() if slot.optimizer else None,
    }


def _blend_state(blend: Blend) -> dict[str, object]:
    return asdict(blend) | {"mode": stored_mode(blend.mode)}


def _mode_of(stored: Mapping[str, Any]) -> BlendMode:
    if "mode" not in stored:
        return CONVEX
    numbers = dict(stored["mode"])
    return MODES[numbers.pop("name")](**numbers)


def _restore_slot(manager: SeedManager, slot: SeedSlot, stored: Mapping[str, Any]) -> None:
    if stored["stage"] in PLANTED:
        factory = manager.blueprints[stored["blueprint_id"]]
        slot.replant(stored["blueprint_id"], factory, manager.settings.learning_rate)
    slot.enter(stored["stage"])
    slot.age_steps = stored["age_steps"]
    slot.germinations = stored["germinations"]
    blend = stored["blend"]
    slot.take_up(Blend(**blend | {"mode": _mode_of(blend)}) if blend else None)
    slot.point.alpha = stored["alpha"]
    if slot.optimizer is not None and stored["optimizer"] is not None:
        slot.optimizer.load_state_dict(stored["optimizer"])


def _fault(manager: SeedManager, state: Mapping[str, Any]) -> str:
    if state.get("version") not in _READ:
        return f"they are of version {state.get('version')}, and this reads up to version {VERSION}"
    if set(state["seeds"]) != set(manager.slots):
        return f"they are {sorted(state['seeds'])}, and the network has places for {sorted(manager.slots)}"
    if any(slot.germinations for slot in manager.slots.values()):
        return "seeds have grown here already; use a fresh network and manager"
    unknown = {
        stored["blueprint_id"]
        for stored in state["seeds"].values()
        if stored["stage"] in PLANTED and stored["blueprint_id"] not in manager.blueprints
    }
    return f"nothing here builds {sorted(unknown)}" if unknown else _mode_fault(manager, state["seeds"])


def _mode_fault(manager: SeedManager, seeds: Mapping[str, Any]) -> str:
    for seed_id, stored in seeds.items():
        blend = stored["blend"]
        if not blend:
            continue
        if "mode" in blend and blend["mode"].get("name") not in MODES:
            return f"the blend of {seed_id} is of the unknown mode {blend['mode'].get('name')!r}"
        fault = _mode_of(blend).fault(manager.slots[seed_id].point.channels)
        if fault:
            return f"the blend of {seed_id}: {fault}"
    return ""
