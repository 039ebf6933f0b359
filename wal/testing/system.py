"""Files and names as a kernel keeps them: a page cache over a medium, and names over a journal.

Rule 1: only a sync makes bytes and length durable, and only a directory sync makes names durable.
Rule 2: everything that changes is an `Operation`, so that a run can be recorded and played again.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from wal.testing.syncs import SyncModel

SECTOR_BYTES = 512
GARBAGE = bytes(range(255, 0, -1)) * 3
"""What a sector may hold when power failed while it was written; never zero, and no frame of any log."""


class Operation(NamedTuple):
    """One change that a disk made, or a note that its user left.

    `op` is "pwrite", "fallocate", "fdatasync", "drop_cache", "names", "fsync_dir" or "note". Files are numbered as
    they were made; `offset` (of fallocate: the length) is in bytes. `names` maps each path that changed to its
    file, or to None. A failed fdatasync has its `model`, and in `lost` the sectors that it did not write.
    """

    op: str
    file: int = 0
    offset: int = 0
    data: bytes = b""
    names: Mapping[str, int | None] = {}
    path: str = ""
    model: SyncModel | None = None
    lost: frozenset[int] = frozenset()
    note: object = None


class Trace:
    """What was done to a recorded disk, in order, from the files that it held at first."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Begin with these files, durable."""
        self.files = dict(files)
        self.operations: list[Operation] = []

    def digest(self) -> str:
        """Return a hash of it all: two runs that did the same, and noted the same, have the same."""
        told = hashlib.sha256()
        for part in (*sorted(self.files.items()), *self.operations):
            told.update(repr(part).encode())
        return told.hexdigest()


class CachedFile:
    """A file: its bytes as programs see them (`now`), its bytes on the medium (`durable`), and where they differ.

    Sectors in `dirty` wait to be written back; those in `lost` were given up by a failed sync, and are on the
    medium what they were before. `sizes` are the lengths that the medium may show, the durable one first. Bytes are
    copied when they are first changed: thousands of crashed disks share what they have in common.
    """

    __slots__ = ("dirty", "durable", "late_error", "lost", "now", "sizes")

    def __init__(self, data: bytes = b"") -> None:
        """Hold these bytes, durably."""
        self.now: bytes | bytearray = data
        self.durable: bytes | bytearray = data
        self.dirty: set[int] = set()
        self.lost: set[int] = set()
        self.sizes = [len(data)]
        self.late_error = False

    def write(self, data: bytes, offset: int) -> None:
        """Change the cache."""
        end = offset + len(data)
        self.grow(end)
        self.now = now = _own(self.now)
        now[offset:end] = data
        touched = range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES))
        self.dirty.update(touched)
        self.lost.difference_update(touched)

    def grow(self, length: int) -> None:
        """Make the file at least so long, with zeros."""
        if length > len(self.now):
            self.now = bytearray(self.now).ljust(length, b"\0")
            self.sizes.append(length)

    def sync(self) -> None:
        """Write back everything dirty."""
        self._grow_durable(len(self.now))
        if self.dirty:
            self._write_back(self.dirty)
            self.dirty.clear()
        self.sizes = [len(self.now)]

    def fail_sync(self, model: SyncModel, lost: Iterable[int]) -> None:
        """Lose these sectors of what is dirty, as the model says."""
        if model.reverts:
            self.now = bytes(self.durable)
            self.sizes = [len(self.durable)]
        else:
            if model.grows:
                self._grow_durable(len(self.now))
                self.sizes = [len(self.now)]
            unseen = {sector for sector in self.dirty if sector * SECTOR_BYTES >= len(self.durable)}
            self.lost |= unseen.union(lost)
            self._write_back(self.dirty - self.lost)
        self.late_error = model.late and bool(self.dirty)
        self.dirty.clear()

    def drop_cache(self) -> None:
        """Show what is on the medium wherever nothing waits to be written."""
        self.now = now = _own(self.now)
        for sector in self.lost:
            span = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            now[span] = self.durable[span].ljust(len(now[span]), b"\0")
        self.lost.clear()

    def options(self, sector: int, length: int) -> list[bytes]:
        """Return what a dirty sector of a file of this length may hold after power loss: old, new, zero, garbage."""
        start, end = sector * SECTOR_BYTES, min((sector + 1) * SECTOR_BYTES, length)
        old = bytes(self.durable[start:end]).ljust(end - start, b"\0")
        return [old, bytes(self.now[start:end]), bytes(end - start), GARBAGE[: end - start]]

    def image(self, length: int) -> bytes:
        """Return the durable bytes, made so long with zeros."""
        return bytes(self.durable).ljust(length, b"\0")

    def after_crash(self, choose: Callable[[int], int]) -> bytes:
        """Return the bytes that power loss leaves; `choose(n)` picks one of 0..n-1."""
        length = self.sizes[choose(len(self.sizes))] if len(self.sizes) > 1 else self.sizes[0]
        image = bytearray(self.image(length))
        for sector in sorted(self.dirty):
            if sector * SECTOR_BYTES < length:
                options = self.options(sector, length)
                image[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = options[choose(4)]
        return bytes(image)

    def _grow_durable(self, length: int) -> None:
        if length > len(self.durable):
            self.durable = bytearray(self.durable).ljust(length, b"\0")

    def _write_back(self, sectors: Iterable[int]) -> None:
        self.durable = durable = _own(self.durable)
        for sector in sectors:
            span = slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES)
            durable[span] = self.now[span]


def _own(data: bytes | bytearray) -> bytearray:
    return data if isinstance(data, bytearray) else bytearray(data)


class FileSystem:
    """Numbered files under names. `unsynced` are the changes of names that no directory sync has covered, in order."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Hold these files, durably."""
        self.files: dict[int, CachedFile] = {}
        self.names: dict[str, int] = {}
        self.durable_names: dict[str, int] = {}
        self.unsynced: list[Mapping[str, int | None]] = []
        for path, data in files.items():
            self.put(path, data)

    def put(self, path: str, data: bytes) -> None:
        """Have this file, durably, whatever was there."""
        number = self.next_number
        self.files[number] = CachedFile(data)
        self.names[path] = self.durable_names[path] = number

    @property
    def next_number(self) -> int:
        """The number that the next file gets."""
        return len(self.files)

    def apply(self, change: Operation) -> None:
        """Do what the operation did; a note does nothing."""
        if change.op == "names":
            self._rename(change.names)
        elif change.op == "fsync_dir":
            self._sync_names(change.path)
        elif change.op == "pwrite":
            self.files[change.file].write(change.data, change.offset)
        elif change.op == "fallocate":
            self.files[change.file].grow(change.offset)
        elif change.op == "drop_cache":
            self.files[change.file].drop_cache()
        elif change.op == "fdatasync":
            if change.model is None:
                self.files[change.file].sync()
            else:
                self.files[change.file].fail_sync(change.model, change.lost)

    def names_after(self, kept: Iterable[Mapping[str, int | None]]) -> dict[str, int]:
        """Return the names after power loss that left these of the unsynced changes."""
        names = dict(self.durable_names)
        for change in kept:
            rename(names, change)
        return names

    def _rename(self, names: Mapping[str, int | None]) -> None:
        for number in names.values():
            if number is not None:
                self.files.setdefault(number, CachedFile())
        rename(self.names, names)
        self.unsynced.append(names)

    def _sync_names(self, directory: str) -> None:
        elsewhere = {path: number for path, number in self.durable_names.items() if parent(path) != directory}
        here = {path: number for path, number in self.names.items() if parent(path) == directory}
        self.durable_names = elsewhere | here
        self.unsynced = [names for names in self.unsynced if any(parent(path) != directory for path in names)]


def rename(names: dict[str, int], change: Mapping[str, int | None]) -> None:
    """Apply one change to a directory."""
    for path, number in change.items():
        if number is None:
            names.pop(path, None)
        else:
            names[path] = number


def parent(path: str) -> str:
    """Return the directory that holds the path."""
    return path.rpartition("/")[0] or "/"
