"""Feature coverage: how much of what a graph could have known was there.

A count is (family, feature, present, total), over the features that apply: hardware the host lacks and node
types without nodes are not counted at all.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Coverage:
    """A graph's coverage, added up once: on average, by family, and the features that fall short."""

    average: float
    families: Mapping[str, float]
    partial: Sequence[tuple[float, str]]  # (share, "family.feature"), lowest first, then by name

    @classmethod
    def of(cls, counts: Sequence[Count]) -> Self:
        """Add the counts up."""
        partial = [(p / t, f"{family}.{feature}") for family, feature, p, t in counts if p < t]
        partial.sort()
        return cls(average(counts), by_family(counts), partial)

    def annotations(self) -> dict[str, str]:
        """What every command says of its inputs: three decimals, JSON with names in order, the map up to 1 KiB."""
        return {
            "feature_coverage": f"{self.average:.3f}",
            "coverage_types": _compact({family: round(self.families[family], 3) for family in sorted(self.families)}),
            "coverage_map": self._map(),
        }

    def _map(self) -> str:
        """The features below 1.0, lowest first, as many as fit; the others are counted under "_omitted"."""
        shown, size = [], len("{}")
        reserved = len(f'"_omitted":{len(self.partial)}')
        for place, (share, name) in enumerate(self.partial, start=1):
            entry = f"{json.dumps(name)}:{min(round(share, 3), BELOW_ONE)!r}"
            size += len(entry) + len(",")  # json.dumps writes ASCII, so characters are bytes
            if size + (0 if place == len(self.partial) else reserved) > MAP_BYTES_MAX:
                break
            shown.append(entry)
        if len(shown) < len(self.partial):
            shown.append(f'"_omitted":{len(self.partial) - len(shown)}')
        return "{" + ",".join(shown) + "}"


def _compact(value: Mapping[str, float]) -> str:
    return json.dumps(value, separators=(",", ":"))
