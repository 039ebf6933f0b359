"""The policies that a log names: found once, few kept, and what is wrong with one said once."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch

from tamiyo.core.registries import initial
from tamiyo.errors import CheckpointRejected
from tamiyo.policy import past as module
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy.checkpoint import Checkpoint
from tamiyo.policy.past import PastPolicies
from tamiyo.policy.store import PolicyStore
from tamiyo.testing import FixedPolicy


def test_the_baseline_and_what_is_given_are_found_without_a_file(tmp_path: Path) -> None:
    given = FixedPolicy()
    with PastPolicies(PolicyStore(tmp_path), policies=[given]) as past:
        assert past.find(given.identity.version, "", initial()) is given
        assert isinstance(past.find(BaselinePolicy().identity.version, "", initial()), BaselinePolicy)
        with pytest.raises(CheckpointRejected, match="takes it as an object"):
            past.find("baseline-v0", "", initial())


def test_a_checkpoint_is_found_by_its_digest_in_the_store_or_among_the_files(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    store = PolicyStore(tmp_path)
    store.write(checkpoint.data)
    for files in ((), (checkpoint.path,)):
        with PastPolicies(store, files) as past:
            found = past.find(checkpoint.version, checkpoint.digest, initial())
            assert found.identity.checkpoint_digest == checkpoint.digest
            assert past.find(checkpoint.version, checkpoint.digest, initial()) is found
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        store.place(checkpoint.digest).unlink(missing_ok=True)
    torch.set_num_threads(before)


def test_what_is_wrong_with_a_checkpoint_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PolicyStore(tmp_path)
    digest = store.write(b"no checkpoint")
    reads: list[str] = []
    monkeypatch.setattr(store, "read", lambda wanted: reads.append(wanted) or b"no checkpoint")
    with PastPolicies(store) as past:
        for _ in range(3):
            with pytest.raises(CheckpointRejected, match="safetensors"):
                past.find("gnn-x", digest, initial())
    assert reads == [digest]


def test_no_more_networks_stay_than_are_needed(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    with PastPolicies(PolicyStore(tmp_path)) as past:
        monkeypatch.setattr(past, "_network", lambda version, digest, _: made.append(digest) or FixedPolicy())
        digests = [sha256(bytes([number])).hexdigest() for number in range(module.NETWORKS_MAX + 1)]
        for digest in (*digests, digests[-1], digests[0]):
            past.find("gnn-x", digest, initial())
    assert made == [*digests, digests[0]]


def test_a_file_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PastPolicies(PolicyStore(tmp_path), [tmp_path / "nothing"])
