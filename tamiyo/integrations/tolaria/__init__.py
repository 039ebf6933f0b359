"""Tolaria, the trainer: measures each step, asks Tamiyo, and lets Kasmina do what the command says.

`StepMonitor` measures any PyTorch loop and builds its `SystemStatePacket`s; `HardwareReader` is what it asks about
processors and devices, where it is given one. `Trainer` is a loop built on it,
with validation and checkpoints from which a killed run continues.
"""

from tamiyo.integrations.tolaria.checkpoint import RunCheckpointRejected, read_checkpoint, write_checkpoint
from tamiyo.integrations.tolaria.hardware import HardwareReader, Reading
from tamiyo.integrations.tolaria.monitor import Run, StepMonitor, Validation
from tamiyo.integrations.tolaria.trainer import Batches, Controller, StepResult, Trainer, TrainerSettings

__all__ = [
    "Batches",
    "Controller",
    "HardwareReader",
    "Reading",
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
