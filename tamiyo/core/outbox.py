"""The outbox schedule: which field reports are due, and what follows from an attempt to publish.

    issued ──first attempt──▶ published
                 │ fails
                 ▼
             waiting ──due, tried again──▶ published
                 │ retries used up
                 ▼
             dropped: it stays in the log

Rule 1: the schedule is replayed state, in event time. At least once: what was tried without a word in the log is
        tried again, under the same id.
Rule 2: reports are tried in the order of their LSNs. `Outbox.reports_lsn` is how far that has come; what failed
        is among at most `RETRIES_MAX` retries, and while those are full no new report is tried.
Rule 3: the report of a command whose commit was late is superseded before it is ever due.
Rule 4: telemetry has a cursor and no retries: a packet waits as long as the bus takes none, and is dropped only where
        the bus refuses it again and again while it takes later ones (`tamiyo.line`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tamiyo.core import breakers
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.ledger import Ledger
from tamiyo.core.options import Options
from tamiyo.core.state import RETRIES_MAX, State

__all__ = [
    "DueReport",
    "FreshReports",
    "backoff_ns",
    "fresh_reports_room",
    "next_retry_ns",
    "publish_attempted",
    "publishing_admitted",
    "retries_due",
    "telemetry_drained",
    "telemetry_dropped",
]

DELAY_MAX_NS = 10**18


@dataclass(frozen=True, slots=True)
class DueReport:
    """A report to publish: where it lies, its id, and which attempt this is."""

    report_lsn: int
    report_id: str
    attempt: int = 1


def publishing_admitted(state: State, now_ns: int) -> bool:
    """Whether the bus may be called at all: its breaker is not OPEN, or has cooled down."""
    return breakers.admits(state.breakers["publishing"], now_ns, state.thresholds)


def retries_due(state: State, now_ns: int) -> tuple[DueReport, ...]:
    """The reports to try again at event time `now_ns`, the one that has waited longest first."""
    waiting = [
        (retry.due_ns, retry.report_lsn, report_id, retry.attempts + 1)
        for report_id, retry in state.outbox.retries.items()
        if retry.due_ns <= now_ns
    ]
    return tuple(DueReport(lsn, report_id, attempt) for _, lsn, report_id, attempt in sorted(waiting))


def next_retry_ns(state: State) -> int | None:
    """The event time at which the next retry is due, None where none waits."""
    return min((retry.due_ns for retry in state.outbox.retries.values()), default=None)


def fresh_reports_room(state: State) -> int:
    """How many reports may be tried for the first time: no more than would fit among the retries."""
    return RETRIES_MAX - len(state.outbox.retries)


def backoff_ns(options: Options, attempt: int) -> int:
    """How long after failed attempt number `attempt` the next one is due."""
    delay_ns = options.retry_backoff_ms * 1e6
    for _ in range(attempt - 1):
        if delay_ns >= DELAY_MAX_NS:
            break
        delay_ns *= options.retry_backoff_mult
    return int(min(delay_ns, DELAY_MAX_NS))


class FreshReports:
    """Reads the journal past `Outbox.reports_lsn` and keeps the reports that were never tried.

    A decision's report is certain only once its commit was judged. Whoever reads ends at an LSN up to which that is
    so (everything released, or said to be late in the log); `enough` says that `most` certain reports are together.
    """

    def __init__(self, most: int) -> None:
        """`most`: how many reports may be taken."""
        self._most = most
        self._found: list[tuple[DueReport, int]] = []  # with the step whose command it reports; 0 for a window's
        self._certain = 0

    def take(self, lsn: int, event: Event, report_id: str = "") -> None:
        """Look at one event, in order; `report_id` is that of the report in a `FieldReportIssued`."""
        if isinstance(event, journal.FieldReportIssued):
            self._found.append((DueReport(lsn, report_id), 0 if event.synthesised else event.step_lsn))
        elif isinstance(event, journal.CommitLate):
            self._found = [found for found in self._found if found[1] != event.step_lsn]
        elif isinstance(event, journal.StepReceived | journal.ServiceOpened):
            self._certain = len(self._found)

    @property
    def enough(self) -> bool:
        """Whether reading on would find nothing that may be taken."""
        return self._certain >= self._most

    def reports(self) -> tuple[DueReport, ...]:
        """The reports to try for the first time, in order."""
        return tuple(report for report, _ in self._found[: self._most])


def publish_attempted(
    state: Standing, reports: Sequence[DueReport], *, succeeded: bool, cause: str = "", now_ns: int
) -> tuple[Event, ...]:
    """What the log says of one outcome of the bus, for reports that went together; of telemetry when there are none.

    The reports are of one attempt and in the order of their LSNs; first attempts leave none out. The success of
    telemetry is a `telemetry_drained` instead.
    """
    ordered = sorted(reports, key=lambda report: report.report_lsn)
    attempt = ordered[0].attempt if ordered else 0
    attempted = journal.PublishAttempted(
        report_lsns=[report.report_lsn for report in ordered],
        report_ids=[report.report_id for report in ordered],
        attempt=attempt,
        succeeded=succeeded,
        cause=cause,
        event_time_ns=now_ns,
    )
    ledger = _outcome(state, succeeded=succeeded, now_ns=now_ns)
    return (*ledger.trials, attempted, *ledger.moves, *_dropped(state.options, attempted))


def telemetry_drained(state: Standing, *, through_lsn: int, packets: int, now_ns: int) -> tuple[Event, ...]:
    """What the log says of telemetry that went out: a success of the bus, and how far it has come."""
    drained = journal.TelemetryDrained(through_lsn=through_lsn, packets=packets, event_time_ns=now_ns)
    ledger = _outcome(state, succeeded=True, now_ns=now_ns)
    return (*ledger.trials, drained, *ledger.moves)


def telemetry_dropped(packet_id: str, *, attempts: int, cause: str, now_ns: int) -> Event:
    """What the log says of a packet that the bus refused for good; the cursor moves past it with later ones."""
    return journal.TelemetryDropped(packet_id=packet_id, attempts=attempts, cause=cause, event_time_ns=now_ns)


def _outcome(state: Standing, *, succeeded: bool, now_ns: int) -> Ledger:
    ledger = Ledger(state.breakers, state.thresholds)
    ledger.happened("publishing", breakers.REQUEST, now_ns)
    ledger.happened("publishing", breakers.SUCCESS if succeeded else breakers.FAILURE, now_ns)
    return ledger


def _dropped(options: Options, attempted: journal.PublishAttempted) -> Iterable[Event]:
    if attempted.succeeded or not attempted.report_lsns or attempted.attempt <= options.report_retries_max:
        return ()
    dropped = journal.FieldReportsDropped(
        report_lsns=attempted.report_lsns,
        report_ids=attempted.report_ids,
        attempts=attempted.attempt,
        cause=attempted.cause,
        event_time_ns=attempted.event_time_ns,
    )
    return (dropped,)
