"""What the host's blueprint says of seeds: which layers they watch, which parameters they may set.

    monitored_layers                              [[seed place, layer, weight?], ...]
    monitors.by_seed_id, monitors.by_seed_index   seed -> [layer or [layer, weight?], ...]
    monitors.thresholds                           risk_max, stage_min: a seed over or under it watches nothing
    capabilities.allowed_parameters_by_seed_id, capabilities.allowed_parameters_by_seed_index
                                                  seed -> [parameter, ...]
    capabilities.allowed_blending_methods         [name or number of a method, ...]

A layer is a place in the list of layers or a `layer_id`, a parameter a place or a `name`. "By seed index" is an
object with numbers for keys, or a list. What names no node is left out and counted; a seed that is not in the packet
is only known from the packet, so its place is judged there.

A list of layers, parameters or methods may be an object of their names as well, each with a value:

    layer                its weight; false: it is not watched, at the seed's depth either; true: it is, without a weight
    parameter, method    whether it is allowed: true or false, or a number, above 0 or not; an object or a list, as
                         bounds are written, allows it. Null allows nothing; nor does text, and it is counted

A place is such a name, too, in digits, where no node is called so: JSON has no other keys. Methods and stages are meant
in any case of letters. Where the rules are those without values (`MetadataRules`), the names of such an object are read
as a list of them and are never places, there is no object of methods, methods are written small and stages large.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias, TypeVar

from tamiyo.core.limits import TEXT_CHARS_MAX
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.core.thresholds import single
from tamiyo.graph.metadata import EDGES_MAX, Places, Tally, is_list, number, place_in, section, text
from tamiyo.graph.rules import MetadataRules
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["NO_TIES", "Monitored", "Ties", "read_ties"]

Monitored = dict[int, float | None]
"""Layers with their weights, NaN where none is given, None for one not watched; the first mention of a layer counts."""

_PLACE_DIGITS_MAX = 6
"""A packet has fewer seeds than a number of so many digits can say."""


@dataclass(frozen=True, slots=True)
class Ties:
    """Read once for each digest. Places are the blueprint's own.

    `risk_max` is infinite and `stage_min` 0 where nothing is asked. `blending_methods` says 1 or 0 of each method,
    None where nothing is said.
    """

    monitored_layers: Mapping[int, Monitored] = field(default_factory=dict)
    monitored_by_id: Mapping[str, Monitored] = field(default_factory=dict)
    monitored_by_place: Mapping[int, Monitored] = field(default_factory=dict)
    risk_max: float = math.inf
    stage_min: float = 0.0
    allowed_by_id: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    allowed_by_place: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    blending_methods: tuple[float, ...] | None = None

    def monitored(self, place: int, seed_id: str) -> Monitored:
        """The layers that are named for a seed, those that it does not watch as well; empty where none is."""
        found: Monitored = {}
        for named in (
            self.monitored_layers.get(place, {}),
            self.monitored_by_id.get(seed_id, {}),
            self.monitored_by_place.get(place, {}),
        ):
            for layer, weight in named.items():
                found.setdefault(layer, weight)
        return found

    def allowed(self, place: int, seed_id: str) -> tuple[int, ...] | None:
        """The parameters that are named for a seed, by its id before its place; None where nothing is said of it."""
        named = self.allowed_by_id.get(seed_id)
        return self.allowed_by_place.get(place) if named is None else named

    def is_watching(self, stage: int, risk: float) -> bool:
        """Whether the thresholds let a seed watch; a risk that is no number is over every bound."""
        return stage >= self.stage_min and (self.risk_max == math.inf or risk <= self.risk_max)

    def beyond(self, seeds: int) -> int:
        """How many entries are for a place that a packet of `seeds` seeds does not have."""
        tables: tuple[Mapping[int, object], ...] = (
            self.monitored_layers,
            self.monitored_by_place,
            self.allowed_by_place,
        )
        return sum(place >= seeds for table in tables for place in table)


NO_TIES = Ties()


def read_ties(
    metadata: Mapping[str, object],
    layers: Places,
    parameters: Places,
    tally: Tally,
    rules: MetadataRules,
) -> Ties:
    """The ties that a blueprint's metadata states."""

    def watched(row: _Row) -> Monitored:
        if rules.has_values and isinstance(row, Mapping):
            return _valued(row, layers, tally)
        return _weighted(tuple(row), layers, tally)

    def allowed(row: _Row) -> tuple[int, ...]:
        if rules.has_values and isinstance(row, Mapping):
            return _plain(_granted(row, parameters, tally), parameters, tally)
        return _plain(tuple(row), parameters, tally)

    monitors, capabilities = section(metadata, "monitors", tally), section(metadata, "capabilities", tally)
    thresholds = section(monitors, "thresholds", tally)
    risk_max = number(thresholds, "risk_max", tally)
    allowed_by_id, allowed_by_place = (
        capabilities.get(f"allowed_parameters_by_seed_{name}") for name in ("id", "index")
    )
    return Ties(
        monitored_layers=_monitored_layers(metadata.get("monitored_layers"), layers, tally),
        monitored_by_id=_table(monitors.get("by_seed_id"), _seed_id, watched, tally),
        monitored_by_place=_table(monitors.get("by_seed_index"), _place, watched, tally),
        risk_max=math.inf if math.isnan(risk_max) else single(risk_max) if rules.has_singles else risk_max,
        stage_min=_stage(thresholds.get("stage_min"), tally, rules),
        allowed_by_id=_table(allowed_by_id, _seed_id, allowed, tally),
        allowed_by_place=_table(allowed_by_place, _place, allowed, tally),
        blending_methods=_methods(capabilities.get("allowed_blending_methods"), tally, rules),
    )


Key = TypeVar("Key", str, int)
Value = TypeVar("Value")
_Row: TypeAlias = Sequence[object] | Mapping[object, object]
"""What is given for one seed: a list, or an object of names."""


def _table(
    listed: object,
    key_of: Callable[[object], Key | None],
    read: Callable[[_Row], Value],
    tally: Tally,
) -> dict[Key, Value]:
    """One row for each seed; rows past `EDGES_MAX` entries in all are left out and counted."""
    found: dict[Key, Value] = {}
    room = EDGES_MAX
    for name, row in _items(listed, tally):
        if row is None:
            continue
        key = key_of(name)
        if key is None or not (is_list(row) or isinstance(row, Mapping)) or len(row) > room:
            tally.add()
            continue
        room -= len(row) + 1
        found[key] = read(row)
    return found


def _items(listed: object, tally: Tally) -> Iterable[tuple[object, object]]:
    if listed is None:
        return ()
    if isinstance(listed, Mapping):
        return listed.items()
    if is_list(listed):
        return enumerate(listed)
    tally.add()
    return ()


def _monitored_layers(listed: object, layers: Places, tally: Tally) -> dict[int, Monitored]:
    found: dict[int, Monitored] = {}
    if not is_list(listed):
        tally.add(int(listed is not None))
        return found
    tally.add(max(len(listed) - EDGES_MAX, 0))
    for item in listed[:EDGES_MAX]:
        row = item if is_list(item) and 2 <= len(item) <= 3 else (None,)
        place = _place(row[0])
        if place is None:
            tally.add()
        else:
            _watch(found.setdefault(place, {}), row[1:], layers, tally)
    return found


def _valued(row: Mapping[object, object], layers: Places, tally: Tally) -> Monitored:
    """An object of layers."""
    found: Monitored = {}
    for key, value in row.items():
        name = _key(key, layers)
        if value is not False:
            _watch(found, (name,) if value is True else (name, value), layers, tally)
        elif (layer := layers.of(name)) is not None:
            found.setdefault(layer, None)
    return found


def _key(key: object, nodes: Places) -> object:
    """What an object's key means: the node of that name before the one at that place."""
    place = _place(key) if isinstance(key, str) and nodes.of(key) is None else None
    return key if place is None else place


def _weighted(row: Sequence[object], layers: Places, tally: Tally) -> Monitored:
    found: Monitored = {}
    for item in row:
        _watch(found, item if is_list(item) else (item,), layers, tally)
    return found


def _watch(found: Monitored, entry: Sequence[object], layers: Places, tally: Tally) -> None:
    layer = layers.of(entry[0]) if 1 <= len(entry) <= 2 else None
    if layer is None:
        tally.add()
    else:
        found.setdefault(layer, number({"weight": entry[1]}, "weight", tally) if len(entry) > 1 else math.nan)


def _granted(row: Mapping[object, object], nodes: Places, tally: Tally) -> list[object]:
    """The names or places in an object that it allows."""
    return [_key(key, nodes) for key, value in row.items() if _is_allowed(value, tally)]


def _is_allowed(value: object, tally: Tally) -> bool:
    if isinstance(value, bool):
        return value
    if is_list(value) or isinstance(value, Mapping):
        return True
    return number({"amount": value}, "amount", tally) > 0.0  # NaN, for what is no number, is not


def _plain(row: Sequence[object], parameters: Places, tally: Tally) -> tuple[int, ...]:
    places = [parameters.of(item) for item in row]
    tally.add(places.count(None))
    return tuple(dict.fromkeys(place for place in places if place is not None))


def _seed_id(name: object) -> str | None:
    return name if isinstance(name, str) and 0 < len(name) <= TEXT_CHARS_MAX else None


def _place(name: object) -> int | None:
    if isinstance(name, str):
        return int(name) if len(name) <= _PLACE_DIGITS_MAX and name.isascii() and name.isdigit() else None
    return place_in(name, 10**_PLACE_DIGITS_MAX)


def _stage(value: object, tally: Tally, rules: MetadataRules) -> float:
    """A stage as a number or by its name in Leyline, with or without the prefix."""
    if isinstance(value, str):
        stages, name = pb.SeedLifecycleStage.DESCRIPTOR.values_by_name, text({"stage": value}, "stage", Tally())
        name = name.upper() if rules.has_values else name
        known = stages.get(name) or stages.get(f"SEED_STAGE_{name}")  # what has no UTF-8 they cannot be asked for
        tally.add(int(known is None))
        return float(known.number) if known is not None else 0.0
    stage = number({"stage": value}, "stage", tally)
    return 0.0 if math.isnan(stage) else stage


def _methods(listed: object, tally: Tally, rules: MetadataRules) -> tuple[float, ...] | None:
    """A list without a method that there is here allows none: its host asks for another."""
    methods = Places(BLENDING_METHODS)
    if rules.has_values and isinstance(listed, Mapping):
        names: Sequence[object] = _granted(dict(islice(listed.items(), EDGES_MAX)), methods, tally)
    elif is_list(listed):
        names = listed[:EDGES_MAX]
    else:
        tally.add(int(listed is not None))
        return None
    written = (name.lower() if rules.has_values and isinstance(name, str) else name for name in names)
    places = [methods.of(name) for name in written]
    tally.add(places.count(None) + max(len(listed) - EDGES_MAX, 0))
    return tuple(float(place in places) for place in range(methods.count))
