"""Dropping a log's beginning: the old log or the pruned one, and every proof that can still be."""

import contextlib
import errno
import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_rig import PATH, abandon, contents, entries, numbered, open_log, overwrite, segments, written

import wal
from wal.base import SLOT_BYTES, Step, read_base, write_base
from wal.proofs import consistency_path
from wal.testing import SYNC_MODELS, FaultDisk, MemoryDisk, SyncModel

BATCHES = [[(n, bytes([n]) * 900), (n + 100, b"%d" % n)] for n in range(1, 31)]
RECORDS = numbered([record for batch in BATCHES for record in batch])
BASE = PATH / "BASE"


def build(disk: wal.Disk) -> list[wal.Head]:
    """Write a log of several segments, close it, and return its head after each batch."""
    with open_log(disk) as log:
        heads = [log.head()]
        for batch in BATCHES:
            log.append(batch)
            heads.append(log.head())
    return heads


SOURCE = MemoryDisk()
HEADS = build(SOURCE)
FIRSTS = [int(place.name[9:29]) for place in segments(SOURCE)]


def pruned(before_lsn: int, keep: list[wal.Head] | None = None) -> MemoryDisk:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        log.prune(before_lsn, keep_heads=keep or [])
    return disk


@pytest.mark.parametrize("first", FIRSTS)
def test_segments_wholly_below_the_lsn_go_and_the_rest_is_as_before(first: int) -> None:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        before = log.size_bytes
        result = log.prune(first)
        assert result.first_lsn == first
        assert result.records == first - 1
        assert log.size_bytes == before - result.freed_bytes
        assert result.freed_bytes == 8192 * result.segments
        assert list(log.read(first - 1)) == RECORDS[first - 1 :]
        assert log.append([(7, b"on")]).first_lsn == len(RECORDS) + 1
    assert segments(disk)[0].name[9:29] == f"{first:020d}"
    verdict = wal.verify(PATH, disk=disk)
    assert (verdict.status, verdict.first_lsn, verdict.records) == (
        "intact" if first == 1 else "pruned", first, len(RECORDS) + 2 - first,
    )  # fmt: skip
    with open_log(disk) as log:
        assert (log.recovery.first_lsn, log.recovery.records) == (first, len(RECORDS) + 2 - first)


def test_a_segment_that_holds_one_record_to_keep_is_kept() -> None:
    with open_log(SOURCE.copy()) as log:
        assert log.prune(FIRSTS[3] - 1).first_lsn == FIRSTS[2]
        assert log.prune(0).segments == 0
        assert log.prune(10**9).first_lsn == FIRSTS[-1], "the last segment always stays"


def test_a_reader_behind_the_beginning_is_told_so_and_one_that_asks_for_all_that_is_left_gets_it() -> None:
    disk = pruned(FIRSTS[2])
    for after in (0, FIRSTS[2] - 2):
        with pytest.raises(wal.Trimmed, match=rf"begins at {FIRSTS[2]}") as caught:
            entries(disk, after=after)
        assert (caught.value.wanted_lsn, caught.value.first_lsn) == (after + 1, FIRSTS[2])
    assert entries(disk, after=FIRSTS[2] - 1) == RECORDS[FIRSTS[2] - 1 :]
    assert list(wal.read(PATH, None, disk=disk)) == RECORDS[FIRSTS[2] - 1 :]
    with open_log(disk) as log:
        assert list(log.read(None)) == RECORDS[FIRSTS[2] - 1 :]


def test_a_follower_overtaken_by_a_prune_is_told_so_and_one_ahead_of_it_goes_on() -> None:
    disk = SOURCE.copy()
    behind, ahead = wal.Reader(PATH, disk=disk), wal.Reader(PATH, FIRSTS[3], disk=disk)
    assert len(behind.poll(1)) >= 1
    seen = ahead.poll(1)
    with open_log(disk) as log:
        log.prune(FIRSTS[3])
    with pytest.raises(wal.Trimmed):
        behind.poll()
    while found := ahead.poll():
        seen += found
    assert seen == RECORDS[FIRSTS[3] :]


def test_every_head_that_covers_what_is_left_still_verifies_and_proves_its_records() -> None:
    disk = pruned(FIRSTS[3])
    begins = FIRSTS[3] - 1
    for head in HEADS:
        verdict = wal.verify(PATH, head, disk=disk)
        covered = head.size >= begins or head.size == 0  # every log of this id begins with nothing
        assert (verdict.status, verdict.expected) == ("pruned", "confirmed" if covered else "unprovable"), head.size
        for lsn in range(FIRSTS[3], head.size + 1, 5):
            assert wal.prove_inclusion(PATH, lsn, head.size, disk=disk).holds(head, RECORDS[lsn - 1].payload)
        if covered:
            assert wal.prove_consistency(PATH, head.size, disk=disk).holds(head, HEADS[-1])
            open_log(disk.copy(), expect_head=head).close()
        else:
            with pytest.raises(wal.LogError, match="cannot be told"):
                open_log(disk.copy(), expect_head=head)
            with pytest.raises(wal.Trimmed):
                wal.prove_consistency(PATH, head.size, disk=disk)
    with pytest.raises(wal.Trimmed):
        wal.prove_inclusion(PATH, FIRSTS[3] - 1, disk=disk)


def test_heads_that_are_kept_verify_after_every_later_prune() -> None:
    disk = SOURCE.copy()
    kept = HEADS[1:9]
    with open_log(disk) as log:
        log.prune(FIRSTS[2], keep_heads=kept)
        for first in FIRSTS[3:]:
            log.prune(first)
            for head in kept:
                assert wal.verify(PATH, head, disk=disk).expected == "confirmed"
                wrong = wal.Head(head.log_id, head.size, b"x" * 32, head.chain)
                assert wal.verify(PATH, wrong, disk=disk).expected == "contradicted"
    for head in kept:
        open_log(disk.copy(), expect_head=head).close()
    wrong = wal.Head(kept[0].log_id, kept[0].size, b"x" * 32, kept[0].chain)
    with pytest.raises(wal.LogTampered):
        open_log(disk, expect_head=wrong)


def test_a_head_that_a_prune_without_anything_to_drop_was_asked_to_keep_verifies_after_later_ones() -> None:
    for begins in (1, FIRSTS[1]):  # before the first prune, and between two
        disk = pruned(begins)
        kept = [head for head in HEADS[1:9] if head.size >= begins]
        with open_log(disk) as log:
            assert log.prune(begins, keep_heads=kept).segments == 0
            waiting = disk.peek(BASE)
            assert log.prune(begins, keep_heads=kept[1:]).segments == 0
            assert disk.peek(BASE) == waiting, "nothing new was to be kept"
            for first in FIRSTS[2:]:
                log.prune(first)
                assert {wal.verify(PATH, head, disk=disk).expected for head in kept} == {"confirmed"}
        for head in kept:
            open_log(disk.copy(), expect_head=head).close()


def test_power_lost_while_heads_are_kept_without_a_drop_leaves_the_log_and_the_promises_made() -> None:
    def keep(disk: wal.Disk) -> bool:
        log = open_log(disk)
        try:
            log.prune(1, keep_heads=HEADS[1:3])
            return True
        finally:
            abandon(log)

    whole = SOURCE.copy()
    before = whole.operations
    keep(whole)
    for operations in range(whole.operations - before + 1):
        for seed in range(3):
            disk = SOURCE.copy()
            disk.power_off_after(operations)
            said = False
            with contextlib.suppress(wal.LogError, OSError):
                said = keep(disk)
            disk = disk.crash(random.Random(seed).randrange)
            with open_log(disk) as log:
                assert list(log.read(0)) == RECORDS
                log.prune(FIRSTS[3])
            if said:
                assert {wal.verify(PATH, head, disk=disk).expected for head in HEADS[1:3]} == {"confirmed"}


def test_a_head_of_another_log_is_not_kept_and_nothing_is_pruned() -> None:
    disk = SOURCE.copy()
    with open_log(disk) as log:
        before = segments(disk)
        with pytest.raises(wal.LogError, match="not a head of the log"):
            log.prune(FIRSTS[3], keep_heads=[wal.Head(HEADS[1].log_id, 2, b"x" * 32, b"y" * 32)])
        assert segments(disk) == before
        assert wal.verify(PATH, disk=disk).status == "intact"


def test_more_heads_than_there_is_room_for_are_refused_and_nothing_is_pruned() -> None:
    disk = MemoryDisk()
    with open_log(disk, segment_bytes=1 << 20) as log:
        heads = []
        for n in range(700):
            log.append([(n, bytes(2000))])
            heads.append(log.head())
        with pytest.raises(wal.LogError, match="keep fewer heads"):
            log.prune(650, keep_heads=heads)
        assert log.prune(650, keep_heads=heads[:50]).segments == 1


def test_a_kept_head_takes_the_same_place_however_many_prunes_there_are() -> None:
    kept = HEADS[1:4]
    disk = pruned(FIRSTS[1], kept)
    with open_log(disk) as log:
        for first in FIRSTS[2:]:
            log.prune(first)
            base = read_base(PATH, disk)
            assert base is not None
            assert [step.old_size for step in base.steps] == [head.size for head in kept]
            assert {wal.verify(PATH, head, disk=disk).expected for head in kept} == {"confirmed"}
            wrong = wal.Head(kept[0].log_id, kept[0].size, b"x" * 32, kept[0].chain)
            assert wal.verify(PATH, wrong, disk=disk).expected == "contradicted"


def test_a_chain_of_proofs_as_earlier_versions_left_it_still_holds_and_is_led_on() -> None:
    kept = HEADS[1]
    disk = pruned(FIRSTS[1], [kept])
    first = read_base(PATH, disk)
    further = consistency_path(PATH, disk, FIRSTS[1] - 1, FIRSTS[2] - 1)
    with open_log(disk) as log:
        log.prune(FIRSTS[2])
    second = read_base(PATH, disk)
    assert first is not None
    assert second is not None
    link = Step(FIRSTS[1] - 1, first.root, FIRSTS[2] - 1, second.root, further)
    write_base(PATH, disk, replace(second, number=second.number + 1, steps=(*first.steps, link)))
    assert wal.verify(PATH, kept, disk=disk).expected == "confirmed"
    with open_log(disk) as log:
        for later in FIRSTS[3:]:
            log.prune(later)
            assert wal.verify(PATH, kept, disk=disk).expected == "confirmed"
    last = read_base(PATH, disk)
    assert last is not None
    assert [step.old_size for step in last.steps] == [kept.size, FIRSTS[1] - 1]


def test_a_head_whose_proof_would_find_no_room_in_prunes_to_come_is_refused_at_once() -> None:
    disk = SOURCE.copy()
    taken: list[wal.Head] = []
    with open_log(disk) as log:

        def keep_more() -> None:
            while len(taken) < 100:
                log.append([(1, b"")])
                log.prune(1, keep_heads=[log.head()])
                taken.append(log.head())

        with pytest.raises(wal.LogError, match="keep fewer heads"):
            keep_more()
        assert len(taken) > 30
        base = read_base(PATH, disk)
        assert base is not None
        assert [step.old_size for step in base.steps] == [head.size for head in taken]
        for first in FIRSTS[1:]:
            assert log.prune(first).segments == 1


def test_pruning_needs_no_free_space() -> None:
    memory = SOURCE.copy()
    disk = FaultDisk(memory)
    with open_log(disk) as log:
        disk.no_space()
        assert log.prune(FIRSTS[3]).segments == 3
        assert log.append([(1, b"still")])
    assert wal.verify(PATH, disk=memory).status == "pruned"


@pytest.mark.parametrize("place", ["segment", "base"])
def test_a_segment_that_no_prune_took_is_missed(place: str) -> None:
    disk = pruned(FIRSTS[3])
    if place == "segment":
        disk.unlink(segments(disk)[0])
    else:
        disk.poke(BASE, bytes(2 * SLOT_BYTES))
    for attempt in (
        lambda: open_log(disk),
        lambda: entries(disk, after=len(RECORDS) - 5),
        lambda: wal.head(PATH, disk=disk),
    ):
        with pytest.raises(wal.LogCorrupt):
            attempt()
    assert wal.verify(PATH, disk=disk).status == "corrupt"


def test_a_log_of_which_every_segment_is_gone_is_missed_and_not_begun_anew() -> None:
    for disk in (SOURCE.copy(), pruned(FIRSTS[2])):
        for segment in segments(disk):
            disk.unlink(segment)
        with pytest.raises(wal.LogCorrupt, match="the segment is missing"):
            open_log(disk)
        assert wal.verify(PATH, disk=disk).status == "corrupt"


def test_a_torn_base_leaves_the_one_before_it() -> None:
    disk = pruned(FIRSTS[1])
    base = read_base(PATH, disk)
    assert base is not None
    before = disk.peek(BASE)
    slot = (base.number + 1) % 2 * SLOT_BYTES
    for torn in (b"\xff" * 300, before[slot : slot + 100].ljust(300, b"\0")):
        overwrite(disk, BASE, slot, torn)
        assert read_base(PATH, disk) == base
        open_log(disk).close()


@given(st.integers(0, 299), st.integers(1, 255))
def test_no_flip_in_base_passes_for_another_beginning(at: int, flip: int) -> None:
    disk = pruned(FIRSTS[1])
    base = read_base(PATH, disk)
    assert base is not None
    slot = base.number % 2 * SLOT_BYTES
    image = disk.peek(BASE)
    overwrite(disk, BASE, slot + at, bytes([image[slot + at] ^ flip]))
    found = read_base(PATH, disk)
    assert found is None or found == base or found.number < base.number


def test_a_base_of_a_later_format_or_another_log_is_refused() -> None:
    other = MemoryDisk()
    with open_log(other, entropy=lambda length: b"o" * length) as log:
        for batch in BATCHES:
            log.append(batch)
        log.prune(FIRSTS[2])
    disk = pruned(FIRSTS[2])
    disk.poke(BASE, other.peek(BASE))
    with pytest.raises(wal.LogCorrupt):
        open_log(disk)
    never_pruned = written(BATCHES, entropy=lambda length: b"o" * length)
    for base, problem in ((other, "where the pruned log begins"), (never_pruned, "another one's segment")):
        whole = SOURCE.copy()
        whole.poke(BASE, base.peek(BASE))
        before = contents(whole)
        with pytest.raises(wal.LogCorrupt, match=problem):
            open_log(whole)
        assert contents(whole) == before


def script(disk: wal.Disk) -> None:
    log = open_log(disk)
    try:
        log.prune(FIRSTS[2], keep_heads=HEADS[1:3])
        log.append([(1, b"between")])
        log.prune(FIRSTS[4])
        log.close()
    finally:
        abandon(log)


def test_power_lost_at_any_operation_of_a_prune_leaves_the_old_log_or_the_pruned_one() -> None:
    whole = SOURCE.copy()
    before = whole.operations
    script(whole)
    firsts = set()
    for operations in range(whole.operations - before + 1):
        for seed in range(6):
            disk = SOURCE.copy()
            disk.power_off_after(operations)
            with contextlib.suppress(wal.LogError):
                script(disk)
            after = disk.crash(random.Random(seed).randrange)
            for head in (*HEADS[1:3], HEADS[-1]):
                assert wal.verify(PATH, head, disk=after).expected == "confirmed"
            with open_log(after) as log:
                firsts.add(log.recovery.first_lsn)
                found = list(log.read(None))
                assert found[: len(RECORDS) + 1 - found[0].lsn] == RECORDS[found[0].lsn - 1 :]
                assert {int(place.name[:8]) for place in segments(after)} >= {8}
                log.append([(5, b"after")])
            assert wal.verify(PATH, HEADS[-1], disk=after).expected == "confirmed"
    assert firsts >= {FIRSTS[0], FIRSTS[2], FIRSTS[4]}


@pytest.mark.parametrize("op", ["pwrite", "fdatasync", "fsync_dir", "unlink", "pread", "open"])
def test_an_error_while_pruning_leaves_the_log_usable(op: str) -> None:
    for nth in range(1, 6):
        memory = SOURCE.copy()
        disk = FaultDisk(memory)
        log = open_log(disk)
        disk.fail(op, errno.EIO, nth=nth)
        with contextlib.suppress(wal.LogFailed):
            log.prune(FIRSTS[3])
        disk.heal()
        assert log.prune(FIRSTS[3]).first_lsn == FIRSTS[3]
        assert segments(memory)[0].name[9:29] == f"{FIRSTS[3]:020d}", "the second try removes what the first had left"
        log.append([(1, b"on")])
        log.close()
        assert wal.verify(PATH, HEADS[-1], disk=memory).expected == "confirmed"


@pytest.mark.parametrize("model", SYNC_MODELS, ids=lambda model: model.name)
def test_a_prune_after_one_whose_sync_failed_never_leaves_the_log_without_a_beginning(model: SyncModel) -> None:
    """The failed slot may be in memory alone: the next one must not go over the slot that is on the medium."""
    for operations, failing in itertools.product(range(24), (1, 2, 3)):
        disk = pruned(FIRSTS[1])
        log = open_log(disk)
        disk.fail_sync(model, failing)
        with contextlib.suppress(wal.LogFailed):
            log.prune(FIRSTS[3])
        disk.power_off_after(operations)
        with contextlib.suppress(wal.LogError):
            log.prune(FIRSTS[4])
        abandon(log)
        for seed in range(4):
            after = disk.crash(random.Random(seed).randrange)
            with open_log(after) as reopened:
                assert reopened.recovery.first_lsn in (FIRSTS[1], FIRSTS[3], FIRSTS[4])
            assert wal.verify(PATH, HEADS[-1], disk=after).expected == "confirmed"


def test_a_closed_or_failed_log_is_not_pruned() -> None:
    log = open_log(SOURCE.copy())
    log.close()
    with pytest.raises(wal.LogClosed):
        log.prune(5)
    disk = FaultDisk(SOURCE.copy())
    log = open_log(disk)
    disk.fail("fdatasync", errno.EIO)
    with pytest.raises(wal.OutcomeUnknown):
        log.append([(1, b"")])
    with pytest.raises(wal.LogFailed):
        log.prune(5)
    log.close()


def test_pruning_works_on_a_real_file_system_beside_a_follower(tmp_path: Path) -> None:
    with wal.Log.open(tmp_path, segment_bytes=65536) as log:
        for n in range(200):
            log.append([(n, bytes(2000))])
        head = log.head()
        follower = wal.Reader(tmp_path, 150)
        assert follower.poll(1)
        assert log.prune(100).first_lsn <= 100
        assert [entry.lsn for entry in follower.poll()][-1] >= 199
    verdict = wal.verify(tmp_path, head)
    assert (verdict.status, verdict.expected) == ("pruned", "confirmed")
