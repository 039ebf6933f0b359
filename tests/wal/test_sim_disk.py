"""The simulated disk itself: which states a crash can leave, and what a failed sync leaves, by file system."""

from pathlib import Path

import pytest

from wal.testing import (
    ANY,
    BTRFS,
    EXT4_DATA,
    EXT4_ORDERED,
    SYNC_MODELS,
    XFS,
    CrashState,
    MemoryDisk,
    SyncModel,
    crash_states,
)

ROOT = Path("/d")
FILE, OTHER = ROOT / "file", ROOT / "other"
OLD, NEW = b"o" * 512, b"n" * 512
ZERO = bytes(512)


def recording(**files: bytes) -> MemoryDisk:
    return MemoryDisk({ROOT / name: data for name, data in files.items()}, record=True)


def contents(disk: MemoryDisk) -> dict[str, bytes]:
    return {place.name: disk.peek(place) for place in disk.files()}


def states_now(disk: MemoryDisk) -> list[CrashState]:
    """What a crash at this moment can leave."""
    disk.note("now")
    return [state for state in crash_states(disk.trace) if state.operations == len(disk.trace.operations)]


def found(states: list[CrashState]) -> list[dict[str, bytes]]:
    return [contents(state.disk()) for state in states]


def test_an_unsynced_sector_is_old_new_zero_or_garbage() -> None:
    disk = recording(file=OLD)
    disk.pwrite(disk.open(FILE, write=True), NEW, 0)
    old, new, zero, garbage = [state["file"] for state in found(list(crash_states(disk.trace)))]
    assert (old, new, zero) == (OLD, NEW, ZERO)
    assert garbage not in (OLD, NEW, ZERO)
    assert len(garbage) == 512


def test_every_assignment_of_the_unsynced_sectors_is_taken_once() -> None:
    disk = recording(file=OLD * 4)
    fd = disk.open(FILE, write=True)
    disk.pwrite(fd, NEW * 3, 512)
    states = list(crash_states(disk.trace))
    assert len(states) == 4**3
    assert len({state.key for state in states}) == len({state["file"] for state in found(states)}) == 4**3
    assert all(state["file"][:512] == OLD for state in found(states))
    disk.fdatasync(fd)
    assert [state["file"] for state in found(list(crash_states(disk.trace)))].count(OLD + NEW * 3) == 1


def test_kinds_of_a_sector_that_are_equal_are_one_state() -> None:
    disk = recording(file=ZERO * 2)
    disk.pwrite(disk.open(FILE, write=True), ZERO + NEW, 0)
    assert len(list(crash_states(disk.trace))) == 2 * 3  # zero or garbage; zero, new or garbage


def test_a_state_comes_again_under_other_notes() -> None:
    disk = recording(file=OLD)
    fd = disk.open(FILE, write=True)
    disk.pwrite(fd, NEW, 0)
    disk.fdatasync(fd)
    disk.note("synced")
    states = list(crash_states(disk.trace))
    assert [state.notes for state in states] == [()] * 4 + [("synced",)]
    assert contents(states[-1].disk()) == {"file": NEW}
    assert states[-1].key in {state.key for state in states[:-1]}


def test_more_sectors_than_can_be_gone_through_are_sampled_by_the_seed() -> None:
    disk = recording(file=OLD * 9)
    disk.pwrite(disk.open(FILE, write=True), NEW * 9, 0)
    states = [state["file"] for state in found(list(crash_states(disk.trace, samples=50)))]
    plain = [OLD * 9, NEW * 9, ZERO * 9, NEW * 4 + OLD * 5, OLD * 4 + NEW * 5, NEW * 3 + OLD + NEW * 5]
    assert all(state in states for state in plain)
    assert len(states) < 1000
    again = [state["file"] for state in found(list(crash_states(disk.trace, samples=50, seed=1)))]
    assert set(states) != set(again)


def test_a_length_that_was_not_synced_may_be_lost() -> None:
    disk = recording(file=OLD)
    fd = disk.open(FILE, write=True)
    disk.fallocate(fd, 1024)
    disk.pwrite(fd, NEW, 1024)
    lengths = {len(state["file"]) for state in found(list(crash_states(disk.trace)))}
    assert lengths == {512, 1024, 1536}
    disk.fdatasync(fd)
    assert found(states_now(disk)) == [{"file": OLD + ZERO + NEW}]


def test_names_survive_as_a_journal_keeps_them() -> None:
    disk = recording(file=OLD)
    disk.open(OTHER, write=True, create=True)
    disk.unlink(FILE)
    assert [sorted(state) for state in found(list(crash_states(disk.trace)))] == [
        ["file"],
        ["file", "other"],
        ["other"],
    ]
    disk.fsync_dir(ROOT)
    assert [sorted(state) for state in found(states_now(disk))] == [["other"]]


def test_names_that_no_journal_orders_survive_in_any_subset_that_keeps_each_ones_order() -> None:
    disk = recording(file=OLD)
    disk.open(OTHER, write=True, create=True)
    disk.unlink(FILE)
    disk.rename(OTHER, FILE)
    survivors = {tuple(sorted(state.items())) for state in found(list(crash_states(disk.trace, names=ANY)))}
    assert survivors == {
        (("file", OLD),), (), (("file", OLD), ("other", b"")), (("other", b""),), (("file", b""),),
    }  # fmt: skip


def test_a_crashed_disk_can_be_recorded_and_crashed_again() -> None:
    disk = recording(file=OLD)
    disk.pwrite(disk.open(FILE, write=True), NEW, 0)
    after = next(state for state in crash_states(disk.trace) if state.choice == (2,)).disk(record=True)
    assert after.peek(FILE) == ZERO
    after.pwrite(after.open(FILE, write=True), NEW, 0)
    assert [state["file"] for state in found(list(crash_states(after.trace)))][:2] == [ZERO, NEW]


def test_a_killed_process_leaves_the_cache_and_the_trace() -> None:
    disk = recording(file=OLD)
    fd = disk.open(FILE, write=True)
    disk.pwrite(fd, NEW, 0)
    after = disk.kill()
    with pytest.raises(OSError, match="Input/output error"):
        disk.pwrite(fd, NEW, 0)
    assert after.peek(FILE) == NEW
    after.fdatasync(after.open(FILE))
    assert [operation.op for operation in after.trace.operations] == ["pwrite", "fdatasync"]
    assert disk.kill().crash(lambda _: 0).peek(FILE) == NEW


def test_what_is_not_an_operation_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="poke before it records"):
        recording().poke(FILE, OLD)
    with pytest.raises(ValueError, match="kept no trace"):
        assert MemoryDisk().trace


def test_a_lock_is_no_data() -> None:
    disk = recording()
    fd = disk.lock(ROOT / "LOCK")
    disk.pwrite(fd, b"1234", 0)
    assert disk.files() == [ROOT / "LOCK"]
    assert disk.pread(disk.open(ROOT / "LOCK"), 9, 0) == b"1234"
    assert disk.trace.operations == []
    assert disk.kill().files() == []


# A failed sync.


def after_failed_sync(model: SyncModel) -> tuple[MemoryDisk, int]:
    """Two sectors are rewritten and one is added; the sync loses the second."""
    disk = recording(file=OLD * 2)
    fd = disk.open(FILE, write=True)
    disk.fail_sync(model, lost=lambda sector: sector == 1)
    disk.pwrite(fd, NEW * 3, 0)
    if model.late:
        disk.fdatasync(fd)
    else:
        with pytest.raises(OSError, match="Input/output error"):
            disk.fdatasync(fd)
    return disk, fd


@pytest.mark.parametrize(
    ("model", "cached", "on_medium"),
    [
        (EXT4_ORDERED, NEW * 3, NEW + OLD + NEW),
        (EXT4_DATA, NEW * 3, NEW + OLD + NEW),
        (XFS, NEW * 3, NEW + OLD),
        (BTRFS, OLD * 2, OLD * 2),
    ],
    ids=lambda value: value.name if isinstance(value, SyncModel) else "",
)
def test_a_failed_sync_leaves_what_its_file_system_leaves(model: SyncModel, cached: bytes, on_medium: bytes) -> None:
    disk, _ = after_failed_sync(model)
    assert disk.peek(FILE) == cached
    lengths = {len(on_medium), 1536} if model is XFS else {len(on_medium)}  # the next sync may bring the length
    assert {state["file"] for state in found(states_now(disk))} == {on_medium.ljust(n, b"\0") for n in lengths}
    assert disk.crash(lambda _: 0).peek(FILE) == on_medium


@pytest.mark.parametrize("model", SYNC_MODELS, ids=lambda model: model.name)
def test_a_second_sync_succeeds_and_writes_nothing_of_what_was_lost(model: SyncModel) -> None:
    disk, fd = after_failed_sync(model)
    if model.late:
        with pytest.raises(OSError, match="Input/output error"):
            disk.fdatasync(fd)
    disk.fdatasync(fd)
    assert disk.crash(lambda _: 0).peek(FILE)[512:1024] == OLD


@pytest.mark.parametrize("model", SYNC_MODELS, ids=lambda model: model.name)
def test_dropping_the_cache_shows_the_medium_unless_the_kernel_keeps_it(model: SyncModel) -> None:
    disk, fd = after_failed_sync(model)
    shown = disk.peek(FILE)
    disk.keeps_cache = True
    disk.drop_cache(fd)
    assert disk.peek(FILE) == shown
    disk.keeps_cache = False
    disk.drop_cache(fd)
    assert disk.peek(FILE)[512:1024] == OLD


@pytest.mark.parametrize("model", SYNC_MODELS, ids=lambda model: model.name)
def test_what_is_written_again_after_a_failed_sync_is_synced_again(model: SyncModel) -> None:
    disk, fd = after_failed_sync(model)
    disk.pwrite(fd, NEW * 3, 0)
    if model.late:
        with pytest.raises(OSError, match="Input/output error"):
            disk.fdatasync(fd)
    disk.fdatasync(fd)
    assert disk.crash(lambda _: 0).peek(FILE) == NEW * 3
