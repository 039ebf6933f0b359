"""Power loss after every operation, again inside recovery; and kill -9 of a real process."""

import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_child import record_of
from kill_rig import PHASES, Forge, History, Said, kill_writers
from log_rig import PATH, Record, abandon, entries, numbered, open_log, overwrite, segment
from sim_rig import Tell, tell_all

import wal
from wal.recovery import examine
from wal.testing import MemoryDisk

BATCHES: list[list[Record]] = [[(n, bytes([n + 1]) * (150 * n % 1700)), (n, b"end")] for n in range(9)]


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


def check_killed_writers(path: Path, rounds: int, tell: Tell) -> Counter[str]:
    """KILL_SEED repeats the plans of a run that failed, if not its timing; the failure names it."""
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(2**32)))
    tell("seed", seed)
    counts = kill_writers(path, rounds, seed)
    tell_all(tell, counts)
    assert counts["killed"] >= rounds
    return counts


def test_two_hundred_killed_writers_leave_everything_they_acknowledged(tmp_path: Path, record_property: Tell) -> None:
    check_killed_writers(tmp_path, 200, record_property)


@pytest.mark.long
def test_ten_thousand_killed_writers_leave_everything_they_acknowledged(tmp_path: Path, record_property: Tell) -> None:
    counts = check_killed_writers(tmp_path, 10_000, record_property)
    assert all(counts[f"killed in {phase}"] for phase in PHASES), counts
    assert counts["torn"] > 0


class Scripted(Forge):
    """A forge without a process, whose writer says this."""

    def __init__(self, *lines: str) -> None:
        self.sent: list[str] = []
        self._script = lines

    def _send(self, line: str) -> None:
        self.sent.append(line)

    def _lines(self) -> Iterator[str]:
        yield from self._script


@pytest.mark.parametrize("lines_before_kill", [1, 2, 3, 4, 9])
def test_a_writer_is_killed_once_though_its_threads_speak_on_after_it_closed(lines_before_kill: int) -> None:
    """A second order would stand where the next writer's plan is read."""
    forge = Scripted("begins close", "closed", "handing-in 0 0 1", "refused 0 0 1", "ended 0")
    said = forge.run({}, lines_before_kill, 0)
    assert forge.sent == ["{}", "kill"]
    assert len(said) == 5


LIFE = [
    "begins open", "opened 0", "begins write", "handing-in 0 0 2", "acknowledged 0 0 2 1", "handing-in 3 0 1",
    "written 3 0 1 3", "handing-in 0 2 1",
]  # fmt: skip


def life_of(records: list[Record], path: Path, *lines: str) -> tuple[History, Said]:
    """A log of these records, and a writer that is said to have said this."""
    with wal.Log.open(path, segment_bytes=8192) as log:
        log.append(records)
    return History(path), Said.of([line.split(" ") for line in lines])


def test_a_log_that_is_what_its_killed_writer_said_passes(tmp_path: Path) -> None:
    acknowledged = [record_of(0, 0, 0), record_of(0, 0, 1), record_of(0, 3, 0)]
    for number, records in enumerate([acknowledged, [*acknowledged, record_of(0, 0, 2)]]):
        history, said = life_of(records, tmp_path / str(number), *LIFE)
        history.check(said, random.Random(0))
        assert history.last_lsn == len(records)


@pytest.mark.parametrize(
    ("records", "lines", "why"),
    [
        ([(0, 0), (0, 1)], [], "what was acknowledged or written is not there"),
        ([(0, 0), (0, 1), (3, 0), (0, 2), (0, 3)], [], "LSN 5: this thread never handed in so much"),
        ([(0, 0), (0, 1), (3, 0), (1, 0)], [], "LSN 4: this thread never handed in so much"),
        ([(0, 0), (0, 1), (3, 0)], ["refused 3 0 1"], "LSN 3: this thread never handed in so much"),
        ([(0, 0)], [], "LSN 1 begins a batch that is not whole"),
        ([(0, 1), (0, 0), (3, 0)], [], "instead of"),
        ([(3, 0), (0, 0), (0, 1)], [], "what was acknowledged or written is not there"),
        ([(0, 0), (0, 1), (3, 0)], ["opened 1"], "what opening found is not what was read before"),
        ([(0, 0), (0, 1), (3, 0)], ["pruned 3"], "what was pruned came back"),
        ([(0, 0), (0, 1), (3, 0)], ["redacting 3", "redacted 3"], "a redacted payload is still there"),
        ([(0, 0), (0, 1), (3, 0)], [f"head wal-head-2:{'00' * 16}:1:{'00' * 32}:{'00' * 32}"], "tampered"),
        ([(0, 0), (0, 1), (3, 0)], ["failed because"], "because"),
        ([(0, 0), (0, 1), (3, 0)], ["ended 1"], "the writer ended with status 1"),
    ],
)  # fmt: skip
def test_a_log_that_is_not_what_its_killed_writer_said_is_found_out(
    tmp_path: Path, records: list[tuple[int, int]], lines: list[str], why: str
) -> None:
    def look() -> None:
        history, said = life_of([record_of(0, *record) for record in records], tmp_path, *LIFE, *lines)
        history.check(said, random.Random(0))

    with pytest.raises(AssertionError, match=why):
        look()


def test_a_record_that_changed_or_went_after_a_later_kill_is_found_out(tmp_path: Path) -> None:
    records = [record_of(0, 0, 0), record_of(0, 0, 1), record_of(0, 3, 0)]
    for number, later in enumerate([[(0, b"other"), *records[1:]], records[:2]]):
        history, said = life_of(records, tmp_path / f"{number}", *LIFE)
        history.check(said, random.Random(0))
        changed, nothing = life_of(later, tmp_path / f"{number} again", "begins open")
        history.path = changed.path
        with pytest.raises(AssertionError):
            history.check(nothing, random.Random(0))
