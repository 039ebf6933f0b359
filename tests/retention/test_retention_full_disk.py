"""A disk without a byte to spare: what can be pruned is, where the plan still has a place, and where it has none."""

import contextlib

import pytest
from retention_rig import LOG, SETTINGS, Order, audited, completed, entries_of, history, planned, write

import wal
from tamiyo.errors import NotRecorded
from tamiyo.journal import Journal
from tamiyo.records import JournalUnavailable
from tamiyo.retention.run import Retention
from tamiyo.testing import ManualClock
from wal.testing import FaultDisk, MemoryDisk

SEGMENT_BYTES = 2**16  # whose room for emergencies is a kilobyte


class Full:
    """A log that has come of age, open on a disk that has no room left, and filled to the last ordinary byte."""

    def __init__(self) -> None:
        self.memory = MemoryDisk()
        self.aged = write(self.memory, history(steps=120, base_every=20), segment_bytes=SEGMENT_BYTES)
        self.disk = FaultDisk(self.memory)
        self.disk.no_space()
        clock = ManualClock(wall=self.aged.now_ns)
        open_log = lambda: wal.Log.open(LOG, segment_bytes=SEGMENT_BYTES, disk=self.disk)  # noqa: E731
        self.journal = Journal(open_log, clock)
        self.fill()

    def fill(self, *, emergency: bool = False) -> None:
        """Directives, which are journaled like anything else, until the log takes no more."""
        from tamiyo.core.directives import operator_directed

        def make(state: object, now_ns: int) -> tuple[object, ...]:
            return operator_directed(state, "conservative_on", operator="ada", reason="x" * 200, now_ns=now_ns)  # type: ignore[arg-type]

        taken = True
        while taken:
            taken = False
            with contextlib.suppress(JournalUnavailable):
                if emergency:
                    recorded = self.journal.record_in_emergency(make, log=self.journal.log)  # type: ignore[arg-type]
                else:
                    recorded = self.journal.record_aside(make)  # type: ignore[arg-type]
                assert recorded is not None
                recorded.result()
                taken = True

    def retain(self) -> object:
        return Retention(self.journal, SETTINGS.windows()).run(Order("run"))


def test_a_full_log_takes_the_plan_and_pruning_makes_room_for_the_rest() -> None:
    full = Full()
    first_lsn = entries_of(full.memory)[0].lsn
    with pytest.raises((wal.LogFull, NotRecorded)):
        full.retain()  # pruned; nothing can be written anew
    left = list(full.journal.log.read(None))
    assert len(planned(left)) == 1
    assert left[0].lsn == planned(left)[0].prune_before_lsn > first_lsn
    full.disk.free_space()
    full.retain()
    left = list(full.journal.log.read(None))
    assert [event.resumed for event in completed(left)] == [True]
    assert audited(left).divergence is None
    full.journal.close()


def test_where_not_even_the_plan_has_a_place_it_says_so_and_pruning_works_without_one() -> None:
    full = Full()
    full.fill(emergency=True)
    with pytest.raises(NotRecorded, match="--unrecorded"):
        full.retain()
    left = list(full.journal.log.read(None))
    assert (planned(left), left[0].lsn) == ([], 1)
    digest = full.journal.state.digest()
    full.journal.close()
    before_lsn = wal.segments(LOG, disk=full.memory)[2].first_lsn
    assert wal.prune(LOG, before_lsn, disk=full.disk).segments == 2
    left = entries_of(full.memory)
    assert left[0].lsn == before_lsn
    assert audited(left).state.digest() == digest
    full.disk.free_space()
    with wal.Log.open(LOG, segment_bytes=SEGMENT_BYTES, disk=full.disk) as log:
        assert log.recovery is not None
