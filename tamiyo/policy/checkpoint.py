"""Checkpoints: safetensors with a manifest; nothing in one is ever unpickled.

The manifest is JSON under `MANIFEST_KEY` in the file's metadata; `tamiyo.policy.manifest` says what is in it. Files of
`torch.save` are read as `tamiyo.policy.legacy` says, and never written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from tamiyo.core.norms import PRIORS, Norm
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.core.registries import Registries
from tamiyo.errors import CheckpointRejected
from tamiyo.policy.ambient import unswayed
from tamiyo.policy.engine import build
from tamiyo.policy.engine.device import device_of
from tamiyo.policy.gnn import GnnPolicy, engine_identity
from tamiyo.policy.legacy import is_legacy, read_legacy
from tamiyo.policy.manifest import (
    json_object,
    norms_entry,
    registries_entry,
    require_manifest,
    require_registries,
    stamped,
)
from tamiyo.policy.network import ARCHITECTURE_VERSION, NetworkConfig, TamiyoNetwork
from tamiyo.policy.pyg import PYG_VERSION
from tamiyo.policy.store import CHECKPOINT_MAX_BYTES, read_bytes
from tamiyo.whole import whole_file

__all__ = [
    "CHECKPOINT_MAX_BYTES",
    "MANIFEST_KEY",
    "Checkpoint",
    "checkpoint_bytes",
    "init_checkpoint",
    "load_policy",
    "parse_checkpoint",
    "policy_of",
    "read_checkpoint",
]

MANIFEST_KEY = "tamiyo_manifest"
UNTRAINED = "untrained"
REFERENCE_ENGINE = f"pyg {PYG_VERSION}, torch {torch.__version__}"
SEED_MAX = 2**63 - 1

_LENGTH_BYTES = 8
_HEADER_BYTES_MAX = 100 * 2**20
"""What the safetensors format itself allows."""
_PICKLE = b"\x80"
"""What every pickle since protocol 2 begins with; a safetensors header of some lengths does, too."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's bytes, checked as a file but not yet against the network; printed, it is its path and digest."""

    path: Path
    data: bytes = field(repr=False)
    digest: str
    manifest: Mapping[str, Any] = field(repr=False)
    legacy: Mapping[str, Tensor] | None = field(default=None, repr=False)
    """The tensors of a file of torch.save, which are read with its manifest."""

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
    data = checkpoint_bytes(_seeded_network(seed), label=UNTRAINED, seed=seed)
    with whole_file(path) as file:
        file.write(data)
    return read_checkpoint(path)


def checkpoint_bytes(
    network: TamiyoNetwork,
    *,
    label: str = "",
    registries: Registries | None = None,
    norms: Sequence[Norm] = PRIORS,
    seed: int | None = None,
    origin: Mapping[str, object] | None = None,
) -> bytes:
    """A network as the bytes of a checkpoint; equal networks and manifests give equal bytes.

    Args:
        network: whose weights.
        label: what to call it, in every command that it proposes.
        registries: those that it was trained on; None for one that was not trained.
        norms: those that it was trained under.
        seed: what an untrained network was made from.
        origin: what a trained one was learned from, as JSON has it.

    Raises:
        CheckpointRejected: the label or a norm cannot stand in a manifest.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    manifest = {
        "architecture_version": ARCHITECTURE_VERSION,
        "config": network.config.as_map(),
        "label": label,
        "norms": norms_entry(norms),
        "registries": registries_entry(registries),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
    } | {name: given for name, given in (("seed", seed), ("learned_from", origin)) if given is not None}
    require_manifest("the network", manifest)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return save(tensors, metadata={MANIFEST_KEY: text})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file and its manifest.

    Raises:
        CheckpointRejected: there is no such file, it is too long, it is no checkpoint, or it has no manifest.
    """
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:  # a path with a NUL in it, too
        why = getattr(error, "strerror", None) or error
        raise CheckpointRejected(
            f"the checkpoint {str(path)[:400]} cannot be read: {why}; make one with `tamiyo policy init`",
            "checkpoint_missing",
        ) from error
    return parse_checkpoint(data, path)


def parse_checkpoint(data: bytes, path: Path) -> Checkpoint:
    """Read a checkpoint from its bytes; `path` is what errors call it. Raises as `read_checkpoint`."""
    if len(data) > CHECKPOINT_MAX_BYTES:
        raise CheckpointRejected(f"{path} has more than {CHECKPOINT_MAX_BYTES} bytes; it is no policy of this version")
    legacy = read_legacy(str(path), data, CHECKPOINT_MAX_BYTES) if is_legacy(data) else None
    manifest, held = (_manifest(path, data), None) if legacy is None else legacy
    require_manifest(str(path), manifest)
    return Checkpoint(path, data, sha256(data).hexdigest(), manifest, held)


def load_policy(
    path: Path,
    registries: Registries | None = None,
    *,
    reference: bool = False,
    bf16: bool = False,
    device: str = "auto",
    may_capture: bool = True,
) -> GnnPolicy:
    """A policy from a checkpoint, bit for bit the weights that were saved, compiled and warmed up.

    Args:
        path: the file.
        registries: the live ones, which must begin with those that it was trained on; None asks nothing.
        reference: leave the engine out: PyTorch Geometric alone computes.
        bf16: compute large graphs in half precision, on a processor that has it; nearly all decisions are the same.
        device: "auto", "cpu", "cuda" or "cuda:N"; docs/network.md says what they mean.
        may_capture: nothing trains on that device yet, so that CUDA graphs may be captured.

    Raises:
        CheckpointRejected: the file is missing, damaged, of another architecture or other registries, or its tensors
            do not fit; `reason` says which.
    """
    checkpoint = read_checkpoint(path)
    return policy_of(checkpoint, registries, reference=reference, bf16=bf16, device=device, may_capture=may_capture)


@unswayed()
def policy_of(
    checkpoint: Checkpoint,
    registries: Registries | None = None,
    *,
    reference: bool = False,
    bf16: bool = False,
    device: str = "auto",
    may_capture: bool = True,
) -> GnnPolicy:
    """A policy from a checkpoint that was read. Takes and raises what `load_policy` does."""
    path = checkpoint.path
    _check_architecture(checkpoint)
    if registries is not None:
        require_registries(str(path), checkpoint.manifest, registries)
    try:
        tensors = load(checkpoint.data) if checkpoint.legacy is None else checkpoint.legacy
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # What is no fault of the format may be one for torch: a dtype that it does not have, a size past int64.
        raise CheckpointRejected(
            f"the tensors of {path} cannot be read: {error!s:.200}; fetch the file again"
        ) from error
    with torch.device("meta"):  # the weights come from the file: none are made up first
        network = TamiyoNetwork()
    _check_tensors(checkpoint, network.state_dict(), tensors)
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(requires_grad=False)
    known = stamped(str(path), checkpoint.manifest)
    if any(stamp.count for stamp in known.values()):  # else nothing was trained, and any index is as good as another
        network.know_registries({kind: stamp.count for kind, stamp in known.items()})
    identity = PolicyIdentity(checkpoint.version, ARCHITECTURE_VERSION, REFERENCE_ENGINE, checkpoint.digest)
    if reference:
        return GnnPolicy(network, identity, known)
    built = build(network.eval(), bf16=bf16, device=device_of(device), may_capture=may_capture)
    identity = replace(identity, compile_warm_ms=built.warm_ms, compile_fallbacks=1)
    if built.engine is not None:
        identity = engine_identity(identity, built.engine)
    return GnnPolicy(network, identity, known, engine=built.engine)


def _seeded_network(seed: int) -> TamiyoNetwork:
    with unswayed(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which seeds every device as well
        return TamiyoNetwork()


def _manifest(path: Path, data: bytes) -> Mapping[str, Any]:
    """The manifest of a safetensors file: a length (u64, little-endian), that many bytes of JSON, the tensors."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    is_whole = length <= min(len(data) - _LENGTH_BYTES, _HEADER_BYTES_MAX)
    header = json_object(data[_LENGTH_BYTES : _LENGTH_BYTES + length]) if is_whole else None
    if header is None:
        raise CheckpointRejected(f"{path} is no safetensors file: {_other_kind(data, length)}")
    metadata = header.get("__metadata__")
    text = metadata.get(MANIFEST_KEY) if isinstance(metadata, dict) else None
    manifest = json_object(text) if isinstance(text, str) else None
    if manifest is None:
        raise CheckpointRejected(f"{path} has no Tamiyo manifest; it was not written by `tamiyo policy` or a learner")
    return manifest


def _other_kind(data: bytes, length: int) -> str:
    """What a file is instead, and what to do about it."""
    if not data:
        return "it is empty; fetch it again"
    if data.startswith(_PICKLE):
        return "it is a pickle, and nothing is unpickled; save its state_dict as safetensors where it is trusted"
    if len(data) < _LENGTH_BYTES or length > _HEADER_BYTES_MAX:
        return "it begins like none; name another one, or make one with `tamiyo policy init`"
    cut_off = length > len(data) - _LENGTH_BYTES
    return f"its header is {'cut off' if cut_off else 'no JSON object'}; fetch it again"


def _check_architecture(checkpoint: Checkpoint) -> None:
    found = checkpoint.manifest.get("architecture_version")
    if found != ARCHITECTURE_VERSION:
        raise CheckpointRejected(
            f"{checkpoint.path} holds the architecture {found!r:.80}; this version runs {ARCHITECTURE_VERSION!r}",
            "version_mismatch",
        )
    ours, theirs = NetworkConfig().as_map(), checkpoint.manifest.get("config")
    if not isinstance(theirs, dict):
        raise CheckpointRejected(f"{checkpoint.path} has a manifest without a config; write it again")
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        name = differing[0]
        raise CheckpointRejected(
            f"{checkpoint.path} was made with {name:.80}={theirs.get(name)!r:.80}, this version has "
            f"{ours.get(name)!r}; make a new checkpoint or use the version that wrote it",
            "shape_mismatch",
        )


def _check_tensors(checkpoint: Checkpoint, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    where = f"{checkpoint.path} does not fit {ARCHITECTURE_VERSION}"
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        first = (missing + unknown)[0]
        raise CheckpointRejected(
            f"{where}: {len(missing)} of its tensors are missing and {len(unknown)} are unknown, the first {first}",
            "shape_mismatch",
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise CheckpointRejected(
                f"{where}: {name} is {_described(found[name])} where {_described(tensor)} is needed", "shape_mismatch"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointRejected(f"{where}: {name} holds weights that are not finite")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
