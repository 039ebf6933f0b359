"""A sync that fails, as four file systems fail it: at every sync of a run, whatever it loses, and what comes after.

The log takes nothing more, and what it had acknowledged is there when it is opened again: on the same machine,
whose page cache shows what the medium does not have, and after a power loss, which shows the medium alone.
"""

import contextlib
import itertools
from collections.abc import Callable, Sequence

import pytest
from log_rig import PATH, abandon, entries, open_log, segments
from sim_rig import Found, Judge, Player, Promise, Script, held_by

import wal
from wal.testing import EXT4_DATA, SYNC_MODELS, MemoryDisk, SyncModel, crash_states

LOST: dict[str, Callable[[int], bool]] = {
    "all": lambda _: True,
    "odd sectors": lambda sector: sector % 2 == 1,
    "even sectors": lambda sector: sector % 2 == 0,
    "none": lambda _: False,
}
models = pytest.mark.parametrize("model", SYNC_MODELS, ids=lambda model: model.name)
told_at_once = pytest.mark.parametrize(
    "model", [model for model in SYNC_MODELS if not model.late], ids=lambda model: model.name
)
caches = pytest.mark.parametrize("keeps_cache", [False, True], ids=["cache dropped", "cache kept"])


def script(player: Player) -> None:
    player.append(10)
    player.stage(900)
    player.append(300, 700)
    player.append(2500)
    player.append(2000)
    player.append(0)
    player.close()


def maintained(player: Player) -> None:
    player.append(2300)
    player.head()
    player.append(300, 1400)
    player.append(2300)
    at_the_second_try(lambda: player.redact(1, 3))
    at_the_second_try(lambda: player.prune(4))
    player.head()
    player.append(1400)
    player.append(2300)
    at_the_second_try(lambda: player.redact(4))
    at_the_second_try(lambda: player.prune(6))
    player.append(10)
    player.close()


def at_the_second_try(step: Callable[[], None]) -> None:
    try:
        step()
    except wal.LogError:
        step()


class Failed:
    """A script on a disk whose n-th sync fails, and what it had promised: by then, and in all."""

    def __init__(
        self, script: Script, model: SyncModel, nth: int, lost: Callable[[int], bool], *, keeps_cache: bool
    ) -> None:
        self.disk = MemoryDisk(record=True)
        self.disk.keeps_cache = keeps_cache
        self.disk.fail_sync(model, nth, lost)
        self.log: wal.Log | None = None
        with contextlib.suppress(wal.LogError):
            player = Player(self.disk)
            self.log = player.log
            script(player)
        if self.log is not None:
            abandon(self.log)
        operations = self.disk.trace.operations
        failed_at = [number for number, operation in enumerate(operations) if operation.model is not None]
        self.failed_file = self._names()[operations[failed_at[0]].file] if failed_at else ""
        self.promise = Promise([operation.note for operation in operations])
        self.acked_before = Promise([operation.note for operation in operations[: max(failed_at, default=0)]]).acked

    def _names(self) -> dict[int, str]:
        """The name that each file was made under."""
        names: dict[int, str] = {}
        for operation in self.disk.trace.operations:
            names = {number: path for path, number in operation.names.items() if number is not None} | names
        return names


def failures(
    model: SyncModel, *, keeps_cache: bool = False, script: Script = script, losses: Sequence[str] = tuple(LOST)
) -> list[Failed]:
    found = []
    for nth in itertools.count(1):
        found += [Failed(script, model, nth, LOST[lost], keeps_cache=keeps_cache) for lost in losses]
        if not found[-1].failed_file:
            return found[: -len(losses)]
    raise AssertionError


def reopened(disk: MemoryDisk) -> Found:
    """What the log holds when it is opened; it is appended to once more after that, and closed."""
    open_log(disk).close()
    found = held_by(disk)
    with open_log(disk) as log:
        log.append([(9, b"after")])
    return found


@told_at_once
@caches
def test_a_log_whose_sync_failed_takes_nothing_more_and_keeps_what_it_promised(
    model: SyncModel, keeps_cache: bool
) -> None:
    runs = failures(model, keeps_cache=keeps_cache)
    assert len(runs) > 40
    for run in runs:
        assert run.log is None or run.log.failure is not None
        said = wal.head(PATH, disk=run.disk).size if segments(run.disk) else 0
        seen = tuple(entries(run.disk))
        found = reopened(run.disk)
        run.promise.check(found)
        assert seen == found.entries[: len(seen)], "a reader saw what was not durable"
        assert said <= found.last_lsn, "a head covers what was not durable"
        # The power fails after all: nothing of what was opened on rested in the page cache alone.
        after = tuple(entries(run.disk.crash(lambda _: 0)))
        assert after == (*found.entries, wal.Entry(found.last_lsn + 1, 9, b"after"))


@told_at_once
def test_a_power_loss_after_a_failed_sync_loses_nothing_promised(model: SyncModel) -> None:
    judge, runs = Judge(), failures(model)
    for run in runs:
        judge.check(crash_states(run.disk.trace, sectors_max=1, samples=4))
    assert judge.states > 10 * len(runs)


@models
def test_a_sync_that_fails_under_a_prune_or_a_redaction_leaves_the_old_log_or_the_new_one(model: SyncModel) -> None:
    judge, files = Judge(), set()
    for run in failures(model, script=maintained, losses=("all", "none")):
        if run.failed_file in {"/log/BASE", "/log/redact.tmp"} or not model.late:
            files.add(run.failed_file)
            judge.check(crash_states(run.disk.trace, sectors_max=1, samples=2))
            run.promise.check(reopened(run.disk))
    assert {"/log/BASE", "/log/redact.tmp"} <= files


@caches
def test_a_sync_that_lied_costs_at_most_its_own_group_and_is_refused_where_anything_shows_it(keeps_cache: bool) -> None:
    """ext4, data=journal: the log acknowledged what the medium lost. Only the next sync tells, or never."""
    lost = refused = 0
    for run in failures(EXT4_DATA, keeps_cache=keeps_cache):
        try:
            with contextlib.suppress(wal.LogFailed):  # the late error may be the first thing that opening hears
                abandon(open_log(run.disk))
            open_log(run.disk).close()
            found = held_by(run.disk)
        except wal.LogCorrupt:
            refused += 1
            continue
        assert found.entries == run.promise.entries[: found.last_lsn]
        assert found.last_lsn >= run.acked_before
        lost += found.last_lsn < run.promise.acked
    if keeps_cache:
        assert (lost, refused) == (0, 0), "what the cache still had was written again"
    else:
        assert refused > 10
        assert lost <= 4, "only a batch that nothing followed is lost unnoticed"
