"""Reading a log that is being written: from another process, another thread, and across every change of file."""

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_rig import NEVER_MS, PATH, abandon, numbered, open_log, overwrite, segment, segments, wait_until, written

import wal
from wal.testing import FaultDisk, MemoryDisk


def records(count: int, length: int = 900) -> list[tuple[int, bytes]]:
    return [(n, bytes([n % 256]) * length) for n in range(count)]


def test_a_reader_elsewhere_sees_a_batch_once_a_later_one_proves_it() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        reader = wal.Reader(PATH, disk=disk)
        assert reader.poll() == []
        log.append([(1, b"one")])
        assert reader.poll() == [], "nothing proves it yet"
        log.append([(2, b"two")])
        assert reader.poll() == [wal.Entry(1, 1, b"one")]
        assert reader.poll() == []
    assert reader.poll() == [wal.Entry(2, 2, b"two")]
    assert reader.last_lsn == 2


def test_a_reader_sees_the_last_batch_at_once_when_the_writer_is_gone_and_syncs_it_first() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    log.append([(1, b"one")])
    log.stage(2, b"staged").wait(30)
    after = FaultDisk(disk.kill())
    abandon(log)
    reader = wal.Reader(PATH, disk=after)
    assert [entry.lsn for entry in reader.poll()] == [1]
    assert after.calls["fdatasync"] == 0
    assert [entry.lsn for entry in reader.poll()] == [2]
    assert after.calls["fdatasync"] == 1


def test_the_log_s_own_reader_sees_each_batch_as_soon_as_it_is_durable() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        reader = log.reader()
        for entry in numbered(records(30)):
            log.append([(entry.kind, entry.payload)])
            assert reader.poll() == [entry]
            assert reader.poll() == []
        assert list(log.read(after=25)) == numbered(records(30))[25:]


def test_a_staged_record_is_not_read_before_it_is_durable() -> None:
    with open_log(MemoryDisk(), segment_bytes=1 << 20) as log:
        log.append([(0, b"")])
        assert log.stage(1, b"staged").wait(30)
        assert [entry.lsn for entry in log.read()] == [1]
        log.append([(2, b"")])
        assert [entry.lsn for entry in log.read()] == [1, 2, 3]


def test_an_idle_reader_of_a_working_log_touches_no_disk() -> None:
    disk = FaultDisk(MemoryDisk())
    with open_log(disk) as log:
        log.append([(0, b"")])
        reader = log.reader()
        assert len(reader.poll()) == 1
        calls = disk.calls.copy()
        assert reader.poll() == []
        assert disk.calls == calls


def test_poll_hands_over_about_as_much_as_it_is_asked_for() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        for record in records(20, 10):
            log.append([record])
        reader = log.reader(after=3)
        assert [entry.lsn for entry in reader.poll(limit=5)] == [4, 5, 6, 7, 8]
        assert [entry.lsn for entry in reader.poll()] == list(range(9, 21))


def test_a_reader_follows_across_restarts_repairs_and_rotation() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    reader_of = {}
    expected: list[tuple[int, bytes]] = []
    found: list[wal.Entry] = []
    for round_number in range(6):
        batch = records(6, 700 + round_number)
        for record in batch:
            log.append([record])
        expected += batch
        disk = disk.kill()
        abandon(log)
        last = segments(disk)[-1]
        end = len(disk.peek(last).rstrip(b"\0")) + 511 & ~511
        overwrite(disk, last, end, b"torn")
        reader_of[round_number] = wal.Reader(PATH, after=len(found), disk=disk)
        while more := reader_of[round_number].poll():
            found += more
        log = open_log(disk)
        assert log.recovery.cut_bytes == 4
        assert reader_of[round_number].poll() == []
    log.close()
    assert found == numbered(expected)


def test_one_reader_object_survives_the_repair_of_the_file_it_reads() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    log.append([(1, b"one")])
    log.append([(2, b"two")])
    reader = wal.Reader(PATH, disk=disk)
    assert [entry.lsn for entry in reader.poll()] == [1]
    # The writer dies without a word: same disk, its lock dropped.
    log._writer._tail.finish = lambda: None  # type: ignore[method-assign]
    log.close()
    overwrite(disk, segment(), 2048, b"torn")
    with open_log(disk) as log:
        assert log.recovery.cut_bytes == 4
        log.append([(3, b"three")])
        assert [entry.lsn for entry in reader.poll()] == [2]
    assert [entry.lsn for entry in reader.poll()] == [3]


def test_a_hole_that_something_proves_is_damage_and_one_that_nothing_proves_is_waited_for() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    for n in range(4):
        log.append([(n, b"x")])
    reader = wal.Reader(PATH, disk=disk)
    assert len(reader.poll()) == 3
    image = disk.peek(segment())
    waiting = wal.Reader(PATH, disk=disk)
    last = (len(image.rstrip(b"\0")) - 1) // 512 * 512
    overwrite(disk, segment(), last, image[last : last + 100].ljust(512, b"\0"))
    assert len(waiting.poll()) == 2, "half a frame, by a writer that may still be writing it"
    assert waiting.poll() == []
    overwrite(disk, segment(), last, image[last : last + 512])
    overwrite(disk, segment(), 1536, bytes(512))
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        drain(wal.Reader(PATH, disk=disk))
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        list(log.read())
    abandon(log)  # its file was replaced under it


def drain(reader: wal.Reader) -> None:
    while reader.poll():
        pass


def test_a_reader_thread_beside_a_writer_thread_sees_everything_once_and_in_order() -> None:
    disk = MemoryDisk()
    expected = numbered(records(150, 300))
    with open_log(disk) as log:
        found: list[wal.Entry] = []

        def follow() -> None:
            reader = log.reader()
            while len(found) < len(expected):
                found.extend(reader.poll())

        thread = threading.Thread(target=follow)
        thread.start()
        for entry in expected:
            log.append([(entry.kind, entry.payload)])
        thread.join(30)
        assert found == expected


def test_a_reader_beside_a_live_writer_process_sees_everything_once_and_in_order(tmp_path: Path) -> None:
    count = 300
    path = tmp_path / "log"
    wal.Log.open(path, segment_bytes=32768).close()
    hold, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        try:
            log = wal.Log.open(path, segment_bytes=32768, heartbeat_ms=5)
            for record in records(count, 500):
                log.append([record])
            os.read(hold, 1)  # the writer lives on: only a heartbeat can prove the last batch
        finally:
            os._exit(0)
    reader = wal.Reader(path)
    found: list[wal.Entry] = []

    def complete() -> bool:
        found.extend(reader.poll())
        assert wal.verify(path).status == "intact"
        return len(found) >= count

    wait_until(complete)
    assert found == numbered(records(count, 500))
    os.write(let_go, b"x")
    os.waitpid(child, 0)
    os.close(hold)
    os.close(let_go)


def test_reading_needs_no_writable_log(tmp_path: Path) -> None:
    with wal.Log.open(tmp_path, segment_bytes=32768, heartbeat_ms=NEVER_MS) as log:
        log.append([(1, b"x")])
    for place in tmp_path.iterdir():
        place.chmod(0o444)
    assert [entry.lsn for entry in wal.read(tmp_path)] == [1]
    assert wal.verify(tmp_path).status == "intact"


def test_a_poll_hands_over_a_few_megabytes_at_a_time_however_large_the_records() -> None:
    disk = MemoryDisk()
    with wal.Log.open(PATH, disk=disk, segment_bytes=1 << 26) as log:
        for n in range(12):
            log.append([(n, bytes(1 << 20))])
        reader = log.reader()
        polls = [len(reader.poll()) for _ in range(4)]
    assert polls == [4, 4, 4, 0]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "read"), KeyboardInterrupt(), MemoryError()])
def test_an_error_or_interrupt_in_mid_poll_moves_no_reader_past_what_it_handed_over(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = written([[record] for record in records(40, 1500)])
    failed = 0
    for nth in range(1, 40):
        reader = wal.Reader(PATH, disk=disk)
        calls = itertools.count(1)

        def failing(fd: int, length: int, offset: int, *, nth: int = nth, calls: Iterator[int] = calls) -> bytes:
            if next(calls) == nth:
                raise error
            return MemoryDisk.pread(disk, fd, length, offset)

        found: list[wal.Entry] = []
        with monkeypatch.context() as patch:
            patch.setattr(disk, "pread", failing)
            try:
                found += reader.poll()
            except type(error):
                failed += 1
        while more := reader.poll():
            found += more
        assert [entry.lsn for entry in found] == list(range(1, 41)), f"read {nth}"
    assert failed > 0
