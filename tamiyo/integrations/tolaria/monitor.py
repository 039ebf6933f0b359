"""The step monitor: measures any PyTorch loop and builds the packet that Tamiyo decides on.

One step of a loop, with nothing of Tamiyo's but the monitor:

    monitor.begin()
    optimizer.zero_grad(); loss = loss_fn(model(x), y); loss.backward()
    monitor.gradients()
    optimizer.step()
    monitor.end(loss=float(loss), samples=len(x))
    packet = monitor.packet(seeds=manager.export_seed_states())

Every call may be left out: what was not measured is absent from the packet, never an exception. `loss`,
`gradient_norm`, `samples_per_s` and `hook_latency_ms` are always there in a loop like the one above. Turned on
by `detailed` (the default):

    step_latency_ms        begin to end
    input_wait_ms          the time spent in `with monitor.waiting_for_input():` since the last packet
    tamiyo_latency_ms, kasmina.apply_ms, kasmina.finalize_ms
                           of the step before, as `controlled` was told: this step's are not known yet
    loss_ewma, loss_volatility, grad_norm_ewma, grad_var
                           exponentially weighted mean, standard deviation and variance, weight 0.1
    loss_delta             by how much this step moved loss_ewma: what one batch says alone is mostly noise;
                           absent where the step had no finite loss
    grad_conflict_rate     see `ConflictRate`; costs one copy of the gradients
    optimizer_lr, optimizer_momentum, optimizer_family_index
                           of the first parameter group; the index is the registry's
    h2d_copy_ms            the time that `with monitor.copying_to_device():` took since the last packet; on a CUDA
                           device it is read once the device is past the copies, without waiting for it, and may be
                           that of an earlier step (`CopyTimer`)

What the hardware says of itself has a switch of its own, `hardware`, off unless a reader is given:

    cpu_util_percent, gpu_mem_used_gb, gpu_mem_free_gb, gpu_util_percent, and the packet's hardware_context
                           see `HardwareReader`; they say what else goes on in the machine, and Tamiyo's risk rows
                           act on that: `cpu_pressure_high` holds back every growth in a run that keeps all of
                           its processors busy

`hook_latency_ms` is what the monitor itself cost in this step, up to the packet. The parameters measured are
those of the optimizer, fossils included; a seed that still has its own optimizer reports its own gradient.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from tamiyo.integrations.gradients import total_norm
from tamiyo.integrations.tolaria.copies import CopyTimer
from tamiyo.integrations.tolaria.hardware import HardwareReader
from tamiyo.integrations.tolaria.statistics import ConflictRate, Drift, family_index, momentum_of
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Run", "StepMonitor", "Validation"]

PACKET_VERSION = 1
_NS_PER_MS = 1e6
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Run:
    """Which training run this is; its id is also the id of the host's blueprint in the library."""

    run_id: str
    experiment_name: str = ""
    steps_per_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """Mean loss and accuracy (0..1) over a validation set."""

    loss: float
    accuracy: float


@dataclass(slots=True)
class _Step:
    """What has been measured since the last packet; None where nothing was."""

    began_ns: int | None = None
    hooks_ns: int = 0
    waited_ns: int | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    latency_ns: int | None = None
    samples: int | None = None


class StepMonitor:
    """Measures steps, one after another. Not for several threads.

    Args:
        run: names for the packets.
        optimizer: the host's; its parameter groups are read anew at each step.
        detailed: whether the optional metrics are measured, but for those of `hardware`.
        hardware: asked once a step, in `packet`; None leaves its metrics and the hardware context out.
        clock_ns: a monotonic clock.
        wall_ns: the wall clock, for the packets' timestamps.
    """

    def __init__(
        self,
        run: Run,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        detailed: bool = True,
        hardware: HardwareReader | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._run = run
        self._optimizer = optimizer
        self._detailed = detailed
        self._hardware = hardware
        self._clock_ns = clock_ns
        self._wall_ns = wall_ns
        self._step = _Step()
        self._loss = Drift()
        self._norm = Drift()
        self._conflicts = ConflictRate()
        self._copies = CopyTimer(clock_ns)
        self._control: dict[str, float] = {}
        self._has_timed_out = False

    def begin(self) -> None:
        """A step begins; input that was waited for or copied just before it is part of it."""
        self._step = _Step(began_ns=self._clock_ns(), waited_ns=self._step.waited_ns)

    def gradients(self) -> float | None:
        """Measure gradients: after `backward`, before anything clears or clips them. Returns their norm."""
        started_ns = self._clock_ns()
        parameters = self._parameters()
        self._step.gradient_norm = total_norm(parameters)
        if self._detailed:
            self._conflicts.update(parameters)
        self._norm.update(self._step.gradient_norm)
        self._step.hooks_ns += self._clock_ns() - started_ns
        return self._step.gradient_norm

    def end(self, *, loss: float | None = None, samples: int | None = None) -> None:
        """The step is over: its loss and how many samples it took in."""
        now_ns = self._clock_ns()
        step = self._step
        step.loss, step.samples = loss, samples
        step.latency_ns = None if step.began_ns is None else now_ns - step.began_ns
        self._loss.update(loss)
        step.hooks_ns += self._clock_ns() - now_ns

    @contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Time spent in here counts as waiting for data."""
        started_ns = self._clock_ns()
        try:
            yield
        finally:
            self._step.waited_ns = (self._step.waited_ns or 0) + self._clock_ns() - started_ns

    @contextmanager
    def copying_to_device(self) -> Iterator[None]:
        """Copies of input in here, from the host's memory to the device of the parameters, are timed."""
        if not self._detailed:
            yield
            return
        with self._copies.copying(self._device()):
            yield

    def controlled(
        self,
        *,
        tamiyo_ms: float | None = None,
        apply_ms: float | None = None,
        finalize_ms: float | None = None,
        timed_out: bool = False,
    ) -> None:
        """What the control of the step just past cost: `evaluate_step`, the manager's apply and finalize.

        `timed_out` says that the manager missed its budget: `tolaria.kasmina_timeout` of the next packet, detailed
        or not, because it is a fault and no measurement.
        """
        told = {
            "tamiyo_latency_ms": tamiyo_ms,
            "kasmina.apply_ms": apply_ms,
            "kasmina.finalize_ms": finalize_ms,
        }
        self._control = {name: value for name, value in told.items() if value is not None}
        self._has_timed_out = timed_out

    def packet(
        self,
        *,
        global_step: int = 0,
        seeds: Sequence[pb.SeedState] = (),
        validation: Validation | None = None,
    ) -> pb.SystemStatePacket:
        """The packet of the step just measured; the next one starts with nothing measured."""
        started_ns = self._clock_ns()
        packet = self._header(global_step)
        for seed in seeds:  # as bytes: they may be of a host's own bindings
            packet.seed_states.add().MergeFromString(seed.SerializeToString())
        if validation is not None:
            packet.validation_loss = validation.loss
            packet.validation_accuracy = validation.accuracy
        if self._step.loss is not None:
            packet.training_loss = self._step.loss
        for name, value in self._metrics().items():
            packet.training_metrics[name] = value
        if self._hardware is not None:
            reading = self._hardware.read(self._device())
            packet.hardware_context.CopyFrom(reading.context)
            for name, value in reading.metrics.items():
                packet.training_metrics[name] = value
        hooks_ns = self._step.hooks_ns + self._clock_ns() - started_ns
        packet.training_metrics["hook_latency_ms"] = hooks_ns / _NS_PER_MS
        self._step, self._control, self._has_timed_out = _Step(), {}, False
        return packet

    def state_dict(self) -> dict[str, object]:
        """The running statistics, for a checkpoint; the copy of the last gradients is not kept."""
        drifts = {"loss": self._loss, "norm": self._norm, "conflicts": self._conflicts.shares}
        return {name: [drift.mean, drift.variance, drift.moved] for name, drift in drifts.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Take up running statistics."""
        self._loss = Drift(*state["loss"])
        self._norm = Drift(*state["norm"])
        self._conflicts = ConflictRate(Drift(*state.get("conflicts", ())))  # the first checkpoints had none

    def _header(self, global_step: int) -> pb.SystemStatePacket:
        run = self._run
        return pb.SystemStatePacket(
            version=PACKET_VERSION,
            current_epoch=global_step // run.steps_per_epoch if run.steps_per_epoch else 0,
            timestamp_ns=self._wall_ns(),
            packet_id=f"{run.run_id}/{global_step}",
            global_step=global_step,
            source_subsystem="tolaria",
            training_run_id=run.run_id,
            experiment_name=run.experiment_name,
        )

    def _device(self) -> torch.device | None:
        """Where the host is: that of its first parameter; None where none are known."""
        groups = [] if self._optimizer is None else self._optimizer.param_groups
        return next((parameter.device for group in groups for parameter in group["params"]), None)

    def _parameters(self) -> list[nn.Parameter]:
        if self._optimizer is None:
            return []
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _metrics(self) -> dict[str, float]:
        metrics = self._basic_metrics()
        if self._detailed:
            metrics |= self._detailed_metrics() | self._control
        if self._has_timed_out:
            metrics["tolaria.kasmina_timeout"] = 1.0
        return {name: value for name, value in metrics.items() if value is not None}

    def _basic_metrics(self) -> dict[str, float | None]:
        step = self._step
        throughput = step.samples * _NS_PER_S / step.latency_ns if step.samples and step.latency_ns else None
        return {"loss": step.loss, "gradient_norm": step.gradient_norm, "samples_per_s": throughput}

    def _detailed_metrics(self) -> dict[str, float | None]:
        step, loss, norm = self._step, self._loss, self._norm
        return {
            "step_latency_ms": None if step.latency_ns is None else step.latency_ns / _NS_PER_MS,
            "input_wait_ms": None if step.waited_ns is None else step.waited_ns / _NS_PER_MS,
            "loss_ewma": loss.mean,
            "loss_delta": loss.moved if step.loss is not None and math.isfinite(step.loss) else None,
            "loss_volatility": None if loss.mean is None else loss.deviation,
            "grad_norm_ewma": norm.mean,
            "grad_var": None if norm.mean is None else norm.variance,
            "grad_conflict_rate": self._conflicts.value,
            "h2d_copy_ms": self._copies.take(),
        } | self._optimizer_metrics()

    def _optimizer_metrics(self) -> dict[str, float | None]:
        optimizer = self._optimizer
        if optimizer is None:
            return {}
        rate = optimizer.param_groups[0].get("lr")  # torch asks no optimizer to have one
        return {
            "optimizer_lr": None if rate is None else float(rate),
            "optimizer_momentum": momentum_of(optimizer),
            "optimizer_family_index": float(family_index(optimizer)),
        }
