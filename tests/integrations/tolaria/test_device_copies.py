"""How long copies to the device take. No GPU: a double is in torch.cuda's place."""

import pytest
import torch
from cuda_double import Clock, Cuda
from torch import nn

from tamiyo.integrations.tolaria import Run, StepMonitor
from tamiyo.integrations.tolaria.copies import COPIES_MAX, STEPS_MAX, CopyTimer

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MS = 1_000_000


@pytest.fixture
def timer(clock) -> CopyTimer:
    return CopyTimer(clock)


def copy(timer: CopyTimer, cuda: Cuda, ms: float, device: torch.device | None = GPU, index: int = 0) -> None:
    with timer.copying(device):
        cuda.streams[index].queued_ms += ms


def test_a_copy_on_the_host_is_timed_by_the_clock(timer, clock, cuda):
    for _ in range(2):
        with timer.copying(CPU):
            clock.ns += 3 * MS
    assert timer.take() == 6.0
    assert timer.take() is None
    assert not cuda.asked


def test_without_cuda_in_use_the_clock_times_every_copy(timer, clock, cuda):
    cuda.initialized = False
    for device in (None, GPU):
        with timer.copying(device):
            clock.ns += 3 * MS
        assert timer.take() == 3.0


def test_copies_to_a_device_are_timed_there_and_added_up(timer, cuda, clock):
    copy(timer, cuda, 2.0)
    cuda.streams[0].queued_ms += 50.0  # other work
    copy(timer, cuda, 3.0)
    clock.ns += 99 * MS
    cuda.streams[0].reached_ms = 55.0
    assert timer.take() == 5.0


def test_a_copy_the_device_has_not_reached_is_told_in_a_later_step(timer, cuda):
    copy(timer, cuda, 2.0)
    assert timer.take() is None
    copy(timer, cuda, 3.0)
    cuda.streams[0].reached_ms = 4.0  # past the first, within the second
    assert timer.take() == 2.0
    copy(timer, cuda, 4.0)
    cuda.streams[0].reached_ms = 9.0
    assert timer.take() == 4.0  # the last that is over, not the sum of two steps


def test_a_step_without_a_copy_tells_none_even_if_an_earlier_one_is_over_now(timer, cuda):
    copy(timer, cuda, 2.0)
    assert timer.take() is None
    cuda.streams[0].reached_ms = 2.0
    assert timer.take() is None


def test_the_current_device_is_meant_where_none_is_known(timer, cuda):
    copy(timer, cuda, 2.0, device=None, index=1)
    cuda.streams[1].reached_ms = 2.0
    assert timer.take() == 2.0


def copy_and_fail(timer: CopyTimer, cuda: Cuda, clock: Clock, device: torch.device) -> None:
    with timer.copying(device):
        clock.ns += 2 * MS
        cuda.streams[0].queued_ms += 2.0
        cuda.streams[0].reached_ms += 2.0
        raise ZeroDivisionError


@pytest.mark.parametrize("device", [CPU, GPU])
def test_an_exception_of_the_host_passes_through_and_its_copy_counts(timer, cuda, clock, device):
    with pytest.raises(ZeroDivisionError):
        copy_and_fail(timer, cuda, clock, device)
    assert timer.take() == 2.0


@pytest.mark.parametrize(
    "name", ["is_initialized", "current_device", "current_stream", "Event", "record", "query", "elapsed_time"]
)
def test_a_call_that_fails_is_told_once_and_copies_are_absent_from_then_on(timer, cuda, clock, caplog, name):
    cuda.fails[name] = RuntimeError("the driver is gone")
    for _ in range(3):
        with timer.copying(None):
            clock.ns += MS
            cuda.streams[1].queued_ms += 1.0
            cuda.streams[1].reached_ms += 1.0
        assert timer.take() is None
    (record,) = caplog.records
    assert "h2d_copy_ms" in record.getMessage()
    assert "the driver is gone" in record.getMessage()


@pytest.mark.parametrize("name", ["is_initialized", "record"])
def test_a_failure_of_the_timing_hides_nothing_of_the_host(timer, cuda, clock, name):
    cuda.fails[name] = RuntimeError("gone")
    with pytest.raises(ZeroDivisionError):
        copy_and_fail(timer, cuda, clock, GPU)
    assert timer.take() is None


def test_a_copy_whose_end_cannot_be_marked_is_left_out(timer, cuda):
    with timer.copying(GPU):
        cuda.fails["record"] = RuntimeError("gone")
    assert timer.take() is None


def test_what_nobody_asks_for_is_not_gathered_for_ever(timer, cuda):
    for _ in range(COPIES_MAX + 10):
        copy(timer, cuda, 1.0)
    assert timer.take() is None
    for _ in range(STEPS_MAX + 10):
        copy(timer, cuda, 1.0)
        assert timer.take() is None
    assert len(timer._steps) == STEPS_MAX
    cuda.streams[0].reached_ms = cuda.streams[0].queued_ms
    copy(timer, cuda, 1.0)
    assert timer.take() == 1.0
    assert len(timer._steps) == 1


def new_monitor(clock: Clock, **options: object) -> StepMonitor:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    return StepMonitor(Run("run-1"), optimizer, clock_ns=clock, **options)


def test_a_monitor_tells_the_copies_of_a_step_and_none_in_the_next(clock, cuda):
    monitor = new_monitor(clock)
    with monitor.copying_to_device():
        clock.ns += 3 * MS
    monitor.begin()  # a copy just before it is part of the step
    with monitor.copying_to_device():
        clock.ns += 1 * MS
    monitor.end()
    assert monitor.packet().training_metrics["h2d_copy_ms"] == 4.0
    assert "h2d_copy_ms" not in monitor.packet().training_metrics
    assert not cuda.asked  # the parameters are on the CPU


def test_a_monitor_without_details_times_no_copy(clock, cuda):
    monitor = new_monitor(clock, detailed=False)
    with monitor.copying_to_device():
        clock.ns += 3 * MS
    assert "h2d_copy_ms" not in monitor.packet().training_metrics


def test_a_monitor_without_an_optimizer_times_copies_to_the_current_device(clock, cuda):
    monitor = StepMonitor(Run("run-1"), clock_ns=clock)
    with monitor.copying_to_device():
        cuda.streams[1].queued_ms = cuda.streams[1].reached_ms = 7.0
    assert monitor.packet().training_metrics["h2d_copy_ms"] == 7.0
