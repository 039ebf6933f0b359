"""What a full disk leaves: the reserve at each segment's end, and a log that always opens again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_rig import PATH, abandon, open_log, segments, wait_until

import wal
from wal.errors import LogBusy, LogFull
from wal.frames import CONTROL_BYTES, frame_bytes, seal_bytes
from wal.room import MAKING, READY, REFUSED, Room
from wal.segment import HEADER_BYTES
from wal.tail import SEAL_BYTES_MAX, emergency_bytes, make_limits, reserve_bytes
from wal.testing import FaultDisk, MemoryDisk

BIG = 1 << 20


def full_log() -> tuple[FaultDisk, MemoryDisk, wal.Log]:
    """A log whose disk has no room, filled until it takes no more."""
    memory = MemoryDisk()
    disk = FaultDisk(memory)
    log = open_log(disk, segment_bytes=BIG)
    log.append([(1, b"first")])
    wait_until(lambda: any(place.name == "spare.tmp" for place in memory.files()))
    disk.no_space()
    fill(log)
    return disk, memory, log


def append_for_ever(log: wal.Log, payload: bytes, *, emergency: bool = False) -> None:
    while True:
        log.append([(2, payload)], emergency=emergency)


def fill(log: wal.Log) -> None:
    for payload in (bytes(300_000), b"small"):
        with pytest.raises(wal.LogFull):
            append_for_ever(log, payload)


def test_an_emergency_has_room_when_nothing_else_has() -> None:
    disk, memory, log = full_log()
    stop = log.append([(9, b"stopped: the disk is full")], emergency=True)
    assert next(log.read(stop.first_lsn - 1)).payload.startswith(b"stopped")
    with pytest.raises(wal.LogFull):
        append_for_ever(log, bytes(400), emergency=True)
    assert (log.next_lsn - stop.first_lsn + 1) * 1024 >= emergency_bytes(BIG), "all of the reserve can be used"
    with pytest.raises(wal.LogFull):
        log.append([(1, b"not an emergency")])
    log.close()
    disk.free_space()
    with open_log(disk, segment_bytes=BIG) as log:
        log.append([(3, b"on")])
    assert wal.verify(PATH, disk=memory).status == "intact"


def test_an_emergency_uses_ordinary_room_while_there_is_some() -> None:
    with open_log(MemoryDisk(), segment_bytes=BIG) as log:
        for _ in range(5):
            assert log.append([(1, bytes(400_000))], emergency=True)
        assert len(segments(log._disk)) == 3


def test_a_full_log_opens_again_and_again_and_can_be_pruned() -> None:
    disk, memory, log = full_log()
    log.close()
    for _ in range(emergency_bytes(BIG) // 1024):
        log = open_log(disk, segment_bytes=BIG)
        fill(log)
        log.close()
    with pytest.raises(wal.LogFull, match=r"wal\.prune needs no room"):
        open_log(disk, segment_bytes=BIG)  # every opening takes a kilobyte of the reserve
    assert wal.prune(PATH, 10**9, disk=disk).segments == 1
    disk.free_space()
    with open_log(disk, segment_bytes=BIG) as log:
        assert log.prune(log.next_lsn).segments == 1
        log.append([(1, b"there is room again")])
    assert wal.verify(PATH, disk=memory).status == "pruned"


def test_a_crashed_log_on_a_full_disk_can_be_pruned_though_not_opened() -> None:
    disk, memory, log = full_log()
    killed = memory.kill()
    abandon(log)
    for place in killed.files():
        if place.suffix == ".tmp":
            killed.unlink(place)
    disk = FaultDisk(killed)
    disk.no_space()
    before = wal.head(PATH, disk=disk)
    with pytest.raises(wal.LogFull):
        open_log(disk, segment_bytes=BIG)
    assert wal.prune(PATH, 10**9, keep_heads=[before], disk=disk).segments == 1
    assert wal.verify(PATH, before, disk=disk).expected == "confirmed"
    disk.free_space()
    with open_log(disk, segment_bytes=BIG, expect_head=before) as log:
        log.append([(1, b"on")])


def test_a_log_that_is_open_is_pruned_by_its_owner_alone() -> None:
    memory = MemoryDisk()
    with open_log(memory), pytest.raises(wal.LogLocked):
        wal.prune(PATH, 1, disk=memory)


@given(st.integers(16, 4096), st.integers(1, 2**40), st.integers(1, 2**40))
def test_the_longest_batch_that_is_allowed_has_a_place_in_a_fresh_segment(
    sectors: int, max_record_bytes: int, max_batch_bytes: int
) -> None:
    limits = make_limits(sectors * 512, max_record_bytes, max_batch_bytes)
    room = Room(1, HEADER_BYTES + CONTROL_BYTES, 2**48 - 10, limits.segment_bytes, limits)
    room.place(frame_bytes(limits.max_batch_bytes), 1)
    assert room.segment == 1
    assert limits.max_record_bytes < limits.max_batch_bytes


@given(st.data())
def test_behind_every_frame_there_is_room_for_a_heartbeat_a_close_and_the_seal(data: st.DataObject) -> None:
    limits = make_limits(16384, 1 << 20, 1 << 20)
    room = Room(1, HEADER_BYTES, 1, 16384, limits)
    room.spare = READY
    for _ in range(data.draw(st.integers(1, 30))):
        length, records = data.draw(st.integers(1, 6)) * 512, data.draw(st.integers(1, 2**20))
        emergency = data.draw(st.booleans())
        room.spare = data.draw(st.sampled_from([READY, MAKING, REFUSED]))
        try:
            room.place(length, records, emergency=emergency)
        except (LogBusy, LogFull):
            assert room.spare == MAKING
            continue
        assert room.offset + 2 * CONTROL_BYTES + seal_bytes(room.next_lsn - 1) <= 16384
        assert seal_bytes(room.next_lsn - 1) <= SEAL_BYTES_MAX
        assert reserve_bytes(room.next_lsn - 1) == 2 * CONTROL_BYTES + seal_bytes(room.next_lsn - 1)


@pytest.mark.parametrize(
    ("segment_bytes", "expected"),
    [(8192, 0), (32767, 0), (32768, 512), (1 << 20, 16384), (64 << 20, 65536), (1 << 40, 65536)],
)
def test_the_reserve_is_a_small_part_of_a_segment(segment_bytes: int, expected: int) -> None:
    assert emergency_bytes(segment_bytes) == expected
