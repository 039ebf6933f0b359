"""Reading a blueprint's `graph_metadata`: whatever it holds, something sensible comes out, and what was bad is counted.

Absent is silent; a value of the wrong type, an index out of range and an entry over a cap count as ignored.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import orjson

from tamiyo.core.limits import TEXT_CHARS_MAX

__all__ = [
    "EDGES_MAX",
    "METADATA_BYTES_MAX",
    "NODES_MAX",
    "Tally",
    "connections",
    "entries",
    "number",
    "parse_metadata",
    "text",
]

METADATA_BYTES_MAX = 8 * 2**20
NODES_MAX = 4_096
"""Layers, activations and parameters of one graph, each."""
EDGES_MAX = 65_536
"""Edges of one relation that a blueprint may list or bring about."""

_NOTHING: Mapping[str, object] = {}


class Tally:
    """Counts what was left out."""

    __slots__ = ("ignored",)

    def __init__(self) -> None:
        self.ignored = 0

    def add(self, count: int = 1) -> None:
        """Count `count` more."""
        self.ignored += count


def parse_metadata(data: bytes) -> Mapping[str, object]:
    """The metadata as an object; empty when the bytes are too many, no JSON, or another kind of JSON value."""
    if not data or len(data) > METADATA_BYTES_MAX:
        return {}
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def entries(metadata: Mapping[str, object], key: str, tally: Tally) -> list[Mapping[str, object]]:
    """The objects of a list. One that is no object keeps its place as an empty one, so that indices still fit."""
    listed = metadata.get(key)
    if listed is None:
        return []
    if not _is_list(listed):
        tally.add()
        return []
    tally.add(max(len(listed) - NODES_MAX, 0))
    return [_entry(item, tally) for item in listed[:NODES_MAX]]


def number(entry: Mapping[str, object], key: str, tally: Tally) -> float:
    """A number as it came, NaN where there is none."""
    return _number(entry.get(key), tally)


def text(entry: Mapping[str, object], key: str, tally: Tally) -> str:
    """A name that a registry can hold, "" where there is none."""
    value = entry.get(key)
    if value is None:
        return ""
    if isinstance(value, str) and len(value) <= TEXT_CHARS_MAX and _is_encodable(value):
        return value
    tally.add()
    return ""


def connections(metadata: Mapping[str, object], layers: int, tally: Tally) -> list[tuple[int, int, float]]:
    """`adjacency.layer` as (source, target, strength or NaN); the chain of layers where it lists nothing."""
    adjacency = metadata.get("adjacency")
    if adjacency is not None and not isinstance(adjacency, Mapping):
        tally.add()
    listed = adjacency.get("layer") if isinstance(adjacency, Mapping) else None
    if not _is_list(listed):
        tally.add(int(listed is not None))
        return [(place, place + 1, math.nan) for place in range(layers - 1)]
    tally.add(max(len(listed) - EDGES_MAX, 0))
    read = (_connection(item, layers, tally) for item in listed[:EDGES_MAX])
    return [edge for edge in read if edge is not None]


def _connection(item: object, layers: int, tally: Tally) -> tuple[int, int, float] | None:
    if not _is_list(item) or not 2 <= len(item) <= 3 or not (_is_place(item[0], layers) and _is_place(item[1], layers)):
        tally.add()
        return None
    return int(item[0]), int(item[1]), _number(item[2], tally) if len(item) == 3 else math.nan


def _entry(item: object, tally: Tally) -> Mapping[str, object]:
    if isinstance(item, Mapping):
        return item
    tally.add()
    return _NOTHING


def _number(value: object, tally: Tally) -> float:
    if value is None:
        return math.nan
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023:
        return float(value)
    tally.add()
    return math.nan


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)


def _is_place(value: object, count: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _is_encodable(value: str) -> bool:
    """Lone surrogates have no UTF-8, and so no place in the journal."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
