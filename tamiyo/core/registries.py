"""Categorical registries: a small number for each name, in order of first sight.

Index 0 is unknown or empty; indices start at 1 and are never reused. A full registry answers 0 for every
new key, for ever the same and reported, never a hash. An assignment is a journal event, so replay
rebuilds the numbers exactly. The digest is what offline learners compare: SHA-256 over the compact JSON
array of [key, index] sorted by key.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType

__all__ = ["CAPACITIES", "PRESEEDED", "Registries", "assignments", "digest", "extended", "initial", "lookup"]

Registries = Mapping[str, Mapping[str, int]]

CAPACITIES: Mapping[str, int] = MappingProxyType(
    {
        "seed_id": 4_096,
        "blueprint_id": 4_096,
        "schedule": 64,
        "layer_type": 256,
        "activation_type": 256,
        "optimizer_family": 64,
        "hazard_class": 32,
    }
)
"""The highest index of each registry, by kind; part of the schema: checkpoints size their embeddings by it."""

PRESEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"optimizer_family": ("sgd", "adam", "adamw", "rmsprop", "adagrad")}
)


def initial() -> Registries:
    """The registries of an empty log."""
    return MappingProxyType(
        {
            kind: MappingProxyType({key: index for index, key in enumerate(PRESEEDED.get(kind, ()), start=1)})
            for kind in CAPACITIES
        }
    )


def lookup(registries: Registries, kind: str, key: str) -> int:
    """The index of `key`, 0 when it is empty or unknown."""
    return registries[kind].get(key, 0)


def assignments(registries: Registries, keys: Iterable[tuple[str, str]]) -> tuple[list[tuple[str, str, int]], int]:
    """Number the keys that are new, in the order given: (kind, key, index), one for each; and count the overflow.

    A key that finds its registry full gets no entry and reads as 0; each such key counts once.
    """
    fresh: dict[str, dict[str, int]] = {}
    overflowed: set[tuple[str, str]] = set()
    for kind, key in keys:
        known, added = registries[kind], fresh.setdefault(kind, {})
        if not key or key in known or key in added:
            continue
        if len(known) + len(added) >= CAPACITIES[kind]:
            overflowed.add((kind, key))
        else:
            added[key] = len(known) + len(added) + 1
    return [(kind, key, index) for kind, added in fresh.items() for key, index in added.items()], len(overflowed)


def extended(registries: Registries, added: Iterable[tuple[str, str, int]]) -> Registries:
    """The registries with new assignments in them."""
    changed = {kind: dict(entries) for kind, entries in registries.items()}
    for kind, key, index in added:
        changed[kind][key] = index
    return changed


def digest(entries: Mapping[str, int]) -> str:
    """SHA-256, hex, over the compact JSON array of [key, index] sorted by key."""
    pairs = [[key, entries[key]] for key in sorted(entries)]
    text = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
