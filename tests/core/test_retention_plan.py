"""What a retention run may take: every rule of the plan as a row, and laws that hold for any log."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS
from tamiyo.core.retention import SEGMENTS_MAX, BaseMark, Holdings, Plan, Segment, Windows, kind_name, plan
from tamiyo.core.state import Outbox, Retry

REPORT, PACKET = KINDS[journal.FieldReportIssued], KINDS[journal.StepReceived]
HOUR_NS = 3_600 * 10**9
NOW_NS = 1_000 * HOUR_NS
RECORDS = 100  # in each segment


def log(segments: int = 5, **changed: Any) -> Holdings:
    """A log of 100 records an hour, a segment an hour, the last one in use; published to its end, a base in each."""
    last_lsn = segments * RECORDS
    made = {
        "segments": [
            Segment(n + 1, n * RECORDS + 1, (n + 1) * RECORDS, 1_000, finished=n < segments - 1)
            for n in range(segments)
        ],
        "times": [(lsn, NOW_NS - (last_lsn - lsn) * HOUR_NS // RECORDS) for lsn in range(1, last_lsn + 1, 10)],
        "bases": [BaseMark(n * RECORDS + 50, n * RECORDS + 49, n * RECORDS + 45) for n in range(segments)],
        "outbox": Outbox(telemetry_lsn=last_lsn, reports_lsn=last_lsn),
    }
    return Holdings(**{**made, **changed})


def hours(**windows: float) -> Windows:
    asked: dict[str, float | None] = {"log": None, "field_reports": None, "packets": None, "observations": None}
    return Windows.of_hours(**{**asked, **windows})  # type: ignore[arg-type]


def published(upto_lsn: int, *, told: int = 500, retries: tuple[int, ...] = ()) -> Outbox:
    waiting = {f"fr-{lsn}": Retry(lsn, 1, 0) for lsn in retries}
    return Outbox(telemetry_lsn=told, reports_lsn=upto_lsn, retries=MappingProxyType(waiting))


ROWS: dict[str, tuple[Holdings, Windows, int, dict[int, int], str]] = {
    # the log, its windows -> records below this go whole, payloads go up to, what held back (the first)
    "nothing has a window": (log(), hours(), 0, {}, ""),
    "nothing is old enough": (log(), hours(log=5, field_reports=5), 0, {}, ""),
    "whole segments alone are pruned": (log(), hours(log=2.5), 201, {}, ""),
    "payloads go to the record": (log(), hours(field_reports=2.5), 0, {REPORT: 241}, ""),
    "each kind by its own window": (log(), hours(field_reports=3, packets=2), 0, {REPORT: 191, PACKET: 291}, ""),
    "of what goes whole no payload is taken": (log(), hours(log=2, field_reports=2.5), 201, {REPORT: 241}, ""),
    "the base needs the last of it": (log(), hours(field_reports=0), 0, {REPORT: 400}, "the segment in use"),
    "a base that needs what is old": (
        log(bases=[BaseMark(150, 149, 140)]), hours(log=0, field_reports=0), 101, {REPORT: 139},
        "the base of LSN 150 needs",
    ),
    "the segment in use stays": (log(1), hours(log=0, field_reports=0), 0, {}, "the segment in use"),
    "no base is there": (log(bases=[]), hours(log=1), 0, {}, "the log holds no base"),
    "no base is as old as what telemetry has told": (
        log(outbox=published(500, told=40)), hours(log=1), 0, {}, "where telemetry has come to",
    ),
    "the base that telemetry can go on from stays": (
        log(outbox=published(500, told=260)), hours(log=0), 201, {}, "telemetry past LSN 260 is not published",
    ),
    "nothing was ever published": (log(outbox=Outbox()), hours(log=0), 0, {}, "no telemetry is published"),
    "reports that were never published stay": (
        log(outbox=published(120)), hours(log=1, field_reports=1), 101, {REPORT: 120}, "field reports past LSN 120",
    ),
    "a report that waits for its retry stays": (
        log(outbox=published(500, retries=(330, 130))), hours(log=1, field_reports=1), 101, {REPORT: 129},
        "the field report of LSN 130 waits",
    ),
    "what was taken before is not taken again": (
        log(taken={REPORT: 241}), hours(field_reports=2.5), 0, {}, "",
    ),
    "what came of age since is": (log(taken={REPORT: 200}), hours(field_reports=2.5), 0, {REPORT: 241}, ""),
    "an empty log": (Holdings([], [], [], Outbox()), hours(log=0, field_reports=0), 0, {}, ""),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_what_goes(row: tuple[Holdings, Windows, int, dict[int, int], str]) -> None:
    held, windows, prune_before, payloads, why = row
    made = plan(NOW_NS, held, windows)
    assert (made.prune_before_lsn, dict(made.payloads)) == (prune_before, payloads)
    assert made.empty == (not prune_before and not payloads)
    assert not why or any(why in limit.why for limit in made.held)
    assert bool(made.held) == bool(why)


def test_a_segment_that_a_crash_left_without_its_seal_holds_back_what_follows() -> None:
    held = log()
    segments = [replace(segment, finished=segment.number not in (2, 5)) for segment in held.segments]
    made = plan(NOW_NS, replace(held, segments=segments), hours(log=0))
    assert made.prune_before_lsn == 101


def test_a_plan_takes_so_many_segments_and_says_that_there_are_more() -> None:
    made = plan(NOW_NS, log(SEGMENTS_MAX + 10), hours(log=1))
    assert (len(made.segments), made.more) == (SEGMENTS_MAX, True)
    assert made.prune_before_lsn == SEGMENTS_MAX * RECORDS + 1
    few = plan(NOW_NS, log(), hours(log=1), segments_max=2)
    assert (few.prune_before_lsn, few.more) == (201, True)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (log(), False),
        (log(bases=[]), True),
        (log(bases=[BaseMark(150, 149, 140)]), True),
        (log(bases=[], outbox=published(0)), False),
        (log(bases=[], outbox=Outbox()), False),
    ],
    ids=["there is one", "none", "an old one", "reports hold back anyway", "nothing is published"],
)
def test_a_base_is_wanted_where_a_younger_one_would_let_more_go(held: Holdings, wanted: bool) -> None:
    assert plan(NOW_NS, held, hours(log=1)).wants_base is wanted


def test_the_record_of_a_plan_says_all_of_it() -> None:
    windows = hours(log=3, field_reports=2.5)
    made = plan(NOW_NS, log(), windows)
    event = made.event("run-7", windows, archive="/kept", keep_heads=["a head"])
    assert (event.run_id, event.event_time_ns, event.archive, list(event.keep_heads)) == (
        "run-7", NOW_NS, "/kept", ["a head"],
    )  # fmt: skip
    assert (event.prune_before_lsn, event.base_lsn) == (101, made.base.lsn if made.base else 0)
    assert [(window.kind, window.window_ns, window.upto_lsn) for window in event.payloads] == [
        (REPORT, int(2.5 * HOUR_NS), 241)
    ]
    assert [(going.segment, going.first_lsn, going.last_lsn, going.size_bytes) for going in event.segments] == [
        (1, 1, 100, 1_000)
    ]


def test_the_settings_have_the_windows() -> None:
    windows = Settings(log_retention_hours=48, packet_retention_hours=1.5, observation_retention_hours=0).windows()
    assert windows.log_ns == 48 * HOUR_NS
    assert dict(windows.payloads) == {
        REPORT: 24 * HOUR_NS, PACKET: 3 * HOUR_NS // 2, KINDS[journal.GraphObserved]: 0,
        KINDS[journal.InferenceObserved]: 0,
    }  # fmt: skip
    assert dict(Settings(field_report_retention_hours="never").windows().payloads) == {}  # type: ignore[arg-type]


def test_kinds_have_names() -> None:
    assert kind_name(REPORT) == "FieldReportIssued"
    assert kind_name(999) == "kind 999"


lsns = st.integers(0, 600)
logs = st.builds(
    lambda segments, told, reports, retries, bases: log(
        segments,
        outbox=published(reports, told=told, retries=tuple(retries)),
        bases=[BaseMark(at + 1, at, max(at - back, 1)) for at, back in bases],
    ),
    st.integers(1, 6),
    lsns,
    lsns,
    st.lists(st.integers(1, 600), max_size=3),
    st.lists(st.tuples(st.integers(1, 600), st.integers(0, 80)), max_size=5),
)
windows = st.builds(
    lambda kept, reports: hours(**{k: v for k, v in (("log", kept), ("field_reports", reports)) if v is not None}),
    st.none() | st.floats(0, 7),
    st.none() | st.floats(0, 7),
)


def gone(made: Plan) -> int:
    return max([made.prune_before_lsn - 1, *made.payloads.values()])


@given(held=logs, kept=windows)
def test_nothing_goes_that_anything_still_needs(held: Holdings, kept: Windows) -> None:
    made = plan(NOW_NS, held, kept)
    if made.empty:
        return
    assert made.base is not None
    assert gone(made) < made.base.needs_lsn
    assert made.base.at_lsn <= held.outbox.telemetry_lsn
    assert gone(made) <= held.outbox.reports_lsn
    assert all(gone(made) < retry.report_lsn for retry in held.outbox.retries.values())
    assert gone(made) < held.segments[-1].first_lsn
    for lsn, time_ns in held.times:
        if lsn < made.prune_before_lsn:
            assert time_ns < NOW_NS - (kept.log_ns or 0)
        if lsn <= made.payloads.get(REPORT, 0):
            assert time_ns < NOW_NS - kept.payloads[REPORT]


@given(held=logs, kept=windows, later=st.floats(0, 10))
def test_later_more_goes_and_never_less(held: Holdings, kept: Windows, later: float) -> None:
    now, then = plan(NOW_NS, held, kept), plan(NOW_NS + int(later * HOUR_NS), held, kept)
    assert then.prune_before_lsn >= now.prune_before_lsn
    assert gone(then) >= gone(now)
