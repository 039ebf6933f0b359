"""Checkpoints: safetensors with a manifest; nothing in one is ever unpickled.

The manifest is JSON under `MANIFEST_KEY` in the file's metadata:

    architecture_version    "tamiyo_gnn_v1"
    config                  `NetworkConfig`, with the digest of the graph schema that the weights were made for
    tensors                 shape of each tensor, by name
    label, seed             "untrained" and the seed that it was made from

Registries and norms join it when training fills them; an untrained network depends on neither.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from tamiyo.core.proposal import PolicyIdentity
from tamiyo.errors import CheckpointRejected
from tamiyo.policy.gnn import GnnPolicy
from tamiyo.policy.network import ARCHITECTURE_VERSION, NetworkConfig, TamiyoNetwork
from tamiyo.policy.pyg import PYG_VERSION

__all__ = ["MANIFEST_KEY", "Checkpoint", "init_checkpoint", "load_policy", "read_checkpoint"]

MANIFEST_KEY = "tamiyo_manifest"
UNTRAINED = "untrained"
ENGINE = f"pyg {PYG_VERSION}, torch {torch.__version__}"
SEED_MAX = 2**63 - 1

_LABEL = re.compile(r"[a-z0-9._-]{0,32}")
"""It becomes part of the policy version, which stands in every command and record."""
_LENGTH_BYTES = 8
_HEADER_BYTES_MAX = 100 * 2**20
"""What the safetensors format itself allows."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's bytes, checked as a file but not yet against the network."""

    path: Path
    data: bytes
    digest: str
    manifest: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What its maker called it: "untrained" for a network that no training has touched."""
        return str(self.manifest.get("label", ""))

    @property
    def version(self) -> str:
        """The policy version it speaks as: label and the first 12 digits of its digest."""
        return f"gnn-{self.label or 'unlabelled'}-{self.digest[:12]}"


def init_checkpoint(path: Path, seed: int) -> Checkpoint:
    """Write a new network, made from `seed` and labelled untrained; the same seed gives the same bytes.

    The file appears whole or not at all. The process's random stream is left as it was.

    Raises:
        ValueError: the seed is not within 0..2^63 - 1.
        OSError: the file cannot be written.
    """
    if not 0 <= seed <= SEED_MAX:
        raise ValueError(f"a network cannot be made from seed {seed}; choose one from 0 to {SEED_MAX}")
    network = _seeded_network(seed)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    manifest = {
        "architecture_version": ARCHITECTURE_VERSION,
        "config": network.config.as_map(),
        "label": UNTRAINED,
        "seed": seed,
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
    }
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    _write_whole(path, save(tensors, metadata={MANIFEST_KEY: text}))
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file and its manifest.

    Raises:
        CheckpointRejected: there is no such file, it is no safetensors file, or it has no manifest.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointRejected(
            f"the checkpoint {path} cannot be read: {error.strerror}; make one with `tamiyo policy init`"
        ) from error
    return Checkpoint(path, data, sha256(data).hexdigest(), _manifest(path, data))


def load_policy(path: Path) -> GnnPolicy:
    """A policy from a checkpoint, bit for bit the weights that were saved.

    Raises:
        CheckpointRejected: the file is missing, damaged, of another architecture, or its tensors do not fit.
    """
    checkpoint = read_checkpoint(path)
    _check_architecture(checkpoint)
    try:
        tensors = load(checkpoint.data)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype that torch does not have
        raise CheckpointRejected(f"the tensors of {path} cannot be read: {error}; fetch the file again") from error
    with torch.device("meta"):  # the weights come from the file: none are made up first
        network = TamiyoNetwork()
    _check_tensors(checkpoint, network.state_dict(), tensors)
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(requires_grad=False)
    identity = PolicyIdentity(checkpoint.version, ARCHITECTURE_VERSION, ENGINE, checkpoint.digest)
    return GnnPolicy(network, identity)


def _seeded_network(seed: int) -> TamiyoNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TamiyoNetwork()


def _write_whole(path: Path, data: bytes) -> None:
    """Beside, then synced, then renamed, then the directory synced: a crash leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _manifest(path: Path, data: bytes) -> Mapping[str, Any]:
    """The manifest of a safetensors file: a length (u64, little-endian), that many bytes of JSON, the tensors."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or length > min(len(data) - _LENGTH_BYTES, _HEADER_BYTES_MAX):
        raise CheckpointRejected(f"{path} is no safetensors file: its header is cut off; fetch it again")
    header = _json_object(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    if header is None:
        raise CheckpointRejected(f"{path} is no safetensors file: its header is no JSON object; fetch it again")
    metadata = header.get("__metadata__")
    text = metadata.get(MANIFEST_KEY) if isinstance(metadata, dict) else None
    manifest = _json_object(text) if isinstance(text, str) else None
    if manifest is None:
        raise CheckpointRejected(f"{path} has no Tamiyo manifest; it was not written by `tamiyo policy` or a learner")
    label = manifest.get("label", "")
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise CheckpointRejected(f"{path} is labelled {label!r:.80}; a label is up to 32 of a-z, 0-9, '.', '_' and '-'")
    return manifest


def _json_object(data: bytes | str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _check_architecture(checkpoint: Checkpoint) -> None:
    found = checkpoint.manifest.get("architecture_version")
    if found != ARCHITECTURE_VERSION:
        raise CheckpointRejected(
            f"{checkpoint.path} holds the architecture {found!r}; this version runs {ARCHITECTURE_VERSION!r}"
        )
    ours, theirs = NetworkConfig().as_map(), checkpoint.manifest.get("config")
    if not isinstance(theirs, dict):
        raise CheckpointRejected(f"{checkpoint.path} has a manifest without a config; write it again")
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        name = differing[0]
        raise CheckpointRejected(
            f"{checkpoint.path} was made with {name}={theirs.get(name)!r}, this version has {ours.get(name)!r}; "
            f"make a new checkpoint or use the version that wrote it"
        )


def _check_tensors(checkpoint: Checkpoint, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    where = f"{checkpoint.path} does not fit {ARCHITECTURE_VERSION}"
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        first = (missing + unknown)[0]
        raise CheckpointRejected(
            f"{where}: {len(missing)} of its tensors are missing and {len(unknown)} are unknown, the first {first}"
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise CheckpointRejected(
                f"{where}: {name} is {_described(found[name])} where {_described(tensor)} is needed"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointRejected(f"{where}: {name} holds weights that are not finite")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
