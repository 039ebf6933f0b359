"""Readings and proofs that only bad luck asks for: files that stay away, sizes within a batch, forged bodies."""

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest
from log_rig import PATH, frames_of, open_log, overwrite, segments, written

import wal
from wal.base import read_base, write_base
from wal.frames import HEAD_BYTES, RECORD_HEAD_BYTES, encode, leaves_of, stub
from wal.leaves import tree_at
from wal.proofs import _record
from wal.segment import HEADER_BYTES, decode_header, encode_header
from wal.testing import FaultDisk, MemoryDisk

LONG_S = 30
RECORDS = ((1, b"a"), (2, b"b"))


def test_a_segment_that_stays_away_though_it_is_listed_is_missing_at_last() -> None:
    disk = FaultDisk(written([[(n, bytes([n]) * 1500)] for n in range(12)]))
    reader = wal.Reader(PATH, disk=disk)
    assert len(reader.poll(1)) == 1
    disk.fail("open", errno.ENOENT, forever=True)
    with pytest.raises(FileNotFoundError):
        reader.poll()
    disk.heal()
    assert next(iter(reader.poll())).lsn == 2


class Unnamed:
    """A file system that does not count the names of a file; `looks` at one are too many."""

    def __init__(self, disk: MemoryDisk, looks: int = 100) -> None:
        self._disk, self._left = disk, looks

    def __getattr__(self, name: str) -> object:
        return getattr(self._disk, name)

    def links(self, _fd: int) -> int:
        self._left -= 1
        assert self._left, "it looks for ever"
        return 0


@pytest.mark.parametrize("look", [
    lambda disk: list(wal.read(PATH, disk=disk)),
    lambda disk: wal.head(PATH, disk=disk),
    lambda disk: wal.copy(PATH, PATH.with_name("copy"), disk=disk),
    lambda disk: wal.verify(PATH, disk=disk),
], ids=["read", "head", "copy", "verify"])  # fmt: skip
def test_damage_is_told_also_where_no_file_is_said_to_have_a_name(look: Callable[[object], object]) -> None:
    disk = written([[(n, bytes([n]) * 300)] for n in range(6)])
    damaged = frames_of(disk, segments(disk)[0])[2]
    overwrite(disk, segments(disk)[0], damaged.end - 1, b"\xff")
    try:
        found = look(Unnamed(disk))
    except wal.LogCorrupt as error:
        found = error
    assert (getattr(found, "segment", None), getattr(found, "offset_bytes", None)) == (1, damaged.offset)
    assert isinstance(found, wal.Verdict) or found.path == PATH


def test_the_log_s_own_reader_that_begins_at_the_durable_end_waits_for_what_is_staged() -> None:
    with open_log(MemoryDisk(), segment_bytes=1 << 20) as log:
        log.append([(1, b"")])
        assert log.stage(2, b"staged").wait(LONG_S)
        reader = log.reader(after=1)
        assert reader.poll() == []
        log.append([(3, b"")])
        assert [entry.lsn for entry in reader.poll()] == [2, 3]


def test_a_proof_for_a_size_within_a_batch_goes_no_further_than_it() -> None:
    disk = written([[(n, b"") for n in range(4)], [(n, b"") for n in range(5)]])
    whole = wal.prove_inclusion(PATH, 2, disk=disk)
    inside = wal.prove_inclusion(PATH, 2, 6, disk=disk)
    assert whole.holds(wal.head(PATH, disk=disk))
    tree, _ = tree_at(PATH, disk, 6)
    assert inside.holds(wal.Head(inside.log_id, 6, tree.root(), b""))


def test_a_record_that_moved_while_its_proof_was_made_is_asked_for_again() -> None:
    disk = written([RECORDS])
    frame = frames_of(disk, segments(disk)[0])[1]
    assert _record(PATH, disk, 1, frame.offset, 2)[0] == 2
    for offset, lsn in ((frame.offset, 3), (frame.offset + 512, 2), (0, 2)):
        with pytest.raises(wal.LogError, match="ask again"):
            _record(PATH, disk, 1, offset, lsn)


def test_records_that_reach_past_their_body_and_stubs_that_are_no_digest_hash_to_nothing() -> None:
    disk = written([RECORDS])
    frame = frames_of(disk, segments(disk)[0])[1]
    image = disk.peek(segments(disk)[0])[frame.offset : frame.end]
    body = image[HEAD_BYTES : HEAD_BYTES + frame.body_bytes]
    first = RECORD_HEAD_BYTES + 1
    short_stub = stub(1, bytes(32))[:-1].replace((32).to_bytes(4, "little"), (31).to_bytes(4, "little"), 1)
    for other in (body[:first] + body[first : first + 10], short_stub + body[first:]):
        changed = frame._replace(body_bytes=len(other))
        assert leaves_of(encode(changed, other), 0, changed) is None
    assert leaves_of(image, 0, frame) is not None


def test_a_tree_larger_than_the_log_is_refused() -> None:
    with pytest.raises(wal.LogError, match="has 2 records, not 3"):
        tree_at(PATH, written([RECORDS]), 3)


def test_a_proof_out_of_a_log_whose_segments_do_not_meet_is_refused() -> None:
    disk = written([[(n, bytes(1500))] for n in range(12)])
    place = segments(disk)[1]
    header = decode_header(disk.peek(place)[:HEADER_BYTES], 2, place)
    overwrite(disk, place, 0, encode_header(replace(header, chain=b"c" * 32)))
    with pytest.raises(wal.LogCorrupt, match="does not end where the next one says"):
        wal.prove_inclusion(PATH, 1, disk=disk)


def test_a_kept_proof_that_does_not_hold_confirms_nothing() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        heads = []
        for n in range(12):
            log.append([(n, bytes(1500))])
            heads.append(log.head())
        log.prune(9, keep_heads=heads[1:2])
    base = read_base(PATH, disk)
    assert base is not None
    step = base.steps[0]
    assert wal.verify(PATH, heads[1], disk=disk).expected == "confirmed"
    forged = replace(step, path=(*reversed(step.path), b"x" * 32))
    write_base(PATH, disk, replace(base, number=base.number + 1, steps=(forged,)))
    assert wal.verify(PATH, heads[1], disk=disk).expected == "contradicted"


def test_progress_of_a_proof_is_told_in_records() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=4 << 20) as log:
        for _ in range(3):
            log.append([(1, b"")] * 4096)
    told: list[tuple[int, int]] = []
    proof = wal.prove_inclusion(PATH, 5, disk=disk, progress=lambda done, total: told.append((done, total)))
    assert proof.holds(wal.head(PATH, disk=disk))
    assert told == [(4096, 3 * 4096), (8192, 3 * 4096), (12288, 3 * 4096)]


def test_a_lock_file_that_names_nobody_is_told_without_a_name() -> None:
    disk = MemoryDisk()
    fd = disk.lock(PATH / "LOCK")
    disk.pwrite(fd, b"nobody", 0)
    with pytest.raises(wal.LogLocked, match="another writer") as caught:
        open_log(disk)
    assert caught.value.holder_pid is None
    disk.close(fd)
