"""Looking at a log while its writer appends, prunes, redacts or closes, at every moment of the look."""

from collections.abc import Callable

import pytest
from log_rig import PATH, AtCall, open_log

import wal
from wal.testing import MemoryDisk

RECORDS = [(n, bytes([n]) * (300 + 150 * n)) for n in range(10)]
BATCHES = [RECORDS[:2], RECORDS[2:3], RECORDS[3:6], *[[record] for record in RECORDS[6:]]]
COUNT = len(RECORDS)


def begun(disk: MemoryDisk) -> tuple[wal.Log, dict[int, wal.Head]]:
    """A live log of several segments, with its heads by size."""
    log, heads = open_log(disk), {}
    for batch in BATCHES:
        log.append(batch)
        heads[log.durable_lsn] = log.head()
    return log, heads


_log, HEADS = begun(MemoryDisk())
_log.close()
HEAD = HEADS[COUNT - 1]

MEANWHILE: dict[str, Callable[[wal.Log], object]] = {
    "appends and rotates": lambda log: [log.append([(7, b"meanwhile" * 200)]) for _ in range(3)],
    "prunes": lambda log: log.prune(8),
    "prunes all but the last": lambda log: log.prune(log.durable_lsn + 1),
    "redacts": lambda log: log.redact(lambda entry: entry.lsn % 2 == 0),
    "closes": lambda log: log.close(),
}


def verify(disk: wal.Disk) -> None:
    verdict = wal.verify(PATH, disk=disk)
    assert verdict.status in {"intact", "pruned", "redacted"}, verdict


def take_the_head(disk: wal.Disk) -> None:
    assert wal.head(PATH, disk=disk).size >= COUNT - 1


def read(disk: wal.Disk) -> None:
    """Nothing may come where a prune left the last batch alone, which nothing proves before the writer goes on."""
    found = list(wal.read(PATH, None, disk=disk))
    first_lsn = found[0].lsn if found else COUNT
    assert [entry.lsn for entry in found] == list(range(first_lsn, first_lsn + len(found)))
    for entry in found:
        if entry.lsn <= COUNT and not isinstance(entry, wal.Redacted):
            assert (entry.kind, entry.payload) == RECORDS[entry.lsn - 1]


def prove_a_record(disk: wal.Disk) -> None:
    for lsn in (2, 7):
        proof = wal.prove_inclusion(PATH, lsn, COUNT - 1, disk=disk)
        assert proof.lsn == lsn
        assert proof.holds(HEAD)
        assert not proof.salt or proof.holds(HEAD, RECORDS[lsn - 1][1])


def prove_that_it_grew(disk: wal.Disk) -> None:
    for size in (3, 7):
        assert wal.prove_consistency(PATH, size, COUNT - 1, disk=disk).holds(HEADS[size], HEAD)


@pytest.mark.parametrize("what", MEANWHILE)
@pytest.mark.parametrize("look", [verify, take_the_head, read, prove_a_record, prove_that_it_grew])
def test_what_the_writer_does_meanwhile_is_never_taken_for_damage(look: Callable[[wal.Disk], None], what: str) -> None:
    """The look gives its answer; or says that what it asked for was pruned, or moved, so that it should ask again."""
    for at in range(1, 400):
        disk = MemoryDisk()
        log, _ = begun(disk)
        meddled = AtCall(disk, at, lambda log=log: MEANWHILE[what](log))  # type: ignore[misc]
        refusal: wal.LogError | None = None
        try:
            look(meddled)  # type: ignore[arg-type]
        except wal.LogError as error:
            refusal = error
        log.close()
        assert list(wal.read(PATH, None, disk=disk))[-1].lsn >= COUNT, "once it has closed, all that is left is there"
        assert refusal is None or isinstance(refusal, wal.Trimmed) or "ask again" in str(refusal), (at, refusal)
        if meddled.left > 0:
            assert at > 20
            return
    pytest.fail("not every moment was tried")
