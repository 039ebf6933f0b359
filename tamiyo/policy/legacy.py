"""Checkpoints as `torch.save` wrote them: {"manifest": JSON text or a plain dict, "state_dict": tensors by name}.

Such a file is a pickle, and a pickle can run anything. It is read with `weights_only=True`, which builds tensors and
plain containers and refuses every other name, and only in the zip form: its true size is known before it is read.
"""

import io
import json
import pickle  # noqa: TID251  for the name of what torch raises: nothing is unpickled with it
import re
import zipfile
from typing import Any

import torch
from torch import Tensor

from tamiyo.errors import CheckpointRejected
from tamiyo.policy.manifest import json_object

__all__ = ["is_legacy", "read_legacy"]

ZIP = b"PK\x03\x04"
MEMBERS_MAX = 100_000
_GLOBAL = re.compile(r"GLOBAL ([\w.]{1,80})", re.ASCII)


def is_legacy(data: bytes) -> bool:
    """Whether these bytes are a zip, which no safetensors file is."""
    return data.startswith(ZIP)


def read_legacy(name: str, data: bytes, most_bytes: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Manifest and tensors.

    Args:
        name: what to call it in an error.
        data: the file.
        most_bytes: what it may come to when unpacked.

    Raises:
        CheckpointRejected: it is cut off, too large, holds anything but tensors and plain values, or has no manifest.
    """
    _require_size(name, data, most_bytes)
    try:
        held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointRejected(
            f"{name} asks for more than weights{_asked_for(error)} and was not unpickled; save its state_dict as "
            "safetensors where it is trusted"
        ) from error
    except Exception as error:  # eleven kinds were seen on damaged files, `struct.error` among them; none is documented
        raise CheckpointRejected(f"{name} cannot be read: {type(error).__name__}; fetch it again") from error
    manifest = _manifest(held)
    tensors = held.get("state_dict") if isinstance(held, dict) else None
    if manifest is None or not isinstance(tensors, dict):
        raise CheckpointRejected(f"{name} has no Tamiyo manifest; it was not written by `tamiyo policy` or a learner")
    if not all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in tensors.items()):
        raise CheckpointRejected(f"{name} has a state_dict that holds more than tensors; write it as safetensors")
    _require_plain(name, tensors, most_bytes)
    return manifest, {key: tensor.detach().contiguous() for key, tensor in tensors.items()}


def _asked_for(error: Exception) -> str:
    """What it asks for, by name. The rest of torch's message tells how to unpickle it all the same."""
    found = _GLOBAL.search(str(error))
    return "" if found is None else f" ({found[1]})"


def _require_size(name: str, data: bytes, most_bytes: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointRejected(f"{name} is cut off or no file of torch.save: {error}; fetch it again") from error
    if len(members) > MEMBERS_MAX or sum(member.file_size for member in members) > most_bytes:
        raise CheckpointRejected(f"{name} comes to more than {most_bytes} bytes; it is no policy of this version")


def _require_plain(name: str, tensors: dict[str, Tensor], most_bytes: int) -> None:
    """Before anything is copied: a few bytes can stand for a tensor of any size, and some tensors have none at all."""
    for key, tensor in tensors.items():
        if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise CheckpointRejected(f"{name} has a tensor {key!r:.80} that is not plain; write it as safetensors")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > most_bytes:
        raise CheckpointRejected(f"{name} comes to more than {most_bytes} bytes; it is no policy of this version")


def _manifest(held: object) -> dict[str, Any] | None:
    """The manifest, in the form that JSON gives it, so that both kinds of file are judged alike."""
    found = held.get("manifest") if isinstance(held, dict) else None
    if isinstance(found, dict):
        try:
            found = json.dumps(found)
        except (TypeError, ValueError, RecursionError):
            return None
    return json_object(found) if isinstance(found, str) else None
