"""A log rewritten by somebody who can write its files, knows its id and its salts, and makes every hash right."""

from collections.abc import Callable, Sequence

import pytest
from log_rig import PATH, Record, contents, entries, numbered, open_log, segments, written

import wal
from wal.testing import MemoryDisk

RECORDS: list[Record] = [(n, b"record %d " % n * 60) for n in range(12)]


def forged(records: Sequence[Record]) -> MemoryDisk:
    """The log of these records; its id and all its salts are zeros, as anyone could have them."""
    return written([[record] for record in records], entropy=bytes)


HONEST = forged(RECORDS)
HEAD = wal.head(PATH, disk=HONEST)

FORGERIES: dict[str, tuple[list[Record], str]] = {
    "edited": ([*RECORDS[:4], (4, b"something else"), *RECORDS[5:]], "tampered"),
    "another kind": ([*RECORDS[:4], (7, RECORDS[4][1]), *RECORDS[5:]], "tampered"),
    "deleted": ([*RECORDS[:4], *RECORDS[5:]], "truncated"),
    "deleted and filled up": ([*RECORDS[:4], *RECORDS[5:], (99, b"")], "tampered"),
    "inserted": ([*RECORDS[:4], (99, b""), *RECORDS[4:]], "tampered"),
    "reordered": ([*RECORDS[:4], RECORDS[5], RECORDS[4], *RECORDS[6:]], "tampered"),
    "truncated": (RECORDS[:-1], "truncated"),
    "emptied": ([], "truncated"),
}
each = pytest.mark.parametrize("what", FORGERIES)


@each
def test_every_change_that_the_log_did_not_make_is_found_by_a_head_kept_elsewhere_and_by_nothing_else(
    what: str,
) -> None:
    records, status = FORGERIES[what]
    disk = forged(records)
    assert wal.verify(PATH, disk=disk).status == "intact"
    assert entries(disk) == numbered(records), "a reader cannot tell"
    verdict = wal.verify(PATH, HEAD, disk=disk)
    assert (verdict.status, verdict.sound) == (status, False)
    before = contents(disk)
    with pytest.raises(wal.LogCorrupt):
        open_log(disk, expect_head=HEAD)
    assert contents(disk) == before


def test_the_log_itself_and_one_that_only_grew_are_confirmed() -> None:
    for records in (RECORDS, [*RECORDS, (99, b"later")]):
        verdict = wal.verify(PATH, HEAD, disk=forged(records))
        assert (verdict.status, verdict.expected) == ("intact", "confirmed")


TAMPERED = [what for what, (_, status) in FORGERIES.items() if status == "tampered"]


@pytest.mark.parametrize("what", TAMPERED)
def test_a_forged_log_proves_nothing_to_whoever_has_the_head(what: str) -> None:
    disk = forged(FORGERIES[what][0])
    for lsn in range(1, HEAD.size + 1):
        assert not wal.prove_inclusion(PATH, lsn, HEAD.size, disk=disk).holds(HEAD)
    there = wal.head(PATH, disk=disk)
    assert not wal.prove_consistency(PATH, HEAD.size, disk=disk).holds(HEAD, there)


MAINTENANCE: dict[str, Callable[[wal.Log], object]] = {
    "prune": lambda log: log.prune(HEAD.size),
    "redact": lambda log: log.redact(lambda entry: entry.lsn in {5, 6}),
}


@pytest.mark.parametrize("maintain", MAINTENANCE)
@pytest.mark.parametrize("what", TAMPERED)
def test_neither_a_prune_nor_a_redaction_covers_a_forgery_up(what: str, maintain: str) -> None:
    disk = forged(FORGERIES[what][0])
    with open_log(disk) as log:
        before = segments(disk)
        with pytest.raises(wal.LogError, match="not a head of the log"):
            log.prune(HEAD.size, keep_heads=[HEAD])
        assert segments(disk) == before
        MAINTENANCE[maintain](log)
    verdict = wal.verify(PATH, HEAD, disk=disk)
    assert (verdict.sound, verdict.expected) == (False, "contradicted")
