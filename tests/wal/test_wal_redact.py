"""Taking payloads out: stubs stay, and every proof with them."""

import contextlib
import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_rig import PATH, abandon, contents, entries, numbered, open_log, overwrite, segments

import wal
from wal.testing import FaultDisk, MemoryDisk

BATCHES = [[(n % 3, bytes([n]) * 900), (n + 100, b"%d" % n)] for n in range(1, 31)]
RECORDS = numbered([record for batch in BATCHES for record in batch])


def build(disk: wal.Disk) -> list[wal.Head]:
    with open_log(disk) as log:
        heads = [log.head()]
        for number, batch in enumerate(BATCHES):
            if number % 4 == 0:
                log.stage(*batch[0])
                log.append(batch[1:])
            else:
                log.append(batch)
            heads.append(log.head())
    return heads


SOURCE = MemoryDisk()
HEADS = build(SOURCE)
FIRSTS = [int(place.name[9:29]) for place in segments(SOURCE)]


def kind_one(entry: wal.Entry) -> bool:
    return entry.kind == 1


def hidden(found: list[wal.Entry]) -> list[int]:
    return [entry.lsn for entry in found if isinstance(entry, wal.Redacted)]


def test_the_payloads_that_are_named_go_from_finished_segments_and_all_else_stays() -> None:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        before = log.size_bytes
        result = log.redact(kind_one)
        assert log.size_bytes == before - result.freed_bytes
    wanted = [entry.lsn for entry in RECORDS if entry.kind == 1 and entry.lsn < FIRSTS[-1]]
    found = entries(disk)
    assert hidden(found) == wanted
    assert (result.records, result.segments) == (len(wanted), len(FIRSTS) - 1)
    assert result.freed_bytes > 8192
    assert found == [entry._replace(payload=b"") if entry.lsn in wanted else entry for entry in RECORDS]
    assert not any(RECORDS[lsn - 1].payload in disk.peek(place) for lsn in wanted for place in disk.files())
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.sound, verdict.redacted, verdict.records) == ("redacted", True, len(wanted), 60)


def test_every_head_and_proof_holds_as_before() -> None:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        log.redact(kind_one)
    for head in HEADS:
        assert wal.verify(PATH, head, disk=disk).expected == "confirmed"
        open_log(disk.copy(), expect_head=head).close()
        assert wal.prove_consistency(PATH, head.size, disk=disk).holds(head, HEADS[-1])
    for entry in RECORDS:
        proof = wal.prove_inclusion(PATH, entry.lsn, disk=disk)
        gone = entry.kind == 1 and entry.lsn < FIRSTS[-1]
        assert proof.holds(HEADS[-1])
        assert proof.holds(HEADS[-1], entry.payload) is not gone, "nobody can show what a redacted record said"
        assert proof.inner == wal.prove_inclusion(PATH, entry.lsn, disk=SOURCE).inner


@given(st.lists(st.frozensets(st.integers(1, 60)), min_size=1, max_size=4), st.booleans())
def test_redactions_add_up_whatever_is_named_and_in_whatever_order(rounds: list[frozenset[int]], prune: bool) -> None:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        for chosen in rounds:
            log.redact(lambda entry, chosen=chosen: entry.lsn in chosen)
        if prune:
            log.prune(FIRSTS[2])
        log.append([(9, b"on")])
    gone = sorted(lsn for lsn in frozenset().union(*rounds) if lsn < FIRSTS[-1] and (not prune or lsn >= FIRSTS[2]))
    found = list(wal.read(PATH, None, disk=disk))
    assert hidden(found) == gone
    assert wal.verify(PATH, HEADS[-1], disk=disk).expected == "confirmed"
    with open_log(disk) as log:
        assert log.recovery.last_lsn == 61


def test_nothing_above_the_given_lsn_goes() -> None:
    with open_log(SOURCE.copy()) as log:
        log.redact(lambda _: True, upto_lsn=FIRSTS[1] + 1)
        assert hidden(list(log.read())) == list(range(1, FIRSTS[1] + 2))
        assert log.redact(lambda _: True, upto_lsn=FIRSTS[1] + 1).segments == 0, "a stub is not redacted again"


def test_short_payloads_are_redacted_too_though_their_stubs_are_longer() -> None:
    with open_log(SOURCE.copy()) as log:
        assert log.redact(lambda entry: len(entry.payload) < 10).records > 0
        assert list(log.read())[1] == wal.Redacted(2, 101, b"")


def test_a_follower_goes_on_across_a_redaction_without_gap_or_repeat() -> None:
    for first in range(1, 12):
        disk = SOURCE.copy()
        follower = wal.Reader(PATH, disk=disk)
        seen = follower.poll(first)
        with open_log(disk) as log:
            log.redact(kind_one)
            while found := follower.poll(5):
                seen += found
            log.redact(lambda _: True)
        assert [entry.lsn for entry in seen] == list(range(1, 61))


def test_a_damaged_stub_and_a_damaged_redacted_segment_are_found() -> None:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        log.redact(kind_one)
    place = segments(disk)[1]
    image = disk.peek(place)
    for at in range(0, len(image), 97):
        other = disk.copy()
        overwrite(other, place, at, bytes([image[at] ^ 0x40]))
        assert wal.verify(PATH, disk=other).status == "corrupt", at
    other = disk.copy()
    other.poke(place, image[:-512])
    assert wal.verify(PATH, disk=other).status == "corrupt"
    with pytest.raises(wal.LogCorrupt):
        open_log(other)


def test_damage_that_a_redaction_meets_is_refused_and_the_segment_left_as_it_is() -> None:
    disk = SOURCE.copy()
    place = segments(disk)[0]
    overwrite(disk, place, 2000, b"\xff\xff")
    before = disk.peek(place)
    with open_log(disk) as log:
        with pytest.raises(wal.LogCorrupt, match="finished segment is damaged"):
            log.redact(kind_one)
        assert disk.peek(place) == before
        log.append([(1, b"on")])


def script(disk: wal.Disk) -> None:
    log = open_log(disk)
    try:
        log.redact(kind_one, upto_lsn=FIRSTS[3])
        log.append([(1, b"between")])
        log.redact(lambda entry: entry.kind == 2)
        log.prune(FIRSTS[2])
        log.close()
    finally:
        abandon(log)


def test_power_lost_at_any_operation_of_a_redaction_leaves_each_segment_as_before_or_redacted() -> None:
    whole = SOURCE.copy()
    before = whole.operations
    script(whole)
    counts = set()
    for operations in range(whole.operations - before + 1):
        for seed in range(4):
            disk = SOURCE.copy()
            disk.power_off_after(operations)
            with contextlib.suppress(wal.LogError):
                script(disk)
            after = disk.crash(random.Random(seed).randrange)
            assert wal.verify(PATH, HEADS[-1], disk=after).expected == "confirmed"
            with open_log(after) as log:
                found = list(log.read(None))
                counts.add(len(hidden(found)))
                for entry in found[: 61 - found[0].lsn]:
                    assert entry in (RECORDS[entry.lsn - 1], RECORDS[entry.lsn - 1]._replace(payload=b""))
                log.append([(5, b"after")])
            assert {place.name for place in after.files() if place.suffix == ".tmp"} == set()
    assert len(counts) > 5


@pytest.mark.parametrize("op", ["pwrite", "fdatasync", "fsync_dir", "rename", "fallocate", "open", "pread"])
def test_an_error_while_redacting_leaves_the_log_usable_and_the_inputs_intact(op: str) -> None:
    for nth in range(1, 8):
        memory = SOURCE.copy()
        disk = FaultDisk(memory)
        log = open_log(disk)
        disk.fail(op, errno.EIO, nth=nth)
        with contextlib.suppress(wal.LogFailed):
            log.redact(kind_one)
        disk.heal()
        assert wal.verify(PATH, HEADS[-1], disk=memory).expected == "confirmed"
        log.redact(kind_one)
        log.append([(1, b"on")])
        log.close()
        assert wal.verify(PATH, HEADS[-1], disk=memory).status == "redacted"


def test_a_full_disk_is_met_before_anything_is_changed() -> None:
    memory = SOURCE.copy()
    disk = FaultDisk(memory)
    with open_log(disk) as log:
        disk.no_space()
        before = contents(memory)
        with pytest.raises(wal.LogFull, match="or prune, which needs none"):
            log.redact(kind_one)
        assert contents(memory) == before
        disk.free_space()
        assert log.redact(kind_one).segments > 0


def test_a_redacted_form_that_does_not_hold_what_the_segment_held_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SOURCE.copy()
    monkeypatch.setattr("wal.redact.stub", lambda kind, _: wal.frames.stub(kind, b"x" * 32))
    with open_log(disk) as log:
        before = contents(disk)
        with pytest.raises(wal.LogCorrupt):
            log.redact(kind_one)
        assert contents(disk) == before
