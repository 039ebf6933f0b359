"""What a checkpoint was trained on, and files of torch.save."""

import contextlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.cli import main
from tamiyo.core.norms import NORM_INPUTS, Norm
from tamiyo.core.registries import digest, extended, initial, stamps
from tamiyo.errors import CheckpointRejected
from tamiyo.policy.checkpoint import (
    CHECKPOINT_MAX_BYTES,
    MANIFEST_KEY,
    Checkpoint,
    checkpoint_bytes,
    load_policy,
    parse_checkpoint,
    policy_of,
)
from tamiyo.policy.gnn import GnnPolicy
from tamiyo.policy.legacy import read_legacy
from tamiyo.policy.network import NodeEncoder

LIVE = extended(initial(), {"layer_type": ["conv", "linear"], "hazard_class": ["low"]})


NORMS = tuple(Norm(0.5 + place, 0.25 + place) for place in range(8))


@pytest.fixture(scope="module")
def trained(policy: GnnPolicy) -> bytes:
    return checkpoint_bytes(policy.network, label="trained", registries=LIVE, norms=NORMS)


def test_a_checkpoint_names_the_norms_and_the_registries_of_its_training(trained: bytes, tmp_path: Path) -> None:
    manifest = parse_checkpoint(trained, Path("it")).manifest
    assert list(manifest["norms"]) == sorted(row.name for row in NORM_INPUTS)
    assert [manifest["norms"][row.name] for row in NORM_INPUTS] == [norm._asdict() for norm in NORMS]
    (path := tmp_path / "file").write_bytes(trained)
    shown = CliRunner().invoke(main, ["policy", "show", str(path)])
    known = ", ".join(f"{kind} {len(LIVE[kind])} {digest(LIVE[kind])[:12]}" for kind in sorted(LIVE) if LIVE[kind])
    assert f"registries    {known}\n" in shown.output


def changed(data: bytes, **manifest: object) -> Checkpoint:
    """The checkpoint with another manifest."""
    told = {**parse_checkpoint(data, Path("it")).manifest, **manifest}
    metadata = {MANIFEST_KEY: json.dumps(told)}
    return parse_checkpoint(safetensors.torch.save(safetensors.torch.load(data), metadata=metadata), Path("it"))


def test_a_checkpoint_runs_where_the_first_entries_are_those_it_was_trained_on(trained: bytes) -> None:
    grown = extended(LIVE, {"layer_type": ["attention"], "seed_id": ["s-1"]})
    for live in (LIVE, grown):
        assert policy_of(parse_checkpoint(trained, Path("it")), live).registry_stamps == stamps(LIVE)


def test_a_checkpoint_names_the_first_entry_that_differs(trained: bytes) -> None:
    other = extended(initial(), {"layer_type": ["conv", "pool"], "hazard_class": ["low"]})
    with pytest.raises(CheckpointRejected, match="layer_type 2 is 'linear' there and 'pool' here") as rejected:
        policy_of(parse_checkpoint(trained, Path("it")), other)
    assert rejected.value.reason == "registry_mismatch"


def test_a_checkpoint_names_the_first_entry_that_is_missing(trained: bytes) -> None:
    shorter = extended(initial(), {"layer_type": ["conv"], "hazard_class": ["low"]})
    with pytest.raises(CheckpointRejected, match="2 names there and 1 here, 'linear' the first that is missing"):
        policy_of(parse_checkpoint(trained, Path("it")), shorter)


def test_without_the_names_the_digest_alone_decides(trained: bytes) -> None:
    entry = {"count": 2, "digest": digest({"conv": 1, "linear": 2})}
    bare = changed(trained, registries={"layer_type": entry})
    policy_of(bare, LIVE)
    with pytest.raises(CheckpointRejected, match="the first 2 names of layer_type, from 'conv' on, have digest"):
        policy_of(bare, extended(initial(), {"layer_type": ["conv", "pool"]}))


def test_a_registry_that_does_not_exist_here_fits_only_when_empty(trained: bytes) -> None:
    with pytest.raises(CheckpointRejected, match="there is no registry 'colour'"):
        policy_of(changed(trained, registries={"colour": {"count": 1, "digest": "0" * 64}}), LIVE)


def test_an_untrained_checkpoint_fits_any_registry(checkpoint: Checkpoint) -> None:
    for live in (initial(), LIVE):
        assert load_policy(checkpoint.path, live).identity.checkpoint_digest == checkpoint.digest


def test_indices_past_those_it_was_trained_on_read_as_zero(trained: bytes, policy: GnnPolicy) -> None:
    encoder = policy_of(parse_checkpoint(trained, Path("it"))).network.encoders["layer_nodes"]
    assert isinstance(encoder, NodeEncoder)
    width = encoder.embeddings[0].weight.shape[1]
    features = torch.zeros(4, encoder.project.in_features - width * len(encoder.capacities))
    categories = torch.tensor([[0], [1], [2], [3]]).expand(4, len(encoder.capacities)).clone()
    categories[:, 1:] = 0
    zero, first, second, third = encoder(features, categories)
    assert torch.equal(third, zero)  # two layer types were known
    assert not torch.equal(first, zero)
    assert not torch.equal(second, zero)


BROKEN: Mapping[str, object] = {
    "no object": [],
    "no count": {"seed_id": {"digest": "0" * 64}},
    "a negative count": {"seed_id": {"count": -1, "digest": "0" * 64}},
    "a bool": {"seed_id": {"count": True, "digest": "0" * 64}},
    "a short digest": {"seed_id": {"count": 1, "digest": "0" * 63}},
    "names of another digest": {"seed_id": {"count": 1, "digest": "0" * 64, "names": ["a"]}},
    "names that are none": {"seed_id": {"count": 1, "digest": "0" * 64, "names": [1]}},
}


@pytest.mark.parametrize("registries", BROKEN.values(), ids=BROKEN)
def test_registries_that_say_nothing_are_an_invalid_payload(trained: bytes, registries: object) -> None:
    with pytest.raises(CheckpointRejected, match=r"write it again|not those of its digest") as rejected:
        changed(trained, registries=registries)
    assert rejected.value.reason == "invalid_payload"


NO_NORMS: list[object] = [
    3,
    {"loss": 1.0},
    {"loss": {"mean": 1.0}},
    {"loss": {"mean": "x", "variance": 1}},
    {"loss": {"mean": 10**400, "variance": 1}},
    {"loss": {"mean": 0.8, "variance": -1.0}},
    {"loss": {"mean": True, "variance": 1.0}},
]


@pytest.mark.parametrize("norms", NO_NORMS)
def test_norms_that_are_no_numbers_are_refused(trained: bytes, norms: object) -> None:
    with pytest.raises(CheckpointRejected, match="norms that are no finite means and variances"):
        changed(trained, norms=norms)


# Files of torch.save.


def saved(held: object) -> bytes:
    file = io.BytesIO()
    torch.save(held, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def legacy(trained: bytes, policy: GnnPolicy) -> bytes:
    manifest = dict(parse_checkpoint(trained, Path("it")).manifest)
    return saved({"manifest": manifest, "state_dict": policy.network.state_dict()})


def test_a_legacy_file_gives_the_same_weights(legacy: bytes, policy: GnnPolicy) -> None:
    loaded = policy_of(parse_checkpoint(legacy, Path("it")), LIVE)
    assert loaded.registry_stamps == stamps(LIVE)
    ours, theirs = policy.network.state_dict(), loaded.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class Malice:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return Path.write_text, (self.path, "owned")


@pytest.mark.parametrize("place", ["manifest", "state_dict", "whole"])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path, place: str) -> None:
    victim = tmp_path / "owned"
    held: object = {"manifest": "{}", "state_dict": {}, place: Malice(victim)} if place != "whole" else Malice(victim)
    with pytest.raises(CheckpointRejected, match=r"more than weights \([\w.]+\) and was not unpickled") as refused:
        parse_checkpoint(saved(held), Path("it"))
    assert "weights_only" not in str(refused.value)  # torch's own message goes on to say how to run it all the same
    assert not victim.exists()
    torch.load(io.BytesIO(saved(held)), weights_only=False)  # so that a pickle that does nothing proves nothing
    assert victim.exists()


@pytest.fixture
def cuts(legacy: bytes) -> Iterator[bytes]:
    return (legacy[: len(legacy) * part // 7] for part in range(1, 7))


def test_a_legacy_file_that_was_cut_off_is_refused(cuts: Iterator[bytes]) -> None:
    for cut in cuts:
        with pytest.raises(CheckpointRejected, match="is cut off or no file of torch"):
            parse_checkpoint(cut, Path("it"))


SMALL = {"manifest": {"label": "x"}, "state_dict": {"a": torch.zeros(3, 4), "b": torch.ones(2)}}


@settings(max_examples=400)
@given(st.data())
def test_whatever_was_damaged_in_a_legacy_file_it_is_read_or_refused(data: st.DataObject) -> None:
    file = bytearray(saved(SMALL))
    places = st.integers(0, len(file) - 1)
    for place, byte in data.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=16)).items():
        file[place] = byte
    with contextlib.suppress(CheckpointRejected):
        read_legacy("it", bytes(file), CHECKPOINT_MAX_BYTES)


@pytest.mark.parametrize("error", [struct.error("short"), AssertionError(), MemoryError()], ids=repr)
def test_whatever_torch_raises_on_a_damaged_file_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", damaged)
    with pytest.raises(CheckpointRejected, match="fetch it again"):
        read_legacy("it", saved(SMALL), CHECKPOINT_MAX_BYTES)


def test_a_legacy_file_without_its_parts_is_refused() -> None:
    for held in ({}, {"manifest": "{"}, {"manifest": {}, "state_dict": 3}, [1], {"manifest": {"a": torch.zeros(1)}}):
        with pytest.raises(CheckpointRejected, match="has no Tamiyo manifest"):
            parse_checkpoint(saved(held), Path("it"))
    with pytest.raises(CheckpointRejected, match="holds more than tensors"):
        parse_checkpoint(saved({"manifest": {}, "state_dict": {"a": 1}}), Path("it"))


def test_a_zip_that_grows_past_the_limit_is_refused_before_it_is_unpacked() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for place in range(5):
            archive.writestr(f"archive/{place}", bytes(CHECKPOINT_MAX_BYTES // 4))
    assert len(file.getvalue()) < 2 * 2**20
    with pytest.raises(CheckpointRejected, match="comes to more than"):
        parse_checkpoint(file.getvalue(), Path("it"))


def test_a_tensor_that_repeats_a_few_bytes_past_the_limit_is_refused_before_it_is_copied() -> None:
    vast = torch.zeros(1).expand(2**40)  # 4 TiB once it is copied
    with pytest.raises(CheckpointRejected, match="comes to more than"):
        parse_checkpoint(saved({"manifest": {}, "state_dict": {"a": vast}}), Path("it"))


@pytest.mark.parametrize("tensor", [torch.empty(2, device="meta"), torch.ones(2).to_sparse()], ids=["meta", "sparse"])
def test_a_tensor_that_is_not_plain_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(CheckpointRejected, match="'a' that is not plain"):
        parse_checkpoint(saved({"manifest": {}, "state_dict": {"a": tensor}}), Path("it"))


def test_a_tensor_without_values_and_a_size_past_all_measure_is_refused(trained: bytes) -> None:
    manifest = json.dumps(dict(parse_checkpoint(trained, Path("it")).manifest))
    entry = {"dtype": "F32", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}
    header = json.dumps({"__metadata__": {MANIFEST_KEY: manifest}, "a": entry}).encode()
    made = parse_checkpoint(len(header).to_bytes(8, "little") + header, Path("it"))
    with pytest.raises(CheckpointRejected, match="the tensors of it cannot be read"):
        policy_of(made, LIVE)


def test_what_an_error_quotes_of_a_manifest_is_short(trained: bytes) -> None:
    with pytest.raises(CheckpointRejected, match="holds the architecture") as rejected:
        policy_of(changed(trained, architecture_version="x" * 10**6), LIVE)
    assert len(str(rejected.value)) < 300


def test_a_pipe_and_a_device_are_no_checkpoints(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):  # one would be waited for, one read for ever
        with pytest.raises(CheckpointRejected, match="cannot be read"):
            load_policy(path)


def test_a_file_past_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(CHECKPOINT_MAX_BYTES + 1)
    with pytest.raises(CheckpointRejected, match="has more than"):
        load_policy(path)
