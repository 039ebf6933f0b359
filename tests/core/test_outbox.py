"""The outbox: which reports are due, and what follows from every outcome of the bus."""

from dataclasses import replace

import pytest
from rig import Bench, packet, timed_out

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.evolve import evolve_all
from tamiyo.core.options import Options
from tamiyo.core.outbox import (
    DueReport,
    FreshReports,
    backoff_ns,
    fresh_reports_room,
    next_retry_ns,
    publish_attempted,
    publishing_admitted,
    retries_due,
    telemetry_drained,
    telemetry_dropped,
)
from tamiyo.core.state import RETRIES_MAX, canonical
from tamiyo.core.state import Outbox as Outbox_
from tamiyo.errors import InvariantViolation
from tamiyo.leyline import leyline_pb2 as pb

SECOND_NS = 1_000_000_000


class Outbox:
    """A bench with its reports at hand, and a bus whose outcomes are told to it."""

    def __init__(self, reports: int = 1, **options: object) -> None:
        self.bench = Bench(**options)
        self.reports = [self.report() for _ in range(reports)]

    def report(self) -> DueReport:
        decision = self.bench.step(packet())
        report_id = pb.FieldReport.FromString(decision.events[-1].report).report_id
        return DueReport(self.bench.state.last_lsn, f"{report_id}-{self.bench.state.last_lsn}")

    def attempt(self, *reports: DueReport, succeeded: bool, after_s: float = 0.1) -> list[str]:
        """One outcome of the bus, folded; the names of the events that followed from it."""
        state = self.bench.state
        now_ns = state.event_time_ns + int(after_s * SECOND_NS)
        events = publish_attempted(state, reports, succeeded=succeeded, cause="" if succeeded else "no", now_ns=now_ns)
        self.bench.state = evolve_all(state, events)
        return [event.DESCRIPTOR.name for event in events]

    @property
    def pending(self) -> int:
        return self.bench.state.reports_pending

    @property
    def outbox(self) -> object:
        return self.bench.state.outbox


def test_a_published_report_is_pending_no_more() -> None:
    box = Outbox(2)
    assert box.pending == 2
    assert box.attempt(*box.reports, succeeded=True) == ["PublishAttempted"]
    assert (box.pending, box.outbox.published, box.outbox.reports_lsn) == (
        0,
        2,
        box.reports[-1].report_lsn,
    )


def test_a_refused_report_is_due_again_after_a_backoff_that_doubles() -> None:
    box = Outbox()
    delays = []
    report = box.reports[0]
    for _ in range(3):
        box.attempt(report, succeeded=False, after_s=10.0)
        failed_ns = box.bench.state.event_time_ns
        due_ns = next_retry_ns(box.bench.state)
        delays.append((due_ns - failed_ns) / SECOND_NS)
        assert retries_due(box.bench.state, due_ns - 1) == ()
        (report,) = retries_due(box.bench.state, due_ns)
        box.bench.state = evolve_all(box.bench.state, [])
    assert delays == [1.0, 2.0, 4.0]
    assert report.attempt == 4


def test_after_the_last_retry_a_report_is_dropped_and_counted() -> None:
    box = Outbox(report_retries_max=2)
    followed = []
    report = box.reports[0]
    while True:
        followed = box.attempt(report, succeeded=False, after_s=100.0)
        if next_retry_ns(box.bench.state) is None:
            break
        (report,) = retries_due(box.bench.state, next_retry_ns(box.bench.state))
    assert "FieldReportsDropped" in followed
    assert report.attempt == 3
    assert (box.pending, box.outbox.dropped, box.outbox.retried) == (0, 1, 2)


def test_a_retry_that_succeeds_counts_as_published() -> None:
    box = Outbox()
    box.attempt(box.reports[0], succeeded=False)
    (again,) = retries_due(box.bench.state, next_retry_ns(box.bench.state))
    box.attempt(again, succeeded=True, after_s=2.0)
    assert (box.pending, box.outbox.published, box.outbox.retried, dict(box.outbox.retries)) == (
        0,
        1,
        1,
        {},
    )


def test_the_publishing_breaker_opens_after_three_failures_tries_again_and_never_pauses_training() -> None:
    box = Outbox(3)
    for report in box.reports:
        followed = box.attempt(report, succeeded=False)
    assert followed == ["PublishAttempted", "BreakerMoved"]
    state = box.bench.state
    assert state.breakers["publishing"].state == OPEN
    assert not state.conservative.active
    assert not publishing_admitted(state, state.event_time_ns + 1)
    assert publishing_admitted(state, state.event_time_ns + 2 * SECOND_NS)
    followed = box.attempt(box.report(), succeeded=True, after_s=2.0)
    assert followed == ["BreakerMoved", "PublishAttempted"]
    assert box.bench.state.breakers["publishing"].state == HALF_OPEN
    assert box.attempt(box.report(), succeeded=True) == ["PublishAttempted", "BreakerMoved"]
    assert box.bench.state.breakers["publishing"].state == CLOSED


def test_telemetry_moves_its_cursor_and_its_failure_counts_on_the_breaker() -> None:
    bench = Bench()
    now_ns = bench.state.event_time_ns
    bench.state = evolve_all(bench.state, telemetry_drained(bench.state, through_lsn=2, packets=1, now_ns=now_ns + 1))
    assert bench.state.outbox.telemetry_lsn == 2
    bench.state = evolve_all(
        bench.state, publish_attempted(bench.state, (), succeeded=False, cause="gone", now_ns=now_ns + 2)
    )
    assert bench.state.breakers["publishing"].failures == 1


def test_a_dropped_packet_is_counted_and_moves_nothing_else() -> None:
    bench = Bench()
    before = bench.state
    now_ns = before.event_time_ns + 1
    bench.fold(telemetry_dropped("tamiyo-1", attempts=4, cause="no", now_ns=now_ns))
    assert bench.state.outbox == replace(before.outbox, telemetry_dropped=1)
    assert (bench.state.breakers, bench.state.event_time_ns) == (before.breakers, now_ns)


def test_a_state_without_a_drop_has_the_digest_that_it_had_before_drops_were_counted() -> None:
    encoded = canonical(Outbox_(telemetry_lsn=7))
    assert b"telemetry_dropped" not in encoded
    assert b"telemetry_dropped" in canonical(Outbox_(telemetry_lsn=7, telemetry_dropped=1))


@pytest.mark.parametrize("told", [{"packet_id": "x"}, {"attempts": 4}])
def test_a_drop_that_cannot_be_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(InvariantViolation):
        Bench().fold(journal.TelemetryDropped(**told))


def test_no_more_reports_are_tried_than_there_is_room_to_remember() -> None:
    box = Outbox(3)
    box.attempt(*box.reports, succeeded=False)
    assert fresh_reports_room(box.bench.state) == RETRIES_MAX - 3


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1.0), (2, 2.0), (3, 4.0), (10_000, 1e9)])
def test_a_backoff_is_exponential_and_bounded(attempt: int, seconds: float) -> None:
    assert backoff_ns(Options(), attempt) == int(seconds * SECOND_NS)


def illegal_attempts(box: Outbox) -> dict[str, journal.PublishAttempted]:
    first = box.reports[0]
    return {
        "tried before": journal.PublishAttempted(report_lsns=[3], report_ids=["x"], attempt=1),
        "not in the log yet": journal.PublishAttempted(report_lsns=[10_000], report_ids=["x"], attempt=1),
        "out of order": journal.PublishAttempted(report_lsns=[9, 8], report_ids=["x", "y"], attempt=1),
        "without a name": journal.PublishAttempted(report_lsns=[9], attempt=1),
        "not waiting": journal.PublishAttempted(report_lsns=[9], report_ids=["x"], attempt=2),
        "the wrong attempt": journal.PublishAttempted(
            report_lsns=[first.report_lsn], report_ids=[first.report_id], attempt=3
        ),
    }


@pytest.mark.parametrize("case", sorted(illegal_attempts(Outbox())))
def test_an_attempt_that_cannot_be_is_refused(case: str) -> None:
    box = Outbox()
    box.attempt(box.reports[0], succeeded=False)
    with pytest.raises(InvariantViolation):
        box.bench.fold(illegal_attempts(box)[case])


def test_fresh_reports_leave_out_what_a_late_commit_superseded_and_keep_its_pause() -> None:
    fresh = FreshReports(most=10)
    fresh.take(1, journal.StepReceived())
    fresh.take(2, journal.FieldReportIssued(step_lsn=1), "late")
    fresh.take(3, journal.FieldReportIssued(step_lsn=1, synthesised=True), "window")
    fresh.take(4, journal.CommitLate(step_lsn=1))
    fresh.take(5, journal.FieldReportIssued(step_lsn=1), "pause")
    assert [report.report_id for report in fresh.reports()] == ["window", "pause"]


def test_fresh_reports_are_enough_only_once_the_last_of_them_is_certain() -> None:
    fresh = FreshReports(most=1)
    fresh.take(2, journal.FieldReportIssued(step_lsn=1), "one")
    assert not fresh.enough
    fresh.take(3, journal.StepReceived())
    assert fresh.enough
    fresh.take(4, journal.FieldReportIssued(step_lsn=3), "two")
    assert [report.report_id for report in fresh.reports()] == ["one"]


def test_a_timed_out_decision_has_a_report_to_publish_too() -> None:
    bench = Bench()
    bench.step(packet(), timed_out())
    assert bench.state.reports_issued == 1
