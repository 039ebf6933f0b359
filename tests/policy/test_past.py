"""The policies that a log names: found once, few kept, and what is wrong with one said once."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from tamiyo.core.proposal import PolicyIdentity
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
    past = PastPolicies(PolicyStore(tmp_path), policies=[given])
    assert past.find(given.identity.version, "", initial()) is given
    assert isinstance(past.find(BaselinePolicy().identity.version, "", initial()), BaselinePolicy)
    with pytest.raises(CheckpointRejected, match="takes it as an object"):
        past.find("baseline-v0", "", initial())


def test_a_checkpoint_is_found_by_its_digest_in_the_store_or_among_the_files(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    store = PolicyStore(tmp_path)
    store.write(checkpoint.data)
    for files in ((), (checkpoint.path,)):
        past = PastPolicies(store, files)
        found = past.find(checkpoint.version, checkpoint.digest, initial())
        assert found.identity.checkpoint_digest == checkpoint.digest
        assert past.find(checkpoint.version, checkpoint.digest, initial()) is found
        store.place(checkpoint.digest).unlink(missing_ok=True)


def test_what_is_wrong_with_a_checkpoint_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PolicyStore(tmp_path)
    digest = store.write(b"no checkpoint")
    reads: list[str] = []
    monkeypatch.setattr(store, "read", lambda wanted: reads.append(wanted) or b"no checkpoint")
    past = PastPolicies(store)
    for _ in range(3):
        with pytest.raises(CheckpointRejected, match="safetensors"):
            past.find("gnn-x", digest, initial())
    assert reads == [digest]


def test_what_is_rejected_again_keeps_nothing_of_where_it_was_before(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    digest = store.write(b"no checkpoint")
    past = PastPolicies(store)
    for _ in range(5):
        with pytest.raises(CheckpointRejected) as found:
            past.find("gnn-x", digest, initial())
    assert len(found.traceback) == 2, "this test and the method: each step of a long log would stay in memory"


def test_a_checkpoint_that_speaks_as_another_version_is_not_asked(tmp_path: Path, checkpoint: Checkpoint) -> None:
    past = PastPolicies(PolicyStore(tmp_path), [checkpoint.path])
    for _ in range(2):
        with pytest.raises(CheckpointRejected, match=f"speaks as '{checkpoint.version}'"):
            past.find("gnn-another", checkpoint.digest, initial())
    assert past.find(checkpoint.version, checkpoint.digest, initial()).identity.version == checkpoint.version


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_a_kept_checkpoint_that_cannot_be_read_is_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    digest = sha256(b"").hexdigest()
    past = PastPolicies(PolicyStore(tmp_path))
    with pytest.raises(CheckpointRejected, match="give its file with --checkpoint") as found:
        past.find("gnn-x", digest, initial())
    assert found.value.reason == "checkpoint_missing"


@pytest.mark.parametrize("digest", ["../wal/0", "a\0b", "a" * 5_000], ids=["path", "nul", "long"])
def test_a_digest_that_is_none_is_no_path(tmp_path: Path, digest: str) -> None:
    past = PastPolicies(PolicyStore(tmp_path))
    with pytest.raises(CheckpointRejected, match="give its file with --checkpoint"):
        past.find("gnn-x", digest, initial())


def test_a_file_that_changes_under_the_audit_is_not_asked(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "given"
    for change, words in ((lambda: path.write_bytes(b"other"), "was changed"), (path.unlink, "is gone")):
        path.write_bytes(checkpoint.data)
        past = PastPolicies(PolicyStore(tmp_path), [path])
        change()
        with pytest.raises(CheckpointRejected, match=words):
            past.find(checkpoint.version, checkpoint.digest, initial())


def test_no_more_networks_stay_than_are_needed(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    past = PastPolicies(PolicyStore(tmp_path))
    identity = PolicyIdentity("gnn-x", "own", "python")
    monkeypatch.setattr(past, "_network", lambda _, digest, __: made.append(digest) or FixedPolicy(identity=identity))
    digests = [sha256(bytes([number])).hexdigest() for number in range(module.NETWORKS_MAX + 1)]
    for digest in (*digests, digests[-1], digests[0], digests[-1]):
        past.find("gnn-x", digest, initial())
    assert made == [*digests, digests[0]]
    past.find("gnn-x", digests[1], initial())
    past.find("gnn-x", digests[-1], initial())
    assert made == [*digests, digests[0], digests[1]], "who was asked last stays longest"


def test_a_file_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PastPolicies(PolicyStore(tmp_path), [tmp_path / "nothing"])
