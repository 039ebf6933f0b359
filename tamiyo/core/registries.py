"""Categorical registries: a small number for each name, in order of first sight.

Index 0 is unknown or empty; indices start at 1 and are never reused. A full registry answers 0 for every
new key, for ever the same and reported, never a hash. An assignment is a journal event, so replay
rebuilds the numbers exactly. The digest is what offline learners compare: SHA-256 over the compact JSON
array of [key, index] sorted by key.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
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


def assignments(registries: Registries, keys: Iterable[tuple[str, str]]) -> tuple[dict[str, list[str]], int]:
    """The keys that are new, by kind, in the order they get their numbers; and how many found their registry full.

    Such a key reads as 0; each counts once.
    """
    fresh: dict[str, dict[str, None]] = {}
    overflowed: set[tuple[str, str]] = set()
    for kind, key in keys:
        known, added = registries[kind], fresh.get(kind, {})
        if not key or key in known or key in added:
            continue
        if len(known) + len(added) >= CAPACITIES[kind]:
            overflowed.add((kind, key))
        else:
            fresh.setdefault(kind, added)[key] = None
    return {kind: list(added) for kind, added in fresh.items()}, len(overflowed)


def extended(registries: Registries, added: Mapping[str, Sequence[str]]) -> Registries:
    """The registries with new keys in them, numbered from where each ends."""
    changed = dict(registries)
    for kind, keys in added.items():
        known = registries[kind]
        numbered = {key: index for index, key in enumerate(keys, start=len(known) + 1)}
        changed[kind] = MappingProxyType({**known, **numbered})
    return MappingProxyType(changed)


def digest(entries: Mapping[str, int]) -> str:
    """SHA-256, hex, over the compact JSON array of [key, index] sorted by key."""
    pairs = [[key, entries[key]] for key in sorted(entries)]
    text = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
