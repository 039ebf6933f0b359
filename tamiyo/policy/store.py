"""The checkpoints that a service keeps: one file each, in `<dir>/policies`, named by its digest.

A file appears whole, by a rename, and is never written again. The last good policy and the one in force always stay;
of the others the newest, as long as all together are within `STORE_MAX_BYTES`.
"""

import errno
import os
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from tamiyo.errors import CheckpointRejected
from tamiyo.whole import sync_folder, whole_file

__all__ = ["CHECKPOINT_MAX_BYTES", "POLICIES", "STORE_MAX_BYTES", "MemoryStore", "PolicyStore", "read_bytes"]

POLICIES = "policies"
CHECKPOINT_MAX_BYTES = 256 * 2**20
"""More than four times the network there is, whose weights are 54 MiB."""
SUFFIX = ".checkpoint"
STORE_MAX_BYTES = 2**30


class PolicyStore:
    """The kept checkpoints of one directory."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the service's; nothing is made before something is written."""
        self.path = directory / POLICIES

    def place(self, digest: str) -> Path:
        """Where the checkpoint with this digest is kept."""
        return self.path / f"{digest}{SUFFIX}"

    def holds(self, digest: str) -> bool:
        """Whether this checkpoint is there, and is what was kept."""
        try:
            self.read(digest)
        except CheckpointRejected:
            return False
        return True

    def write(self, data: bytes) -> str:
        """Keep a checkpoint, durably; its digest. Raises OSError."""
        digest = sha256(data).hexdigest()
        self.path.mkdir(parents=True, exist_ok=True)
        place = self.place(digest)
        if place.exists() and sha256(read_bytes(place)).hexdigest() == digest:
            place.touch()
            return digest
        with whole_file(place) as file:
            file.write(data)
        sync_folder(self.path.parent)
        return digest

    def read(self, digest: str) -> bytes:
        """A kept checkpoint.

        Raises:
            CheckpointRejected: it is gone, or is not what was kept.
        """
        place = self.place(digest)
        try:
            data = self._bytes(digest)
        except (OSError, KeyError) as error:
            raise CheckpointRejected(
                f"the checkpoint {place} is gone ({type(error).__name__}): put it back and open again, or install "
                "another one",
                "checkpoint_missing",
            ) from error
        if sha256(data).hexdigest() != digest:
            raise CheckpointRejected(f"the checkpoint {place} is not the one that was kept: restore it from a copy")
        return data

    def tidy(self, keep: Iterable[str]) -> None:
        """Drop what there is no room for, the oldest first, and never one of `keep`. Raises OSError."""
        kept = set(keep)
        found = sorted(self.path.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        left = STORE_MAX_BYTES - sum(path.stat().st_size for path in found if path.stem in kept)
        for path in found:
            if path.stem in kept:
                continue
            left -= path.stat().st_size
            if left < 0:
                path.unlink(missing_ok=True)

    def _bytes(self, digest: str) -> bytes:
        return read_bytes(self.place(digest))


class MemoryStore(PolicyStore):
    """The same in memory: `kept` has the checkpoints by digest, none but those that must stay."""

    def __init__(self) -> None:
        super().__init__(Path("memory"))
        self.kept: dict[str, bytes] = {}

    def write(self, data: bytes) -> str:
        """Keep a checkpoint; its digest."""
        digest = sha256(data).hexdigest()
        self.kept[digest] = data
        return digest

    def tidy(self, keep: Iterable[str]) -> None:
        """Drop what need not stay."""
        stays = set(keep)
        self.kept = {digest: data for digest, data in self.kept.items() if digest in stays}

    def _bytes(self, digest: str) -> bytes:
        return self.kept[digest]


def read_bytes(path: Path, most_bytes: int = CHECKPOINT_MAX_BYTES + 1) -> bytes:
    """A regular file, up to `most_bytes` of it; a pipe is not waited for. Raises OSError."""
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return file.read(most_bytes)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
