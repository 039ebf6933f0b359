"""Hands that check the parts of a log in this process, and what makes logs to be cut."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

import wal
from tamiyo.audit import bases, graphs, memory
from tamiyo.audit.follower import Asked
from tamiyo.audit.parts import Outcome, Part, checked

BATCH_BYTES = 2**13
"""Written at a time, or one record more."""


@dataclass
class Here:
    """Does what processes would, one part after the other; `ran` has each with what came of it."""

    count: int = 8
    prepare: Callable[[], Callable[[], Asked]] | None = None
    ran: list[tuple[Part, Outcome]] = field(default_factory=list)

    def run(self, path: Path, parts: Sequence[Part], tell: Callable[[int], None]) -> Sequence[Outcome]:
        asking = None if self.prepare is None else self.prepare()
        done = dict.fromkeys(parts, 0)

        def check(part: Part) -> Outcome:
            def goes_on(records: int) -> bool:
                done[part] = records
                tell(sum(done.values()))
                return True

            return checked(path, part, None if asking is None else asking(), goes_on)

        found = [check(part) for part in parts]
        self.ran += zip(parts, found, strict=True)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


def checkpoints_every(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Of an audit in this process."""
    for module in (bases, graphs, memory):
        patch.setattr(module, "CHECKPOINT_STEPS", steps)


def in_memory(patch: pytest.MonkeyPatch, entries: Sequence[wal.Entry]) -> None:
    """All logs hold these entries, each in a segment of its own."""
    first_lsn = entries[0].lsn

    def read(_: Path, after: int | None = 0) -> Iterator[wal.Entry]:
        if after is not None and after + 1 < first_lsn:
            raise wal.Trimmed(after + 1, first_lsn)
        yield from entries[0 if after is None else after + 1 - first_lsn :]

    patch.setattr(wal, "read", read)
    patch.setattr(wal, "segments", lambda _: [SimpleNamespace(first_lsn=entry.lsn) for entry in entries])


def written(directory: Path, entries: Iterable[wal.Entry], segment_bytes: int = 2**20) -> Path:
    """A directory whose log holds these entries, with a chain of its own."""
    with wal.Log.open(directory / "wal", segment_bytes=segment_bytes) as log:
        batch: list[tuple[int, bytes]] = []
        for entry in entries:
            batch.append((entry.kind, entry.payload))
            if sum(len(payload) for _, payload in batch) > BATCH_BYTES:
                log.append(batch)
                batch = []
        if batch:
            log.append(batch)
    return directory


def dies() -> Callable[[], Asked]:
    """What a process does that runs out of memory."""
    os._exit(9)
