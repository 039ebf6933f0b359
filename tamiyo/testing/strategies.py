"""Hypothesis strategies for what a controller is fed: packets from tame to hostile, and bytes that are none.

`pip install 'tamiyo[test]'` brings Hypothesis.
"""

from hypothesis import strategies as st

from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["hostile_bytes", "metrics", "packets", "seed_states", "tame_packets"]

FLOAT32 = st.floats(width=32, allow_nan=True, allow_infinity=True)
TAME = st.floats(min_value=0.0, max_value=2.0, width=32)
IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
METRIC_NAMES = st.sampled_from(
    (
        "loss", "gradient_norm", "samples_per_s", "hook_latency_ms", "step_latency_ms", "loss_delta", "loss_volatility",
        "grad_var", "grad_conflict_rate", "optimizer_lr", "optimizer_momentum", "cpu_util_percent", "gpu_util_percent",
        "gpu_mem_free_gb", "kasmina.apply_ms", "kasmina.finalize_ms", "kasmina.isolation.violations",
        "tolaria.rollback.deadline_exceeded",
    )
)  # fmt: skip


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
        metrics=draw(
            st.dictionaries(st.sampled_from(("alpha", "alpha_steps", "blend_allowed")) | IDS, values, max_size=4)
        ),
    )
    stage = draw(st.integers(0, 11) | st.just(77))
    seed.stage = stage  # type: ignore[assignment]  # an open enum: unknown numbers are the point
    return seed


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
        packet.hardware_context.device_type = draw(IDS)
        packet.hardware_context.total_memory_gb = draw(values)
    return packet


def tame_packets() -> st.SearchStrategy[pb.SystemStatePacket]:
    """Packets in which every number is finite and small."""
    return packets(TAME)


def hostile_bytes() -> st.SearchStrategy[bytes]:
    """Bytes that may or may not be a packet, and packets with bytes missing or added."""
    damaged = st.tuples(packets(), st.integers(0, 64), st.binary(max_size=8))
    return st.binary(max_size=256) | damaged.map(lambda d: d[0].SerializeToString()[: -d[1] or None] + d[2])
