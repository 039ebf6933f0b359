"""The log as its owner uses it, on a disk that works."""

from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_rig import PATH, SEGMENT_BYTES, abandon, entries, numbered, open_log, segments, written

import wal
from wal.testing import MemoryDisk

BATCHES = st.lists(
    st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=900)), min_size=1, max_size=4), max_size=12
)


@given(BATCHES)
def test_what_is_appended_is_read_back_in_order_and_numbered_from_one(batches: list[list[tuple[int, bytes]]]) -> None:
    disk = written(batches)
    expected = numbered(record for batch in batches for record in batch)
    assert entries(disk) == expected
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.records, verdict.clean_close) == ("intact", len(expected), True)


@given(BATCHES, st.integers(0, 60))
def test_reading_starts_past_any_lsn(batches: list[list[tuple[int, bytes]]], after: int) -> None:
    disk = written(batches)
    assert entries(disk, after=after) == numbered(record for batch in batches for record in batch)[after:]


def test_the_log_works_on_a_real_file_system(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log"
    with wal.Log.open(path, segment_bytes=65536) as log:
        commit = log.append([(1, b"one"), (2, b"")])
        assert (commit.first_lsn, commit.last_lsn) == (1, 2)
        assert commit.entries == (wal.Entry(1, 1, b"one"), wal.Entry(2, 2, b""))
        assert (log.durable_lsn, log.next_lsn, log.failure) == (2, 3, None)
    assert list(wal.read(path)) == [wal.Entry(1, 1, b"one"), wal.Entry(2, 2, b"")]
    with wal.Log.open(path, segment_bytes=65536) as log:
        assert (log.recovery.records, log.recovery.clean_close, log.recovery.cut_bytes) == (2, True, 0)
        assert log.append([(3, b"three")]).first_lsn == 3
    assert wal.verify(path).records == 3


def test_a_log_goes_on_in_new_segments() -> None:
    batches = [[(n, bytes([n]) * 1500)] for n in range(20)]
    disk = written(batches)
    assert len(segments(disk)) > 4
    assert entries(disk) == numbered(record for batch in batches for record in batch)
    assert wal.verify(PATH, disk=disk).segments == len(segments(disk))
    with open_log(disk) as log:
        assert log.size_bytes == SEGMENT_BYTES * len(segments(disk))
        assert log.segment == len(segments(disk))


def test_the_longest_batch_fits_a_segment_and_one_byte_more_is_refused() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        longest = log.limits.max_record_bytes
        for _ in range(3):
            log.append([(1, bytes(longest))])
        with pytest.raises(wal.RecordTooLarge, match=f"{longest + 1} bytes"):
            log.append([(1, bytes(longest + 1))])
        with pytest.raises(wal.BatchTooLarge):
            log.append([(1, bytes(longest // 2 + 1))] * 2)
        assert log.next_lsn == 4
    assert len(entries(disk)) == 3


@pytest.mark.parametrize("batch", [[], [(-1, b"")], [(65536, b"")]])
def test_a_batch_that_makes_no_sense_is_refused(batch: list[tuple[int, bytes]]) -> None:
    with open_log(MemoryDisk()) as log:
        with pytest.raises(ValueError, match="cannot append"):
            log.append(batch)
        assert log.next_lsn == 1


def test_a_payload_that_is_not_bytes_is_refused() -> None:
    with open_log(MemoryDisk()) as log, pytest.raises(TypeError, match="bytearray"):
        log.append([(1, bytearray(b"changes later"))])  # type: ignore[list-item]


@pytest.mark.parametrize("segment_bytes", [0, 8191, 8192 + 8])
def test_a_segment_length_that_cannot_work_is_refused(segment_bytes: int) -> None:
    with pytest.raises(ValueError, match="segment_bytes"):
        open_log(MemoryDisk(), segment_bytes=segment_bytes)


def test_the_smallest_segment_works() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=8192) as log:
        for n in range(12):
            log.append([(n, b"x" * log.limits.max_record_bytes)])
    assert [entry.kind for entry in entries(disk)] == list(range(12))


def test_submitted_batches_keep_their_order_and_numbers() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=1 << 20) as log:
        pending = [log.submit([(n, b"a"), (n, b"b")]) for n in range(50)]
        assert [(p.first_lsn, p.last_lsn) for p in pending] == [(2 * n + 1, 2 * n + 2) for n in range(50)]
        assert pending[-1].result(30).last_lsn == 100
        assert all(p.done() for p in pending)
        assert log.durable_lsn == 100
    assert [entry.kind for entry in entries(disk)] == [n for n in range(50) for _ in range(2)]


def test_a_pending_batch_is_a_future_that_cannot_be_cancelled() -> None:
    with open_log(MemoryDisk()) as log:
        pending = log.submit([(1, b"")])
        assert isinstance(pending, Future)
        assert not pending.cancel()
        assert pending.result(30).first_lsn == 1


def test_a_staged_record_is_written_before_its_batch_and_durable_with_it() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    staged = log.stage(7, b"packet")
    assert staged.wait(30)
    assert staged.done()
    assert (staged.lsn, log.durable_lsn) == (1, 0)
    assert entries(disk.kill()) == [wal.Entry(1, 7, b"packet")], "it survives the death of the process"
    abandon(log)

    disk = MemoryDisk()
    with open_log(disk) as log:
        assert log.stage(7, b"packet").wait(30)
        assert log.append([(8, b"decision")]).first_lsn == 2
        assert log.durable_lsn == 2


def test_staged_records_alone_never_outgrow_what_may_be_in_doubt() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=65536, max_batch_bytes=600)
    waiters = [log.stage(n, bytes(300)) for n in range(40)]
    assert all(waiter.wait(30) for waiter in waiters)
    after = disk.crash(lambda _: 0)
    abandon(log)
    with open_log(after, segment_bytes=65536, max_batch_bytes=600) as log:
        assert log.recovery.last_lsn >= 38


def test_a_closed_log_takes_nothing_and_closes_again_quietly() -> None:
    log = open_log(MemoryDisk())
    log.close()
    log.close()
    for attempt in (lambda: log.append([(1, b"")]), lambda: log.submit([(1, b"")]), lambda: log.stage(1, b"")):
        with pytest.raises(wal.LogClosed):
            attempt()


def test_closing_writes_what_is_queued_first() -> None:
    disk = MemoryDisk()
    log = open_log(disk, segment_bytes=1 << 20)
    pending = [log.submit([(n, b"")]) for n in range(20)]
    log.close()
    assert [p.result(0).first_lsn for p in pending] == list(range(1, 21))
    assert len(entries(disk)) == 20


def test_a_commit_is_made_by_the_log_alone_and_does_not_change() -> None:
    with pytest.raises(TypeError, match="made by the log"):
        wal.Commit((wal.Entry(1, 1, b""),))
    with open_log(MemoryDisk()) as log:
        commit = log.append([(1, b"secret")])
    with pytest.raises(AttributeError):
        commit.last_lsn = 9
    with pytest.raises(AttributeError):
        del commit.last_lsn
    assert "secret" not in repr(commit)
    assert commit != "a commit"
    assert len({commit, commit}) == 1


def test_other_limits_begin_a_new_segment() -> None:
    disk = written([[(1, b"old")]])
    with open_log(disk, max_batch_bytes=500) as log:
        log.append([(2, b"new")])
        with pytest.raises(wal.BatchTooLarge):
            log.append([(3, bytes(300))] * 2)
    assert len(segments(disk)) == 2
    assert [entry.payload for entry in entries(disk)] == [b"old", b"new"]


def test_a_log_can_be_opened_and_closed_for_ever() -> None:
    disk = MemoryDisk()
    for n in range(40):
        with open_log(disk) as log:
            assert log.recovery.records == n
            assert log.recovery.clean_close
            log.append([(n, b"")])
    assert wal.verify(PATH, disk=disk).records == 40
    assert len(segments(disk)) > 3


def test_payloads_that_look_like_anything_come_back() -> None:
    first = written([[(1, b"inner")]])
    image = first.peek(segments(first)[0])
    batches = [[(1, image[:3000])], [(2, bytes(2000))], [(3, image[512:2560])]]
    assert [entry.payload for entry in entries(written(batches))] == [batch[0][1] for batch in batches]


def test_the_same_input_and_entropy_give_the_same_bytes() -> None:
    batches = [[(1, b"a" * 3000)], [(2, b"b" * 3000)], [(3, b"c")]]
    one, other = written(batches), written(batches)
    assert [one.peek(place) for place in segments(one)] == [other.peek(place) for place in segments(other)]
