"""A log's head: what to keep elsewhere, so that nobody can change unnoticed what the log said by then.

Rule: whoever can write the files can write a consistent log. Only a head kept out of their reach tells the difference.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wal.base import Base, beside_prunes, read_base
from wal.disk import Disk, OsDisk, settle
from wal.errors import LogCorrupt, LogError, LogTampered, Trimmed
from wal.frames import Frame
from wal.leaves import beginning, frames_from, tree_at
from wal.lock import is_locked
from wal.merkle import consistent
from wal.segment import genesis
from wal.shelf import segment_paths
from wal.tree import EMPTY_ROOT

CONFIRMED, CONTRADICTED, UNPROVABLE = "confirmed", "contradicted", "unprovable"
_PREFIX = "wal-head-2"


@dataclass(frozen=True, slots=True)
class Head:
    """A log of `size` records: its id (16 bytes), its tree's root and its chain there (32 bytes each).

    `str(head)` is one line of text, and `Head.parse` reads it.
    """

    log_id: bytes
    size: int
    root: bytes
    chain: bytes

    def __str__(self) -> str:
        """Return the line to keep: wal-head-2:<log id>:<size>:<root>:<chain>, the hashes in hex."""
        return f"{_PREFIX}:{self.log_id.hex()}:{self.size}:{self.root.hex()}:{self.chain.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a line that `str` made. Raises ValueError."""
        parts = text.strip().split(":")
        if len(parts) == 5 and parts[0] == _PREFIX and parts[2].isdecimal():
            try:
                log_id, root, chain = (bytes.fromhex(parts[at]) for at in (1, 3, 4))
            except ValueError:
                log_id = root = chain = b""
            if (len(log_id), len(root), len(chain)) == (16, 32, 32):
                return cls(log_id, int(parts[2]), root, chain)
        raise ValueError(f"{text!r} is not a log's head: one begins with {_PREFIX}: and has five parts")


def head(path: Path | str, *, disk: Disk | None = None) -> Head:
    """Return the head of what is durable in a log, read-only, also beside a live writer.

    Raises LogCorrupt, LogTampered, UnsupportedFormat, LogError when there is no log, or OSError.
    """
    directory, disk = Path(path), OsDisk() if disk is None else disk
    return beside_prunes(directory, disk, lambda: _head(directory, disk))


def _head(directory: Path, disk: Disk) -> Head:
    free = not is_locked(disk, directory)  # asked before reading, never after
    walked = _Walk(directory, disk)
    if not free or not walked.held:
        return walked.head()
    upto_lsn = walked.last_lsn
    for place in segment_paths(directory, disk)[-1:]:
        settle(disk, place)  # a writer that died may have left its last batch in memory only
    return _Walk(directory, disk).head(upto_lsn)


class _Walk:
    """A walk to the end of the log: the tree and the chain of what is proven durable, and the frames `held` after it.

    `last_lsn` is the last record of these.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        segment, self._tree = beginning(directory, disk)
        self._log_id, self._chain = segment.header.log_id, segment.header.chain
        self.held: list[tuple[Frame, list[bytes]]] = []
        self.last_lsn = self._tree.size
        for newest, its_leaves in frames_from(directory, disk, segment):
            self.held.append((newest, its_leaves))
            self.last_lsn += len(its_leaves)
            while self.held and _proves(newest, self.held[0][0]):
                self._add(*self.held.pop(0))

    def _add(self, frame: Frame, leaves: list[bytes]) -> None:
        self._tree.extend(leaves)
        self._chain = frame.chain

    def head(self, upto_lsn: int = 0) -> Head:
        """Return the head of what is proven, and of the frames up to this record, which are durable too."""
        for frame, leaves in self.held:
            if frame.first_lsn + frame.records - 1 <= upto_lsn:
                self._add(frame, leaves)
        return Head(self._log_id, self._tree.size, self._tree.root(), self._chain)


def _proves(newest: Frame, frame: Frame) -> bool:
    return frame.segment < newest.segment or frame.end <= newest.durable_offset


def check_head(path: Path, disk: Disk, expected: Head, log_id: bytes | None) -> None:
    """Refuse a log that is not what `expected` says it was. `log_id` is the log's own, None when nothing is there.

    Raises LogCorrupt when the log is gone, LogTampered when it contradicts the head, LogError when the records that
    it covers were pruned and nothing was kept to prove it.
    """
    if log_id is None:
        if expected.size:
            raise LogCorrupt(f"no segment is left of the {expected.size} records expected", segment=1, offset_bytes=0)
        return
    found = standing(path, disk, expected, log_id)
    if found == CONTRADICTED:
        problem = f"the log is not the one whose head was expected: {expected}"
        raise LogTampered(problem, segment=1, offset_bytes=0, lsn=expected.size)
    if found == UNPROVABLE:
        raise LogError(
            f"whether {path} is the log of head {expected} cannot be told: its records were pruned and no proof of"
            " this head was kept. Expect a newer head, or keep this one when pruning."
        )


def standing(path: Path, disk: Disk, expected: Head, log_id: bytes) -> str:
    """Return CONFIRMED, CONTRADICTED or UNPROVABLE for a head of a log that reaches as far. Raises as `tree_at`."""
    if expected.log_id != log_id:
        return CONTRADICTED
    try:
        tree, chain = tree_at(path, disk, expected.size)
    except Trimmed:
        return by_steps(read_base(path, disk), expected)
    return CONFIRMED if (tree.root(), chain) == (expected.root, expected.chain) else CONTRADICTED


def by_steps(base: Base | None, expected: Head) -> str:
    """Say what the proofs kept by pruning make of a head that is older than the first record left."""
    size, root = expected.size, expected.root
    if size == 0:
        nothing = (EMPTY_ROOT, genesis(expected.log_id))
        return CONFIRMED if (root, expected.chain) == nothing else CONTRADICTED
    while base is not None and size < base.first_lsn - 1:
        steps = [step for step in base.steps if step.old_size == size]
        if not steps:
            return UNPROVABLE
        step = steps[0]
        if step.old_root != root:
            return CONTRADICTED
        if not consistent(step.old_size, step.old_root, step.new_size, step.new_root, step.path):
            return CONTRADICTED
        size, root = step.new_size, step.new_root
    return CONFIRMED if base is not None and root == base.root else CONTRADICTED
