"""Kasmina, the seed manager: real modules grafted into a host network while it trains.

A host network has `GraftPoint`s; each holds at most one seed. A `SeedManager` verifies Tamiyo's commands,
executes them on the seeds, and exports their states for the next packet. One step of a training loop:

    loss.backward(); optimizer.step()
    packet = ...                              # with manager.export_seed_states()
    applied = manager.apply(tamiyo.evaluate_step(packet))
    manager.finalize_step()

Reading order: `lifecycle` (the tables), `graft` (what flows), `modes` (how it is mixed), `alpha` (blends), `slot` (one
seed), `orders` and `executor` (commands), `manager`.
"""

from tamiyo.integrations.kasmina.alpha import Blend
from tamiyo.integrations.kasmina.blueprints import BLUEPRINTS, BlueprintFactory
from tamiyo.integrations.kasmina.graft import GraftPoint
from tamiyo.integrations.kasmina.lifecycle import TRANSITIONS, Pace
from tamiyo.integrations.kasmina.manager import CommandVerifier, SeedManager, SeedSettings, Verdict, stage_counts
from tamiyo.integrations.kasmina.orders import APPLIED, NOT_ATTEMPTED, REFUSED, REJECTED, TIMED_OUT, Applied
from tamiyo.integrations.kasmina.slot import SeedSlot
from tamiyo.integrations.kasmina.snapshot import SeedStateRejected

__all__ = [
    "APPLIED",
    "BLUEPRINTS",
    "NOT_ATTEMPTED",
    "REFUSED",
    "REJECTED",
    "TIMED_OUT",
    "TRANSITIONS",
    "Applied",
    "Blend",
    "BlueprintFactory",
    "CommandVerifier",
    "GraftPoint",
    "Pace",
    "SeedManager",
    "SeedSettings",
    "SeedSlot",
    "SeedStateRejected",
    "Verdict",
    "stage_counts",
]
