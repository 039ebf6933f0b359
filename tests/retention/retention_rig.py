"""Logs that have come of age, on any disk, and what must hold of them whatever happened to a retention run."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rig import packet, proposal

import wal
from tamiyo.audit.replay import Replay, replay
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, decode, encode
from tamiyo.errors import RecordRedacted
from tamiyo.retention import Order, Report, retain_directory
from tamiyo.retention.run import Tell, silently
from tamiyo.testing import ManualClock
from tamiyo.testing.history import History
from wal.testing import MemoryDisk

DIRECTORY = Path("/controller")
LOG = DIRECTORY / "wal"
SEGMENT_BYTES = 2**14
REPORT = KINDS[journal.FieldReportIssued]
MINUTES_APART = 10
SETTINGS = Settings(log_retention_hours=2, field_report_retention_hours=1)
"""Of a log that spans some hours: its oldest segments go whole, younger reports lose their payload."""


@dataclass(frozen=True)
class Aged:
    """A log's records before any retention, and what they come to; `heads` were taken all along."""

    entries: tuple[wal.Entry, ...]
    digest: str
    heads: tuple[wal.Head, ...]
    now_ns: int

    @property
    def last_lsn(self) -> int:
        return self.entries[-1].lsn

    def clock(self) -> ManualClock:
        """A clock at the time of the last record."""
        return ManualClock(wall=self.now_ns)


def history(steps: int = 24, base_every: int = 6, *, drained: bool = True) -> History:
    """A journal of steps ten minutes apart, published to its end (to the last base where not), and bases among them."""
    made = History()
    for number in range(1, steps + 1):
        made.pass_time(60 * MINUTES_APART)
        made.step(packet(validation_loss=0.5), proposal())
        if number % base_every == 0:
            made.publish(succeeded=True)
            made.drain()
            made.base()
    if not drained:
        return made
    made.step(packet(), proposal())
    made.publish(succeeded=True)
    made.drain()
    return made


def write(disk: wal.Disk | None, made: History, path: Path = LOG, segment_bytes: int = SEGMENT_BYTES) -> Aged:
    """The log of a history, in small segments."""
    heads = []
    with wal.Log.open(path, segment_bytes=segment_bytes, disk=disk, heartbeat_ms=1e9) as log:
        for event in made.events:
            _append(log, encode(event))
            heads.append(log.head())
        entries = tuple(log.read())
    return Aged(entries, made.state.digest(), tuple(heads), made.state.event_time_ns)


def _append(log: wal.Log, record: tuple[int, bytes]) -> None:
    while True:
        with contextlib.suppress(wal.LogBusy):
            log.append([record])
            return


def retain(disk: wal.Disk, aged: Aged, run_id: str = "run", tell: Tell = silently, **order: object) -> Report:
    """One retention run on a disk that nobody else has open."""
    made = Order(run_id, **order)  # type: ignore[arg-type]
    return retain_directory(DIRECTORY, made, SETTINGS, clock=aged.clock(), disk=disk, tell=tell)


def entries_of(disk: wal.Disk | None, path: Path = LOG) -> list[wal.Entry]:
    return list(wal.read(path, None, disk=disk))


def audited(entries: list[wal.Entry], upto_lsn: int = 2**63) -> Replay:
    """What an audit finds in a log, as `tamiyo.audit.audit` does it: from the first record on, or from a base.

    With `upto_lsn` it ends there, however far the log goes on, and a base that is written later may serve.
    """
    upto = entries[: max(upto_lsn - entries[0].lsn + 1, 0)]
    missing_lsn = entries[0].lsn - 1
    while True:
        base = next((base for base in bases(entries) if base.needs_lsn > missing_lsn), None) if missing_lsn else None
        assert base is not None or not missing_lsn, f"no base stands for the records up to {missing_lsn}"
        try:
            return replay(upto[0 if base is None else base.needs_lsn - entries[0].lsn :], base=base)
        except RecordRedacted as redacted:
            missing_lsn = redacted.lsn


def bases(entries: Iterable[wal.Entry]) -> Iterator[journal.StateBase]:
    for entry in entries:
        if entry.kind == KINDS[journal.StateBase]:
            event = decode(entry.kind, entry.payload)
            assert isinstance(event, journal.StateBase)
            yield event


def planned(entries: Iterable[wal.Entry]) -> list[journal.RetentionPlanned]:
    return _events(entries, journal.RetentionPlanned)


def completed(entries: Iterable[wal.Entry]) -> list[journal.RetentionCompleted]:
    return _events(entries, journal.RetentionCompleted)


def _events(entries: Iterable[wal.Entry], kind: type) -> list:
    return [decode(entry.kind, entry.payload) for entry in entries if entry.kind == KINDS[kind]]


def check(disk: wal.Disk | None, aged: Aged, path: Path = LOG, *, heads: Iterable[wal.Head] = ()) -> list[wal.Entry]:
    """Nothing acknowledged and still in its window is lost, and the audit passes. Returns what is left."""
    left = entries_of(disk, path)
    plans = planned(left)
    first_lsn = left[0].lsn
    assert [entry.lsn for entry in left] == list(range(first_lsn, left[-1].lsn + 1))
    assert left[-1].lsn >= aged.last_lsn
    assert first_lsn in {1, *(plan.prune_before_lsn for plan in plans)}, "whole segments go, as planned"
    upto_lsn = max((window.upto_lsn for plan in plans for window in plan.payloads), default=0)
    for entry in left[: aged.last_lsn - first_lsn + 1]:
        before = aged.entries[entry.lsn - 1]
        if isinstance(entry, wal.Redacted):
            assert (entry.kind, entry.lsn <= upto_lsn) == (REPORT, True), "payloads go as planned"
        else:
            assert entry == before
    found = audited(left)
    assert found.divergence is None, str(found.divergence)
    assert audited(left, aged.last_lsn).state.digest() == aged.digest
    for head in heads:
        assert wal.verify(path, head, disk=disk).expected == "confirmed"
    assert wal.verify(path, disk=disk).sound
    return left


def in_memory(steps: int = 24) -> tuple[MemoryDisk, Aged]:
    disk = MemoryDisk()
    return disk, write(disk, history(steps))
