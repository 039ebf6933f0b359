"""The manifest of a checkpoint: what the weights were made for, checked before any of them is looked at.

JSON, by name:

    architecture_version    "tamiyo_gnn_v1"
    config                  `NetworkConfig`, with the digest of the graph schema that the weights were made for
    tensors                 shape of each tensor, by name
    registries              by kind {"count", "digest"} and perhaps "names": the indices that the weights were trained
                            on. Count 0, as an untrained network has it, fits any registry
    norms                   by input {"mean", "variance"}: the norms that the weights were trained under, for the
                            record; a service scales by its own
    label                   what its maker calls it: "untrained" for a network that no training has touched
    seed                    what an untrained network was made from
    learned_from            what a trained one was: log, examples, settings, what it went on from; for the record
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeGuard

from tamiyo.core.norms import NORM_INPUTS, PRIORS, Norm
from tamiyo.core.registries import CAPACITIES, Registries, RegistryStamp, digest, require_stamp
from tamiyo.errors import CheckpointRejected, RegistryConflict

__all__ = [
    "LABEL",
    "REGISTRIES_ADVICE",
    "json_object",
    "norms_entry",
    "registries_entry",
    "require_manifest",
    "require_registries",
    "stamped",
]

LABEL = re.compile(r"[a-z0-9._-]{0,32}")
"""It becomes part of the policy version, which stands in every command and record."""
REGISTRIES_ADVICE = (
    "train it on the registries of this log, or bring it the names that it was trained on (`tamiyo registries import`)"
)
"""Where the log's are a part of the checkpoint's, names can be brought; where they differ the import says so."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def registries_entry(registries: Registries | None) -> dict[str, Any]:
    """The manifest's `registries`: those that the weights were trained on, none for weights that were not."""
    held = registries or {kind: {} for kind in CAPACITIES}
    return {
        kind: {"count": len(entries), "digest": digest(entries), "names": list(entries)}
        for kind, entries in held.items()
    }


def norms_entry(norms: Sequence[Norm] = PRIORS) -> dict[str, dict[str, float]]:
    """The manifest's `norms`."""
    return {
        row.name: {"mean": norm.mean, "variance": norm.variance} for row, norm in zip(NORM_INPUTS, norms, strict=True)
    }


def json_object(data: bytes | str) -> dict[str, Any] | None:
    """A JSON object, None where it is none."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def require_manifest(name: str, manifest: Mapping[str, Any]) -> None:
    """What stands in a manifest must be what is said above, as far as it can be judged alone.

    Raises:
        CheckpointRejected: naming what is not.
    """
    label = manifest.get("label", "")
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        raise CheckpointRejected(f"{name} is labelled {label!r:.80}; a label is up to 32 of a-z, 0-9, '.', '_' and '-'")
    stamped(name, manifest)
    norms = manifest.get("norms", {})
    if not isinstance(norms, dict) or not all(map(_is_norm, norms.values())):
        raise CheckpointRejected(f"{name} has norms that are no finite means and variances; write it again")


def stamped(name: str, manifest: Mapping[str, Any]) -> Mapping[str, RegistryStamp]:
    """The registries that a manifest names; empty for one that names none.

    Raises:
        CheckpointRejected: an entry is no count and digest.
    """
    return MappingProxyType({kind: stamp for kind, (stamp, _) in _entries(name, manifest).items()})


def require_registries(name: str, manifest: Mapping[str, Any], registries: Registries) -> None:
    """Each live registry's first `count` entries must be those that the weights were trained on.

    Raises:
        CheckpointRejected: with the reason `registry_mismatch`, naming the first entry that differs.
    """
    for kind, (stamp, names) in _entries(name, manifest).items():
        try:
            require_stamp(registries, kind, stamp, names)
        except RegistryConflict as conflict:
            raise CheckpointRejected(
                f"{name} was trained on other registries: {conflict}; {REGISTRIES_ADVICE}",
                "registry_mismatch",
            ) from conflict


def _entries(name: str, manifest: Mapping[str, Any]) -> dict[str, tuple[RegistryStamp, list[str]]]:
    found = manifest.get("registries", {})
    if not isinstance(found, dict):
        raise CheckpointRejected(f"{name} names its registries as a {type(found).__name__}; write it again")
    return {str(kind): _entry(name, str(kind), entry) for kind, entry in found.items()}


def _entry(name: str, kind: str, entry: object) -> tuple[RegistryStamp, list[str]]:
    held = entry if isinstance(entry, dict) else {}
    count, said, names = held.get("count"), held.get("digest"), held.get("names", [])
    fault = CheckpointRejected(f"{name} has no count and digest of its registry {kind!r:.80}; write it again")
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise fault
    if not isinstance(said, str) or not _DIGEST.fullmatch(said):
        raise fault
    if not isinstance(names, list) or not all(isinstance(key, str) for key in names):
        raise fault
    stamp = RegistryStamp(count, said)
    if names and (len(set(names)) != count or digest({key: at for at, key in enumerate(names, 1)}) != said):
        raise CheckpointRejected(f"{name} names {len(names)} entries of {kind!r:.80} that are not those of its digest")
    return stamp, names


def _is_norm(entry: object) -> bool:
    mean, variance = (entry.get("mean"), entry.get("variance")) if isinstance(entry, dict) else (None, None)
    return _is_number(mean) and _is_number(variance) and variance >= 0


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON has whole numbers of any length
        return False
