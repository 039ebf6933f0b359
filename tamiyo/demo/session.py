"""The demo put together: digits, network, seeds and trainer under whatever controller it is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tamiyo.demo.catalogue import Shelf, stock
from tamiyo.demo.digits import Digits
from tamiyo.demo.network import new_network
from tamiyo.integrations.kasmina import CommandVerifier, Pace, SeedManager, SeedSettings
from tamiyo.integrations.tolaria import Controller, Run, Trainer, TrainerSettings, read_checkpoint

__all__ = ["CHECKPOINT_NAME", "fill", "last_checkpoint", "new_trainer", "run_of", "spare_a_core"]

CHECKPOINT_NAME = "training.pt"
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
APPLY_BUDGET_MS = 100.0
"""Building a module takes a few milliseconds here, and many more while other programs want the same cores."""
PACE = Pace(training_steps=300, blending_steps=400, shadowing_steps=60, probation_steps=120, embargo_steps=100)
"""So that the seeds' lives fill the run, several at a time."""


def run_of(seed: int) -> Run:
    """The names of the run with this seed."""
    return Run(f"digits-{seed}", "handwritten digits", Digits(seed).steps_per_epoch)


def new_trainer(seed: int, controller: Controller, verifier: CommandVerifier, directory: Path | None) -> Trainer:
    """An untrained run; `resume` on it takes up the checkpoint in `directory`.

    Raises:
        DemoUnavailable: scikit-learn is not installed.
    """
    network = new_network(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    seeds = SeedManager(network.graft_points(), verifier, optimizer=optimizer, settings=_seed_settings(seed))
    checkpoint = directory / CHECKPOINT_NAME if directory else None
    loss = nn.CrossEntropyLoss()
    run, data, settings = run_of(seed), Digits(seed), TrainerSettings(apply_budget_ms=APPLY_BUDGET_MS)
    return Trainer(run, network, optimizer, loss, data, controller, seeds, settings=settings, checkpoint=checkpoint)


def fill(shelf: Shelf, seed: int) -> None:
    """Put the demo's blueprints into a library."""
    priors = {"family": "adamw", "learning_rate": LEARNING_RATE, "momentum": 0.9, "weight_decay": WEIGHT_DECAY}
    stock(shelf, run_of(seed).run_id, new_network(seed), _seed_settings(seed), priors)


def last_checkpoint(directory: Path) -> Mapping[str, Any] | None:
    """What the run in `directory` last saved; None before its first checkpoint.

    Raises:
        RunCheckpointRejected: the file is damaged.
    """
    return read_checkpoint(directory / CHECKPOINT_NAME)


def spare_a_core(cores: int) -> int:
    """Let torch use all cores but one, four at most; returns how many. The log and the policy need the other."""
    threads = max(1, min(4, cores - 1))
    torch.set_num_threads(threads)
    return threads


def _seed_settings(seed: int) -> SeedSettings:
    return SeedSettings(pace=PACE, entropy=seed)
