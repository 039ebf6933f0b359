"""Packets, from tame to hostile; every one of them is within the limits, so that a controller has to answer it."""

import math

from hypothesis import strategies as st

from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.strategies.numbers import FLOAT32, IDS, TAME

__all__ = ["METRICS", "hardware_contexts", "metrics", "packets", "seed_states", "tame_packets", "training_packets"]

METRICS = (
    "loss", "gradient_norm", "samples_per_s", "hook_latency_ms", "step_latency_ms", "loss_delta", "loss_volatility",
    "grad_var", "grad_conflict_rate", "optimizer_lr", "optimizer_momentum", "cpu_util_percent", "gpu_util_percent",
    "gpu_mem_free_gb", "kasmina.apply_ms", "kasmina.finalize_ms", "kasmina.isolation.violations",
    "tolaria.rollback.deadline_exceeded",
)  # fmt: skip
"""Names in `training_metrics` that mean something to the risk table or the graph."""

METRIC_NAMES = st.sampled_from(METRICS)
SEED_METRIC_NAMES = st.sampled_from(
    (
        "alpha", "alpha_steps", "alpha_total_steps", "alpha_schedule_index", "blend_allowed", "blend_allowed_cosine",
        "risk_tolerance", "operation_allowed", "activity", "success",
    )
)  # fmt: skip
STAGES = (*pb.SeedLifecycleStage.values(), 77)
"""Every stage, and a number that is none."""


def metrics(values: st.SearchStrategy[float] = FLOAT32) -> st.SearchStrategy[dict[str, float]]:
    """`training_metrics`: names that mean something and names that do not."""
    return st.dictionaries(METRIC_NAMES | IDS, values, max_size=12)


@st.composite
def seed_states(draw: st.DrawFn, values: st.SearchStrategy[float] = FLOAT32) -> pb.SeedState:
    """One seed in any stage, unknown numbers included."""
    seed = pb.SeedState(
        seed_id=draw(st.sampled_from(("seed-a", "seed-b", "seed-c")) | IDS),
        gradient_norm=draw(values),
        learning_rate=draw(values),
        layer_depth=draw(st.integers(0, 2**32 - 1)),
        age_epochs=draw(st.integers(0, 1_000)),
        risk_score=draw(values),
        metrics=draw(st.dictionaries(SEED_METRIC_NAMES | IDS, values, max_size=4)),
    )
    seed.stage = draw(st.sampled_from(STAGES))  # type: ignore[assignment]  # an open enum: unknown numbers are the point
    return seed


@st.composite
def hardware_contexts(draw: st.DrawFn, values: st.SearchStrategy[float] = FLOAT32) -> pb.HardwareContext:
    """What a host says of its device."""
    return pb.HardwareContext(
        device_type=draw(st.sampled_from(("cpu", "cuda")) | IDS),
        device_id=draw(IDS),
        total_memory_gb=draw(values),
        available_memory_gb=draw(values),
        temperature_celsius=draw(values),
        utilization_percent=draw(values),
        compute_capability=draw(st.integers(0, 2**32 - 1)),
    )


@st.composite
def packets(draw: st.DrawFn, values: st.SearchStrategy[float] = FLOAT32) -> pb.SystemStatePacket:
    """Any packet within the limits: NaN and infinities, empty ids, no seeds or many."""
    packet = pb.SystemStatePacket(
        version=draw(st.integers(0, 2**32 - 1)),
        current_epoch=draw(st.integers(0, 1_000)),
        validation_accuracy=draw(values),
        validation_loss=draw(values),
        training_loss=draw(values),
        timestamp_ns=draw(st.integers(0, 2**64 - 1)),
        global_step=draw(st.integers(0, 2**64 - 1)),
        packet_id=draw(IDS),
        training_run_id=draw(st.sampled_from(("run-1", "run-2")) | IDS),
        training_metrics=draw(metrics(values)),
        seed_states=draw(st.lists(seed_states(values), max_size=4)),
    )
    if draw(st.booleans()):
        packet.hardware_context.CopyFrom(draw(hardware_contexts(values)))
    return packet


def tame_packets() -> st.SearchStrategy[pb.SystemStatePacket]:
    """Packets in which every number is finite and small."""
    return packets(TAME)


READINGS: tuple[tuple[str, float], ...] = tuple(
    (name, value)
    for name, values in {
        "loss": (0.5, math.nan),
        "gradient_norm": (1.0, math.inf),
        "hook_latency_ms": (12.0, 50.0, 60.0),
        "step_latency_ms": (100.0, 130.0),
        "loss_delta": (0.0, 0.1, 0.2),
        "loss_volatility": (0.05, 0.12, math.nan),
        "grad_var": (0.5, 1.5),
        "grad_conflict_rate": (0.25, 0.75),
        "optimizer_lr": (0.0, 0.01),
        "cpu_util_percent": (50.0, 95.0),
        "gpu_util_percent": (50.0, 96.0),
        "gpu_mem_free_gb": (0.1, 8.0),
        "kasmina.apply_ms": (10.0, 31.0),
        "kasmina.finalize_ms": (10.0, 31.0),
        "kasmina.isolation.violations": (0.0, 1.0),
        "tolaria.rollback.deadline_exceeded": (0.0, 1.0),
    }.items()
    for value in values
)
"""Readings on either side of the default thresholds."""

LOSSES = (0.0, 0.5, 0.5625, 0.625, 0.75, math.nan)
LIVE_STAGES = (
    pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING,
    pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY, pb.SEED_STAGE_FOSSILIZED,
)  # fmt: skip


@st.composite
def training_packets(
    draw: st.DrawFn, *, run_ids: tuple[str, ...] = ("run-1", "run-2"), packet_ids: tuple[str, ...] = ("packet-1",)
) -> pb.SystemStatePacket:
    """Packets as a training run sends them, mostly calm, with readings near the thresholds: cheap to draw.

    `training_run_id` is one of `run_ids`, `packet_id` one of `packet_ids`; of the latter, one that the library lists
    makes it the host's blueprint.
    """
    packet = pb.SystemStatePacket(
        version=1,
        training_run_id=draw(st.sampled_from(run_ids)),
        packet_id=draw(st.sampled_from(packet_ids)),
        validation_loss=draw(st.sampled_from(LOSSES)),
    )
    for place, stage in enumerate(draw(st.lists(st.sampled_from(LIVE_STAGES), max_size=3))):
        packet.seed_states.add(seed_id=f"seed-{place}", stage=stage)
    for name, value in draw(st.lists(st.sampled_from(READINGS), max_size=2)):
        packet.training_metrics[name] = value
    return packet
