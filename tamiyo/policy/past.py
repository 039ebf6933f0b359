"""The policies that a log names, loaded to be asked again: what the caller has, the baseline, and kept checkpoints."""

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from tamiyo.core.registries import Registries
from tamiyo.errors import CheckpointRejected
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy.protocol import Policy
from tamiyo.policy.store import PolicyStore, read_bytes

__all__ = ["PastPolicies"]

NETWORKS_MAX = 2
"""A log may name any number, and each takes 150 MB."""
DIGEST = re.compile("[0-9a-f]{64}")


class PastPolicies:
    """Looks policies up by what the journal says of them.

    Args:
        store: the checkpoints that the service kept.
        checkpoints: further files, for policies that a host brought itself.
        policies: loaded ones, for those that are no network.

    Raises:
        OSError: a file cannot be read.
    """

    def __init__(self, store: PolicyStore, checkpoints: Iterable[Path] = (), policies: Iterable[Policy] = ()) -> None:
        self._store = store
        self._files = {sha256(read_bytes(path)).hexdigest(): path for path in checkpoints}
        loaded = [BaselinePolicy(), *policies]
        self._loaded = {(one.identity.version, one.identity.checkpoint_digest): one for one in loaded}
        self._networks: dict[str, Policy] = {}
        self._rejected: dict[str, tuple[str, str]] = {}

    def find(self, version: str, checkpoint_digest: str, registries: Registries) -> Policy:
        """The policy; its registries must be the beginning of these. Of networks the last two stay loaded.

        Raises:
            CheckpointRejected: it is not known here, its file is gone or damaged, this version does not run it, or it
                speaks as another version.
        """
        loaded = self._loaded.get((version, checkpoint_digest))
        if loaded is not None:
            return loaded
        if not checkpoint_digest:
            raise CheckpointRejected(
                f"policy {version!r} is no network of a checkpoint: `audit(policies=[...])` takes it as an object",
                "checkpoint_missing",
            )
        rejected = self._rejected.get(checkpoint_digest)
        if rejected is not None:  # once is enough: reading it again takes a while
            reason, kind = rejected  # another error each time: one that is raised again keeps all it passed through
            raise CheckpointRejected(reason, kind)
        network = self._networks.pop(checkpoint_digest, None)
        if network is None:
            while len(self._networks) >= NETWORKS_MAX:
                del self._networks[next(iter(self._networks))]
            try:
                network = self._network(version, checkpoint_digest, registries)
            except CheckpointRejected as found:
                self._rejected[checkpoint_digest] = str(found), found.reason
                raise
        self._networks[checkpoint_digest] = network
        spoken = network.identity.version
        if spoken != version:
            raise CheckpointRejected(
                f"the log calls it {version!r}, and the checkpoint with its digest speaks as {spoken!r}: a policy that "
                "the host named itself `audit(policies=[...])` takes as an object",
                "version_mismatch",
            )
        return network

    def _network(self, version: str, digest: str, registries: Registries) -> Policy:
        path = self._files.get(digest)
        data = self._kept(version, digest) if path is None else _given(path, digest)
        from tamiyo.policy.checkpoint import parse_checkpoint, policy_of  # noqa: PLC0415  torch: slow to import

        checkpoint = parse_checkpoint(data, path or self._store.place(digest))
        return policy_of(checkpoint, registries, device="cpu")

    def _kept(self, version: str, digest: str) -> bytes:
        why = "is not among those"
        try:
            if DIGEST.fullmatch(digest):  # a log may say anything, and this becomes a path
                return self._store.read(digest)
        except CheckpointRejected as rejected:
            if rejected.reason != "checkpoint_missing":
                raise
            if not isinstance(rejected.__cause__, FileNotFoundError):
                why = f"cannot be read ({type(rejected.__cause__).__name__}) from those"
        where = f"{self._store.path} or given" if self._files else f"{self._store.path}"
        raise CheckpointRejected(
            f"the checkpoint of policy {version!r} (SHA-256 {digest[:12]}...) {why} kept in {where}: give "
            "its file with --checkpoint",
            "checkpoint_missing",
        )


def _given(path: Path, digest: str) -> bytes:
    """A file that was read before, and may be another by now."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise CheckpointRejected(f"the checkpoint {path} is gone: {error.strerror}", "checkpoint_missing") from error
    if sha256(data).hexdigest() != digest:
        raise CheckpointRejected(f"the checkpoint {path} was changed while the audit ran: run it again")
    return data
