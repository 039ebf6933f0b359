"""Which segments a log has; redacting some of them alone, at a pace; an emergency that waits for nobody."""

import contextlib

import pytest
from log_rig import PATH, abandon, entries, numbered, open_log, segment, segments, wait_until, written

import wal
from wal.testing import FaultDisk, MemoryDisk

BATCHES = [[(n % 3, bytes([n]) * 900), (n + 100, b"%d" % n)] for n in range(1, 31)]
RECORDS = numbered([record for batch in BATCHES for record in batch])
SOURCE = written(BATCHES)
FIRSTS = [int(place.name[9:29]) for place in segments(SOURCE)]


def test_the_segments_say_what_they_hold_and_which_are_finished() -> None:
    found = wal.segments(PATH, disk=SOURCE)
    assert [info.first_lsn for info in found] == FIRSTS
    assert [info.last_lsn for info in found] == [*(lsn - 1 for lsn in FIRSTS[1:]), None]
    assert [info.finished for info in found] == [True] * (len(FIRSTS) - 1) + [False]
    assert [info.path for info in found] == segments(SOURCE)
    assert {(info.size_bytes, info.redacted) for info in found} == {(8192, False)}
    assert [info.number for info in found] == list(range(1, len(FIRSTS) + 1))


def test_the_segments_of_nothing_are_none() -> None:
    disk = MemoryDisk()
    disk.make_dir(PATH)
    assert wal.segments(PATH, disk=disk) == []


def test_a_missing_segment_is_damage() -> None:
    disk = SOURCE.copy()
    disk.unlink(segment(2, FIRSTS[1]))
    with pytest.raises(wal.LogCorrupt, match="missing"):
        wal.segments(PATH, disk=disk)


def test_only_records_past_the_one_that_is_named_lose_their_payload() -> None:
    disk = SOURCE.copy()
    after_lsn, upto_lsn = FIRSTS[2] + 3, FIRSTS[4] + 1
    with open_log(disk) as log:
        done = log.redact(lambda entry: entry.kind == 1, after_lsn=after_lsn, upto_lsn=upto_lsn)
        redacted = [info.redacted for info in log.segments()]
    wanted = [entry.lsn for entry in RECORDS if entry.kind == 1 and after_lsn < entry.lsn <= upto_lsn]
    assert [entry.lsn for entry in entries(disk) if isinstance(entry, wal.Redacted)] == wanted
    assert done.records == len(wanted) > 0
    assert redacted[:2] == [False, False]
    assert True in redacted[2:5]


def test_segments_before_it_are_not_even_read() -> None:
    disk = FaultDisk(SOURCE.copy())
    with open_log(disk) as log:
        read = disk.calls["pread"]
        log.redact(lambda _: False, after_lsn=0)
        whole, read = disk.calls["pread"] - read, disk.calls["pread"]
        log.redact(lambda _: False, after_lsn=FIRSTS[-1] - 1)
        assert disk.calls["pread"] - read < whole


def test_the_pace_is_called_all_along_and_what_it_raises_leaves_each_segment_as_it_was_or_redacted() -> None:
    class Stopped(Exception):
        pass

    calls = 0

    def pace() -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Stopped

    stop_at = None
    disk = SOURCE.copy()
    with open_log(disk) as log:
        log.redact(lambda entry: entry.kind == 1, pace=pace)
    frames = 30
    assert calls > 2 * frames  # once to choose, once to write, once to check
    for call in range(1, calls, 7):
        stop_at = call
        disk, calls = SOURCE.copy(), 0
        with open_log(disk) as log, pytest.raises(Stopped):
            log.redact(lambda entry: entry.kind == 1, pace=pace)
        assert wal.verify(PATH, disk=disk).sound
        assert all(place.suffix != ".tmp" or place.name == "spare.tmp" for place in disk.files())


def test_an_emergency_is_queued_into_the_room_that_is_kept_for_it() -> None:
    memory = MemoryDisk()
    disk = FaultDisk(memory)
    log = open_log(disk, segment_bytes=1 << 20)
    wait_until(lambda: any(place.name == "spare.tmp" for place in memory.files()))
    disk.no_space()
    for payload in (bytes(300_000), b"small"):
        with contextlib.suppress(wal.LogFull):
            while True:
                log.append([(1, payload)])
    with pytest.raises((wal.LogFull, wal.LogBusy)):
        log.submit([(1, b"x" * 10)])

    def queued() -> bool:
        try:
            log.submit([(2, b"the reason")], emergency=True).result()
        except wal.LogBusy:  # the thread still looks for room
            return False
        return True

    wait_until(queued)
    assert list(log.read())[-1].payload == b"the reason"
    abandon(log)
