import io
import json
import os
import pickle  # noqa: TID251  for what a user may have; nothing is unpickled
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from graph.sketch import small_graph

from tamiyo.cli import main
from tamiyo.errors import CheckpointRejected
from tamiyo.graph.schema import SCHEMA_DIGEST
from tamiyo.policy.checkpoint import (
    MANIFEST_KEY,
    Checkpoint,
    init_checkpoint,
    load_policy,
    parse_checkpoint,
    read_checkpoint,
)
from tamiyo.policy.gnn import GnnPolicy

Tensors = dict[str, torch.Tensor]


def old_style(held: object) -> bytes:
    """As `torch.save` wrote it before it wrote zips."""
    file = io.BytesIO()
    torch.save(held, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.fixture
def rewritten(checkpoint: Checkpoint, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """The session's checkpoint with its manifest or tensors changed; removed at the end, for it is large."""
    path = tmp_path / "changed.safetensors"

    def write(manifest: dict[str, Any] | None = None, change: Callable[[Tensors], None] | None = None) -> Path:
        tensors = safetensors.torch.load(checkpoint.data)
        if change is not None:
            change(tensors)
        told = {**checkpoint.manifest, **(manifest or {})}
        path.write_bytes(safetensors.torch.save(tensors, metadata={MANIFEST_KEY: json.dumps(told)}))
        return path

    yield write
    path.unlink(missing_ok=True)


def test_a_checkpoint_that_is_printed_is_no_hundred_megabytes(checkpoint: Checkpoint) -> None:
    assert repr(checkpoint) == f"Checkpoint(path={checkpoint.path!r}, digest={checkpoint.digest!r})"


def test_the_manifest_says_what_the_file_holds(checkpoint: Checkpoint) -> None:
    manifest = checkpoint.manifest
    assert manifest["architecture_version"] == "tamiyo_gnn_v1"
    assert (manifest["label"], manifest["seed"]) == ("untrained", 7)
    assert manifest["config"]["schema_digest"] == SCHEMA_DIGEST
    tensors = safetensors.torch.load(checkpoint.data)
    assert manifest["tensors"] == {name: list(tensor.shape) for name, tensor in tensors.items()}
    assert {entry["count"] for entry in manifest["registries"].values()} == {0}  # an untrained one depends on none
    assert manifest["norms"]["loss"] == {"mean": 0.8, "variance": 0.3**2}


def test_the_identity_names_the_file(checkpoint: Checkpoint, policy: GnnPolicy) -> None:
    digest = sha256(checkpoint.path.read_bytes()).hexdigest()
    assert policy.identity.checkpoint_digest == checkpoint.digest == digest
    assert policy.identity.version == f"gnn-untrained-{digest[:12]}"
    assert policy.identity.architecture == "tamiyo_gnn_v1"
    assert policy.identity.engine.startswith("folded fp32, openvino ")
    assert (policy.identity.is_compiled, policy.identity.compile_fallbacks) == (True, 0)
    assert policy.identity.compile_warm_ms > 0


def test_the_reference_can_be_asked_for(checkpoint: Checkpoint) -> None:
    reference = load_policy(checkpoint.path, reference=True)
    assert reference.engine is None
    assert reference.identity.engine.startswith("pyg ")
    assert not reference.identity.is_compiled


def test_a_round_trip_is_bit_equal(checkpoint: Checkpoint, policy: GnnPolicy) -> None:
    saved = safetensors.torch.load(checkpoint.data)
    loaded = policy.network.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name].view(torch.int32), loaded[name].view(torch.int32)) for name in saved)


def test_two_loads_propose_the_same(checkpoint: Checkpoint, policy: GnnPolicy) -> None:
    assert load_policy(checkpoint.path).propose(small_graph()) == policy.propose(small_graph())


def test_another_seed_makes_another_network_and_the_random_stream_is_left_alone(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    assert init_checkpoint(tmp_path / "other", 8).digest != checkpoint.digest
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match=r"choose one from 0"):
        init_checkpoint(tmp_path / "file", seed)
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.safetensors"
    path.write_bytes(b"the one before")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        init_checkpoint(path, 1)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRejected, match=r"nowhere cannot be read: No such file .* `tamiyo policy init`"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(CheckpointRejected, match="cannot be read: embedded null byte"):
        load_policy(tmp_path / "a\0b")


NO_CHECKPOINTS = {
    "empty": (b"", "it is empty; fetch it again"),
    "short": (b"abc", "it begins like none; name another one"),
    "text": (b"this is no checkpoint at all", "it begins like none; name another one"),
    "cut off": ((200).to_bytes(8, "little") + b'{"__metadata__"', "its header is cut off; fetch it again"),
    "no json": ((4).to_bytes(8, "little") + b"nope", "its header is no JSON object; fetch it again"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "its header is no JSON object; fetch it again"),
    "deep": ((50_000).to_bytes(8, "little") + b"[" * 50_000, "its header is no JSON object; fetch it again"),
    "a pickle": (pickle.dumps({"state_dict": {}}), "it is a pickle, and nothing is unpickled; save its state_dict as"),
    "an old torch.save": (old_style({"state_dict": {}}), "it is a pickle, and nothing is unpickled"),
}


@pytest.mark.parametrize(("data", "words"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_what_is_no_safetensors_file_is_rejected_for_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(CheckpointRejected, match=f"is no safetensors file: {words}"):
        load_policy(path)


def test_a_header_as_long_as_a_pickle_begins_is_read() -> None:
    text = json.dumps({"__metadata__": {MANIFEST_KEY: json.dumps({"label": "x"})}}).encode().ljust(0x280)
    data = len(text).to_bytes(8, "little") + text
    assert data[:1] == pickle.dumps({})[:1] == b"\x80"
    assert parse_checkpoint(data, Path("it")).label == "x"


@pytest.mark.parametrize("metadata", [None, {}, {"other": "x"}, {MANIFEST_KEY: "{"}, {MANIFEST_KEY: "3"}])
def test_a_file_without_a_manifest_is_rejected(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(safetensors.torch.save({"weight": torch.zeros(1)}, metadata=metadata))
    with pytest.raises(CheckpointRejected, match="has no Tamiyo manifest"):
        load_policy(path)


def test_a_file_that_was_cut_off_is_rejected(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(checkpoint.data[:-4])
    with pytest.raises(CheckpointRejected, match=r"the tensors of .* cannot be read"):
        load_policy(path)


@pytest.mark.parametrize("version", ["tamiyo_gnn_v2", None, 1])
def test_another_architecture_is_rejected(rewritten: Callable[..., Path], version: object) -> None:
    with pytest.raises(CheckpointRejected, match=r"holds the architecture .* this version runs 'tamiyo_gnn_v1'"):
        load_policy(rewritten({"architecture_version": version}))


@pytest.mark.parametrize("name", ["hidden", "heads", "dropout", "schema_digest", "layers"])  # the last is of no version
def test_another_size_or_schema_is_another_architecture(
    checkpoint: Checkpoint, rewritten: Callable[..., Path], name: str
) -> None:
    with pytest.raises(CheckpointRejected, match=f"was made with {name}='other'"):
        load_policy(rewritten({"config": {**checkpoint.manifest["config"], name: "other"}}))


def test_a_manifest_without_a_config_is_rejected(rewritten: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointRejected, match="a manifest without a config"):
        load_policy(rewritten({"config": None}))


def test_a_missing_tensor_is_rejected(rewritten: Callable[..., Path]) -> None:
    with pytest.raises(
        CheckpointRejected, match=r"1 of its tensors are missing and 0 are unknown, the first action\.bias"
    ):
        load_policy(rewritten(change=lambda tensors: tensors.pop("action.bias")))


def test_an_unknown_tensor_is_rejected(rewritten: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointRejected, match="0 of its tensors are missing and 1 are unknown, the first zebra"):
        load_policy(rewritten(change=lambda tensors: tensors.update(zebra=torch.zeros(1))))


def test_another_shape_is_rejected(rewritten: Callable[..., Path]) -> None:
    changed = {"action.bias": torch.zeros(31)}
    with pytest.raises(CheckpointRejected, match=r"action\.bias is float32 \[31\] where float32 \[32\] is needed"):
        load_policy(rewritten(change=lambda tensors: tensors.update(changed)))


def test_another_type_is_rejected(rewritten: Callable[..., Path]) -> None:
    changed = {"action.bias": torch.zeros(32, dtype=torch.float64)}
    with pytest.raises(CheckpointRejected, match=r"action\.bias is float64 \[32\] where float32 \[32\] is needed"):
        load_policy(rewritten(change=lambda tensors: tensors.update(changed)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_rejected(rewritten: Callable[..., Path], value: float) -> None:
    changed = {"action.bias": torch.full((32,), value)}
    with pytest.raises(CheckpointRejected, match=r"action\.bias holds weights that are not finite"):
        load_policy(rewritten(change=lambda tensors: tensors.update(changed)))


def test_a_checkpoint_that_nobody_labelled_says_so(rewritten: Callable[..., Path]) -> None:
    found = read_checkpoint(rewritten({"label": ""}))
    assert found.version == f"gnn-unlabelled-{found.digest[:12]}"


@pytest.mark.parametrize("label", [None, 3, "UPPER", "a b", "x" * 33, "\ud800", "\n"], ids=repr)
def test_a_label_that_cannot_stand_in_a_version_is_rejected(rewritten: Callable[..., Path], label: object) -> None:
    with pytest.raises(CheckpointRejected, match="is labelled"):
        read_checkpoint(rewritten({"label": label}))


def test_a_type_that_torch_does_not_have_is_rejected(checkpoint: Checkpoint, tmp_path: Path) -> None:
    metadata = {MANIFEST_KEY: json.dumps(dict(checkpoint.manifest))}
    odd = {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}
    header = json.dumps({"__metadata__": metadata, "weight": odd}).encode()
    path = tmp_path / "file"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointRejected, match=r"the tensors of .* cannot be read: 'F8_E8M0'"):
        load_policy(path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["policy", *map(str, arguments)])


def test_policy_init_writes_the_same_bytes_for_a_seed_and_says_that_they_are_untrained(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "policy.safetensors"
    result = run("init", "--seed", 7, "--out", path)
    assert result.exit_code == 0
    assert path.read_bytes() == checkpoint.data
    assert str(path) in result.output
    assert "UNTRAINED" in result.output
    assert checkpoint.digest in result.output


def test_policy_init_needs_a_seed_and_a_place(tmp_path: Path) -> None:
    assert run("init", "--out", tmp_path / "file").exit_code == 2
    assert run("init", "--seed", 1).exit_code == 2
    (tmp_path / "plain").write_text("a file where a folder would have to be")
    nowhere = run("init", "--seed", 1, "--out", tmp_path / "plain" / "file")
    assert (nowhere.exit_code, "cannot be written" in nowhere.output) == (1, True)


def test_policy_show_says_what_a_checkpoint_holds(checkpoint: Checkpoint) -> None:
    result = run("show", checkpoint.path)
    assert result.exit_code == 0
    for fact in (checkpoint.version, checkpoint.digest, "untrained", "tamiyo_gnn_v1", "14,2", "registries    any\n"):
        assert fact in result.output


def test_policy_show_refuses_what_a_service_would(rewritten: Callable[..., Path], tmp_path: Path) -> None:
    missing = run("show", tmp_path / "nowhere")
    assert (missing.exit_code, "cannot be read" in missing.output) == (1, True)
    other = run("show", rewritten({"architecture_version": "tamiyo_gnn_v2"}))
    assert (other.exit_code, "tamiyo_gnn_v2" in other.output) == (1, True)
