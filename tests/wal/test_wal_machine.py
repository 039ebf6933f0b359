"""The log beside a list: whatever is done to it, it holds what the list holds."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from log_rig import PATH, Record, abandon, entries, numbered, open_log

import wal
from wal.testing import MemoryDisk

RECORDS = st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=1200)), min_size=1, max_size=3)


class LogMachine(RuleBasedStateMachine):
    """`model` is what must be there, `maybe` the batches handed in since: after a crash, any first few of them."""

    @initialize()
    def begin(self) -> None:
        self.disk = MemoryDisk()
        self.log = open_log(self.disk)
        self.model: list[Record] = []
        self.maybe: list[list[Record]] = []

    @rule(batch=RECORDS)
    def append(self, batch: list[Record]) -> None:
        commit = self.log.append(batch)
        self._all_durable()
        self.model += batch
        assert list(commit.entries) == numbered(batch, len(self.model) - len(batch) + 1)
        assert self.log.durable_lsn == len(self.model)

    @rule(record=st.tuples(st.integers(0, 65535), st.binary(max_size=300)))
    def stage(self, record: Record) -> None:
        try:
            staged = self.log.stage(*record)
        except wal.LogBusy:
            return
        self.maybe.append([record])
        assert staged.wait(30)

    @rule(batches=st.lists(RECORDS, min_size=2, max_size=4))
    def submit_together(self, batches: list[list[Record]]) -> None:
        pending = []
        for batch in batches:
            try:
                pending.append(self.log.submit(batch))
            except wal.LogBusy:
                break
            self.maybe.append(batch)
        for commit in pending:
            commit.result(30)
        if pending:
            self._all_durable()

    @rule()
    def close_and_open(self) -> None:
        self.log.close()
        self._all_durable()
        self.log = open_log(self.disk)
        assert self.log.recovery.clean_close
        assert self.log.recovery.records == len(self.model)

    @rule()
    def kill_and_open(self) -> None:
        self._reopen(self.disk.kill())
        assert self.maybe == [], "nothing that was written is lost with the process"

    @rule(batches=st.lists(RECORDS, max_size=3), operations=st.integers(0, 5), seed=st.integers(0, 2**32 - 1))
    def lose_power(self, batches: list[list[Record]], operations: int, seed: int) -> None:
        self.disk.power_off_after(operations)
        for batch in batches:
            try:
                self.log.submit(batch)
            except wal.LogError:
                break
            self.maybe.append(batch)
        abandon(self.log)
        self._reopen(self.disk.crash(random.Random(seed).randrange))
        self.maybe = []

    def _all_durable(self) -> None:
        self.model += [record for batch in self.maybe for record in batch]
        self.maybe = []

    def _reopen(self, disk: MemoryDisk) -> None:
        abandon(self.log)
        self.disk = disk
        self.log = open_log(disk)
        survivors = self.log.recovery.records
        while len(self.model) < survivors:
            self.model += self.maybe.pop(0)
        assert len(self.model) == survivors

    @invariant()
    def the_log_holds_the_list(self) -> None:
        handed_in = self.model + [record for batch in self.maybe for record in batch]
        found = list(self.log.read())
        assert found == numbered(handed_in)[: len(found)]
        assert len(self.model) <= len(found) <= self.log.durable_lsn, "a staged record may become durable early"
        assert self.log.next_lsn == len(handed_in) + 1

    @invariant()
    def the_log_is_intact(self) -> None:
        assert wal.verify(PATH, disk=self.disk).status == "intact"

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self._all_durable()
            assert entries(self.disk) == numbered(self.model)


LogMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)
TestLog = LogMachine.TestCase
