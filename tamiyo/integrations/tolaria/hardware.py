"""What a training step's hardware says of itself: `cpu_util_percent`, `gpu_*`, and the packet's `hardware_context`.

    cpu_util_percent   how busy the processors are that this process may use (`ProcessorLoad`): absent at the
                       first reading, which has nothing before it
    gpu_mem_used_gb, gpu_mem_free_gb
                       of the device that the host trains on, all processes together; what torch keeps for later
                       tensors counts as used
    gpu_util_percent   the share of the device's last sample period in which it computed anything; needs NVIDIA's
                       `nvidia-ml-py` (`amdsmi` on AMD's devices)

A GB has 2**30 bytes, as in the names of devices with 80 GB. What the hardware or the system does not say is
absent; what fails is told once in the log, and not asked again.

**What it costs.** A reading is taken once in `interval_ms` and repeated in the steps between: counters of the
processors move in hundredths of a second, and NVML's only every 1/6 to 1 second. Such a step takes a
microsecond; one that reads took half a millisecond without a device, on 2 busy cores. What CUDA and NVML take on
top, in the first reading above all, has not been measured: this was not tried on a GPU. Nothing here waits for the
device, and nothing wakes CUDA in a process that has not used it.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch

from tamiyo.integrations.tolaria.processor import Memory, ProcessorLoad, host_memory
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["HardwareReader", "Reading", "Tries"]

GB = 2**30
_NS_PER_MS = 1e6

Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What was found: entries of `training_metrics`, and the device that the host trains on."""

    metrics: dict[str, float]
    context: pb.HardwareContext


class Tries:
    """Calls that may fail: a failure is told once, and the call not made again."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def get(self, what: str, call: Callable[[], Value]) -> Value | None:
        """What `call` gives; None where it failed, now or before."""
        if what in self._failed:
            return None
        try:
            return call()
        except Exception as error:  # noqa: BLE001  drivers' errors have no base of their own; none may end a training
            self._failed.add(what)
            said = " ".join(map(str, error.args))  # what NVML's own errors say of themselves asks NVML once more
            logger.warning("%s: left out from now on: %s: %s", what, type(error).__name__, said)
            return None


class HardwareReader:
    """Reads the hardware of one process. Not for several threads.

    Args:
        interval_ms: how old a reading may be; 0 takes one at every step.
        clock_ns: a monotonic clock.
    """

    def __init__(self, *, interval_ms: float = 1000.0, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._interval_ns = interval_ms * _NS_PER_MS
        self._clock_ns = clock_ns
        self._tries = Tries()
        self._load = ProcessorLoad(clock_ns=clock_ns)
        self._last: tuple[int, torch.device | None, Reading] | None = None

    def read(self, device: torch.device | None = None) -> Reading:
        """What is known, at most `interval_ms` old.

        `device` is where the host's parameters are; None is CUDA's current one if it is in use, else the CPU.
        """
        now_ns = self._clock_ns()
        if self._last is not None:
            read_ns, read_device, reading = self._last
            if device == read_device and 0 <= now_ns - read_ns < self._interval_ns:
                return reading
        reading = self._read(device)
        self._last = (now_ns, device, reading)
        return reading

    def _read(self, device: torch.device | None) -> Reading:
        cpu_percent = self._tries.get("cpu_util_percent", self._load.percent)
        metrics = {} if cpu_percent is None else {"cpu_util_percent": cpu_percent}
        index = self._tries.get("the CUDA device", lambda: cuda_index(device))
        if index is not None:
            return self._cuda(index, metrics)
        if device is not None and device.type != "cpu":  # one that torch.cuda does not answer for
            number = str(device).partition(":")[2]
            return Reading(metrics, pb.HardwareContext(device_type=device.type, device_id=number))
        memory = self._tries.get("the host's memory", host_memory)
        return Reading(metrics, _context("cpu", "", memory, cpu_percent))

    def _cuda(self, index: int, metrics: dict[str, float]) -> Reading:
        get, cuda = self._tries.get, torch.cuda
        memory = get("gpu_mem_used_gb and gpu_mem_free_gb", lambda: Memory(*map(int, cuda.mem_get_info(index))))
        percent = get("gpu_util_percent", lambda: float(cuda.utilization(index)))
        context = _context("cuda", str(index), memory, percent)
        context.temperature_celsius = get("the GPU's temperature", lambda: float(cuda.temperature(index))) or 0.0
        context.compute_capability = get("the compute capability", lambda: _capability(index)) or 0
        if memory is not None:
            metrics["gpu_mem_used_gb"] = (memory.total_bytes - memory.free_bytes) / GB
            metrics["gpu_mem_free_gb"] = memory.free_bytes / GB
        if percent is not None:
            metrics["gpu_util_percent"] = percent
        return Reading(metrics, context)


def cuda_index(device: torch.device | None) -> int | None:
    """The number of the CUDA device that is meant; None where it is another kind, or CUDA is not in use."""
    if device is not None and device.type != "cuda":
        return None
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    return torch.cuda.current_device() if device is None or device.index is None else device.index


def _capability(index: int) -> int:
    """9.0 as 90, the form in which compilers take it (sm_90)."""
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


def _context(kind: str, number: str, memory: Memory | None, percent: float | None) -> pb.HardwareContext:
    """With what is unknown left at 0, which the wire takes for absent."""
    context = pb.HardwareContext(device_type=kind, device_id=number, utilization_percent=percent or 0.0)
    if memory is not None:
        context.total_memory_gb = memory.total_bytes / GB
        context.available_memory_gb = memory.free_bytes / GB
    return context
