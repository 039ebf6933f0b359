"""A packet, read once at the door: frozen, with absence made explicit.

proto3 scalars have no presence, so this module holds the rule for each field. 0 means absent for losses,
accuracy, gradient norms, learning rates and hardware; it is a value for ages, depths, risk and steps.
Map entries are present when they are there. Values that are present but not finite are kept as they
are: the risk table has to see them, and the graph masks them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.message import DecodeError

from tamiyo.core.limits import UNLIMITED, Limits
from tamiyo.errors import PacketRejected
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Hardware", "Observation", "Seed", "read_packet"]


_NO_METRICS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the host says of its device; None where it says nothing."""

    device_type: str
    device_id: str
    total_memory_gb: float | None
    available_memory_gb: float | None
    temperature_celsius: float | None
    utilization_percent: float | None
    compute_capability: int | None


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed as its manager exported it; `index` is its place in the packet."""

    index: int
    seed_id: str
    stage: int  # leyline SeedLifecycleStage; an unknown number stays as it came
    gradient_norm: float | None
    learning_rate: float | None
    layer_depth: int
    age_epochs: int
    risk_score: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Observation:
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
    if limits is not UNLIMITED:
        _check_counts(packet, limits)
    return Observation(
        packet_id=packet.packet_id,
        training_run_id=packet.training_run_id,
        experiment_name=packet.experiment_name,
        source_subsystem=packet.source_subsystem,
        current_epoch=packet.current_epoch,
        global_step=packet.global_step,
        timestamp_ns=packet.timestamp_ns,
        training_loss=_present(packet.training_loss),
        validation_loss=_present(packet.validation_loss),
        validation_accuracy=_present(packet.validation_accuracy),
        hardware=_hardware(packet.hardware_context) if packet.HasField("hardware_context") else None,
        metrics=_metrics(packet.training_metrics),
        seeds=tuple([_seed(index, seed) for index, seed in enumerate(packet.seed_states)]),
    )


def _check_counts(packet: pb.SystemStatePacket, limits: Limits) -> None:
    counts = (
        ("seeds", len(packet.seed_states), limits.seeds_max),
        ("training metrics", len(packet.training_metrics), limits.metrics_max),
        (
            "metrics of one seed",
            max((len(s.metrics) for s in packet.seed_states), default=0),
            limits.metrics_max,
        ),
        ("characters of an id", _longest_id(packet), limits.id_chars_max),
    )
    for what, count, most in counts:
        if count > most:
            raise PacketRejected(f"a packet with {count} {what} is over the limit of {most}")


def _longest_id(packet: pb.SystemStatePacket) -> int:
    ids = (packet.packet_id, packet.training_run_id, *(seed.seed_id for seed in packet.seed_states))
    return max(map(len, ids))


def _present(value: float) -> float | None:
    return None if value == 0.0 else value


def _hardware(context: pb.HardwareContext) -> Hardware:
    return Hardware(
        device_type=context.device_type,
        device_id=context.device_id,
        total_memory_gb=_present(context.total_memory_gb),
        available_memory_gb=_present(context.available_memory_gb),
        temperature_celsius=_present(context.temperature_celsius),
        utilization_percent=_present(context.utilization_percent),
        compute_capability=context.compute_capability or None,
    )


def _seed(index: int, seed: pb.SeedState) -> Seed:
    return Seed(
        index=index,
        seed_id=seed.seed_id,
        stage=seed.stage,
        gradient_norm=_present(seed.gradient_norm),
        learning_rate=_present(seed.learning_rate),
        layer_depth=seed.layer_depth,
        age_epochs=seed.age_epochs,
        risk_score=seed.risk_score,
        metrics=_metrics(seed.metrics),
    )


def _metrics(entries: Mapping[str, float]) -> Mapping[str, float]:
    return MappingProxyType(dict(entries)) if entries else _NO_METRICS
