import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tamiyo.core.limits import Limits
from tamiyo.core.observation import read_packet
from tamiyo.integrations.tolaria import HardwareReader, Reading, Run, StepMonitor, Validation
from tamiyo.leyline import leyline_pb2 as pb

RUN = Run("run-1", "an experiment", steps_per_epoch=10)
BASIC = {"loss", "gradient_norm", "samples_per_s", "hook_latency_ms"}
STATISTICS = {"loss_ewma", "loss_delta", "loss_volatility", "grad_norm_ewma", "grad_var"}
OPTIMIZER = {"optimizer_lr", "optimizer_momentum", "optimizer_family_index"}
CONTROL = {"tamiyo_latency_ms", "kasmina.apply_ms", "kasmina.finalize_ms"}
HARDWARE = {"h2d_copy_ms", "gpu_mem_used_gb", "gpu_mem_free_gb", "gpu_util_percent", "cpu_util_percent"}


class Ticking:
    """A clock that stands still but for what the test adds."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


class Loop:
    """An ordinary PyTorch loop with a monitor in it."""

    def __init__(self, **options: object) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.clock = Ticking()
        self.monitor = StepMonitor(RUN, self.optimizer, clock_ns=self.clock, wall_ns=lambda: 77, **options)
        self.inputs = torch.rand(8, 3)

    def step(self, **packet: object) -> pb.SystemStatePacket:
        with self.monitor.waiting_for_input():
            self.clock.ns += 2_000_000
        self.monitor.begin()
        self.optimizer.zero_grad()
        loss = self.model(self.inputs).square().mean()
        loss.backward()
        self.monitor.gradients()
        self.optimizer.step()
        self.clock.ns += 4_000_000
        self.monitor.end(loss=float(loss.detach()), samples=8)
        return self.monitor.packet(**packet)


def test_a_plain_loop_gives_every_metric():
    loop = Loop()
    loop.step()
    loop.monitor.controlled(tamiyo_ms=1.5, apply_ms=0.25, finalize_ms=0.5)
    metrics = loop.step().training_metrics
    assert set(metrics) == BASIC | STATISTICS | OPTIMIZER | CONTROL | {
        "step_latency_ms",
        "input_wait_ms",
        "grad_conflict_rate",
    }
    assert metrics["step_latency_ms"] == 4.0
    assert metrics["input_wait_ms"] == 2.0
    assert metrics["samples_per_s"] == 2000.0
    assert metrics["hook_latency_ms"] == 0.0
    assert (metrics["tamiyo_latency_ms"], metrics["kasmina.apply_ms"]) == (1.5, 0.25)
    assert metrics["kasmina.finalize_ms"] == 0.5


def test_without_the_details_only_the_basic_metrics_are_there():
    loop = Loop(detailed=False)
    loop.step()
    loop.monitor.controlled(tamiyo_ms=1.0)
    assert set(loop.step().training_metrics) == BASIC


@pytest.mark.parametrize("detailed", [True, False])
def test_a_manager_that_missed_its_budget_is_told_with_the_details_and_without(detailed):
    loop = Loop(detailed=detailed)
    loop.monitor.controlled(timed_out=True)
    assert loop.step().training_metrics["tolaria.kasmina_timeout"] == 1.0
    loop.monitor.controlled()
    assert "tolaria.kasmina_timeout" not in loop.step().training_metrics


def test_what_the_control_of_a_step_cost_is_told_once():
    loop = Loop()
    loop.monitor.controlled(tamiyo_ms=1.5, apply_ms=40.0, finalize_ms=0.5, timed_out=True)
    assert {"tolaria.kasmina_timeout", *CONTROL} <= set(loop.step().training_metrics)
    assert not {"tolaria.kasmina_timeout", *CONTROL} & set(loop.step().training_metrics)


def test_without_a_reader_and_a_copy_nothing_is_said_of_the_hardware():
    packet = Loop().step()
    assert not HARDWARE & set(packet.training_metrics)
    assert not packet.HasField("hardware_context")


class Told(HardwareReader):
    """Says what the test gives it, and takes its time for it."""

    def __init__(self, **metrics: float) -> None:
        super().__init__()
        self.told = metrics
        self.clock = Ticking()
        self.devices: list[torch.device | None] = []

    def read(self, device: torch.device | None = None) -> Reading:
        self.devices.append(device)
        self.clock.ns += 3_000_000
        return Reading(self.told, pb.HardwareContext(device_type="cuda", device_id="0", total_memory_gb=80.0))


@pytest.mark.parametrize("detailed", [True, False])
def test_a_reader_is_asked_once_a_step_with_the_details_and_without(detailed):
    reader = Told(cpu_util_percent=40.0, gpu_util_percent=85.0)
    loop = Loop(detailed=detailed, hardware=reader)
    reader.clock = loop.clock
    packet = loop.step()
    assert {"cpu_util_percent", "gpu_util_percent"} == HARDWARE & set(packet.training_metrics)
    assert packet.training_metrics["gpu_util_percent"] == 85.0
    assert (packet.hardware_context.device_type, packet.hardware_context.total_memory_gb) == ("cuda", 80.0)
    assert packet.training_metrics["hook_latency_ms"] == 3.0  # it is part of what measuring costs
    assert reader.devices == [torch.device("cpu")]  # where the parameters are


def test_a_reader_is_told_of_no_device_where_no_parameters_are_known():
    reader = Told()
    StepMonitor(RUN, hardware=reader).packet()
    assert reader.devices == [None]


def test_what_the_hardware_says_is_in_no_checkpoint():
    assert StepMonitor(RUN, hardware=Told()).state_dict().keys() == StepMonitor(RUN).state_dict().keys()


def test_a_real_reader_fills_the_context_of_this_machine():
    packet = Loop(hardware=HardwareReader()).step()
    seen = read_packet(packet.SerializeToString(), Limits()).hardware
    assert seen is not None
    assert (seen.device_type, seen.compute_capability) == ("cpu", None)
    assert seen.total_memory_gb is not None
    assert "cpu_util_percent" not in packet.training_metrics  # the first reading has nothing before it


def test_a_packet_names_its_run_and_its_step():
    packet = Loop().step(global_step=25)
    assert (packet.training_run_id, packet.experiment_name, packet.source_subsystem) == (
        "run-1",
        "an experiment",
        "tolaria",
    )
    assert (packet.packet_id, packet.global_step, packet.current_epoch) == ("run-1/25", 25, 2)
    assert packet.timestamp_ns == 77


def test_validation_is_absent_unless_it_was_done():
    loop = Loop()
    seen = read_packet(loop.step().SerializeToString(), Limits())
    assert (seen.validation_loss, seen.validation_accuracy) == (None, None)
    seen = read_packet(loop.step(validation=Validation(0.5, 0.75)).SerializeToString(), Limits())
    assert (seen.validation_loss, seen.validation_accuracy) == (0.5, 0.75)


def test_the_gradient_norm_is_that_of_the_whole_gradient():
    loop = Loop()
    metrics = loop.step().training_metrics
    flat = torch.cat([p.grad.flatten() for p in loop.model.parameters()])
    assert metrics["gradient_norm"] == pytest.approx(float(flat.norm()))


def test_running_statistics_follow_their_formulas():
    monitor = StepMonitor(RUN)
    mean, variance, moved = 2.0, 0.0, 0.0
    for value in (2.0, 1.0, 4.0, 0.5):
        monitor.end(loss=value)
        packet = monitor.packet()
        distance = value - mean
        moved, mean = 0.1 * distance, mean + 0.1 * distance
        variance = 0.9 * (variance + 0.1 * distance**2)
        assert packet.training_metrics["loss_ewma"] == pytest.approx(mean)
        assert packet.training_metrics["loss_delta"] == pytest.approx(moved)
        assert packet.training_metrics["loss_volatility"] == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize(
    ("gradients", "rate"),
    [([1.0, 1.0], 0.0), ([1.0, -1.0], 1.0), ([1.0, 1.0, -1.0], 0.1), ([1.0, -1.0, -1.0], 0.9)],
)
def test_gradients_that_turn_round_are_in_conflict(gradients, rate):
    weight = nn.Parameter(torch.zeros(2))
    monitor = StepMonitor(RUN, torch.optim.SGD([weight], lr=0.1))
    for gradient in gradients:
        weight.grad = torch.full((2,), gradient)
        monitor.gradients()
    assert monitor.packet().training_metrics["grad_conflict_rate"] == pytest.approx(rate)


def sparse_gradient(values: list[float]) -> torch.Tensor:
    """As `nn.Embedding(sparse=True)` leaves it: one row twice, to be added up."""
    return torch.sparse_coo_tensor(torch.tensor([[0, 0, 2]]), torch.tensor(values), (4,), check_invariants=True)


KINDS = {
    "sparse": (sparse_gradient([1.0, 2.0, 4.0]), sparse_gradient([-1.0, -2.0, -4.0])),
    "complex": (torch.tensor([3j, 4.0]), torch.tensor([-3j, -4.0])),
    "large halves": (torch.full((4,), 50_000.0).half(), torch.full((4,), -50_000.0).half()),
    "small halves": (torch.full((4,), 1e-4).half(), torch.full((4,), -1e-4).half()),
    "bfloat16": (torch.full((4,), 2.0).bfloat16(), torch.full((4,), -2.0).bfloat16()),
}
"""A gradient, and the one that points the other way; the norm of halves may be no half, nor their product."""


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_any_kind_are_measured(kind):
    one, other = KINDS[kind]
    weight = nn.Parameter(torch.zeros_like(one.to_dense()))
    monitor = StepMonitor(RUN, torch.optim.SGD([weight], lr=0.1))
    for gradient in (one, other):
        weight.grad = gradient
        norm = monitor.gradients()
    assert norm == pytest.approx(float(one.to_dense().to(torch.complex128).abs().norm()))
    assert monitor.packet().training_metrics["grad_conflict_rate"] == 1.0


FAMILIES = {
    torch.optim.SGD: 1.0,
    torch.optim.Adam: 2.0,
    torch.optim.AdamW: 3.0,
    torch.optim.RMSprop: 4.0,
    torch.optim.Adagrad: 5.0,
    torch.optim.Adadelta: 0.0,
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_an_optimizer_is_named_by_its_registry_index(family):
    metrics = StepMonitor(RUN, family(nn.Linear(2, 2).parameters())).packet().training_metrics
    assert metrics["optimizer_family_index"] == FAMILIES[family]
    assert ("optimizer_momentum" in metrics) == (family not in (torch.optim.Adagrad, torch.optim.Adadelta))


def test_the_first_beta_of_adam_is_its_momentum():
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), betas=(0.8, 0.99))
    assert StepMonitor(RUN, optimizer).packet().training_metrics["optimizer_momentum"] == pytest.approx(0.8)


def test_an_optimizer_without_a_rate_has_none():
    class Stepless(torch.optim.Optimizer):
        """Finds its own way."""

    metrics = StepMonitor(RUN, Stepless(nn.Linear(2, 2).parameters(), {})).packet().training_metrics
    assert not {"optimizer_lr", "optimizer_momentum"} & set(metrics)


def test_a_loss_that_is_not_finite_is_reported_and_left_out_of_the_statistics():
    monitor = StepMonitor(RUN)
    monitor.end(loss=1.0)
    monitor.packet()
    monitor.end(loss=math.nan)
    packet = monitor.packet()
    assert math.isnan(packet.training_loss)
    assert packet.training_metrics["loss_ewma"] == 1.0


def test_one_steps_measurements_do_not_leak_into_the_next_packet():
    loop = Loop()
    loop.step()
    metrics = loop.monitor.packet().training_metrics
    assert not {"loss", "gradient_norm", "samples_per_s", "step_latency_ms", "input_wait_ms"} & set(metrics)


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_a_step_without_a_finite_loss_moved_nothing(loss):
    monitor = StepMonitor(RUN)
    for value in (1.0, 3.0):
        monitor.end(loss=value)
    monitor.packet()
    monitor.end(loss=loss)
    metrics = monitor.packet().training_metrics
    assert "loss_delta" not in metrics
    assert metrics["loss_ewma"] == pytest.approx(1.2)


CALLS = {
    "begin": lambda m: m.begin(),
    "gradients": lambda m: m.gradients(),
    "end": lambda m: m.end(),
    "end with loss": lambda m: m.end(loss=1.0, samples=0),
    "end with samples": lambda m: m.end(samples=3),
    "controlled": lambda m: m.controlled(apply_ms=1.0),
    "packet": lambda m: m.packet(),
    "waiting": lambda m: m.waiting_for_input().__enter__(),
    "copying": lambda m: m.copying_to_device().__enter__(),
}


@given(names=st.lists(st.sampled_from(sorted(CALLS)), max_size=12), trained=st.booleans())
def test_no_order_of_calls_raises_and_every_packet_can_be_read(names, trained):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters()) if trained else None
    monitor = StepMonitor(RUN, optimizer, hardware=HardwareReader())
    for name in names:
        CALLS[name](monitor)
    assert read_packet(monitor.packet().SerializeToString(), Limits()).training_run_id == "run-1"


def test_the_conflict_rate_goes_on_from_a_checkpoint():
    weight = nn.Parameter(torch.zeros(2))
    monitor, twin = (StepMonitor(RUN, torch.optim.SGD([weight], lr=0.1)) for _ in range(2))
    for gradient in (1.0, -1.0, 1.0):
        weight.grad = torch.full((2,), gradient)
        monitor.gradients()
    twin.load_state_dict(monitor.state_dict())
    twin.gradients()  # nothing to compare it with
    assert twin.packet().training_metrics["grad_conflict_rate"] == 1.0
    twin.gradients()
    assert twin.packet().training_metrics["grad_conflict_rate"] == pytest.approx(0.9)


def test_a_checkpoint_from_before_the_conflict_rate_was_kept_is_taken_up():
    monitor = StepMonitor(RUN)
    state = monitor.state_dict()
    del state["conflicts"]
    monitor.load_state_dict(state)
    assert "grad_conflict_rate" not in monitor.packet().training_metrics


def test_statistics_survive_a_checkpoint():
    monitor, twin = StepMonitor(RUN), StepMonitor(RUN)
    for value in (1.0, 3.0):
        monitor.end(loss=value)
    twin.load_state_dict(monitor.state_dict())
    for each in (monitor, twin):
        each.end(loss=2.0)
    ours, theirs = monitor.packet().training_metrics, twin.packet().training_metrics
    assert {k: v for k, v in ours.items() if k != "hook_latency_ms"} == {
        k: v for k, v in theirs.items() if k != "hook_latency_ms"
    }
