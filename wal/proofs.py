"""Proofs out of a log: that a record is in it, and that a later log begins with an earlier one.

A proof is checked with a head and nothing else: `Inclusion.holds`, `Consistency.holds`. Making one reads the log
from the segment of the record, or of the earlier size, on.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wal.base import beside_prunes
from wal.disk import Disk, OsDisk, opened
from wal.errors import LogError
from wal.frames import REDACTED, records
from wal.head import Head, head
from wal.leaves import beginning, frames_from, shorter
from wal.merkle import Range, consistency_ranges, consistent, included, inclusion_ranges
from wal.progress import Progress
from wal.scan import Window, frame_at
from wal.segment import number_of
from wal.shelf import Segment, segment_paths
from wal.tree import Tree, bag, leaf_hashes, parent

_PROGRESS_RECORDS = 4096


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That record `lsn`, of this `kind`, is in the log of `size` records; `path` has at most 64 hashes of 32 bytes.

    `salt` and the payload give the record's digest `inner`; of a redacted record no salt is left (b"").
    """

    log_id: bytes
    lsn: int
    kind: int
    salt: bytes
    inner: bytes
    size: int
    path: tuple[bytes, ...]

    def holds(self, head: Head, payload: bytes | None = None) -> bool:
        """Whether it proves, for the log with this head, that the record is there; with `payload`, that it says so."""
        if payload is not None and (not self.salt or hashlib.sha256(self.salt + payload).digest() != self.inner):
            return False
        if (self.log_id, self.size) != (head.log_id, head.size):
            return False
        leaf = leaf_hashes(self.lsn, [(self.kind, self.inner)])[0]
        return included(self.lsn - 1, leaf, self.size, head.root, self.path)

    def to_json(self) -> str:
        """Return the proof as one JSON object, bytes in hex."""
        return json.dumps({
            "proof": "inclusion", "log_id": self.log_id.hex(), "lsn": self.lsn, "kind": self.kind,
            "salt": self.salt.hex(), "inner": self.inner.hex(), "size": self.size,
            "path": [node.hex() for node in self.path],
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` made. Raises ValueError."""
        found = _parse(text, "inclusion", ints=("lsn", "kind", "size"), hexes=("log_id", "salt", "inner"))
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the log of `old_size` records is the beginning of the one of `new_size`."""

    log_id: bytes
    old_size: int
    new_size: int
    path: tuple[bytes, ...]

    def holds(self, old: Head, new: Head) -> bool:
        """Whether it proves that between these two heads nothing was changed, only added."""
        if {old.log_id, new.log_id} != {self.log_id} or (old.size, new.size) != (self.old_size, self.new_size):
            return False
        return consistent(old.size, old.root, new.size, new.root, self.path)

    def to_json(self) -> str:
        """Return the proof as one JSON object, bytes in hex."""
        return json.dumps({
            "proof": "consistency", "log_id": self.log_id.hex(), "old_size": self.old_size, "new_size": self.new_size,
            "path": [node.hex() for node in self.path],
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` made. Raises ValueError."""
        return cls(**_parse(text, "consistency", ints=("old_size", "new_size"), hexes=("log_id",)))


def prove_inclusion(
    path: Path | str, lsn: int, size: int | None = None, *, disk: Disk | None = None, progress: Progress | None = None
) -> Inclusion:
    """Return the proof that record `lsn` is in the log of `size` records, by default all that are durable.

    `progress` is told records here, not bytes. Raises ValueError for an LSN outside 1..size, Trimmed for a pruned one,
    LogCorrupt, LogTampered or LogError.
    """
    directory, disk = Path(path), OsDisk() if disk is None else disk
    return beside_prunes(directory, disk, lambda: _inclusion(directory, disk, lsn, size, progress))


def _inclusion(directory: Path, disk: Disk, lsn: int, size: int | None, progress: Progress | None) -> Inclusion:
    current = head(directory, disk=disk)
    size = current.size if size is None else size
    if not 1 <= lsn <= size:
        raise ValueError(f"record {lsn} is not among the {size} records of the log: ask for one of 1..{size}")
    segment, tree = beginning(directory, disk, lsn - 1)
    roots = _Roots(tree, inclusion_ranges(lsn - 1, size))
    roots.read(directory, disk, segment, size, lsn=lsn, progress=progress)
    kind, salt, inner = _record(directory, disk, *roots.holder, lsn)
    return Inclusion(current.log_id, lsn, kind, salt, inner, size, roots.path())


def prove_consistency(
    path: Path | str,
    old_size: int,
    new_size: int | None = None,
    *,
    disk: Disk | None = None,
    progress: Progress | None = None,
) -> Consistency:
    """Return the proof that the log of `old_size` records is the beginning of the one of `new_size`, by default now's.

    Raises ValueError unless 0 <= old_size <= new_size, Trimmed when record `old_size` was pruned, LogCorrupt,
    LogTampered or LogError.
    """
    directory, disk = Path(path), OsDisk() if disk is None else disk
    current = head(directory, disk=disk)
    new_size = current.size if new_size is None else new_size
    if not 0 <= old_size <= new_size:
        raise ValueError(f"a log of {new_size} records does not begin with one of {old_size}: ask for a smaller one")
    size = new_size
    way = beside_prunes(directory, disk, lambda: consistency_path(directory, disk, old_size, size, progress))
    return Consistency(current.log_id, old_size, new_size, way)


def consistency_path(
    path: Path, disk: Disk, old_size: int, new_size: int, progress: Progress | None = None
) -> tuple[bytes, ...]:
    """Return the hashes of such a proof alone. Raises as `prove_consistency`."""
    if old_size in (0, new_size):
        return ()
    segment, tree = beginning(path, disk, old_size)
    roots = _Roots(tree, consistency_ranges(old_size, new_size))
    roots.read(path, disk, segment, new_size, progress=progress)
    return roots.path()


class _Roots:
    """The roots of some ranges of leaves, none of which overlaps another, as the leaves come by in order."""

    def __init__(self, tree: Tree, ranges: Sequence[Range]) -> None:
        """Begin where `tree` ends: what it is made of goes to the ranges that it belongs to."""
        self._ranges = list(ranges)
        self._parts: dict[Range, list[tuple[int, bytes]]] = {wanted: [] for wanted in ranges}
        self._todo = sorted(ranges, reverse=True)
        self._size = 0
        self.holder = (0, 0)
        for exponent in reversed(range(tree.size.bit_length())):
            if tree.size >> exponent & 1:
                self._add(1 << exponent, tree.nodes[(tree.size >> exponent + 1).bit_count()])

    def read(
        self, path: Path, disk: Disk, segment: Segment, size: int, *, lsn: int = 0, progress: Progress | None = None
    ) -> None:
        """Go over the log until `size` leaves were seen; `holder` is then the segment and offset of record `lsn`."""
        began, told = self._size, 0
        for frame, leaves in frames_from(path, disk, segment):
            if frame.first_lsn <= lsn < frame.first_lsn + frame.records:
                self.holder = frame.segment, frame.offset
            for leaf in leaves:
                if self._size < size:
                    self._add(1, leaf)
            if progress is not None and self._size - told >= _PROGRESS_RECORDS:
                told = self._size
                progress(self._size - began, size - began)
            if self._size == size:
                return
        raise shorter(path, self._size, size)

    def _add(self, leaves: int, node: bytes) -> None:
        start = self._size
        self._size += leaves
        while self._todo and self._todo[-1][1] <= start:
            self._todo.pop()
        if self._todo and self._todo[-1][0] <= start:
            parts = self._parts[self._todo[-1]]
            while parts and parts[-1][0] == leaves:
                node = parent(parts.pop()[1], node)
                leaves *= 2
            parts.append((leaves, node))

    def path(self) -> tuple[bytes, ...]:
        """Return each range's root, in the order in which the ranges were asked for."""
        return tuple([bag([node for _, node in self._parts[wanted]]) for wanted in self._ranges])


def _record(path: Path, disk: Disk, segment: int, offset: int, lsn: int) -> tuple[int, bytes, bytes]:
    """Return a record's (kind, salt, digest) from the frame at this place."""
    for place in segment_paths(path, disk):
        if number_of(place) == segment:
            with opened(disk, place) as fd:
                window = Window(disk, fd)
                frame = frame_at(window, offset)
                if frame is not None and frame.first_lsn <= lsn < frame.first_lsn + frame.records:
                    found = list(records(window.buffer, window.locate(offset, frame.length), frame))
                    kind, flags, salt, payload = found[lsn - frame.first_lsn]
                    inner = payload if flags & REDACTED else hashlib.sha256(salt + payload).digest()
                    return kind, b"" if flags & REDACTED else salt, inner
    raise LogError(f"LSN {lsn} moved while the proof was made, by a prune or a redaction: ask again.")


def _parse(text: str, proof: str, ints: Sequence[str], hexes: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a proof's JSON. Raises ValueError that names what is wrong."""
    try:
        found = dict(json.loads(text))
        fields: dict[str, Any] = {name: bytes.fromhex(found[name]) for name in hexes}
        fields |= {name: int(found[name]) for name in ints}
        fields["path"] = tuple([bytes.fromhex(node) for node in found["path"]])
        its_kind = found["proof"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"this is no proof of {proof} as to_json writes it: {error!r}") from error
    if its_kind != proof:
        raise ValueError(f"this is a proof of {its_kind}, not of {proof}")
    return fields
