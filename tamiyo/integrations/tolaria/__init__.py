"""Tolaria, the trainer: measures each step, asks Tamiyo, and lets Kasmina do what the command says.

`StepMonitor` measures any PyTorch loop and builds its `SystemStatePacket`s. `Trainer` is a loop built on it,
with validation and checkpoints from which a killed run continues.
"""

from tamiyo.integrations.tolaria.checkpoint import RunCheckpointRejected, read_checkpoint, write_checkpoint
from tamiyo.integrations.tolaria.monitor import Run, StepMonitor, Validation
from tamiyo.integrations.tolaria.trainer import Batches, Controller, StepResult, Trainer, TrainerSettings

__all__ = [
    "Batches",
    "Controller",
    "Run",
    "RunCheckpointRejected",
    "StepMonitor",
    "StepResult",
    "Trainer",
    "TrainerSettings",
    "Validation",
    "read_checkpoint",
    "write_checkpoint",
]
