"""Every state that power loss can leave: enumerated from a recorded run, before and after each of its operations.

At each moment the names are those synced and some of those not; each file has one of its unsynced lengths; and
each unsynced sector is old, new, zero or garbage. Up to `sectors_max` such sectors are taken through every
assignment; more of them through the plain ones (all of one kind, torn at each place, one unlike the others) and
through some that `seed` draws. The order is fixed, and nothing is built before it is asked for.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from hashlib import blake2b
from operator import xor
from pathlib import Path
from typing import NamedTuple

from wal.testing.memory import MemoryDisk
from wal.testing.system import SECTOR_BYTES, CachedFile, FileSystem, Operation, Trace

JOURNAL, ANY = "journal", "any"
_CHANGES_MAX = 8


class Doubt(NamedTuple):
    """An unsynced sector: what it may hold, the old bytes first, and what each adds to a state's key.

    `kinds` says which of `options` is the old, the new, the zero and the garbage sector: some are often equal.
    """

    path: str
    sector: int
    options: list[bytes]
    keys: list[int]
    kinds: list[int]


class Image(NamedTuple):
    """A file's durable bytes at one of the lengths it may have, and what it adds to a state's key."""

    data: bytes
    key: int


@dataclass(frozen=True, slots=True)
class CrashState:
    """What power loss after `operations` operations left.

    `key` stands for the content: disks with equal keys are equal. `notes` are those in the trace by then.
    `choice` picks one option of each of the sectors in `doubts`, over the files in `images`.
    """

    key: int
    operations: int
    notes: tuple[object, ...]
    images: Mapping[str, Image]
    doubts: Sequence[Doubt]
    choice: Sequence[int]

    def disk(self, *, record: bool = False) -> MemoryDisk:
        """Return the disk as it comes up again; with `record`, one that can be crashed in turn."""
        files = {path: image.data for path, image in self.images.items()}
        changed: dict[str, bytearray] = {}
        for doubt, pick in zip(self.doubts, self.choice, strict=True):
            if pick:
                file = changed.setdefault(doubt.path, bytearray(files[doubt.path]))
                start = doubt.sector * SECTOR_BYTES
                file[start : start + len(doubt.options[pick])] = doubt.options[pick]
        files |= {path: bytes(file) for path, file in changed.items()}
        return MemoryDisk({Path(path): data for path, data in files.items()}, record=record)


def crash_states(
    trace: Trace, *, names: str = JOURNAL, sectors_max: int = 8, samples: int = 256, seed: int = 0
) -> Iterator[CrashState]:
    """Yield what power loss can leave, each content once for each set of notes that it is met under.

    `names` says which unsynced changes of names survive: JOURNAL, any first few; ANY, any that keep the order of
    changes to one name (any first few, when more than eight are unsynced). `samples` is how many assignments are
    drawn where there are more than `sectors_max` unsynced sectors.
    """
    system = FileSystem(trace.files)
    notes: tuple[object, ...] = ()
    met: dict[int, int] = {}
    draw = random.Random(seed)  # noqa: S311 - which states are looked at is no secret
    for done, operation in enumerate([Operation("note"), *trace.operations]):
        system.apply(operation)
        if done and operation.op == "note":
            notes = (*notes, operation.note)
        for images, doubts in _moments(system, names):
            choices = _all(doubts) if len(doubts) <= sectors_max else _some(doubts, samples, draw)
            start = reduce(xor, [image.key for image in images.values()], 0)
            for key, choice in _keyed(start, doubts, choices):
                if met.get(key) != len(notes):
                    met[key] = len(notes)
                    yield CrashState(key, done, notes, images, doubts, choice)


def _moments(system: FileSystem, order: str) -> Iterator[tuple[dict[str, Image], list[Doubt]]]:
    """Yield each set of names and lengths that the medium may show now, with the sectors that are then in doubt."""
    for names in _names(system, order):
        files = [(path, system.files[number]) for path, number in sorted(names.items())]
        for lengths in itertools.product(*[file.sizes for _, file in files]):
            images: dict[str, Image] = {}
            doubts: list[Doubt] = []
            for (path, file), length in zip(files, lengths, strict=True):
                images[path] = _image(path, bytes(file.image(length)))
                doubts += [_doubt(path, file, n, length) for n in sorted(file.dirty) if n * SECTOR_BYTES < length]
            yield images, doubts


def _names(system: FileSystem, order: str) -> list[dict[str, int]]:
    changes = system.unsynced
    kept = [changes[:count] for count in range(len(changes) + 1)]
    if order == ANY and len(changes) <= _CHANGES_MAX:
        kept = [[changes[n] for n in chosen] for chosen in _subsets(changes)]
    found: list[dict[str, int]] = []
    for some in kept:
        names = system.names_after(some)
        if names not in found:
            found.append(names)
    return found


def _subsets(changes: Sequence[Mapping[str, int | None]]) -> Iterator[list[int]]:
    """Yield the sets of changes in which none is kept without every earlier one that shares a name with it."""
    needs = [{m for m in range(n) if not changes[m].keys().isdisjoint(changes[n])} for n in range(len(changes))]
    for bits in itertools.product((False, True), repeat=len(changes)):
        chosen = [n for n, keep in enumerate(bits) if keep]
        if all(needs[n].issubset(chosen) for n in chosen):
            yield chosen


def _doubt(path: str, file: CachedFile, sector: int, length: int) -> Doubt:
    kinds = file.options(sector, length)
    options = list(dict.fromkeys(kinds))
    keys = [_sector_key(path, sector, option) for option in options]
    return Doubt(path, sector, options, [key ^ keys[0] for key in keys], [options.index(kind) for kind in kinds])


def _all(doubts: Sequence[Doubt]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*[range(len(doubt.options)) for doubt in doubts])


def _some(doubts: Sequence[Doubt], samples: int, draw: random.Random) -> Iterator[tuple[int, ...]]:
    """Yield the assignments that are plain, and some that are drawn."""
    old, new, zero, garbage = [tuple(column) for column in zip(*[doubt.kinds for doubt in doubts], strict=True)]
    yield from (old, new, zero, garbage)
    for at in range(1, len(doubts)):
        for one, other in itertools.permutations((old, new, garbage), 2):
            yield one[:at] + other[at:]
    for at in range(len(doubts)):
        for one, other in itertools.permutations((old, new, zero, garbage), 2):
            yield one[:at] + other[at : at + 1] + one[at + 1 :]
    for _ in range(samples):
        yield tuple([draw.randrange(len(doubt.options)) for doubt in doubts])


def _keyed(
    start: int, doubts: Sequence[Doubt], choices: Iterable[tuple[int, ...]]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each choice with its state's key."""
    keys = [doubt.keys for doubt in doubts]
    for choice in choices:
        key = start
        for options, pick in zip(keys, choice, strict=True):
            key ^= options[pick]
        yield key, choice


@lru_cache(maxsize=4096)
def _image(path: str, data: bytes) -> Image:
    """Return the image with its key: that of its length and name, and of each sector that is not zero."""
    key = int.from_bytes(blake2b(f"{len(data)} {path}".encode(), digest_size=8).digest())
    for sector in range(-(-len(data) // SECTOR_BYTES)):
        key ^= _sector_key(path, sector, data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
    return Image(data, key)


@lru_cache(maxsize=65536)
def _sector_key(path: str, sector: int, data: bytes) -> int:
    if not data.strip(b"\0"):
        return 0
    return int.from_bytes(blake2b(data, digest_size=8, key=f"{path} {sector}".encode()[-64:]).digest())
