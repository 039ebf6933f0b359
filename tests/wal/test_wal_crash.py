"""Power loss after every operation, again inside recovery; and kill -9 of a real process."""

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest
from log_rig import PATH, Record, abandon, entries, numbered, open_log, overwrite, segment

import wal
from wal.recovery import examine
from wal.testing import MemoryDisk

BATCHES: list[list[Record]] = [[(n, bytes([n + 1]) * (150 * n % 1700)), (n, b"end")] for n in range(9)]


def record_of(lsn: int) -> Record:
    """What the killed process writes under an LSN: a reader can tell it from any other."""
    return lsn % 65536, (b"%d " % lsn) * (lsn % 97)


class Run:
    """A script against a log, until its disk dies: what it submitted, and what of it was acknowledged."""

    def __init__(self) -> None:
        self.acked = 0
        self.submitted: list[list[Record]] = []

    def play(self, disk: wal.Disk) -> None:
        log = open_log(disk)
        try:
            for number, batch in enumerate(BATCHES):
                self.submitted.append(batch)
                self._hand_in(log, number, batch)
            log.close()
        finally:
            abandon(log)

    def _hand_in(self, log: wal.Log, number: int, batch: list[Record]) -> None:
        if number == 4:  # one staged record, then its batch
            self.submitted[-1:] = [[(99, b"staged")], batch]
            log.stage(99, b"staged")
        if number == 6:  # two batches that may share a sync
            first, second = log.submit(batch), None
            self.submitted.append(batch)
            second = log.submit(batch)
            first.result()
            self.acked = second.result().last_lsn
            return
        self.acked = log.append(batch).last_lsn


def check(disk: MemoryDisk, run: Run) -> None:
    """What was acknowledged is there, whole batches, in order, nothing else; and the log goes on."""
    with open_log(disk) as log:
        found = list(log.read())
        submitted = [record for batch in run.submitted for record in batch]
        ends = [sum(len(batch) for batch in run.submitted[:n]) for n in range(len(run.submitted) + 1)]
        assert found == numbered(submitted)[: len(found)]
        assert len(found) in ends
        assert len(found) >= run.acked
        assert log.append([(1, b"after")]).first_lsn == len(found) + 1
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.records) == ("intact", len(found) + 1)


def crashed(seed: int, operations: int) -> tuple[MemoryDisk, Run]:
    """Play the script on a disk that loses power after so many operations."""
    disk, run = MemoryDisk(), Run()
    disk.power_off_after(operations)
    with contextlib.suppress(wal.LogError):
        run.play(disk)
    return disk.crash(random.Random(seed).randrange), run


def test_nothing_acknowledged_is_lost_whatever_operation_the_power_fails_at() -> None:
    disk, run = MemoryDisk(), Run()
    run.play(disk)
    assert run.acked == 21
    for operations in range(disk.operations + 1):
        for seed in range(4):
            after, run = crashed(seed, operations)
            check(after, run)


def test_nothing_acknowledged_is_lost_when_the_power_fails_again_inside_recovery() -> None:
    for seed in range(120):
        source = random.Random(seed)
        disk, run = crashed(seed, source.randrange(20, 90))
        for _ in range(2):
            disk.power_off_after(source.randrange(12))
            with contextlib.suppress(wal.LogError):
                abandon(open_log(disk))
            disk = disk.crash(source.randrange)
        check(disk, run)


def test_a_seal_that_a_crash_kept_from_being_written_is_written_at_open() -> None:
    owed = 0
    for operations in range(60):
        disk, run = MemoryDisk(), Run()
        disk.power_off_after(operations)
        with contextlib.suppress(wal.LogError):
            run.play(disk)
        after = disk.kill()
        findings = examine(PATH, after)
        if findings is not None and findings.unsealed is not None:
            owed += 1
            assert [entry.lsn for entry in entries(after)] == list(range(1, findings.stop.cursor.lsn))
            assert wal.verify(PATH, disk=after).status == "intact"
            check(after, run)
    assert owed > 0


@pytest.mark.parametrize("keep", [1, 2, 3], ids=["new", "zero", "garbage"])
def test_every_sector_of_the_last_batch_may_be_lost_alone(keep: int) -> None:
    for lost in range(5):
        disk = MemoryDisk()
        log = open_log(disk)
        log.append([(1, b"kept")])
        disk.power_off_after(1)  # the write goes, its sync does not
        with pytest.raises(wal.OutcomeUnknown):
            log.append([(2, bytes(range(256)) * 8)])
        abandon(log)
        answers = iter([0, *(0 if sector == lost else keep for sector in range(5))])
        after = disk.crash(lambda _, answers=answers: next(answers, 0))
        with open_log(after) as log:
            assert list(log.read()) == numbered([(1, b"kept")])


def test_a_segment_is_durable_before_its_successor_has_a_name() -> None:
    for operations in range(14):
        disk = MemoryDisk()
        log = open_log(disk)
        log.append([(1, bytes(2500))])
        disk.power_off_after(operations)
        with contextlib.suppress(wal.LogError):
            log.stage(2, b"staged").wait()  # unsynced when the next batch needs another segment
            log.append([(3, bytes(4000))])
        abandon(log)
        answers = iter([10**6])  # every name survives, and of the bytes only what was synced
        after = disk.crash(lambda n, answers=answers: min(next(answers, 0), n - 1))
        with open_log(after) as log:
            assert [entry.kind for entry in log.read()] in ([1], [1, 2], [1, 2, 3])


def test_what_recovery_cuts_is_in_the_log_or_in_quarantine_at_every_moment() -> None:
    torn = b"torn bytes"
    for operations in range(20):
        source = MemoryDisk()
        log = open_log(source)
        log.append([(1, b"kept")])
        disk = source.kill()
        abandon(log)
        overwrite(disk, segment(), 1536, torn)
        disk.power_off_after(operations)
        with contextlib.suppress(wal.LogError):
            abandon(open_log(disk))
        after = disk.crash(lambda _: 0)
        saved = [after.peek(place) for place in after.files() if place.name.startswith("quarantine")]
        assert torn in (after.peek(segment())[1536:1546], *saved), operations
        with open_log(after) as log:
            assert list(log.read()) == numbered([(1, b"kept")])


def write_until_killed(path: Path, report: int) -> None:
    """Run in the child: append for ever, and report every LSN once it is acknowledged."""
    log = wal.Log.open(path, segment_bytes=32768, heartbeat_ms=5)
    source = random.Random(os.getpid())
    while True:
        if source.random() < 0.3:
            with contextlib.suppress(wal.LogBusy):  # the next segment is being made
                log.stage(*record_of(log.next_lsn))
        first = log.next_lsn
        batch = [record_of(first + n) for n in range(source.randrange(1, 6))]
        os.write(report, b"%d\n" % log.append(batch).last_lsn)


def kill_a_writer(path: Path, after_acks: int) -> int:
    """Fork a writer, kill it after so many acknowledgements, and return the last LSN that it was promised."""
    listen, report = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(path, report)
        finally:
            os._exit(1)
    os.close(report)
    with os.fdopen(listen) as acks:
        last = max(int(acks.readline()) for _ in range(after_acks))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return max([last, *(int(line) for line in acks.read().split("\n")[:-1])])


def test_a_killed_writer_leaves_everything_it_acknowledged(tmp_path: Path) -> None:
    for round_number in range(20):
        acked = kill_a_writer(tmp_path, 1 + round_number * 3)
        found = list(wal.read(tmp_path))
        assert len(found) >= acked
        assert found == numbered(record_of(lsn) for lsn in range(1, len(found) + 1))
        assert wal.verify(tmp_path).status in ("intact", "torn")
    with wal.Log.open(tmp_path, segment_bytes=32768) as log:
        assert log.recovery.last_lsn == len(found)
    assert wal.verify(tmp_path).status == "intact"
    assert entries(wal.OsDisk(), tmp_path) == found
