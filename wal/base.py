"""Where a log begins: the file BASE, without which a missing first segment is damage.

Rule 1: BASE says that segments may be gone before any of them goes. What stands below it is a leftover of an
interrupted prune, and nothing else may be missing.
Rule 2: it has its whole length from the log's beginning, and its two slots are written in turn, in place: pruning
needs no free space, and a torn slot leaves the one before it.
"""

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import google_crc32c

from wal.disk import Disk, opened, read_fully, write_fully
from wal.errors import LogCorrupt, LogError, UnsupportedFormat, of_log
from wal.segment import BASE_NAME, VERSION, Header
from wal.tail import allocate
from wal.tree import HASH_BYTES, Tree, frontier_length

# Room for the consistency proofs of some thirty kept heads of a log of a hundred million records.
SLOT_BYTES = 64 << 10
SLOTS = 2
_PATH_RESERVED = 32  # hashes
MAGIC = b"\x89WALBAS\n"

# What a slot usually takes; a directory is looked at often, and the rest of it is read when it says that it is longer.
_USUAL_BYTES = 4096

T = TypeVar("T")
_FIELDS = struct.Struct("<8sHHIQ16sQQQQ32s32sH")
_STEP = struct.Struct("<QQ32s32sH")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Step:
    """That the tree of `old_size` records is the beginning of the one of `new_size`: both roots, and the proof.

    One that leads nowhere waits: its head is to be kept, and still covers what is left.
    """

    old_size: int
    old_root: bytes
    new_size: int
    new_root: bytes
    path: tuple[bytes, ...]

    @property
    def waits(self) -> bool:
        """Whether its records are all there, so that the proof is made by a later prune."""
        return self.old_size == self.new_size


@dataclass(frozen=True, slots=True)
class Base:
    """The first segment that is kept, and what its predecessor left: as that segment's own header has it.

    `frontier` is the tree's over the pruned records, `steps` lead from the heads that the pruning kept to it.
    """

    number: int
    log_id: bytes
    segment: int
    first_lsn: int
    prev_end: int
    prev_records: int
    chain: bytes
    root: bytes
    frontier: tuple[bytes, ...]
    steps: tuple[Step, ...] = ()

    def tree(self) -> Tree:
        """Return the tree over the pruned records."""
        return Tree(self.first_lsn - 1, self.frontier)

    def precedes(self, header: Header) -> bool:
        """Whether this is the beginning that the header of the first kept segment names."""
        return (self.log_id, self.segment, self.first_lsn, self.prev_end, self.prev_records, self.chain, self.root) == (
            header.log_id, header.segment, header.first_lsn, header.prev_end, header.prev_records, header.chain,
            header.root,
        )  # fmt: skip


def first_base(header: Header) -> Base:
    """Return the base of a log that was never pruned."""
    return base_of(header, 0, Tree(), ())


def base_of(header: Header, number: int, tree: Tree, steps: tuple[Step, ...]) -> Base:
    """Return the base of a log that begins with this segment, `tree` being over what was before it."""
    return Base(
        number, header.log_id, header.segment, header.first_lsn, header.prev_end, header.prev_records, header.chain,
        header.root, tuple(tree.nodes), steps,
    )  # fmt: skip


def read_base(path: Path, disk: Disk) -> Base | None:
    """Return the newest sound slot, None when there is none. Raises UnsupportedFormat or OSError."""
    try:
        with opened(disk, path / BASE_NAME) as fd:
            slots = [_read_slot(disk, fd, slot * SLOT_BYTES) for slot in range(SLOTS)]
    except FileNotFoundError:
        return None
    found = [base for slot in slots if (base := _decode(slot, path / BASE_NAME)) is not None]
    return max(found, key=lambda base: base.number, default=None)


def _read_slot(disk: Disk, fd: int, offset: int) -> bytes:
    """Return a slot as far as it is used, or what there is of one that is not sound."""
    start = read_fully(disk, fd, _USUAL_BYTES, offset)
    if len(start) < _USUAL_BYTES:
        return start  # the file ends here
    length = _FIELDS.unpack_from(start)[3]
    return start if length <= _USUAL_BYTES else read_fully(disk, fd, min(length, SLOT_BYTES), offset)


LOOKS_MAX = 8


class Replaced(FileNotFoundError):
    """What was wrong was wrong in a file that has no name any more: look again at what has it now.

    An opening writes the last segment of a log that was not closed anew, and what its writer goes on with stands there.
    `refusal` is what was wrong, for who has looked `LOOKS_MAX` times: a file system that does not count the names of a
    file says of each that it has none.
    """

    def __init__(self, refusal: LogCorrupt) -> None:
        super().__init__(errno.ENOENT, "the file has no name any more")
        self.refusal = refusal

    def count(self, looks: int) -> int:
        """One look more. Raises the refusal where that were too many."""
        if looks == LOOKS_MAX:
            raise self.refusal
        return looks + 1


def beside_prunes(path: Path, disk: Disk, look: Callable[[], T]) -> T:
    """Look at a log without its lock, and anew where a prune or an opening took away meanwhile what was looked at.

    What `look` raises stands when none came in between.
    """
    looks = 1
    with of_log(path):
        while True:
            before = read_base(path, disk)
            try:
                return look()
            except Replaced as replaced:
                looks = replaced.count(looks)
            except (FileNotFoundError, LogCorrupt):
                if read_base(path, disk) == before:
                    raise


def reserved_bytes(base: Base) -> int:
    """Return what a slot takes once each proof in it has grown to that of a log of two billion records."""
    hashes = sum([max(len(step.path), _PATH_RESERVED) for step in base.steps])
    return _FIELDS.size + _STEP.size * len(base.steps) + HASH_BYTES * (_PATH_RESERVED + hashes) + _CRC.size


def write_base(path: Path, disk: Disk, base: Base) -> None:
    """Write the slot that is not in use, and sync it. Raises LogError when the heads to keep do not fit, or OSError."""
    data = _encode(base)
    if len(data) > SLOT_BYTES:
        raise LogError(
            f"cannot keep the proofs of {len(base.steps)} heads past a prune: they take {len(data)} bytes and"
            f" {SLOT_BYTES} are there. Nothing was pruned; keep fewer heads."
        )
    with opened(disk, path / BASE_NAME, write=True) as fd:
        write_fully(disk, fd, data, base.number % SLOTS * SLOT_BYTES)
        disk.fdatasync(fd)


def create_base(path: Path, disk: Disk) -> None:
    """Reserve the file, unless it is there; its name is durable with the next sync of the directory.

    One that a crash left shorter than it must be, with nothing in it, is made anew.
    """
    if BASE_NAME not in disk.list_dir(path) or (_is_short(path, disk) and read_base(path, disk) is None):
        fd = allocate(disk, path / BASE_NAME, SLOTS * SLOT_BYTES)
        try:
            disk.fdatasync(fd)
        finally:
            disk.close(fd)


def _is_short(path: Path, disk: Disk) -> bool:
    with opened(disk, path / BASE_NAME) as fd:
        return disk.size(fd) < SLOTS * SLOT_BYTES


def _encode(base: Base) -> bytes:
    steps = b"".join([
        _STEP.pack(step.old_size, step.new_size, step.old_root, step.new_root, len(step.path)) + b"".join(step.path)
        for step in base.steps
    ])  # fmt: skip
    length = _FIELDS.size + HASH_BYTES * len(base.frontier) + len(steps) + _CRC.size
    fields = _FIELDS.pack(
        MAGIC, VERSION, 0, length, base.number, base.log_id, base.segment, base.first_lsn, base.prev_end,
        base.prev_records, base.chain, base.root, len(base.steps),
    )  # fmt: skip
    covered = fields + b"".join(base.frontier) + steps
    return covered + _CRC.pack(google_crc32c.value(covered))


def _decode(slot: bytes, place: Path) -> Base | None:
    if not slot.startswith(MAGIC) or len(slot) < _FIELDS.size + _CRC.size:
        return None
    fields = _FIELDS.unpack_from(slot)
    length = fields[3]
    end = length - _CRC.size
    if not _FIELDS.size <= end <= len(slot) - _CRC.size or _CRC.unpack_from(slot, end)[0] != google_crc32c.value(
        slot[:end]
    ):
        return None
    if fields[1:3] != (VERSION, 0):
        raise UnsupportedFormat(
            f"the beginning of a pruned log in format {fields[1]} with flags {fields[2]:#x}", str(place)
        )
    _, _, _, _, number, log_id, segment, first_lsn, prev_end, prev_records, chain, root, steps = fields
    frontier, at = _hashes(slot, _FIELDS.size, frontier_length(first_lsn - 1))
    found: list[Step] = []
    for _ in range(steps):
        old_size, new_size, old_root, new_root, hashes = _STEP.unpack_from(slot, at)
        path, at = _hashes(slot, at + _STEP.size, hashes)
        found.append(Step(old_size, old_root, new_size, new_root, path))
    return Base(number, log_id, segment, first_lsn, prev_end, prev_records, chain, root, frontier, tuple(found))


def _hashes(data: bytes, at: int, number: int) -> tuple[tuple[bytes, ...], int]:
    end = at + number * HASH_BYTES
    return tuple([data[here : here + HASH_BYTES] for here in range(at, end, HASH_BYTES)]), end
