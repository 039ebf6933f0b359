"""Scripts played against a log on a recorded disk, and what may be found after any crash of them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from log_rig import PATH, Record, abandon, counting_entropy, entries, numbered, open_log, segments, wait_until

import wal
from wal.repair import recover
from wal.testing import CrashState, FaultDisk, MemoryDisk, Trace

WAIT_S = 30


@dataclass(frozen=True)
class Submitted:
    """A batch was handed in."""

    batch: tuple[Record, ...]


@dataclass(frozen=True)
class Acknowledged:
    """Everything up to this LSN was promised."""

    last_lsn: int


@dataclass(frozen=True)
class Opened:
    """A log was opened that holds so many records."""

    records: int


class Player:
    """Does to a log what a script says, one step after the other, and notes what was promised into the disk's trace.

    Each step ends when the writer has nothing more to do: the trace is a function of the script.
    """

    def __init__(
        self, memory: MemoryDisk, *, serial: int = 0, disk: FaultDisk | None = None, **options: object
    ) -> None:
        self.memory = memory
        self.disk = FaultDisk(memory) if disk is None else disk
        self._options = {"entropy": counting_entropy()} | options
        self._serial = serial
        self.open()

    def open(self, **options: object) -> None:
        self._options |= options
        self.log = open_log(self.disk, **self._options)
        self._settle()
        self.memory.note(Opened(self.log.recovery.last_lsn))

    def close(self) -> None:
        self.log.close()

    def kill(self) -> None:
        """End the process: what it wrote stays in the page cache."""
        self.memory = self.memory.kill()
        abandon(self.log)
        self.disk = FaultDisk(self.memory)

    def append(self, *lengths: int) -> None:
        self._submit(lengths).result(WAIT_S)
        self._settle()

    def stage(self, length: int) -> None:
        batch = self._batch([length])
        assert self.log.stage(*batch[0]).wait(WAIT_S)
        self._settle()

    def group(self, *batches: Sequence[int]) -> None:
        """Hand in a batch, and while it is being synced the others: they share one sync."""
        self.disk.hang("fdatasync")
        try:
            pending = [self._submit(batches[0])]
            wait_until(lambda: self.disk.wait_until_hung("fdatasync", 0) or self.log.failure is not None)
            pending += [self._submit(lengths) for lengths in batches[1:]]
        finally:
            self.disk.release()
        for each in pending:
            each.result(WAIT_S)
        self._settle()

    def _batch(self, lengths: Sequence[int]) -> tuple[Record, ...]:
        records = []
        for length in lengths:
            self._serial += 1
            records.append((self._serial, (b"%d." % self._serial * length)[:length]))
        self.memory.note(Submitted(tuple(records)))
        return tuple(records)

    def _submit(self, lengths: Sequence[int]) -> wal.Pending:
        pending, memory = self.log.submit(self._batch(lengths)), self.memory

        def tell(done: Future[wal.Commit]) -> None:
            if done.exception() is None:
                memory.note(Acknowledged(pending.last_lsn))

        pending.add_done_callback(tell)  # on the writer's thread, before it does anything else
        return pending

    def _settle(self) -> None:
        writer, proves = self.log._writer, "heartbeat_ms" in self._options
        wait_until(lambda: writer.failure is not None or (writer.handover.idle and not (proves and writer._unproven)))


Script = Callable[[Player], None]


def recorded(script: Script, **options: object) -> Trace:
    """Play a script on an empty disk, and return what was done."""
    player = Player(MemoryDisk(record=True), **options)
    script(player)
    abandon(player.log)
    return player.memory.trace


class Promise:
    """What notes say must be found, and what may be: whole batches, in order, all acknowledged ones among them."""

    def __init__(self, notes: Iterable[object]) -> None:
        records: list[Record] = []
        self.ends = {0}
        self.acked = 0
        for note in notes:
            match note:
                case Submitted(batch):
                    records += batch
                    self.ends.add(len(records))
                case Acknowledged(last_lsn):
                    self.acked = last_lsn
                case Opened(count):
                    del records[count:]
                    self.ends = {end for end in self.ends if end <= count}
                    self.acked = count
        self.entries = tuple(numbered(records))

    def check(self, found: tuple[wal.Entry, ...]) -> None:
        assert found == self.entries[: len(found)], "something else than what was handed in"
        assert len(found) in self.ends, "half a batch"
        assert len(found) >= self.acked, f"{len(found)} records, and {self.acked} were acknowledged"


class Judge:
    """Recovers every disk that a crash can leave, and holds what it finds against what was promised.

    Equal disks are recovered once, equal recovered logs read, verified, recovered again, opened and appended to
    once; `states` are those recovered. Every `peek_every`-th is also read and verified before it is recovered.
    """

    def __init__(self, peek_every: int = 16, **options: object) -> None:
        self._peek_every = peek_every
        self._options = options
        self._found: dict[int, tuple[wal.Entry, ...]] = {}
        self._logs: dict[bytes, tuple[wal.Entry, ...]] = {}
        self._notes: tuple[object, ...] = ()
        self._promise = Promise(())

    @property
    def states(self) -> int:
        return len(self._found)

    @property
    def logs(self) -> int:
        return len(self._logs)

    def check(self, states: Iterable[CrashState], held: tuple[wal.Entry, ...] = ()) -> None:
        """Check states of a run that began on a log which held these entries."""
        before = (Submitted(tuple([entry[1:] for entry in held])), Acknowledged(len(held)))
        self._notes, self._promise = (), Promise(before)
        for state in states:
            if state.notes is not self._notes:
                self._notes, self._promise = state.notes, Promise((*before, *state.notes))
            try:
                self._promise.check(self.found(state))
            except (AssertionError, wal.LogError) as error:
                error.add_note(f"after {state.operations} operations, sectors {state.choice} of {state.doubts}")
                raise

    def found(self, state: CrashState) -> tuple[wal.Entry, ...]:
        """Return what the log holds after this crash, from memory when an equal disk was recovered before."""
        if state.key not in self._found:
            disk = state.disk()
            before = None
            if len(self._found) % self._peek_every == 0:
                verdict = wal.verify(PATH, disk=disk)
                assert verdict.status in {"intact", "torn", "empty"}, verdict
                before = tuple(entries(disk))
                assert len(before) == verdict.records
            found = self._found[state.key] = self._recover(disk)
            assert before in {None, found}, "a reader saw something else than what recovery kept"
        return self._found[state.key]

    def _recover(self, disk: MemoryDisk) -> tuple[wal.Entry, ...]:
        crashed = {place: disk.peek(place) for place in segments(disk)}
        recovered = recover(PATH, disk)
        if recovered is None:
            return ()
        report = recovered.report
        if report.quarantine is not None:
            at = report.cut_offset_bytes or 0
            cut = crashed[recovered.last.path][at : at + report.cut_bytes]
            assert disk.peek(report.quarantine) == cut, "what was cut is not what was kept aside"
        key = digest(disk)
        if key not in self._logs:
            self._logs[key] = self._try(disk, report)
        return self._logs[key]

    def _try(self, disk: MemoryDisk, report: wal.Recovery) -> tuple[wal.Entry, ...]:
        """Whether a recovered log is whole, recovers to the same bytes again, and goes on."""
        found = tuple(entries(disk))
        verdict = wal.verify(PATH, disk=disk)
        assert (verdict.status, verdict.records, report.records) == ("intact", len(found), len(found))
        again, key = disk.copy(), digest(disk)
        recover(PATH, again)
        assert digest(again) == key, "recovering twice is not recovering once"
        with open_log(again, **self._options) as log:
            assert log.append([(7, b"after")]).first_lsn == len(found) + 1
        assert tuple(entries(again)) == (*found, wal.Entry(len(found) + 1, 7, b"after"))
        return found


def digest(disk: MemoryDisk) -> bytes:
    """Return a hash of the log's segments."""
    told = hashlib.blake2b(digest_size=16)
    for place in segments(disk):
        told.update(place.name.encode())
        told.update(disk.peek(place))
    return told.digest()
