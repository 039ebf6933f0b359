"""Heads that are kept elsewhere, and what a log can prove against them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_rig import PATH, abandon, numbered, open_log, overwrite, segment, segments, written

import wal
from wal.testing import MemoryDisk

BATCHES = [[(n, b"record %d " % n * (n % 5 * 40)), (n + 100, b"")] for n in range(1, 25)]


def log_with_heads() -> tuple[MemoryDisk, list[wal.Head]]:
    """A closed log of several segments, and its head after each batch."""
    disk = MemoryDisk()
    with open_log(disk) as log:
        heads = [log.head()]
        for batch in BATCHES:
            log.append(batch)
            heads.append(log.head())
    return disk, heads


DISK, HEADS = log_with_heads()


def test_a_head_is_a_line_of_text_and_back() -> None:
    for head in HEADS:
        assert wal.Head.parse(f" {head}\n") == head
    assert str(HEADS[3]).startswith("wal-head-2:")


@pytest.mark.parametrize(
    "text",
    ["", "wal-head-1:00:1:00:00", "wal-head-2:zz:1:00:00", "wal-head-2:00:1:00:00", str(HEADS[1]) + ":", "wal-head-2"],
)
def test_what_is_not_a_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a log's head"):
        wal.Head.parse(text)


def test_the_head_on_disk_is_the_writer_s() -> None:
    assert wal.head(PATH, disk=DISK) == HEADS[-1]
    assert HEADS[-1].size == 2 * len(BATCHES)
    with open_log(DISK.copy()) as log:
        assert log.head() == HEADS[-1]


def test_a_head_covers_what_is_proven_while_a_writer_lives_and_everything_after() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    log.append([(1, b"first")])
    log.append([(2, b"second")])
    assert wal.head(PATH, disk=disk).size == 1, "the last batch is proven by nothing yet"
    assert log.head().size == 2
    killed = disk.kill()
    abandon(log)
    assert wal.head(PATH, disk=killed).size == 2


def test_a_head_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(wal.LogError, match="there is no log"):
        wal.head(tmp_path)


def test_staged_records_are_in_no_head_before_their_batch() -> None:
    disk = MemoryDisk()
    with open_log(disk) as log:
        log.append([(1, b"")])
        assert log.stage(2, b"staged").wait(30)
        assert log.head().size == 1
        log.append([(3, b"")])
        assert log.head().size == 3


def test_every_head_the_log_ever_had_is_confirmed() -> None:
    for head in HEADS:
        verdict = wal.verify(PATH, head, disk=DISK)
        assert (verdict.status, verdict.expected, verdict.head) == ("intact", "confirmed", HEADS[-1])


def test_a_log_that_lost_its_end_is_truncated_by_its_head_and_torn_or_intact_without() -> None:
    disk = DISK.copy()
    log = open_log(disk)
    log.append([(1, b"acknowledged, then zeroed")])
    head = log.head()
    disk = disk.kill()
    abandon(log)
    last = segments(disk)[-1]
    at = len(disk.peek(last).rstrip(b"\0"))
    overwrite(disk, last, at - 512, bytes(512))
    assert wal.verify(PATH, disk=disk).status == "intact", "the documented limit"
    verdict = wal.verify(PATH, head, disk=disk)
    assert (verdict.status, verdict.sound, verdict.records) == ("truncated", False, 48)
    before = [disk.peek(place) for place in segments(disk)]
    with pytest.raises(wal.LogCorrupt, match="acknowledged"):
        open_log(disk, expect_head=head)
    assert [disk.peek(place) for place in segments(disk)] == before


def test_a_torn_last_batch_is_cut_without_a_head_and_refused_with_it() -> None:
    disk = DISK.copy()
    log = open_log(disk)
    log.append([(1, b"acknowledged, then rotten")])
    head = log.head()
    disk = disk.kill()
    abandon(log)
    at = len(disk.peek(segments(disk)[-1]).rstrip(b"\0"))
    overwrite(disk, segments(disk)[-1], at - 100, b"rot")
    assert wal.verify(PATH, disk=disk).status == "torn"
    assert wal.verify(PATH, head, disk=disk).status == "truncated"
    with pytest.raises(wal.LogCorrupt, match="a frame that was acknowledged is damaged"):
        open_log(disk.copy(), expect_head=head)
    with open_log(disk) as log:
        assert log.recovery.cut_bytes > 0


def test_a_log_is_opened_with_any_of_its_heads() -> None:
    for head in HEADS:
        with open_log(DISK.copy(), expect_head=head) as log:
            assert log.head() == HEADS[-1]


def test_a_log_rewritten_from_scratch_is_found_out_by_its_head_alone() -> None:
    entropy = bytes  # the forger has the log's id, and its salts
    honest = written(BATCHES, entropy=entropy)
    head = wal.head(PATH, disk=honest)
    forged = written([*BATCHES[:-1], [(24, b"never happened"), (124, b"")]], entropy=entropy)
    assert wal.verify(PATH, disk=forged).status == "intact"
    verdict = wal.verify(PATH, head, disk=forged)
    assert (verdict.status, verdict.expected) == ("tampered", "contradicted")
    with pytest.raises(wal.LogTampered, match="not the one whose head was expected"):
        open_log(forged, expect_head=head)


def test_another_log_and_no_log_are_found_out() -> None:
    other = written(BATCHES, entropy=lambda length: b"o" * length)
    for head in (HEADS[0], HEADS[-1]):
        assert wal.verify(PATH, head, disk=other).status == "tampered"
        with pytest.raises(wal.LogTampered):
            open_log(other.copy(), expect_head=head)
    assert wal.verify(PATH, HEADS[-1], disk=MemoryDisk()).status == "truncated"
    assert wal.verify(PATH, HEADS[0], disk=MemoryDisk()).status == "empty"
    with pytest.raises(wal.LogCorrupt, match="no segment is left"):
        open_log(MemoryDisk(), expect_head=HEADS[-1])
    open_log(MemoryDisk(), expect_head=HEADS[0]).close()


@pytest.mark.parametrize("part", ["root", "chain"])
def test_a_head_must_agree_in_root_and_chain(part: str) -> None:
    for head in (HEADS[0], HEADS[5], HEADS[-1]):
        wrong = replace(head, **{part: b"w" * 32})
        assert wal.verify(PATH, wrong, disk=DISK).status == "tampered"
        with pytest.raises(wal.LogTampered):
            open_log(DISK.copy(), expect_head=wrong)


def test_a_head_inside_a_batch_is_none_of_the_log_s() -> None:
    inside = replace(HEADS[2], size=3)
    assert wal.verify(PATH, inside, disk=DISK).status == "tampered"


@given(st.integers(1, 48), st.integers(1, 24))
def test_every_record_is_proven_in_every_log_that_has_it(lsn: int, batches: int) -> None:
    head = HEADS[batches]
    if lsn > head.size:
        with pytest.raises(ValueError, match="is not among"):
            wal.prove_inclusion(PATH, lsn, head.size, disk=DISK)
        return
    proof = wal.prove_inclusion(PATH, lsn, head.size, disk=DISK)
    payload = numbered([record for batch in BATCHES for record in batch])[lsn - 1].payload
    assert proof.holds(head)
    assert proof.holds(head, payload)
    assert not proof.holds(head, payload + b"!")
    assert not proof.holds(HEADS[batches - 1])
    assert not replace(proof, kind=proof.kind + 1).holds(head)
    assert not replace(proof, lsn=proof.lsn % head.size + 1).holds(head) or head.size == 1
    assert wal.Inclusion.from_json(proof.to_json()) == proof


@given(st.integers(0, 24), st.integers(0, 24))
def test_every_later_log_is_proven_to_begin_with_every_earlier_one(first: int, second: int) -> None:
    old, new = HEADS[min(first, second)], HEADS[max(first, second)]
    proof = wal.prove_consistency(PATH, old.size, new.size, disk=DISK)
    assert proof.holds(old, new)
    assert not proof.holds(replace(old, log_id=b"x" * 16), new)
    assert not proof.holds(HEADS[1], HEADS[0])
    if 0 < old.size < new.size:
        assert not proof.holds(replace(old, root=b"x" * 32), new)
        assert not proof.holds(old, replace(new, root=b"x" * 32))
    assert wal.Consistency.from_json(proof.to_json()) == proof


def test_proofs_are_of_the_log_as_it_is_unless_a_size_is_given() -> None:
    assert wal.prove_inclusion(PATH, 7, disk=DISK).holds(HEADS[-1])
    assert wal.prove_consistency(PATH, HEADS[4].size, disk=DISK).holds(HEADS[4], HEADS[-1])


def test_a_proof_that_cannot_be_is_refused() -> None:
    for lsn in (0, 49):
        with pytest.raises(ValueError, match="is not among the 48"):
            wal.prove_inclusion(PATH, lsn, disk=DISK)
    for old, new in ((-1, 3), (5, 4)):
        with pytest.raises(ValueError, match="does not begin with"):
            wal.prove_consistency(PATH, old, new, disk=DISK)
    with pytest.raises(wal.LogError, match="has 48 records, not 60"):
        wal.prove_consistency(PATH, 3, 60, disk=DISK)
    with pytest.raises(wal.LogError, match="has 48 records, not 60"):
        wal.prove_inclusion(PATH, 3, 60, disk=DISK)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "KeyError"), ("[]", "KeyError"), ("nothing", "JSONDecodeError"), ("3", "TypeError"),
        (wal.Consistency(b"", 0, 0, ()).to_json(), "'lsn'|'salt'"),
        (json.dumps(json.loads(wal.prove_inclusion(PATH, 1, disk=DISK).to_json()) | {"proof": "other"}), "of other"),
        (json.dumps(json.loads(wal.prove_inclusion(PATH, 1, disk=DISK).to_json()) | {"salt": "x"}), "hex"),
    ],
)  # fmt: skip
def test_text_that_is_no_proof_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        wal.Inclusion.from_json(text)


def test_progress_is_told_while_a_log_is_verified() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=1 << 20) as log:
        for n in range(5):
            log.append([(n, bytes(700_000))])
    told: list[tuple[int, int]] = []
    assert wal.verify(PATH, disk=disk, progress=lambda done, total: told.append((done, total))).status == "intact"
    assert [total for _, total in told] == [5 << 20] * len(told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) >= 4
    assert told[-1] == (5 << 20, 5 << 20)


def test_records_swapped_under_right_checksums_are_tampering() -> None:
    disk = written([[(1, b"abc")], [(2, b"def")]])
    image = bytearray(disk.peek(segment()))
    at = bytes(image).index(b"abc")
    image[at : at + 3] = b"abd"
    import google_crc32c

    frame = at - 24 - 120
    image[frame + 508 : frame + 512] = google_crc32c.value(bytes(image[frame : frame + 508])).to_bytes(4, "little")
    disk.poke(segment(), bytes(image))
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.offset_bytes) == ("tampered", frame)
    with pytest.raises(wal.LogTampered) as caught:
        open_log(disk)
    assert caught.value.problem == "the records do not hash to the chain that the frame states"
    assert (caught.value.segment, caught.value.offset_bytes, caught.value.lsn) == (1, frame, 1)
