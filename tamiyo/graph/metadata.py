"""Reading a blueprint's `graph_metadata`: whatever it holds, something sensible comes out, and what was bad is counted.

Absent is silent; a value of the wrong type, an index out of range and an entry over a cap count as ignored.

A column is read at once where all of it is as it should be, and value by value where it is not: the two give the
same, and only the second has to be able to say what is wrong.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from typing import Any, TypeGuard

import numpy as np
import orjson

from tamiyo.core.limits import TEXT_CHARS_MAX
from tamiyo.graph.graph import IndexArray, RawArray

__all__ = [
    "EDGES_MAX",
    "METADATA_BYTES_MAX",
    "NODES_MAX",
    "Places",
    "Tally",
    "connections",
    "entries",
    "is_list",
    "number",
    "numbers",
    "parse_metadata",
    "place_in",
    "section",
    "text",
    "texts",
]

METADATA_BYTES_MAX = 8 * 2**20
NODES_MAX = 4_096
"""Layers, activations and parameters of one graph, each."""
EDGES_MAX = 65_536
"""Edges of one relation that a blueprint may list or bring about."""

_NOTHING: Mapping[str, object] = {}
_WHOLE_MAX = 2.0**1023
"""Beyond, a whole number is taken for no number: the largest ones have no float."""


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
    if not is_list(listed):
        tally.add()
        return []
    tally.add(max(len(listed) - NODES_MAX, 0))
    taken: list[Any] = [*listed[:NODES_MAX]]
    return taken if set(map(type, taken)) == {dict} else [_entry(item, tally) for item in taken]


def section(metadata: Mapping[str, object], key: str, tally: Tally) -> Mapping[str, object]:
    """The object under a key, empty where there is none."""
    value = metadata.get(key)
    return _NOTHING if value is None else _entry(value, tally)


def number(entry: Mapping[str, object], key: str, tally: Tally) -> float:
    """A number as it came, NaN where there is none."""
    return _number(entry.get(key), tally)


def numbers(rows: Sequence[Mapping[str, object]], keys: Sequence[str], tally: Tally) -> RawArray:
    """`number` of every row for every key, float64 [N, K]."""
    try:
        values: Any = chain.from_iterable(map(itemgetter(*keys), rows))  # in most blueprints every row has all of them
        return _numbers(list(values), tally).reshape(-1, len(keys))
    except KeyError:
        columns = [_numbers(_values(rows, key), tally) for key in keys]
        return np.stack(columns, axis=1)


def text(entry: Mapping[str, object], key: str, tally: Tally) -> str:
    """A name that a registry can hold, "" where there is none."""
    return _text(entry.get(key), tally)


def texts(rows: Sequence[Mapping[str, object]], key: str, tally: Tally) -> list[str]:
    """`text` of every row."""
    values = _values(rows, key)
    if values.count(None) == len(values):
        return [""] * len(values)
    return values if _are_names(values) else [_text(value, tally) for value in values]


class Places:
    """A list of nodes by their names: what in the metadata points at one of them says its place or its name."""

    __slots__ = ("_by_name", "count", "names")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.count = len(names)
        self._by_name: dict[str, int] | None = None

    @property
    def by_name(self) -> Mapping[str, int]:
        """The first place of every name that is not empty; made when it is first asked for."""
        if self._by_name is None:
            self._by_name = dict(zip(reversed(self.names), range(self.count - 1, -1, -1), strict=True))
            self._by_name.pop("", None)
        return self._by_name

    def of(self, value: object) -> int | None:
        """The node that is meant; None where it is none of these."""
        if type(value) is int:  # nearly all are
            return value if 0 <= value < self.count else None
        return self.by_name.get(value) if isinstance(value, str) else place_in(value, self.count)


def place_in(value: object, count: int) -> int | None:
    """A whole number from 0 and below `count`; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count else None


def connections(metadata: Mapping[str, object], layers: Places, tally: Tally) -> tuple[IndexArray, RawArray]:
    """`adjacency.layer`: int64 [2, E] and strengths, float64 [E], NaN for none; without a list, the chain of layers."""
    listed = section(metadata, "adjacency", tally).get("layer")
    if not is_list(listed):
        tally.add(int(listed is not None))
        chained = np.arange(max(layers.count - 1, 0), dtype=np.int64)
        return np.stack([chained, chained + 1]), np.full(len(chained), math.nan)
    tally.add(max(len(listed) - EDGES_MAX, 0))
    taken = listed[:EDGES_MAX]
    found = _regular(taken, layers.count)
    if found is None:
        read = [edge for edge in (_connection(item, layers, tally) for item in taken) if edge is not None]
        return _edges(read), np.array([strength for *_, strength in read], dtype=np.float64)
    sources, targets, strengths = found
    return np.stack([sources, targets]), strengths if isinstance(strengths, np.ndarray) else _numbers(strengths, tally)


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value is what JSON calls an array."""
    return isinstance(value, list | tuple)


def _values(rows: Sequence[Mapping[str, object]], key: str) -> list[Any]:
    try:
        return list(map(itemgetter(key), rows))  # in nearly all blueprints every row has the key, or none has
    except KeyError:
        return [row.get(key) for row in rows]


def _numbers(values: Sequence[object], tally: Tally) -> RawArray:
    kinds = set(map(type, values))
    if kinds <= {float, int, type(None)}:
        with suppress(OverflowError):  # a whole number without a float
            read: RawArray = np.array(values, dtype=np.float64)  # None becomes NaN
            if int not in kinds or not (np.abs(read) >= _WHOLE_MAX).any():
                return read
    return np.array([_number(value, tally) for value in values], dtype=np.float64)


def _are_names(values: Sequence[str]) -> bool:
    try:
        joined = "".join(values)
    except TypeError:  # one of them is no text
        return False
    return max(map(len, values)) <= TEXT_CHARS_MAX and _is_encodable(joined)


def _regular(listed: Sequence[object], layers: int) -> tuple[IndexArray, IndexArray, RawArray | list[object]] | None:
    """Sources, targets and strengths of edges that are all good; None where one of them has to be looked at."""
    if not set(map(type, listed)) <= {list, tuple}:
        return None
    rows: Sequence[Any] = listed
    widths = set(map(len, rows))
    if not widths <= {2, 3}:
        return None
    if widths == {2, 3}:
        rows = [row if len(row) == 3 else (*row, None) for row in rows]
    width = max(widths, default=2)
    flat = list(chain.from_iterable(rows))
    ends = [_all_places(flat[place::width], layers) for place in (0, 1)]
    if ends[0] is None or ends[1] is None:
        return None
    return ends[0], ends[1], flat[2::3] if width == 3 else np.full(len(ends[0]), math.nan)


def _all_places(values: Sequence[Any], count: int) -> IndexArray | None:
    if not set(map(type, values)) <= {int}:
        return None
    with suppress(OverflowError):
        places = np.array(values, dtype=np.int64)
        if places.min(initial=0) >= 0 and places.max(initial=-1) < count:
            return places
    return None


def _connection(item: object, layers: Places, tally: Tally) -> tuple[int, int, float] | None:
    if is_list(item) and 2 <= len(item) <= 3:
        source, target = map(layers.of, item[:2])
        if source is not None and target is not None:
            return source, target, _number(item[2], tally) if len(item) == 3 else math.nan
    tally.add()
    return None


def _edges(read: Sequence[tuple[int, int, float]]) -> IndexArray:
    return np.array([(source, target) for source, target, _ in read], dtype=np.int64).reshape(-1, 2).T.copy()


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
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _WHOLE_MAX:
        return float(value)
    tally.add()
    return math.nan


def _text(value: object, tally: Tally) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and len(value) <= TEXT_CHARS_MAX and _is_encodable(value):
        return value
    tally.add()
    return ""


def _is_encodable(value: str) -> bool:
    """Lone surrogates have no UTF-8, and so no place in the journal."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
