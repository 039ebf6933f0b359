"""Scripts played against a log on a recorded disk, and what may be found after any crash of them."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from log_rig import PATH, Record, abandon, counting_entropy, numbered, open_log, segments, wait_until

import wal
from wal.base import SLOT_BYTES, SLOTS
from wal.repair import NEW_LOG, recover
from wal.segment import BASE_NAME, first_lsn_of
from wal.testing import CrashState, FaultDisk, MemoryDisk, Trace

WAIT_S = 30
Tell = Callable[[str, object], None]


def tell_all(tell: Tell, figures: Mapping[str, int]) -> None:
    """Put figures on a test's record: pytest --junitxml shows them."""
    for name, figure in figures.items():
        tell(name, figure)


@dataclass(frozen=True)
class Submitted:
    """A batch was handed in."""

    batch: tuple[Record, ...]


@dataclass(frozen=True)
class Refused:
    """The batch handed in last was refused: nothing of it was written."""


@dataclass(frozen=True)
class Acknowledged:
    """Everything up to this LSN was promised."""

    last_lsn: int


@dataclass(frozen=True)
class Opened:
    """A log was opened whose last record is this one."""

    last_lsn: int


@dataclass(frozen=True)
class Pruning:
    """From now on the log may begin with this record; once `done`, it does."""

    first_lsn: int
    done: bool


@dataclass(frozen=True)
class Redacting:
    """From now on these records may have lost their payloads; once `done`, they have."""

    lsns: frozenset[int]
    done: bool


@dataclass(frozen=True)
class Kept:
    """This head was taken, and must be confirmed for ever."""

    head: wal.Head


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
        self._heads: list[wal.Head] = []
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
        self.group(lengths)

    def wait_and_append(self, *lengths: int, emergency: bool = False) -> None:
        """Append as those do who wait: for the room, and for the sync. What was promised is noted a little late."""
        batch = self._batch(lengths)
        try:
            commit = self.log.append(batch, emergency=emergency)
        except wal.LogFull:
            self._settle()  # the refusal has made the writer try for room once more
            self.memory.note(Refused())
            raise
        self._settle()
        self.memory.note(Acknowledged(commit.last_lsn))

    def fill(self, length: int, *, emergency: bool = False) -> None:
        """Append on a disk without space until the log is full."""
        self.disk.no_space()
        with contextlib.suppress(wal.LogFull):
            while True:
                self.wait_and_append(length, emergency=emergency)

    def head(self) -> None:
        """Take the log's head, which must be confirmed from now on, whatever is pruned."""
        self._heads.append(self.log.head())
        self.memory.note(Kept(self._heads[-1]))

    def prune(self, before_lsn: int) -> None:
        places = [first_lsn_of(place) for place in segments(self.memory)]
        first_lsn = max([lsn for lsn in places if lsn <= before_lsn], default=min(places))
        self.memory.note(Pruning(first_lsn, done=False))
        assert self.log.prune(before_lsn, keep_heads=self._heads).first_lsn == first_lsn
        self.memory.note(Pruning(first_lsn, done=True))

    def redact(self, *lsns: int) -> None:
        """Take out payloads; what is in the segment in use stays."""
        places = [first_lsn_of(place) for place in segments(self.memory)]
        finished = frozenset(lsn for lsn in lsns if min(places) <= lsn < max(places))
        self.memory.note(Redacting(finished, done=False))
        assert self.log.redact(lambda entry: entry.lsn in lsns).records <= len(finished)
        self.memory.note(Redacting(finished, done=True))

    def stage(self, length: int) -> None:
        batch = self._batch([length])
        assert self.log.stage(*batch[0]).wait(WAIT_S)
        self._settle()

    def group(self, *batches: Sequence[int]) -> None:
        """Hand in a batch, and while it is being synced the others: these share the next sync."""
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
        wait_until(lambda: writer.failure is not None or (writer.handover.quiet and not (proves and writer._unproven)))


Script = Callable[[Player], None]


def recorded(script: Script, **options: object) -> Trace:
    """Play a script on an empty disk, and return what was done."""
    player = Player(MemoryDisk(record=True), **options)
    script(player)
    abandon(player.log)
    return player.memory.trace


@dataclass(frozen=True)
class Found:
    """What a log holds: its entries, the last LSN that was ever in it, and a hash of its bytes."""

    entries: tuple[wal.Entry, ...] = ()
    last_lsn: int = 0
    key: bytes = b""


class Promise:
    """What notes say must be found, and what may be.

    Whole batches, in order, all acknowledged ones among them; from the first record that a prune left; without the
    payloads that a redaction took; and every head confirmed.
    """

    def __init__(self, notes: Iterable[object], held: Found | None = None) -> None:
        """Begin with an empty log, or with one that is known to hold this."""
        self.heads: list[wal.Head] = []
        self._records: list[Record] = []
        self._ends = [0]
        self._acked = 0
        self._begins = {1}
        self._may_be_redacted: frozenset[int] = frozenset()
        self._redacted: frozenset[int] = frozenset()
        if held is not None:
            self._hold(held)
        for note in notes:
            self._hear(note)

    @property
    def acked(self) -> int:
        return self._acked

    @property
    def entries(self) -> tuple[wal.Entry, ...]:
        return tuple(numbered(self._records))

    def _hold(self, held: Found) -> None:
        pruned = held.last_lsn - len(held.entries)
        self._records = [(0, b"")] * pruned + [entry[1:] for entry in held.entries]
        self._ends.append(held.last_lsn)
        self._acked = held.last_lsn
        self._begins = {pruned + 1}
        self._redacted = frozenset(entry.lsn for entry in held.entries if isinstance(entry, wal.Redacted))

    def _hear(self, note: object) -> None:
        match note:
            case Submitted(batch):
                self._records += batch
                self._ends.append(len(self._records))
            case Refused():
                self._ends.pop()
                del self._records[self._ends[-1] :]
            case Acknowledged(last_lsn):
                self._acked = last_lsn
            case Opened(last_lsn):
                del self._records[last_lsn:]
                self._ends = [end for end in self._ends if end <= last_lsn]
                self._acked = last_lsn
            case Pruning(first_lsn, done):
                self._begins = {first_lsn} if done else {*self._begins, first_lsn}
            case Redacting(lsns, done):
                self._may_be_redacted = frozenset() if done else lsns
                self._redacted |= lsns if done else frozenset()
            case Kept(head):
                self.heads.append(head)

    def check(self, found: Found) -> None:
        first = found.last_lsn - len(found.entries) + 1
        assert first in self._begins, f"the log begins with {first}"
        assert found.last_lsn in self._ends, "half a batch"
        assert found.last_lsn >= self._acked, f"it ends with {found.last_lsn}, and {self._acked} was acknowledged"
        for lsn, entry in enumerate(found.entries, first):
            kind, payload = self._records[lsn - 1]
            gone = isinstance(entry, wal.Redacted)
            assert gone == (lsn in self._redacted) or lsn in self._may_be_redacted, f"LSN {lsn}: redacted is {gone}"
            assert entry == (lsn, kind, b"" if gone else payload), f"LSN {lsn}: {entry}"


def held_by(disk: MemoryDisk) -> Found:
    """What a sound log holds, read and verified."""
    found = tuple(wal.read(PATH, None, disk=disk))
    verdict = wal.verify(PATH, disk=disk)
    assert verdict.sound, verdict
    assert len(found) == verdict.records
    return Found(found, verdict.last_lsn, digest(disk))


class Judge:
    """Recovers every disk that a crash can leave, and holds what it finds against what was promised.

    Equal disks are recovered once; equal recovered logs are read, verified, recovered again, opened and appended to
    once. `states` are those recovered. Every `peek_every`-th is also read and verified before it is recovered.
    """

    def __init__(self, peek_every: int = 16, **options: object) -> None:
        self._peek_every = peek_every
        self._options = options
        self._found: dict[int, Found] = {}
        self._logs: dict[bytes, Found] = {}
        self._confirmed: set[tuple[bytes, wal.Head]] = set()
        self._disks: dict[bytes, MemoryDisk] = {}

    @property
    def states(self) -> int:
        return len(self._found)

    @property
    def logs(self) -> int:
        return len(self._logs)

    def check(self, states: Iterable[CrashState], held: Found | None = None) -> None:
        """Check states of a run that began on an empty disk, or on a log that held this."""
        notes: tuple[object, ...] = ()
        promise = Promise((), held)
        for state in states:
            if state.notes is not notes:
                notes, promise = state.notes, Promise(state.notes, held)
            try:
                found = self.found(state)
                promise.check(found)
                self._confirm(found, promise.heads)
            except (AssertionError, wal.LogError) as error:
                kept = [
                    (doubt.path, doubt.sector, pick) for doubt, pick in zip(state.doubts, state.choice, strict=True)
                ]
                error.add_note(f"after {state.operations} operations, with {sorted(state.images)}, {kept}")
                raise

    def found(self, state: CrashState) -> Found:
        """Return what the log holds after this crash, from memory when an equal disk was recovered before."""
        if state.key not in self._found:
            disk = state.disk()
            before = held_by(disk) if len(self._found) % self._peek_every == 0 else None
            found = self._found[state.key] = self._recover(disk)
            if before is not None:
                assert before.entries[-len(found.entries) :] == found.entries, "a reader saw what recovery did not keep"
                assert before.last_lsn == found.last_lsn
        return self._found[state.key]

    def _confirm(self, found: Found, heads: Iterable[wal.Head]) -> None:
        for head in heads:
            if (found.key, head) not in self._confirmed:
                verdict = wal.verify(PATH, head, disk=self._disks[found.key])
                assert (verdict.sound, verdict.expected) == (True, "confirmed"), (head, verdict)
                self._confirmed.add((found.key, head))

    def _recover(self, disk: MemoryDisk) -> Found:
        crashed = {place: disk.peek(place) for place in segments(disk)}
        recovered = recover(PATH, disk)
        report = NEW_LOG if recovered is None else recovered.report
        if report.quarantine is not None:
            at = report.cut_offset_bytes or 0
            cut = crashed[max(crashed)][at : at + report.cut_bytes]
            assert disk.peek(report.quarantine) == cut, "what was cut is not what was kept aside"
        key = digest(disk)
        if key not in self._logs:
            self._logs[key] = self._try(disk, report)
            self._disks[key] = disk
        return self._logs[key]

    def _try(self, disk: MemoryDisk, report: wal.Recovery) -> Found:
        """Whether a recovered log is whole, recovers to the same bytes again, and goes on."""
        found = held_by(disk)
        assert (len(found.entries), found.last_lsn) == (report.records, report.last_lsn)
        again = disk.copy()
        recover(PATH, again)
        assert digest(again) == found.key, "recovering twice is not recovering once"
        with open_log(again, **self._options) as log:
            assert log.append([(7, b"after")]).first_lsn == found.last_lsn + 1
        assert held_by(again).entries == (*found.entries, wal.Entry(found.last_lsn + 1, 7, b"after"))
        assert len(again.peek(PATH / BASE_NAME)) == SLOTS * SLOT_BYTES, "a prune would need free space"
        return found


def digest(disk: MemoryDisk) -> bytes:
    """Return a hash of all that makes the log: its segments, and where it begins."""
    told = hashlib.blake2b(digest_size=16)
    for place in disk.files():
        if place.suffix != ".wal" and place.name != BASE_NAME:
            continue
        told.update(place.name.encode())
        told.update(disk.peek(place))
    return told.digest()
