"""What the journal holds and no bus has: read from the log, a bounded portion at a time.

Rule 1: only what is durable is read, and of a step nothing before it is certain what was released for it.
Rule 2: it runs on a thread of its own, one call at a time; the disk may hold it up, and it takes turns with steps.
Rule 3: what was handed out stays until it is said what became of it, so that a refusal loses nothing.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import wal
from tamiyo.beginning import beginning
from tamiyo.bus import Letter, report_letter, telemetry_letter
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.outbox import DueReport, FreshReports, fresh_reports_room, retries_due
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.journal import Journal
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.pace import Restful
from tamiyo.snapshots import Snapshots
from tamiyo.stored import event_of

__all__ = ["PORTION_MAX", "Backlog", "Piece", "Portion"]

PORTION_MAX = 64
"""Telemetry packets, and reports, of one portion."""
UNLIMITED = 2**63


@dataclass(frozen=True, slots=True)
class Piece:
    """Telemetry up to an LSN at which a reader may begin again."""

    letters: tuple[Letter, ...]
    through_lsn: int


@dataclass(frozen=True, slots=True)
class Portion:
    """What is to go out next: telemetry in order, reports tried for the first time in order, reports due again."""

    telemetry: tuple[Piece, ...] = ()
    fresh: tuple[tuple[DueReport, Letter], ...] = ()
    again: tuple[tuple[DueReport, Letter], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.telemetry or self.fresh or self.again)


class Backlog:
    """The backlog of one journal. One thread at a time may use it."""

    def __init__(self, journal_: Journal) -> None:
        self._journal = journal_
        self._log = journal_.log
        self._teller = _Teller(self._log, journal_.snapshots)
        self._reports = _Reports(self._log, journal_.state.outbox.reports_lsn)
        self._again: dict[int, bytes] = {}  # payloads of reports that wait for a retry, by LSN

    def portion(self, upto_lsn: int) -> Portion:
        """What is to go out next, of the records up to `upto_lsn`; the same again until something is said of it.

        Raises what reading the log raises.
        """
        self._follow_a_reopened_log()
        state = self._journal.state
        self._teller.read(state.outbox.telemetry_lsn, upto_lsn)
        room = fresh_reports_room(state)
        if room:
            self._reports.read(upto_lsn)
        fresh = self._reports.waiting()[: min(room, PORTION_MAX)]
        again = retries_due(state, self._journal.now_ns())[:PORTION_MAX]
        payloads = self._reports.payloads
        return Portion(
            telemetry=tuple(self._teller.pieces),
            fresh=tuple((due, report_letter(due.report_id, payloads[due.report_lsn])) for due in fresh),
            again=tuple((due, report_letter(due.report_id, self._stored(due))) for due in again),
        )

    def drained(self, pieces: int) -> None:
        """The first `pieces` of the telemetry went out."""
        for _ in range(pieces):
            self._teller.pieces.popleft()

    def tried(self, reports: Sequence[DueReport], *, succeeded: bool) -> None:
        """Reports were handed to the bus. What failed is kept for its retry."""
        for due in reports:
            payload = self._reports.take(due) if due.attempt == 1 else self._again.pop(due.report_lsn, b"")
            if not succeeded:
                self._again[due.report_lsn] = payload

    def _follow_a_reopened_log(self) -> None:
        """A log that came back may lack what was said; then it is read, and said, again."""
        log = self._journal.log
        if log is not self._log:
            self._log = log
            self._teller.follow(log)
            self._reports = _Reports(log, self._journal.state.outbox.reports_lsn)

    def _stored(self, due: DueReport) -> bytes:
        """A report's bytes, from the log where this process has not read them; what waits no more is let go."""
        waiting = {retry.report_lsn for retry in self._journal.state.outbox.retries.values()}
        self._again = {lsn: payload for lsn, payload in self._again.items() if lsn in waiting and payload}
        if due.report_lsn not in self._again:
            missing = waiting - set(self._again)
            for lsn, event in _Follower(self._log, min(missing) - 1).entries(max(missing)):
                if lsn in missing and isinstance(event, journal.FieldReportIssued):
                    self._again[lsn] = event.report
        return self._again[due.report_lsn]


class _Follower:
    """The events of a log in order, as far as they may be read."""

    def __init__(self, log: wal.Log, after_lsn: int) -> None:
        self._reader = log.reader(after_lsn)
        self._read: deque[wal.Entry] = deque()

    def entries(self, upto_lsn: int) -> Iterator[tuple[int, Event]]:
        """The events that follow, `upto_lsn` included. Whoever stops early goes on where it stopped."""
        rest_when_due = Restful()
        while True:
            if not self._read:
                self._read.extend(self._reader.poll(PORTION_MAX))
            if not self._read or self._read[0].lsn > upto_lsn:
                return
            entry = self._read[0]
            event = event_of(entry)
            self._read.popleft()
            yield entry.lsn, event
            rest_when_due()


class _Teller:
    """Telemetry, piece by piece."""

    def __init__(self, log: wal.Log, snapshots: Snapshots | None) -> None:
        self.pieces: deque[Piece] = deque()
        self._log = log
        self._snapshots = snapshots
        self._letters: list[Letter] = []
        self._reader: TelemetryReader | None = None
        self._follower: _Follower | None = None

    def follow(self, log: wal.Log) -> None:
        """Go on in the reopened log: all that was read was durable, so it is still there."""
        self._log, self._follower = log, None

    def read(self, drained_lsn: int, upto_lsn: int) -> None:
        """Read until there is a portion; what lies up to `drained_lsn` has gone out, and is only folded."""
        packets = sum(len(piece.letters) for piece in self.pieces)
        if packets >= PORTION_MAX:
            return
        reader = self._reader = self._reader or self._begin(drained_lsn)
        follower = self._follower = self._follower or _Follower(self._log, reader.last_lsn)
        for lsn, event in follower.entries(upto_lsn):
            packet = reader.take(lsn, event, told=lsn <= drained_lsn)
            if packet is not None:
                self._letters.append(telemetry_letter(packet))
                packets += 1
            if self._letters and reader.boundary_lsn == lsn:
                self.pieces.append(Piece(tuple(self._letters), lsn))
                self._letters = []
            if packets >= PORTION_MAX and not self._letters:
                return

    def _begin(self, drained_lsn: int) -> TelemetryReader:
        """Begin as late as possible: everything up to `drained_lsn` is only folded."""
        begun = beginning(self._log, self._snapshots, upto_lsn=drained_lsn, pace=Restful())
        return TelemetryReader(begun.state, begun.received)


class _Reports:
    """Reports that were never tried, in order, with their bytes."""

    def __init__(self, log: wal.Log, after_lsn: int) -> None:
        self.payloads: dict[int, bytes] = {}
        self._follower = _Follower(log, after_lsn)
        self._fresh = FreshReports(UNLIMITED)
        self._tried = 0

    def read(self, upto_lsn: int) -> None:
        """Read until there is a portion; it ends with a step, because of several reports of one all are certain."""
        if len(self.waiting()) >= PORTION_MAX:
            return
        for lsn, event in self._follower.entries(upto_lsn):
            report_id = ""
            if isinstance(event, journal.FieldReportIssued):
                report_id = pb.FieldReport.FromString(event.report).report_id
                self.payloads[lsn] = event.report
            self._fresh.take(lsn, event, report_id)
            if isinstance(event, journal.StepReceived) and len(self.waiting()) >= PORTION_MAX:
                return

    def waiting(self) -> tuple[DueReport, ...]:
        """The next ones to try."""
        return self._fresh.reports()[self._tried :]

    def take(self, due: DueReport) -> bytes:
        """One was tried; its bytes."""
        self._tried += 1
        payload = self.payloads.pop(due.report_lsn)
        if not self.waiting():
            self._fresh, self._tried, self.payloads = FreshReports(UNLIMITED), 0, {}
        return payload
