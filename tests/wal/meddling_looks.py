"""What is asked of a log while it goes on, and what must be true of the answer."""

from pathlib import Path

from log_rig import PATH, open_log
from meddling_rig import Life, Process

import wal

TARGET = Path("/copy")
SOUND = {"intact", "redacted", "pruned"}


class Look:
    """What a look is told of the log as it was when it began."""

    def __init__(self, life: Life, disk: Process) -> None:
        self.life = life
        self.disk: wal.Disk = disk  # type: ignore[assignment]
        self.then_power_fails = self.seal_may_be_due = False
        self.first = life.begins
        self.last = max(life.told)
        self.proven = self.last - 2  # beside a live writer nothing proves the last batch yet
        self.head = life.heads[self.last]
        self.old = life.heads[min(size for size in life.heads if size > self.first)]


def verify(look: Look) -> None:
    verdict = wal.verify(PATH, disk=look.disk)
    assert verdict.status in SOUND, verdict


def verify_against_a_head(look: Look) -> None:
    verdict = wal.verify(PATH, look.head, disk=look.disk)
    assert verdict.status in SOUND, verdict
    assert verdict.expected == "confirmed" or verdict.first_lsn > look.first


def take_the_head(look: Look) -> None:
    """A head covers what is durable and nothing else: a power failure would make it one of no log."""
    head = wal.head(PATH, disk=look.disk)
    look.life.kept.append(head)
    assert head.size >= look.proven
    look.then_power_fails = True


def read(look: Look) -> None:
    """Whatever is the oldest that is left is where it begins; only then may a prune overtake it."""
    found: list[wal.Entry] = []
    try:
        found.extend(wal.read(PATH, None, disk=look.disk))
    except wal.Trimmed:
        assert found, "it asked for what is left"
        raise
    finally:
        look.life.check(found)


def read_the_end(look: Look) -> None:
    first = max(look.first, look.last - 4)
    look.life.check(list(wal.read(PATH, first - 1, disk=look.disk)), first=first)


def follow(look: Look) -> None:
    """Follow in small steps, as whoever is told by the writer how far the log is durable."""
    durable_lsn = lambda: look.last if look.life.log is None else look.life.log.durable_lsn  # noqa: E731
    reader = wal.Reader(PATH, look.first - 1, durable_lsn=durable_lsn, disk=look.disk)
    found: list[wal.Entry] = []
    while polled := reader.poll(2):
        found += polled
    look.life.check(found, first=look.first)
    assert found[-1].lsn >= look.last


def prove_a_record(look: Look) -> None:
    for lsn in (min(look.first + 2, look.last), look.last):
        assert wal.prove_inclusion(PATH, lsn, look.head.size, disk=look.disk).holds(look.head)


def prove_that_it_grew(look: Look) -> None:
    assert wal.prove_consistency(PATH, look.old.size, look.head.size, disk=look.disk).holds(look.old, look.head)
    if look.old.size > look.proven:
        return
    proof = wal.prove_consistency(PATH, look.old.size, disk=look.disk)
    if proof.new_size in look.life.heads:
        assert proof.holds(look.old, look.life.heads[proof.new_size])


def list_segments(look: Look) -> None:
    found = wal.segments(PATH, disk=look.disk)
    finished = [one.finished for one in found]
    assert [*finished[:-2], finished[-1]] == [True] * (len(found) - 2) + [False]
    assert all(finished[-2:-1]) or look.seal_may_be_due
    assert [one.last_lsn for one in found[:-1]] == [one.first_lsn - 1 for one in found[1:]]


def scrub(look: Look) -> None:
    assert wal.scrub(PATH, disk=look.disk).problems == ()


def scrub_in_steps(look: Look) -> None:
    at, went_round = 1, False
    while not went_round:
        scrubbed = wal.scrub(PATH, first_segment=at, budget_bytes=1, disk=look.disk)
        assert scrubbed.problems == ()
        at, went_round = scrubbed.next_segment, scrubbed.went_round


def copy(look: Look) -> None:
    copied = wal.copy(PATH, TARGET, disk=look.disk)
    other = look.life.disk.copy()
    assert {place.suffix for place in other.files() if place.parent == TARGET} == {".wal", ""}
    with open_log(other, TARGET) as log:
        assert log.recovery.clean_close
        assert log.head() == copied.head
    look.life.kept.append(copied.head)
    look.life.check(list(wal.read(TARGET, None, disk=other)), upto=copied.last_lsn if copied.records else None)
    assert copied.last_lsn >= look.proven


def salvage(look: Look) -> None:
    """All that is there can be saved; iterating may meet a file that changed since, and says so."""
    saved = wal.salvage(PATH, disk=look.disk)
    assert not saved.report.damage, saved.report
    assert saved.report.complete, saved.report
    assert (saved.report.torn, saved.report.stale_records) == (None, 0)
    assert saved.report.last_lsn >= look.last or saved.report.records == 0
    try:
        look.life.check(list(saved))
    except wal.LogCorrupt as error:
        assert "changed" in str(error)  # noqa: PT017


def hold_heads_against_it(look: Look) -> None:
    """By the log's owner."""
    assert look.life.log is not None
    for head in (look.old, look.head):
        found = look.life.log.standing(head)
        assert found == "confirmed" or (found == "unprovable" and head.size < look.life.begins - 1)


LOOKS = {
    look.__name__: look
    for look in (
        verify, verify_against_a_head, take_the_head, read, read_the_end, follow, prove_a_record, prove_that_it_grew,
        list_segments, scrub, scrub_in_steps, copy, salvage,
    )
}  # fmt: skip
"""What somebody who holds no lock asks of the log, and what must be true of the answer."""

BY_THE_OWNER = {hold_heads_against_it.__name__: hold_heads_against_it}
"""The same, of what only the log's owner can ask."""
