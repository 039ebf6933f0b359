"""Feature coverage: how much of what a graph could have known was there.

A count is (family, feature, present, total), over the features that apply: hardware the host lacks and node
types without nodes are not counted at all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

__all__ = ["Count", "Coverage", "average", "by_family"]

Count = tuple[str, str, int, int]
MAP_BYTES_MAX = 1_024
BELOW_ONE = 0.999
"""What lacks next to nothing is still below 1 in the map."""


def average(counts: Iterable[Count]) -> float:
    """sum(present) / sum(total), from 0 to 1; 0 where nothing applies."""
    present = total = 0
    for _, _, part_present, part_total in counts:
        present += part_present
        total += part_total
    return present / total if total else 0.0


def by_family(counts: Iterable[Count]) -> dict[str, float]:
    """The same for each family to which anything applies, in the order of first sight."""
    families: dict[str, tuple[int, int]] = {}
    for family, _, present, total in counts:
        before = families.get(family, (0, 0))
        families[family] = (before[0] + present, before[1] + total)
    return {family: present / total for family, (present, total) in families.items() if total}


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """A graph's coverage, added up once: on average, by family, and the features that fall short.

    Told apart by identity: whoever sums up keeps one object for equal counts, and it is a key of what follows.
    """

    average: float
    families: Mapping[str, float]
    annotations: Mapping[str, str]
    """What every command says of its inputs: three decimals, JSON with names in order, the map up to 1 KiB."""

    @classmethod
    def of(cls, counts: Sequence[Count]) -> Self:
        """Add the counts up."""
        mean, families = average(counts), by_family(counts)
        partial = sorted((p / t, f"{family}.{feature}") for family, feature, p, t in counts if p < t)
        notes = {
            "feature_coverage": f"{mean:.3f}",
            "coverage_types": _compact({family: round(families[family], 3) for family in sorted(families)}),
            "coverage_map": _map(partial),
        }
        return cls(mean, MappingProxyType(families), MappingProxyType(notes))


def _map(partial: Sequence[tuple[float, str]]) -> str:
    """The features below 1.0, lowest first, then by name, as many as fit; the others counted under "_omitted"."""
    shown, size = [], len("{}")
    reserved = len(f'"_omitted":{len(partial)}')
    for place, (share, name) in enumerate(partial, start=1):
        entry = f"{json.dumps(name)}:{min(round(share, 3), BELOW_ONE)!r}"
        size += len(entry) + len(",")  # json.dumps writes ASCII, so characters are bytes
        if size + (0 if place == len(partial) else reserved) > MAP_BYTES_MAX:
            break
        shown.append(entry)
    if len(shown) < len(partial):
        shown.append(f'"_omitted":{len(partial) - len(shown)}')
    return "{" + ",".join(shown) + "}"


def _compact(value: Mapping[str, float]) -> str:
    return json.dumps(value, separators=(",", ":"))
