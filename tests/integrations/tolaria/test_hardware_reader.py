"""What the hardware says of itself, absent where it cannot be had. No GPU: a double is in torch.cuda's place."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from cuda_double import NvmlError

from tamiyo.core.limits import Limits
from tamiyo.core.observation import Hardware, read_packet
from tamiyo.integrations.tolaria import HardwareReader, Reading
from tamiyo.integrations.tolaria.processor import ProcessorLoad
from tamiyo.leyline import leyline_pb2 as pb

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GPU_METRICS = {"gpu_mem_used_gb": 56.0, "gpu_mem_free_gb": 24.0, "gpu_util_percent": 85.0}
MS = 1_000_000


@pytest.fixture(autouse=True)
def processors(monkeypatch) -> list[object]:
    """What the processors say, one reading after another: a percentage, None, or what is raised."""
    told: list[object] = [None]

    def percent(_self):
        said = told.pop(0) if len(told) > 1 else told[0]
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(ProcessorLoad, "percent", percent)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=12 << 30, total=16 << 30))
    monkeypatch.setattr("tamiyo.integrations.tolaria.processor.memory_limit", lambda: None)
    return told


def received(reading: Reading) -> Hardware | None:
    """The context as Tamiyo reads it from the wire."""
    packet = pb.SystemStatePacket(hardware_context=reading.context)
    return read_packet(packet.SerializeToString(), Limits()).hardware


def test_a_gpu_tells_its_memory_load_and_kind(cuda, processors):
    processors[:] = [40.0]
    reading = HardwareReader().read(GPU)
    assert reading.metrics == {"cpu_util_percent": 40.0, **GPU_METRICS}
    assert received(reading) == Hardware("cuda", "0", 80.0, 24.0, 61.0, 85.0, 90)


def test_a_host_on_the_cpu_tells_the_processors_load_and_the_memory(cuda, processors):
    processors[:] = [40.0]
    reading = HardwareReader().read(CPU)
    assert reading.metrics == {"cpu_util_percent": 40.0}
    assert received(reading) == Hardware("cpu", "", 16.0, 12.0, None, 40.0, None)
    assert not cuda.asked


@pytest.mark.parametrize("device", [None, torch.device("cuda")])
def test_without_a_number_it_is_the_current_device(cuda, device):
    reading = HardwareReader().read(device)
    assert set(reading.metrics) == set(GPU_METRICS)
    assert (reading.context.device_type, reading.context.device_id) == ("cuda", "1")
    assert set(cuda.indexes) == {1}


@pytest.mark.parametrize(("device", "kind"), [(None, "cpu"), (CPU, "cpu"), (GPU, "cuda")])
def test_cuda_is_not_woken(cuda, device, kind):
    cuda.initialized = False
    reading = HardwareReader().read(device)
    assert reading.metrics == {}
    assert reading.context.device_type == kind
    assert set(cuda.asked) <= {"is_initialized"}


def test_another_kind_of_device_is_named_and_no_more():
    reading = HardwareReader().read(torch.device("mps", 0))
    assert reading.metrics == {}
    assert received(reading) == Hardware("mps", "0", None, None, None, None, None)
    assert received(HardwareReader().read(torch.device("meta"))) == Hardware("meta", "", *[None] * 5)


FAILURES = {
    "mem_get_info": ({"gpu_mem_used_gb", "gpu_mem_free_gb"}, {"total_memory_gb", "available_memory_gb"}),
    "utilization": ({"gpu_util_percent"}, {"utilization_percent"}),
    "temperature": (set(), {"temperature_celsius"}),
    "get_device_capability": (set(), {"compute_capability"}),
    "is_initialized": (set(GPU_METRICS), set(Hardware._fields) - {"device_type", "device_id"}),
}
"""What is absent where a call fails: metrics, and fields of the context."""


@pytest.mark.parametrize("raised", [ModuleNotFoundError("no nvidia-ml-py"), RuntimeError("CUDA"), NvmlError(3)])
@pytest.mark.parametrize("name", FAILURES)
def test_a_call_that_fails_is_told_once_and_no_longer_made(cuda, clock, caplog, name, raised):
    metrics, fields = FAILURES[name]
    whole = received(HardwareReader().read(GPU))
    asked_before = cuda.asked[name]
    cuda.fails[name] = raised
    reader = HardwareReader(interval_ms=0, clock_ns=clock)
    for _ in range(3):
        reading = reader.read(GPU)
    assert set(reading.metrics) == set(GPU_METRICS) - metrics
    found = received(reading)
    assert whole is not None
    assert found is not None
    assert {field for field in fields if getattr(found, field) is not None} == set()
    assert found == whole._replace(**dict.fromkeys(fields))
    assert cuda.asked[name] == asked_before + 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert type(raised).__name__ in record.getMessage()
    assert str(raised.args[0]) in record.getMessage()


def test_an_answer_that_makes_no_sense_is_absent(cuda, caplog):
    cuda.memory = ("much",)
    cuda.percent = None
    assert HardwareReader().read(GPU).metrics == {}
    assert len(caplog.records) == 2


def test_processors_and_memory_that_do_not_say_are_absent(processors, monkeypatch, clock, caplog):
    processors[:] = [PermissionError("/proc/stat"), 40.0]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: 1 / 0)
    reader = HardwareReader(interval_ms=0, clock_ns=clock)
    for _ in range(3):
        reading = reader.read(CPU)
    assert reading.metrics == {}
    assert received(reading) == Hardware("cpu", "", *[None] * 5)
    assert len(caplog.records) == 2


def test_the_first_reading_knows_no_load_of_the_processors(processors, clock):
    processors[:] = [None, 30.0]
    reader = HardwareReader(interval_ms=100, clock_ns=clock)
    assert "cpu_util_percent" not in reader.read(CPU).metrics
    clock.ns += 100 * MS
    assert reader.read(CPU).metrics["cpu_util_percent"] == 30.0


def test_a_reading_is_repeated_until_it_is_as_old_as_it_may_be(cuda, clock):
    reader = HardwareReader(interval_ms=100, clock_ns=clock)
    first = reader.read(GPU)
    asked = cuda.asked.copy()
    clock.ns += 100 * MS - 1
    assert reader.read(GPU) is first
    assert cuda.asked == asked
    cuda.percent = 10
    clock.ns += 1
    assert reader.read(GPU).metrics["gpu_util_percent"] == 10.0


def test_a_clock_that_runs_backwards_makes_no_reading_last(cuda, clock):
    reader = HardwareReader(interval_ms=100, clock_ns=clock)
    first = reader.read(GPU)
    clock.ns -= 1
    assert reader.read(GPU) is not first


def test_a_host_that_moves_to_another_device_is_read_anew(cuda):
    reader = HardwareReader()
    kinds = [reader.read(device).context.device_type for device in (GPU, CPU, GPU)]
    assert kinds == ["cuda", "cpu", "cuda"]


def test_an_interrupt_passes_through(monkeypatch):
    def interrupted(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessorLoad, "percent", interrupted)
    with pytest.raises(KeyboardInterrupt):
        HardwareReader().read(CPU)


def test_reading_leaves_cuda_asleep_and_starts_no_thread():
    """In a process of its own, with nothing replaced."""
    code = """
import threading, torch
from tamiyo.integrations.tolaria import HardwareReader
reader = HardwareReader(interval_ms=0)
for _ in range(2):
    reading = reader.read(None)
assert reading.context.device_type == "cpu" and not torch.cuda.is_initialized()
assert threading.active_count() == 1
assert 0 < reading.context.available_memory_gb <= reading.context.total_memory_gb
assert all(0 <= value <= 100 for value in reading.metrics.values()), reading
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
