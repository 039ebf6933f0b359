"""Checkpoints of a training run: written whole or not at all, read without unpickling anything.

A file holds a dictionary of tensors, numbers, strings, lists and dictionaries, as `torch.save` writes them and
`torch.load(weights_only=True)` takes them. Writing goes to a temporary file beside it, which is synced and
renamed over it, and then the directory is synced: after a crash the file is the old checkpoint or the new one.
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  only the name of what torch raises; nothing is unpickled
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from tamiyo.errors import HostError

__all__ = ["RunCheckpointRejected", "read_checkpoint", "write_checkpoint"]

_UNREADABLE = (BadZipFile, UnpicklingError, RuntimeError, ValueError, EOFError, KeyError)


class RunCheckpointRejected(HostError, ValueError):
    """A training run's checkpoint cannot be used: damaged, of another version, or of another run."""


def write_checkpoint(path: Path, content: Mapping[str, object]) -> None:
    """Replace the checkpoint at `path`; durable when this returns."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


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


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
