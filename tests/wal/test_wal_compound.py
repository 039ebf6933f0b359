"""A fault, and another while the log recovers from it or takes its first append: what was acknowledged stays."""

import contextlib
import itertools
from collections.abc import Callable

import pytest
from log_rig import abandon, numbered, open_log, overwrite, segments, written
from sim_rig import held_by

import wal
from wal.testing import SYNC_MODELS, MemoryDisk, SyncModel

RECORDS = [(n, bytes([n + 1]) * 1500) for n in range(6)]


def killed() -> MemoryDisk:
    return written([[record] for record in RECORDS], close=False)


def closed() -> MemoryDisk:
    return written([[record] for record in RECORDS])


def torn() -> MemoryDisk:
    disk = killed()
    last = segments(disk)[-1]
    overwrite(disk, last, len(disk.peek(last).rstrip(b"\0")) + 511 & ~511, b"torn")
    return disk


bases = pytest.mark.parametrize("base", [killed, closed, torn], ids=lambda base: base.__name__)


def open_and_append(disk: MemoryDisk) -> bool:
    """Recover the log and append once; whether that came to its end."""
    with contextlib.suppress(wal.LogError):
        log = open_log(disk)
        try:
            log.append([(99, b"the first after it")])
            log.close()
        except wal.LogError:
            abandon(log)
        else:
            return True
    return False


def assert_kept(disk: MemoryDisk, what: object) -> None:
    for _ in range(2):  # the first opening may be told late what an earlier sync has lost
        with contextlib.suppress(wal.LogFailed):
            open_log(disk).close()
    found = list(held_by(disk).entries)
    first = numbered(RECORDS)
    assert found[: len(first)] == first, what
    assert [entry.payload for entry in found[len(first) :]] in ([], [b"the first after it"]), what


@bases
@pytest.mark.parametrize("keeps_cache", [False, True], ids=["cache dropped", "cache kept"])
@pytest.mark.parametrize("model", SYNC_MODELS, ids=lambda model: model.name)
def test_a_sync_that_fails_in_recovery_costs_nothing_acknowledged(
    base: Callable[[], MemoryDisk], model: SyncModel, *, keeps_cache: bool
) -> None:
    source = base()
    for nth in itertools.count(1):
        for lost in (lambda _: True, lambda sector: sector % 2 == 1):
            disk = source.copy()
            disk.keeps_cache = keeps_cache
            disk.fail_sync(model, nth, lost)
            finished = open_and_append(disk)
            unmet = bool(disk._failing_syncs)
            assert_kept(disk.crash(lambda _: 0), (nth, finished))
        if unmet:
            assert nth > 3
            return


@bases
def test_a_process_killed_in_recovery_or_after_leaves_what_was_acknowledged(base: Callable[[], MemoryDisk]) -> None:
    source, finished = base(), False
    for operations in itertools.count():
        disk = source.copy()
        disk.power_off_after(operations)
        finished = open_and_append(disk)
        assert_kept(disk.kill(), operations)
        if finished:
            assert operations > 5
            return
