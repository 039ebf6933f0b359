"""The policies that a log names, loaded to be asked again: what the caller has, the baseline, and kept checkpoints."""

from collections.abc import Iterable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from tamiyo.core.registries import Registries
from tamiyo.errors import CheckpointRejected
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.policy.protocol import Policy
from tamiyo.policy.store import PolicyStore, read_bytes

__all__ = ["PastPolicies"]

NETWORKS_MAX = 2
"""A log may name any number, and each takes 150 MB."""


class PastPolicies:
    """Looks policies up by what the journal says of them.

    From the first network that is loaded until this is left, torch computes with one thread a call in this process.

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
        self._rejected: dict[str, CheckpointRejected] = {}
        self._settings = ExitStack()

    def find(self, version: str, checkpoint_digest: str, registries: Registries) -> Policy:
        """The policy; its registries must be the beginning of these. Of networks the last two stay loaded.

        Raises:
            CheckpointRejected: it is not known here, its file is gone or damaged, or this version does not run it.
        """
        loaded = self._loaded.get((version, checkpoint_digest))
        if loaded is not None:
            return loaded
        if not checkpoint_digest:
            raise CheckpointRejected(
                f"policy {version!r} is no network of a checkpoint: `audit(policies=[...])` takes it as an object",
                "checkpoint_missing",
            )
        if checkpoint_digest in self._rejected:  # once is enough: reading it again takes a while
            raise self._rejected[checkpoint_digest]
        network = self._networks.get(checkpoint_digest)
        if network is None:
            while len(self._networks) >= NETWORKS_MAX:
                del self._networks[next(iter(self._networks))]
            try:
                network = self._network(version, checkpoint_digest, registries)
            except CheckpointRejected as rejected:
                self._rejected[checkpoint_digest] = rejected
                raise
            self._networks[checkpoint_digest] = network
        return network

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give torch its threads back."""
        self._settings.close()

    def _network(self, version: str, digest: str, registries: Registries) -> Policy:
        path = self._files.get(digest, self._store.place(digest))
        if digest not in self._files and not path.exists():
            raise CheckpointRejected(
                f"the checkpoint of policy {version!r} (SHA-256 {digest[:12]}...) is not among those kept in "
                f"{self._store.path}: give its file with --checkpoint",
                "checkpoint_missing",
            )
        data = read_bytes(path) if digest in self._files else self._store.read(digest)
        from tamiyo.policy.ambient import threads  # noqa: PLC0415  torch: slow to import
        from tamiyo.policy.checkpoint import parse_checkpoint, policy_of  # noqa: PLC0415  the same

        self._settings.close()
        self._settings.enter_context(threads(1))
        return policy_of(parse_checkpoint(data, path), registries, device="cpu")
