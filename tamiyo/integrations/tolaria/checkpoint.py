"""Checkpoints of a training run: written whole or not at all, read without unpickling anything.

A file holds a dictionary of tensors, numbers, strings, lists and dictionaries, as `torch.save` writes them and
`torch.load(weights_only=True)` takes them. After a crash the file is the old checkpoint or the new one.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  only the name of what torch raises; nothing is unpickled
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from tamiyo.errors import HostError
from tamiyo.whole import whole_file

__all__ = ["RunCheckpointRejected", "read_checkpoint", "write_checkpoint"]

_UNREADABLE = (BadZipFile, UnpicklingError, RuntimeError, ValueError, EOFError, KeyError)


class RunCheckpointRejected(HostError, ValueError):
    """A training run's checkpoint cannot be used: damaged, of another version, or of another run."""


def write_checkpoint(path: Path, content: Mapping[str, object]) -> None:
    """Replace the checkpoint at `path`; durable when this returns."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(buffer.getbuffer())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None when there is none.

    Raises:
        RunCheckpointRejected: there is a file, but it is no checkpoint or holds more than data.
    """
    if not path.exists():
        return None
    try:
        content = _load(path)
    except _UNREADABLE as error:
        raise RunCheckpointRejected(
            f"{path} cannot be read as a training checkpoint ({error}); move it away to train from the beginning"
        ) from error
    if not isinstance(content, dict):
        raise RunCheckpointRejected(f"{path} holds a {type(content).__name__}, not a training checkpoint")
    return content


def _load(path: Path) -> object:
    with ZipFile(path) as archive:
        damaged = archive.testzip()  # torch itself does not compare the checksums that it wrote
    if damaged is not None:
        raise BadZipFile(f"the checksum of {damaged} does not match")
    return torch.load(path, map_location="cpu", weights_only=True)
