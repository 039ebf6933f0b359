"""A retention run that loses power, meets a failing disk or a full one, at every operation it takes on the disk.

Old log or new log, never anything else; an audit passes; the next run finishes what was planned, to the byte the same.
"""

import contextlib
import errno
import itertools
import random
from collections.abc import Callable, Iterable, Iterator

import pytest
from retention_rig import LOG, SETTINGS, check, completed, entries_of, in_memory, planned, retain

import wal
from tamiyo.errors import TamiyoError
from wal.testing import FaultDisk, MemoryDisk, crash_states
from wal.testing.faults import every_fault

SOURCE, AGED = in_memory()
FAILURES = (OSError, wal.LogError, TamiyoError)
KEPT_HEADS = (AGED.heads[4], AGED.heads[len(AGED.heads) // 2])
"""Of records that go, and of records that stay."""


def whole() -> tuple[list[wal.Entry], int]:
    """What an undisturbed run leaves, and how many operations on the disk it takes."""
    disk = SOURCE.copy()
    operations = disk.operations
    report = retain(disk, AGED, keep_heads=KEPT_HEADS)
    assert len(report.outcomes) == 1
    operations = disk.operations - operations
    left = check(disk, AGED, heads=KEPT_HEADS)
    check(disk, AGED, heads=[head for head in AGED.heads if head.size >= left[0].lsn - 1])
    return left, operations


LEFT, OPERATIONS = whole()


def as_planned(left: list[wal.Entry]) -> list[tuple[int, bool]]:
    """Which of the records of before are left, and which of those without their payload."""
    return [(entry.lsn, isinstance(entry, wal.Redacted)) for entry in left if entry.lsn <= AGED.last_lsn]


def test_an_undisturbed_run_takes_what_is_old_and_leaves_the_rest() -> None:
    (plan,), (done,) = planned(LEFT), completed(LEFT)
    assert plan.prune_before_lsn == LEFT[0].lsn > 1
    assert done.payloads_redacted == sum(isinstance(entry, wal.Redacted) for entry in LEFT) > 3
    assert (done.first_lsn, done.resumed, done.run_id) == (LEFT[0].lsn, False, "run")
    assert done.freed_bytes >= sum(segment.size_bytes for segment in plan.segments) > 0
    window = plan.payloads[0]
    times = {entry.lsn: entry for entry in AGED.entries}
    assert window.upto_lsn in times
    assert window.window_ns == SETTINGS.windows().payloads[window.kind]


def resumed(disk: MemoryDisk) -> None:
    """The next run finishes what was planned, or does all of it; either way it comes to the same log."""
    begun = bool(planned(entries_of(disk)))
    done = bool(completed(entries_of(disk)))
    report = retain(disk, AGED, "next", keep_heads=() if begun else KEPT_HEADS)
    left = check(disk, AGED, heads=KEPT_HEADS)
    assert as_planned(left) == as_planned(LEFT)
    assert [outcome.completed.run_id for outcome in report.outcomes] == ([] if done else ["run" if begun else "next"])
    assert [event.resumed for event in completed(left)] == [begun and not done]
    assert retain(disk, AGED, "last").outcomes == ()


def chooser(seed: int) -> Callable[[int], int]:
    """What power loss does to what was not synced: all of it lost, all of it there, or drawn."""
    if seed == 0:
        return lambda _: 0
    if seed == 1:
        return lambda options: options - 1
    return random.Random(seed).randrange


def cut(after: int, seeds: Iterable[int]) -> Iterator[MemoryDisk]:
    """The disks that come up after power was lost after so many operations."""
    disk = SOURCE.copy()
    disk.power_off_after(after)
    with contextlib.suppress(FAILURES):  # a heartbeat fewer, and the last operations are none
        retain(disk, AGED, keep_heads=KEPT_HEADS)
    for seed in seeds:
        yield disk.crash(chooser(seed))


def test_power_is_lost_at_every_operation_of_a_run() -> None:
    for after in range(OPERATIONS):
        for disk in cut(after, [after % 2]):
            check(disk, AGED, heads=KEPT_HEADS)
            resumed(disk)


def test_a_run_that_is_finished_by_who_wants_other_heads_keeps_those_that_were_promised_too() -> None:
    finished = 0
    for after in range(OPERATIONS):
        (disk,) = cut(after, [1])
        entries = entries_of(disk)
        if not planned(entries) or completed(entries) or entries[0].lsn > 1:
            continue
        other = AGED.heads[5]
        retain(disk, AGED, "next", keep_heads=(other,))
        check(disk, AGED, heads=(*KEPT_HEADS, other))
        finished += 1
    assert finished


@pytest.mark.long
def test_power_is_lost_at_every_operation_of_a_run_in_many_ways(
    record_property: Callable[[str, object], None],
) -> None:
    states = 0
    for after in range(OPERATIONS):
        for disk in cut(after, range(12)):
            check(disk, AGED, heads=KEPT_HEADS)
            resumed(disk)
            states += 1
    record_property("operations", OPERATIONS)
    record_property("states", states)


@pytest.mark.long
def test_power_is_lost_again_amid_the_run_that_resumes(record_property: Callable[[str, object], None]) -> None:
    states = 0
    for after in range(0, OPERATIONS, 5):
        for again in itertools.count(0, 17):
            disk = next(cut(after, [1]))
            disk.power_off_after(again)
            try:
                retain(disk, AGED, "next", keep_heads=KEPT_HEADS)
            except FAILURES:
                pass
            else:
                break
            disk = disk.crash(chooser(again))
            left = check(disk, AGED)
            report = retain(disk, AGED, "third")
            assert as_planned(check(disk, AGED)) == as_planned(LEFT)
            assert len(report.outcomes) == (0 if completed(left) else 1)
            states += 1
    record_property("states", states)


def states(samples: int) -> Iterator[MemoryDisk]:
    """Every disk that power loss could have left, before and after each operation of one run; equal ones once."""
    disk = SOURCE.copy(record=True)
    retain(disk, AGED, keep_heads=KEPT_HEADS)
    seen = set()
    for state in crash_states(disk.trace, sectors_max=2, samples=samples):
        if state.key not in seen:
            seen.add(state.key)
            yield state.disk()


def test_states_that_power_loss_leaves_are_the_old_log_or_the_new_one() -> None:
    for disk in itertools.islice(states(samples=1), 0, None, 150):
        check(disk, AGED, heads=KEPT_HEADS)
        resumed(disk)


@pytest.mark.long
def test_every_state_that_power_loss_leaves_is_the_old_log_or_the_new_one(
    record_property: Callable[[str, object], None],
) -> None:
    count = 0
    for disk in states(samples=4):
        check(disk, AGED, heads=KEPT_HEADS)
        resumed(disk)
        count += 1
    record_property("states", count)
    assert count > 5_000


def faulty(op: str, nth: int, forever: bool) -> None:
    """The n-th call of an operation fails, once or for ever after; the disk is mended, and the next run comes."""
    memory = SOURCE.copy()
    disk = FaultDisk(memory)
    disk.fail(op, errno.EIO, nth, forever=forever)
    try:
        retain(disk, AGED, keep_heads=KEPT_HEADS)
    except FAILURES:
        disk.heal()
        check(disk, AGED, heads=KEPT_HEADS)
        resumed(disk)  # type: ignore[arg-type]
    else:
        disk.heal()
        assert as_planned(check(disk, AGED)) == as_planned(LEFT)


def faults() -> list[tuple[str, int, bool]]:
    disk = FaultDisk(SOURCE.copy())
    retain(disk, AGED, keep_heads=KEPT_HEADS)
    return list(every_fault(disk.calls))


@pytest.mark.parametrize(("op", "nth", "forever"), random.Random(7).sample(faults(), 12))
def test_a_call_of_the_disk_fails_amid_a_run(op: str, nth: int, forever: bool) -> None:
    faulty(op, nth, forever)


@pytest.mark.long
def test_each_call_of_the_disk_fails_in_turn(record_property: Callable[[str, object], None]) -> None:
    cases = faults()
    for op, nth, forever in cases:
        faulty(op, nth, forever)
    record_property("cases", len(cases))


def test_pruning_needs_no_space_and_makes_the_space_that_redaction_needs() -> None:
    """Not one more byte fits, and the log has still room for the plan: what goes whole goes."""
    memory = SOURCE.copy()
    disk = FaultDisk(memory)
    disk.no_space()

    def tell(stage: str, _: str) -> None:
        if stage == "redact":
            disk.free_space()

    report = retain(disk, AGED, keep_heads=KEPT_HEADS, tell=tell)
    assert len(report.outcomes[0].completed.segments) > 0
    assert as_planned(check(memory, AGED, heads=KEPT_HEADS)) == as_planned(LEFT)


def test_where_there_is_no_room_to_redact_the_pruning_is_done_and_the_rest_is_left_for_the_next_run() -> None:
    memory = SOURCE.copy()
    disk = FaultDisk(memory)
    disk.no_space()
    with pytest.raises(wal.LogFull, match="prune"):
        retain(disk, AGED, keep_heads=KEPT_HEADS)
    assert entries_of(memory)[0].lsn == LEFT[0].lsn
    disk.free_space()
    resumed(memory)


def test_two_runs_on_one_disk_take_no_more_than_one() -> None:
    disk = SOURCE.copy()
    retain(disk, AGED)
    before = entries_of(disk)
    assert retain(disk, AGED, "again").outcomes == ()
    assert entries_of(disk) == before
    assert wal.segments(LOG, disk=disk)[0].first_lsn == LEFT[0].lsn
