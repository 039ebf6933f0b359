"""The message fabric (Oona) as the controller needs it: one call, and where what goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["EMERGENCY", "NORMAL", "TELEMETRY", "Bus", "Letter", "report_letter", "telemetry_letter"]

NORMAL, EMERGENCY, TELEMETRY = "oona.normal", "oona.emergency", "oona.telemetry"
"""The streams: field reports; telemetry of priority HIGH and CRITICAL; other telemetry."""

URGENT = (pb.MESSAGE_PRIORITY_HIGH, pb.MESSAGE_PRIORITY_CRITICAL)


class Bus(Protocol):
    """What messages are handed to. A call may be slow, fail or hang; the same message may come again."""

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        """Take one message; returns once it is the bus's to keep, and raises where it is not.

        Args:
            stream: one of the streams above.
            message_id: the same whenever the same message comes again, so that a consumer can drop repeats.
            payload: a Leyline message, serialised; the bus puts it into its envelope and signs that.
            attributes: of the envelope: `message_type` (a `BusMessageType` by name) and `priority`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Letter:
    """One message on its way to a bus."""

    stream: str
    message_id: str
    payload: bytes
    attributes: Mapping[str, str]


def telemetry_letter(packet: pb.TelemetryPacket) -> Letter:
    """A telemetry packet under its own id; HIGH and CRITICAL ones are urgent."""
    priority = packet.system_health.indicators["priority"]
    urgent = pb.MessagePriority.Value(priority) in URGENT
    stream, kind = (EMERGENCY if urgent else TELEMETRY), "BUS_MESSAGE_TYPE_TELEMETRY"
    return Letter(stream, packet.packet_id, _bytes(packet), {"message_type": kind, "priority": priority})


def report_letter(report_id: str, report: bytes) -> Letter:
    """A field report under its own id, as it stands in the log."""
    kind, priority = "BUS_MESSAGE_TYPE_FIELD_REPORT", pb.MessagePriority.Name(pb.MESSAGE_PRIORITY_NORMAL)
    return Letter(NORMAL, report_id, report, {"message_type": kind, "priority": priority})


def _bytes(packet: pb.TelemetryPacket) -> bytes:
    return packet.SerializeToString(deterministic=True)
