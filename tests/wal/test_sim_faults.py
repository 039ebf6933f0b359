"""Every call that the log makes of its disk fails: the n-th of each kind, for every n, once and for ever after.

While it is open, while it is opened, and after the first append that follows. Whoever uses the log meets one of its
own errors, or none; what was acknowledged is there when the disk works again; and a log that failed writes no more.
"""

import errno
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from log_rig import PATH, abandon, entries, open_log, overwrite, segments, written
from sim_rig import Found, Judge, Player, Promise, Script, Tell, held_by, recorded, tell_all

import wal
from wal.recovery import examine
from wal.repair import recover
from wal.testing import FaultDisk, MemoryDisk, crash_states, every_fault

ERRORS = {
    "pwrite": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR),
    "fallocate": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR),
    "open": (errno.EIO, errno.EMFILE, errno.EACCES, errno.EROFS, errno.ENOSPC),
    "unlink": (errno.EIO, errno.EROFS),
    "rename": (errno.EIO, errno.EROFS, errno.ENOSPC),
    "lock": (errno.EIO, errno.EACCES, errno.EROFS),
}
"""What each call may say once; for ever, and the other calls, EIO."""


def script(player: Player) -> None:
    player.append(10)
    player.stage(900)
    player.append(300, 700)
    player.append(2500)
    player.append(2000)
    player.head()
    player.group([0], [5], [400])
    player.redact(1, 3)
    player.prune(player.log.durable_lsn)
    player.append(20)
    player.close()


def short(player: Player) -> None:
    player.append(10)
    player.append(2500)
    player.close()


def calls_of(disk: MemoryDisk, script: Script) -> Counter[str]:
    counted = FaultDisk(disk)
    script(Player(disk, disk=counted))
    return counted.calls


class Faulty:
    """A script on a disk that fails."""

    def __init__(self, memory: MemoryDisk, script: Script, op: str, error_no: int, nth: int, *, forever: bool) -> None:
        self.memory = memory
        self.disk = FaultDisk(memory)
        self.disk.fail(op, error_no, nth, forever=forever)
        self.player: Player | None = None
        self.error: wal.LogError | None = None
        try:
            self.player = Player(memory, disk=self.disk, serial=100)
            script(self.player)
        except wal.LogError as error:
            self.error = error

    def goes_on_failing(self) -> None:
        """Nothing that a failed log is asked for reaches the disk."""
        if self.player is None or self.player.log.failure is None:
            return
        log, done = self.player.log, len(self.memory.trace.operations)
        for attempt in (lambda: log.append([(1, b"")]), lambda: log.submit([(1, b"")]), lambda: log.stage(1, b"")):
            with pytest.raises(wal.LogFailed):
                attempt()
        log.close()
        assert len(self.memory.trace.operations) == done

    def settle(self) -> None:
        self.goes_on_failing()
        if self.player is not None:
            abandon(self.player.log)
        self.disk.heal()


def every_run(base: MemoryDisk, script: Script) -> Iterator[Faulty]:
    """The script on copies of a disk, with each fault there can be."""
    for op, nth, forever in every_fault(calls_of(base.copy(), script)):
        for error_no in ERRORS.get(op, (errno.EIO,))[: 1 if forever else None]:
            yield Faulty(base.copy(record=True), script, op, error_no, nth, forever=forever)


def check(run: Faulty, held: Found | None = None) -> None:
    """What was promised is there, on the same machine and after power loss, and the log goes on."""
    promise = Promise([operation.note for operation in run.memory.trace.operations], held)
    for disk in (run.memory.crash(lambda _: 0), run.memory.copy()):
        open_log(disk).close()
        found = held_by(disk)
        promise.check(found)
        for head in promise.heads:
            assert wal.verify(PATH, head, disk=disk).expected == "confirmed"
        with open_log(disk) as log:
            assert log.append([(1, b"on")]).first_lsn == found.last_lsn + 1
        assert held_by(disk).entries == (*found.entries, wal.Entry(found.last_lsn + 1, 1, b"on"))


def told(tell: Tell, runs: list[Faulty]) -> None:
    tell_all(tell, {"runs": len(runs), "runs that met an error": sum(run.error is not None for run in runs)})


def test_every_call_of_a_log_fails_and_nothing_acknowledged_is_lost(record_property: Tell) -> None:
    runs = []
    for run in every_run(MemoryDisk(), script):
        run.settle()
        check(run)
        runs.append(run)
    told(record_property, runs)
    assert {type(run.error) for run in runs} >= {wal.LogFailed, wal.LogFull, wal.OutcomeUnknown, type(None)}


def killed() -> MemoryDisk:
    return written([[(1, b"kept")], [(2, bytes(3000))], [(3, bytes(3000))]], close=False)


def closed() -> MemoryDisk:
    return written([[(1, b"kept")], [(2, bytes(3000))], [(3, bytes(3000))]])


def torn() -> MemoryDisk:
    disk = killed()
    overwrite(disk, segments(disk)[-1], 3000, b"torn")
    return disk


def unsealed() -> MemoryDisk:
    """Power was lost between naming a segment's successor and sealing it."""
    for state in crash_states(recorded(script), sectors_max=0, samples=0):
        disk = state.disk()
        findings = examine(PATH, disk)
        if findings is not None and findings.unsealed is not None:
            return disk
    raise AssertionError


@pytest.mark.parametrize("base", [killed, closed, torn, unsealed], ids=lambda base: base.__name__)
def test_every_call_of_recovery_and_after_fails_and_nothing_acknowledged_is_lost(
    base: Callable[[], MemoryDisk], record_property: Tell
) -> None:
    disk, runs = base(), []
    recover(PATH, once := disk.copy())
    held = held_by(once)
    assert held.entries
    for run in every_run(disk, short):
        run.settle()
        check(run, held)
        runs.append(run)
    told(record_property, runs)
    assert any(run.player is None for run in runs)
    assert any(run.player is not None and run.error is not None for run in runs)


def test_a_read_that_fails_while_opening_is_never_taken_for_the_end() -> None:
    for base in (killed, closed, torn, unsealed):
        disk = base()
        counted = FaultDisk(disk.copy())
        with open_log(counted) as log:
            last_lsn = log.recovery.last_lsn
        for op in ("pread", "size", "list_dir", "open"):
            for nth in range(1, counted.calls[op] + 1):
                faulty = FaultDisk(disk.copy())
                faulty.fail(op, errno.EIO, nth)
                try:
                    abandon(open_log(faulty))
                except wal.LogFailed:
                    faulty.heal()
                with open_log(faulty) as log:
                    assert log.recovery.last_lsn == last_lsn, (op, nth)


def test_short_writes_anywhere_lose_nothing_at_any_crash() -> None:
    memory = MemoryDisk(record=True)
    disk = FaultDisk(memory)
    disk.shorten(10**9)
    script(Player(memory, disk=disk))
    judge = Judge()
    judge.check(crash_states(memory.trace, sectors_max=1, samples=4))
    assert judge.states > 1000
    Promise([operation.note for operation in memory.trace.operations]).check(held_by(memory))


# Those who read.


def reading_faults(calls: Counter[str]) -> Iterator[tuple[str, int, bool]]:
    return every_fault({op: calls[op] for op in ("open", "pread", "size", "list_dir", "locked", "fdatasync")})


def test_every_call_of_a_reader_fails_and_its_position_stays() -> None:
    base = killed()
    expected = entries(base)
    counted = FaultDisk(base.copy())
    list(wal.read(PATH, disk=counted))
    for op, nth, _ in reading_faults(counted.calls):
        disk = FaultDisk(base.copy())
        disk.fail(op, errno.EIO, nth)
        reader = wal.Reader(PATH, disk=disk)
        found: list[wal.Entry] = []
        while True:
            try:
                more = reader.poll(1)
            except OSError:
                assert reader.last_lsn == len(found)
                continue
            if not more:
                break
            found += more
        assert found == expected, (op, nth)


def test_every_call_of_verify_fails_and_it_says_so_instead_of_calling_the_log_damaged() -> None:
    base = killed()
    counted = FaultDisk(base.copy())
    assert wal.verify(PATH, disk=counted).status == "intact"
    for op, nth, forever in reading_faults(counted.calls):
        disk = FaultDisk(base.copy())
        disk.fail(op, errno.EIO, nth, forever=forever)
        with pytest.raises(OSError, match="Input/output error"):
            wal.verify(PATH, disk=disk)
        if not forever:
            assert wal.verify(PATH, disk=disk).status == "intact"
