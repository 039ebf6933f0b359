"""A trainer that grows its network under Tamiyo's control.

One step: a batch; forward, backward, optimizer step; every `validate_every` steps the validation set; the
packet; the controller's command; the seed manager executes it and lets the step pass; every
`checkpoint_every` steps a checkpoint. The order of the data is a function of the step number, so the position
in it is the step number, and a run that was killed goes on from its last checkpoint as if it had not been:
the model that comes out is bit for bit the same for the same commands on the same machine.

A step whose gradients are not finite leaves the weights alone: the packet says so and Tamiyo pauses.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tamiyo.integrations.kasmina import NOT_ATTEMPTED, TIMED_OUT, Applied, SeedManager
from tamiyo.integrations.tolaria.checkpoint import RunCheckpointRejected, read_checkpoint, write_checkpoint
from tamiyo.integrations.tolaria.deadline import InTime
from tamiyo.integrations.tolaria.hardware import HardwareReader
from tamiyo.integrations.tolaria.monitor import Run, StepMonitor, Validation
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Batches", "Controller", "StepResult", "Trainer", "TrainerSettings"]

VERSION = 1
_NS_PER_MS = 1e6


class Controller(Protocol):
    """Who decides; `tamiyo.service.TamiyoService` is one."""

    def evaluate_step(self, packet: pb.SystemStatePacket) -> pb.AdaptationCommand:
        """Answer one step's packet with a signed command."""

    def record_delivery(self, command_id: str, outcome: str, detail: str = "") -> object:
        """Take down what became of a command; returns at once."""


class Batches(Protocol):
    """The data, in an order that depends on the step number alone."""

    @property
    def steps_per_epoch(self) -> int:
        """How many batches go through the data once."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of step `step`, counted from 1."""

    def validation(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the whole validation set."""


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How often, in steps; and how long the seed manager may take for a command, in milliseconds."""

    validate_every: int = 20
    checkpoint_every: int = 50
    apply_budget_ms: float | None = None  # the command's own deadline when None; 0 waits however long


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step: what was measured, decided and done; `validation` on the steps that validate."""

    step: int
    loss: float
    validation: Validation | None
    command: pb.AdaptationCommand
    applied: Applied


class Trainer:
    """Trains `model` on `batches`, one controlled step at a time.

    Args:
        run: names of this run.
        model: the host network, graft points inside.
        optimizer: over the host's parameters.
        loss: of outputs and targets, a scalar mean.
        batches: the data.
        controller: who decides.
        seeds: the manager of the model's graft points, made with the same optimizer.
        settings: how often to validate and checkpoint.
        hardware: read at every step for the packets (`StepMonitor`); None reads none.
        checkpoint: where; None keeps none.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        batches: Batches,
        controller: Controller,
        seeds: SeedManager,
        *,
        settings: TrainerSettings | None = None,
        hardware: HardwareReader | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.step = 0
        self.validated: Validation | None = None
        self.seeds = seeds
        self._run = run
        self._model = model
        self._optimizer = optimizer
        self._loss = loss
        self._batches = batches
        self._controller = controller
        self._settings = settings or TrainerSettings()
        self._checkpoint = checkpoint
        self._monitor = StepMonitor(run, optimizer, hardware=hardware)
        self._in_time = InTime(seeds)

    def resume(self) -> int:
        """Take up the checkpoint, if there is one; returns the last step it contains, 0 for none.

        Raises:
            RunCheckpointRejected: the file is damaged, of another version or of another run.
            SeedStateRejected: its seeds do not fit this network.
        """
        stored = read_checkpoint(self._checkpoint) if self._checkpoint else None
        if stored is not None:
            self._check(stored)
            self._take_up(stored)
        return self.step

    def train(self, last_step: int, on_step: Callable[[StepResult], None] = lambda _result: None) -> None:
        """Go on to step `last_step`, checkpoints at the beginning and the end; `on_step` is told of every step.

        An exception, KeyboardInterrupt included, passes through between whole steps or within one; what a
        later run goes on from is the last checkpoint.
        """
        if self.step == 0:
            self.save()  # so that a run killed before its first interval goes on from the same random state
        while self.step < last_step:
            on_step(self.advance())
            if self.step % self._settings.checkpoint_every == 0 or self.step == last_step:
                self.save()

    def advance(self) -> StepResult:
        """Train one step under control."""
        self.step += 1
        loss = self._fit()
        validation = self.validate() if self.step % self._settings.validate_every == 0 else None
        packet = self._monitor.packet(
            global_step=self.step, seeds=self.seeds.export_seed_states(), validation=validation
        )
        command, applied = self._control(packet)
        return StepResult(self.step, loss, validation, command, applied)

    def validate(self) -> Validation:
        """Loss and accuracy over the validation set, remembered in `validated`."""
        inputs, targets = self._batches.validation()
        self._model.eval()
        with torch.no_grad():
            outputs = self._model(inputs)
            loss = float(self._loss(outputs, targets))
            accuracy = float((outputs.argmax(dim=1) == targets).float().mean())
        self._model.train()
        self.validated = Validation(loss, accuracy)
        return self.validated

    def save(self) -> None:
        """Write the checkpoint, if there is a place for one; durable when this returns."""
        if self._checkpoint is not None:
            write_checkpoint(self._checkpoint, self.state_dict())

    def state_dict(self) -> dict[str, object]:
        """Everything a later process needs to go on."""
        return {
            "version": VERSION,
            "run_id": self._run.run_id,
            "step": self.step,
            "validated": None if self.validated is None else [self.validated.loss, self.validated.accuracy],
            "random_state": torch.get_rng_state(),
            "device_random_states": _device_random_states(),
            "seeds": self.seeds.state_dict(),
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "monitor": self._monitor.state_dict(),
        }

    def _fit(self) -> float:
        self._model.train()
        with self._monitor.waiting_for_input():
            inputs, targets = self._batches.batch(self.step)
        self._monitor.begin()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._model(inputs), targets)
        torch.autograd.backward(loss)
        norm = self._monitor.gradients()
        if norm is not None and math.isfinite(norm):
            self._optimizer.step()
        value = float(loss.detach())
        self._monitor.end(loss=value, samples=len(inputs))
        return value

    def _control(self, packet: pb.SystemStatePacket) -> tuple[pb.AdaptationCommand, Applied]:
        started_ns = time.perf_counter_ns()
        command = self._controller.evaluate_step(packet)
        tamiyo_ms = (time.perf_counter_ns() - started_ns) / _NS_PER_MS
        applied = self._apply(command)
        finalize_ms = self.seeds.finalize_step()
        timed_out = applied.outcome in (TIMED_OUT, NOT_ATTEMPTED)
        self._monitor.controlled(
            tamiyo_ms=tamiyo_ms, apply_ms=applied.apply_ms, finalize_ms=finalize_ms, timed_out=timed_out
        )
        return command, applied

    def _apply(self, command: pb.AdaptationCommand) -> Applied:
        """Let the manager carry the command out in time, and tell the controller what became of it."""
        budget_ms = self._settings.apply_budget_ms
        applied = self._in_time.apply(command, command.execution_deadline_ms if budget_ms is None else budget_ms)
        if command.command_id:
            detail = f"{applied.reason}: {applied.detail}" if applied.reason else applied.detail
            self._controller.record_delivery(command.command_id, applied.outcome, detail)
        return applied

    def _check(self, stored: Mapping[str, Any]) -> None:
        wanted = {"version": VERSION, "run_id": self._run.run_id}
        for name, value in wanted.items():
            if stored.get(name) != value:
                raise RunCheckpointRejected(
                    f"the checkpoint {self._checkpoint} has {name} {stored.get(name)!r}, and this run {value!r}; "
                    "use another directory, or the options it was started with"
                )

    def _take_up(self, stored: Mapping[str, Any]) -> None:
        self.seeds.load_state_dict(stored["seeds"])  # first: it rebuilds the modules the others hold the values of
        self._model.load_state_dict(stored["model"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self._monitor.load_state_dict(stored["monitor"])
        torch.set_rng_state(stored["random_state"])
        devices = stored.get("device_random_states", ())  # of this version, and where there were any
        for index, state in enumerate(devices[: torch.cuda.device_count()] if devices else ()):
            torch.cuda.set_rng_state(state, index)
        self.step = stored["step"]
        self.validated = Validation(*stored["validated"]) if stored["validated"] else None


def _device_random_states() -> list[Tensor]:
    """What a host's dropout draws from on its devices; asking wakes none."""
    has_begun = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if has_begun else []
