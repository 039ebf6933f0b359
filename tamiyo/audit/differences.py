"""Two messages compared field by field: floats by bit pattern, embedded Leyline bytes as the messages they hold."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.message import DecodeError, Message

from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.words import counted

__all__ = ["Difference", "differences"]

EMBEDDED: Mapping[tuple[str, str], type[Message]] = MappingProxyType(
    {
        ("DecisionMade", "command"): pb.AdaptationCommand,
        ("FieldReportIssued", "report"): pb.FieldReport,
    }
)
"""Bytes fields that hold a message: (journal message, field)."""

ABSENT = "absent"
NEAR_ULPS = 2**20
"""So near, two floats may be the same number computed otherwise; past that the distance says nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs; `ulps` is the distance in units in the last place where both are floats."""

    path: str
    expected: str
    actual: str
    ulps: int | None = None

    def __str__(self) -> str:
        """In words."""
        is_near = self.ulps is not None and self.ulps <= NEAR_ULPS
        distance = f" ({counted(self.ulps or 0, 'ULP', 'ULP')} apart)" if is_near else ""
        return f"{self.path}: recomputed {self.expected}, recorded {self.actual}{distance}"


def differences(expected: Message, actual: Message, path: str = "") -> Iterator[Difference]:
    """Every field in which `actual` differs from `expected`, in field order; of another type, the type itself."""
    if expected.DESCRIPTOR.full_name != actual.DESCRIPTOR.full_name:
        yield Difference(path or "event", expected.DESCRIPTOR.name, actual.DESCRIPTOR.name)
        return
    name = expected.DESCRIPTOR.name
    for field in expected.DESCRIPTOR.fields:
        embedded = EMBEDDED.get((name, field.name))
        here = f"{path}.{field.name}" if path else field.name
        left, right = _value(expected, field.name), _value(actual, field.name)
        if embedded is not None and left != right:
            recomputed, recorded = getattr(expected, field.name), getattr(actual, field.name)
            yield from _embedded(embedded, recomputed, recorded, here)
        else:
            yield from _values(left, right, here)


def _value(message: Message, name: str) -> object:
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: value[key] for key in sorted(value)}
    return list(value) if field.is_repeated else value


def _embedded(kind: type[Message], left: bytes, right: bytes, path: str) -> Iterator[Difference]:
    try:
        yield from differences(kind.FromString(left), kind.FromString(right), path)
    except DecodeError:
        yield Difference(path, left.hex(), right.hex())


def _values(left: object, right: object, path: str) -> Iterator[Difference]:
    if isinstance(left, Message) and isinstance(right, Message):
        yield from differences(left, right, path)
    elif isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            yield from _values(left.get(key), right.get(key), f"{path}[{key!r}]")
    elif isinstance(left, list) and isinstance(right, list):
        for index in range(max(len(left), len(right))):
            a = left[index] if index < len(left) else None
            b = right[index] if index < len(right) else None
            yield from _values(a, b, f"{path}[{index}]")
    elif isinstance(left, float) and isinstance(right, float):
        if _bits(left) != _bits(right):
            yield Difference(path, repr(left), repr(right), ulps=abs(_ordered(left) - _ordered(right)))
    elif left != right:
        yield Difference(path, _shown(left), _shown(right))


def _shown(value: object) -> str:
    return ABSENT if value is None else repr(value) if not isinstance(value, Message) else str(value).strip()


def _bits(value: float) -> bytes:
    return struct.pack(">d", value)


def _ordered(value: float) -> int:
    """The float's place among all floats, so that neighbours differ by one."""
    bits = int.from_bytes(_bits(value), "big")
    return bits if bits < 1 << 63 else (1 << 63) - bits
