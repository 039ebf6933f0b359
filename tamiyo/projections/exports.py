"""Files that others read: the norms, and the registries that offline learners share.

Each is replaced as a whole (`tamiyo.whole`): a reader sees the old file or the new one, after a crash too.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tamiyo.core.norms import NORM_INPUTS, Norm
from tamiyo.core.registries import Registries
from tamiyo.errors import RegistryConflict
from tamiyo.whole import whole_file

__all__ = ["NORMS_NAME", "export_norms", "export_registries", "import_registry", "registry_name"]

NORMS_NAME = "gnn_norms.json"
REGISTRY_MAX_BYTES = 2**26
"""Twice 4,096 keys of the longest text, as JSON writes each of its characters."""


def registry_name(kind: str) -> str:
    """The file that holds the registry of a kind."""
    return f"{kind}_registry.json"


def export_norms(directory: Path | str, norms: Sequence[Norm]) -> Path:
    """Write `gnn_norms.json`: one object, by input name, of {"mean", "variance"} in the input's scaled form.

    JSON has no NaN or infinity; where a norm is one, it is null.

    Raises:
        ValueError: there is not one norm for each row of NORM_INPUTS; nothing was written.
        OSError: the file cannot be written; the one before it is as it was.
    """
    content = {
        row.name: {"mean": _finite(norm.mean), "variance": _finite(norm.variance)}
        for row, norm in zip(NORM_INPUTS, norms, strict=True)
    }
    return _replace(Path(directory) / NORMS_NAME, content)


def export_registries(directory: Path | str, registries: Registries) -> tuple[Path, ...]:
    """Write `<kind>_registry.json` for every kind: one object {key: index}, in the order of the indices.

    Raises:
        OSError: a file cannot be written; those after it are as they were.
    """
    folder = Path(directory)
    return tuple(
        _replace(folder / registry_name(kind), {key: entries[key] for key in sorted(entries, key=entries.__getitem__)})
        for kind, entries in registries.items()
    )


def import_registry(path: Path | str) -> dict[str, int]:
    """What a `<kind>_registry.json` holds: one object {key: index}.

    Raises:
        RegistryConflict: it is no such file, or is longer than any registry could be.
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(REGISTRY_MAX_BYTES + 1)
    if len(data) > REGISTRY_MAX_BYTES:
        raise RegistryConflict(f"{path} has more than {REGISTRY_MAX_BYTES} bytes; no registry is as long")
    try:
        found = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RegistryConflict(f"{path} is no registry: {error}") from error
    if not isinstance(found, dict):
        raise RegistryConflict(f"{path} holds a {type(found).__name__}; a registry is one object of key and index")
    wrong = next((key for key, index in found.items() if isinstance(index, bool) or not isinstance(index, int)), None)
    if wrong is not None:
        raise RegistryConflict(f"{path} gives {wrong!r:.80} the index {found[wrong]!r:.80}; an index is a whole number")
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object without a key that stands in it twice: which of the two would count?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"{twice!r:.80} stands in it twice")
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _replace(path: Path, content: Mapping[str, object]) -> Path:
    """ASCII only: a key with a lone surrogate, which UTF-8 cannot hold, comes back as it was."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2, allow_nan=False).encode("ascii") + b"\n")
    return path
