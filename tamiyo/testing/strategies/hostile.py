"""Bytes that no honest trainer sends, and packets that only just are ones."""

import math
from collections.abc import Callable

from hypothesis import strategies as st

from tamiyo.core.limits import Limits
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.strategies.packets import packets, training_packets

__all__ = ["hostile_bytes", "hostile_packets", "oversized_packets", "undecodable_bytes"]

VARINT, FIXED32, BYTES = 0, 5, 2
EPOCH, STEP, SEEDS, HARDWARE, METRICS = 2, 10, 8, 6, 7
"""Fields of `SystemStatePacket`, by number."""
SPECIALS = (math.nan, math.inf, -math.inf, -0.0, 3.4028234663852886e38, 1e-45)


def undecodable_bytes() -> st.SearchStrategy[bytes]:
    """Bytes that are certainly no packet: fields of the wrong wire type, cut short, or text that is no UTF-8."""
    bad_text = st.sampled_from((9, 12, 13, 14)).map(lambda field: _field(field, BYTES, b"\x01\xff"))
    cut = st.sampled_from((METRICS, SEEDS, HARDWARE)).map(lambda field: _field(field, BYTES, b"\x7f\x0a"))
    endless = st.sampled_from((EPOCH, STEP)).map(lambda field: _field(field, VARINT, b"\xff" * 11))
    honest = st.just(b"") | training_packets().map(lambda packet: packet.SerializeToString())
    return st.tuples(honest, bad_text | cut | endless).map(b"".join)


def oversized_packets(limits: Limits | None = None) -> st.SearchStrategy[pb.SystemStatePacket]:
    """Packets over exactly one of the limits, by as little as can be; the defaults' when None."""
    most = limits or Limits()
    makers: tuple[Callable[[], pb.SystemStatePacket], ...] = (
        lambda: pb.SystemStatePacket(experiment_name="x" * (most.packet_bytes_max + 1)),
        lambda: pb.SystemStatePacket(seed_states=[pb.SeedState()] * (most.seeds_max + 1)),
        lambda: pb.SystemStatePacket(training_metrics=_numbered(most.metrics_max + 1)),
        lambda: pb.SystemStatePacket(seed_states=[pb.SeedState(metrics=_numbered(most.metrics_max + 1))]),
        lambda: pb.SystemStatePacket(training_run_id="x" * (most.id_chars_max + 1)),
        lambda: pb.SystemStatePacket(seed_states=[pb.SeedState(seed_id="x" * (most.id_chars_max + 1))]),
    )
    return st.sampled_from(makers).map(lambda make: make())


@st.composite
def hostile_packets(draw: st.DrawFn, limits: Limits | None = None) -> bytes:
    """Packets within the limits that are as bad as can be: bytes, since some cannot be written by a message.

    Negative epochs and steps, unknown enum numbers, unknown fields, a field given twice, NaN and infinities in every
    number, maps and lists as large as the limits allow.
    """
    most = limits or Limits()
    value = draw(st.sampled_from(SPECIALS))
    packet = pb.SystemStatePacket(
        training_loss=value, validation_loss=draw(st.sampled_from(SPECIALS)), training_run_id="run-1"
    )
    kind = draw(st.sampled_from(("negative", "enum", "unknown", "twice", "numbers", "maps", "seeds")))
    extra = b""
    if kind == "negative":
        extra = _field(EPOCH, VARINT, _varint(2**64 - 1)) + _field(STEP, VARINT, _varint(2**64 - 1))
    elif kind == "enum":
        seed = _field(1, BYTES, b"\x06seed-1") + _field(2, VARINT, _varint(draw(st.sampled_from((12, 2**31, 2**63)))))
        extra = _field(SEEDS, BYTES, _varint(len(seed)) + seed)
    elif kind == "unknown":
        extra = _field(draw(st.integers(100, 199)), BYTES, b"\x02\x08\x01") + _field(5_000, FIXED32, bytes(4))
    elif kind == "twice":
        extra = _field(9, BYTES, b"\x01a") + _field(9, BYTES, b"\x01b")
    elif kind == "numbers":
        packet.validation_accuracy = value
        packet.hardware_context.total_memory_gb = value
        packet.seed_states.add(seed_id="seed-1", gradient_norm=value, learning_rate=value, risk_score=value)
    elif kind == "maps":
        packet.training_metrics.update(dict.fromkeys(_numbered(most.metrics_max), value))
    else:
        for place in range(min(most.seeds_max, 64)):
            packet.seed_states.add(seed_id=f"seed-{place % 7}", stage=pb.SEED_STAGE_TRAINING, risk_score=value)
    return packet.SerializeToString() + extra


def hostile_bytes(limits: Limits | None = None) -> st.SearchStrategy[bytes]:
    """Anything: bytes of any kind, damaged packets, the undecodable, the oversized and the barely acceptable."""
    damaged = st.tuples(packets(), st.integers(0, 64), st.binary(max_size=8))
    return st.one_of(
        st.binary(max_size=256),
        undecodable_bytes(),
        hostile_packets(limits),
        damaged.map(lambda parts: parts[0].SerializeToString()[: -parts[1] or None] + parts[2]),
        oversized_packets(limits).map(lambda packet: packet.SerializeToString()),
    )


def _numbered(count: int) -> dict[str, float]:
    return {f"metric-{index}": float(index) for index in range(count)}


def _field(number: int, wire_type: int, payload: bytes) -> bytes:
    """One field of the wire: its tag, then `payload` (with its length in front where the type has one)."""
    return _varint(number << 3 | wire_type) + payload


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
