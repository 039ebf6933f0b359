"""Feature coverage: how much of what a graph could have known was there.

A count is (family, feature, present, total), over the features that apply: hardware the host lacks and node
types without nodes are not counted at all.
"""

import json
from collections.abc import Iterable, Sequence

__all__ = ["Count", "average", "by_family", "coverage_map", "types_json"]

Count = tuple[str, str, int, int]
MAP_BYTES_MAX = 1_024


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


def types_json(counts: Iterable[Count]) -> str:
    """Coverage by family as a JSON object, three decimals, families in name order."""
    families = by_family(counts)
    return _compact({family: round(families[family], 3) for family in sorted(families)})


def coverage_map(counts: Sequence[Count]) -> str:
    """The features below 1.0, lowest first, as a JSON object of up to 1 KiB; what does not fit is counted.

    The count stands under "_omitted" at the end. Names are `family.feature`. A share that would round to 1 is
    written as 0.999: what is in the map reads as below 1.
    """
    partial = sorted(
        (present / total, f"{family}.{feature}") for family, feature, present, total in counts if present < total
    )
    entries = [(name, min(round(share, 3), 0.999)) for share, name in partial]
    fitting = _fitting(entries)
    shown: dict[str, float] = dict(entries[:fitting])
    if fitting < len(entries):
        shown["_omitted"] = len(entries) - fitting
    return _compact(shown)


def _fitting(entries: Sequence[tuple[str, float]]) -> int:
    """How many of the entries fit with the count of the others behind them."""
    size = 2
    reserve = len(_compact({"_omitted": len(entries)}))
    for index, entry in enumerate(entries):
        size += len(_compact(dict([entry])).encode()) - 1  # its braces go, a comma comes
        last = index == len(entries) - 1
        if size + (0 if last else reserve) > MAP_BYTES_MAX:
            return index
    return len(entries)


def _compact(value: dict[str, float]) -> str:
    return json.dumps(value, separators=(",", ":"))
