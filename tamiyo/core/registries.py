"""Categorical registries: a small number for each name, in order of first sight.

Index 0 is unknown or empty; indices start at 1 and are never reused. A full registry answers 0 for every
new key, for ever the same and reported, never a hash. An assignment is a journal event, so replay
rebuilds the numbers exactly. The digest is what offline learners compare: SHA-256 over the compact JSON
array of [key, index] sorted by key.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType

from tamiyo.errors import RegistryConflict

__all__ = [
    "CAPACITIES",
    "PRESEEDED",
    "Registries",
    "RegistryStamp",
    "additions",
    "assignments",
    "digest",
    "extended",
    "full",
    "initial",
    "lookup",
    "require_stamp",
    "stamps",
]

Registries = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class RegistryStamp:
    """A registry as it was: how many names it had, and their digest."""

    count: int
    digest: str


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


def full(registries: Registries) -> list[str]:
    """The kinds that take no more names."""
    return [kind for kind, entries in registries.items() if len(entries) >= CAPACITIES[kind]]


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


def stamps(registries: Registries) -> dict[str, RegistryStamp]:
    """What names each registry as it is now."""
    return {kind: RegistryStamp(len(entries), digest(entries)) for kind, entries in registries.items()}


def require_stamp(registries: Registries, kind: str, stamp: RegistryStamp, names: Sequence[str] = ()) -> None:
    """The live registry's first `count` entries must have that digest.

    Args:
        registries: the live ones.
        kind: which of them.
        stamp: what was named; a count of 0 fits any registry.
        names: the names behind the digest, where they are known: then the error says which one is the first to differ.

    Raises:
        RegistryConflict: they do not, there is no such registry, or it has fewer entries.
    """
    if kind not in registries:
        raise RegistryConflict(f"there is no registry {kind!r:.80}; known are {', '.join(registries)}")
    if stamp.count <= 0:
        return
    live = tuple(registries[kind])
    for index, (mine, theirs) in enumerate(zip(live, names, strict=False), start=1):
        if mine != theirs:
            raise RegistryConflict(f"{kind} {index} is {theirs!r:.80} there and {mine!r:.80} here")
    if len(live) < stamp.count:
        first = f", {names[len(live)]!r:.80} the first that is missing here" if len(names) > len(live) else ""
        raise RegistryConflict(f"{kind} has {stamp.count} names there and {len(live)} here{first}")
    found = digest(dict(zip(live[: stamp.count], range(1, stamp.count + 1), strict=True)))
    if found != stamp.digest:
        raise RegistryConflict(
            f"the first {stamp.count} names of {kind}, from {live[0]!r:.80} on, have digest {found[:12]} here and "
            f"{stamp.digest[:12]:.12} there"
        )


def additions(registries: Registries, kind: str, found: Mapping[str, int]) -> list[str]:
    """The names that `found` has past the live registry's, in order; none where it is a part of the live one.

    Raises:
        RegistryConflict: the two number a name differently, or `found` is no registry of that kind.
    """
    if kind not in registries:
        raise RegistryConflict(f"there is no registry {kind!r:.80}; known are {', '.join(registries)}")
    names = sorted(found, key=found.__getitem__)
    for index, name in enumerate(names, start=1):
        if found[name] != index or not name:
            raise RegistryConflict(
                f"{kind}: its {len(names)} names are not numbered from 1 on, one by one: {name!r:.80} has number "
                f"{found[name]!s:.20} where {index} is wanted"
            )
    if len(names) > CAPACITIES[kind]:
        raise RegistryConflict(f"{kind} holds {CAPACITIES[kind]} names and {len(names)} are given")
    live = tuple(registries[kind])
    for index, (mine, theirs) in enumerate(zip(live, names, strict=False), start=1):
        if mine != theirs:
            raise RegistryConflict(
                f"{kind} {index} is {theirs!r:.80} in what is given and {mine!r:.80} here: indices are for ever, so "
                "begin a new log with the given ones (`tamiyo registries import --new`), or train on those of this log"
            )
    return names[len(live) :]
