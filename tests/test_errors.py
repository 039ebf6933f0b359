"""Errors as they come back from another process: a pool that cannot take one over is broken for good."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import tamiyo.errors
import wal
import wal.errors
from tamiyo.errors import CheckpointRejected, RecordRedacted, TamiyoError

DAMAGE = {"segment": 3, "offset_bytes": 512, "lsn": 7, "last_lsn": 9}
FLIP = wal.Flip(514, 3)
MADE: dict[type[Exception], Exception] = {
    wal.LogCorrupt: wal.LogCorrupt("a frame is damaged", **DAMAGE, flipped=FLIP),
    wal.LogTampered: wal.LogTampered("the records do not hash", **DAMAGE),
    wal.Trimmed: wal.Trimmed(3, 90),
    wal.UnsupportedFormat: wal.UnsupportedFormat("format 9", "segment 1"),
    wal.LogLocked: wal.LogLocked(Path("/log"), 17),
    wal.RecordTooLarge: wal.RecordTooLarge(9, 8),
    wal.BatchTooLarge: wal.BatchTooLarge(9, 8),
    wal.OutcomeUnknown: wal.OutcomeUnknown(4, 6, "the disk failed"),
    wal.CopyFailed: wal.CopyFailed(Path("/log"), Path("/copy"), "it is not empty"),
    CheckpointRejected: CheckpointRejected("it is gone", "checkpoint_missing"),
    RecordRedacted: RecordRedacted(12, "StepReceived"),
}
"""Those that are not made of a message alone."""
NOT_SENT = {wal.Late}
"""It holds what waits in its own process."""


def kinds(module: object, base: type[Exception]) -> list[type[Exception]]:
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, base)]
    return [kind for kind in found if kind not in NOT_SENT]


KINDS = [*kinds(wal.errors, wal.LogError), *kinds(tamiyo.errors, TamiyoError)]


def raised(kind: type[Exception]) -> None:
    error = MADE.get(kind) or kind("what was attempted, where, and what to do next")
    if isinstance(error, wal.LogCorrupt):
        with wal.errors.of_log(Path("/log")):
            raise error
    raise error


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_it_was(kind: type[Exception], pool: ProcessPoolExecutor) -> None:
    with pytest.raises(kind) as here:
        raised(kind)
    with pytest.raises(kind) as there:
        pool.submit(raised, kind).result()
    assert type(there.value) is kind
    assert str(there.value) == str(here.value)
    assert vars(there.value) == vars(here.value)
