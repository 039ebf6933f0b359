"""A packet, read once at the door: frozen, with absence made explicit.

proto3 scalars have no presence, so this module holds the rule for each field. 0 means absent for losses,
accuracy, gradient norms, learning rates and hardware; it is a value for ages, depths, risk and steps.
Map entries are present when they are there. Values that are present but not finite are kept as they
are: the risk table has to see them, and the graph masks them.

What is made for every packet is a named tuple, by position: a frozen dataclass takes five times as long to make.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from google.protobuf.message import DecodeError

from tamiyo.core.limits import UNLIMITED, Limits
from tamiyo.errors import PacketRejected
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Hardware", "Observation", "Seed", "read_packet"]


_NO_METRICS: Mapping[str, float] = MappingProxyType({})


class Hardware(NamedTuple):
    """What the host says of its device; None where it says nothing."""

    device_type: str
    device_id: str
    total_memory_gb: float | None
    available_memory_gb: float | None
    temperature_celsius: float | None
    utilization_percent: float | None
    compute_capability: int | None


class Seed(NamedTuple):
    """One seed as its manager exported it."""

    seed_id: str
    stage: int  # leyline SeedLifecycleStage; an unknown number stays as it came
    gradient_norm: float | None
    learning_rate: float | None
    layer_depth: int
    age_epochs: int
    risk_score: float
    metrics: Mapping[str, float]


class Observation(NamedTuple):
    """One packet: everything a decision may read of it."""

    packet_id: str
    training_run_id: str
    experiment_name: str
    source_subsystem: str
    current_epoch: int
    global_step: int
    timestamp_ns: int
    training_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    hardware: Hardware | None
    metrics: Mapping[str, float]
    seeds: tuple[Seed, ...]


def read_packet(data: bytes, limits: Limits) -> Observation:
    """Parse and check one `SystemStatePacket`.

    Raises:
        PacketRejected: the bytes do not parse, or the packet is over one of `limits`.
    """
    if len(data) > limits.packet_bytes_max:
        raise PacketRejected(
            f"a packet of {len(data)} bytes is over the limit of {limits.packet_bytes_max}; send fewer seeds or metrics"
        )
    packet = pb.SystemStatePacket()
    try:
        packet.ParseFromString(data)
    except DecodeError as error:
        raise PacketRejected(
            f"{len(data)} bytes do not parse as esper.leyline.v1.SystemStatePacket: {error}; "
            "send the packet's SerializeToString()"
        ) from error
    _require("seeds", len(packet.seed_states), limits.seeds_max)  # before they are touched: each is an object then
    seeds = packet.seed_states[:]  # a slice: half the time of going through the field
    if limits is not UNLIMITED:
        _check_counts(packet, seeds, limits)
    return Observation(
        packet.packet_id,
        packet.training_run_id,
        packet.experiment_name,
        packet.source_subsystem,
        packet.current_epoch,
        packet.global_step,
        packet.timestamp_ns,
        packet.training_loss or None,
        packet.validation_loss or None,
        packet.validation_accuracy or None,
        _hardware(packet.hardware_context) if packet.HasField("hardware_context") else None,
        _metrics(packet.training_metrics),
        tuple([_seed(seed) for seed in seeds]),
    )


def _check_counts(packet: pb.SystemStatePacket, seeds: Sequence[pb.SeedState], limits: Limits) -> None:
    ids = [len(packet.packet_id), len(packet.training_run_id), *[len(seed.seed_id) for seed in seeds]]
    counts = (
        ("training metrics", len(packet.training_metrics), limits.metrics_max),
        ("metrics of one seed", max([len(seed.metrics) for seed in seeds], default=0), limits.metrics_max),
        ("characters of an id", max(ids), limits.id_chars_max),
    )
    for what, count, most in counts:
        _require(what, count, most)


def _require(what: str, count: int, most: int) -> None:
    if count > most:
        raise PacketRejected(f"a packet with {count} {what} is over the limit of {most}")


def _hardware(context: pb.HardwareContext) -> Hardware:
    return Hardware(
        context.device_type,
        context.device_id,
        context.total_memory_gb or None,
        context.available_memory_gb or None,
        context.temperature_celsius or None,
        context.utilization_percent or None,
        context.compute_capability or None,
    )


def _seed(seed: pb.SeedState) -> Seed:
    return Seed(
        seed.seed_id,
        seed.stage,
        seed.gradient_norm or None,
        seed.learning_rate or None,
        seed.layer_depth,
        seed.age_epochs,
        seed.risk_score,
        _metrics(seed.metrics),
    )


def _metrics(entries: Mapping[str, float]) -> Mapping[str, float]:
    return MappingProxyType({name: entries[name] for name in entries}) if entries else _NO_METRICS  # faster than `dict`
