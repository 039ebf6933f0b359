"""Retention beside a live service, and of a directory without one: what it takes, what it leaves, what it refuses."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard
from live import PATIENT, Live, library
from retention_rig import (
    SETTINGS,
    Aged,
    Order,
    audited,
    bases,
    check,
    completed,
    entries_of,
    history,
    planned,
    write,
)
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import audit
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.events import KINDS, decode
from tamiyo.core.evolve import evolve
from tamiyo.directives import Directives
from tamiyo.errors import (
    ArchiveUnusable,
    HeadNotKept,
    NotRecorded,
    RequestRejected,
    RetentionBusy,
    RetentionUnproven,
    ServiceClosed,
)
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.requests import RETAIN, Request, RequestBox
from tamiyo.retention import preview, prune_unrecorded, retain_directory
from tamiyo.retention.run import STAGES, Retention
from tamiyo.testing import FixedPolicy, ManualClock, MemoryBus

REPORT, PACKET = KINDS[journal.FieldReportIssued], KINDS[journal.StepReceived]
EVERY = 4
KEPT = {"log_retention_hours": 0.01, "field_report_retention_hours": 0.005}


class Run:
    """One directory on the real disk, and the service on it, whose upkeep is done by hand."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.settings = Settings(**{**PATIENT, "segment_bytes": 2**16, **KEPT, **settings})
        self.clock = ManualClock()
        self.bus = MemoryBus()
        self.open()

    def open(self) -> None:
        self.service = TamiyoService.open(
            self.directory, policy=FixedPolicy(), urza=library(risk=0.6), secret=SECRET, settings=self.settings,
            clock=self.clock,
        )  # fmt: skip
        self.service.journal.checkpoint_steps = EVERY
        self.service._upkeep.stop()
        self.service._upkeep._thread.join()

    def steps(self, count: int, *, published: bool = True) -> None:
        for number in range(count):
            self.clock.advance(1.0)
            self.service.evaluate_step(packet(validation_loss=0.5))
            self.service._keeper.keep()
            if published and number % EVERY == EVERY - 1:
                asyncio.run(self.service.publish_history(self.bus))

    @property
    def log(self) -> Path:
        return self.directory / "wal"

    def entries(self) -> list[wal.Entry]:
        return list(self.service.log.read(None))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    made.steps(60)
    yield made
    made.service.close()


def test_a_service_takes_what_is_old_while_it_goes_on_and_an_audit_passes_before_and_after(run: Run) -> None:
    assert audit(run.directory).passed
    head, before = run.service.log.head(), run.entries()
    report = run.service.retain()
    (outcome,) = report.outcomes
    assert len(outcome.completed.segments) > 0
    assert outcome.completed.payloads_redacted > 0
    run.steps(EVERY)
    state = run.service.state
    run.service.close()
    left = entries_of(None, run.log)
    assert left[0].lsn == outcome.completed.first_lsn == outcome.planned.prune_before_lsn
    for entry in left:
        if isinstance(entry, wal.Redacted):
            assert (entry.kind, entry.lsn <= outcome.planned.payloads[0].upto_lsn) == (REPORT, True)
        elif entry.lsn <= before[-1].lsn:
            assert entry == before[entry.lsn - 1]
    found = audit(run.directory, head=head)
    assert found.passed, found.text
    assert found.state_digest == state.digest()
    for path in (run.directory / "snapshots").glob("*"):
        path.unlink()
    run.open()
    assert audited(run.entries()).state.digest() == run.service.state.digest()


def test_a_preview_looks_again_where_a_run_takes_what_it_is_looking_at(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, segments = list[wal.Log](), wal.Log.segments

    def listed_before_a_run(log: wal.Log) -> list[wal.SegmentInfo]:
        found = segments(log)
        listed.append(log)
        if len(listed) == 1:
            assert run.service.retain().outcomes
        return found

    monkeypatch.setattr(wal.Log, "segments", listed_before_a_run)
    assert not run.service.preview_retention().plan.segments, "they are gone already"


def test_steps_are_answered_at_every_stage_and_a_follower_misses_nothing(run: Run) -> None:
    follower = run.service.log.reader(None)
    seen = [entry.lsn for entry in follower.poll(20)]
    stages = []

    def tell(stage: str, _: str) -> None:
        stages.append(stage)
        run.steps(1, published=False)

    steps = run.service.state.steps_received
    retention = Retention(run.service.journal, run.settings.windows())
    assert retention.run(Order("run"), tell=tell).outcomes
    assert stages[: len(STAGES)] == list(STAGES)
    assert run.service.state.steps_received == steps + len(stages)
    assert run.service.state.undecided == ()
    with pytest.raises(wal.Trimmed):  # it was behind what went, and is told so
        follower.poll()
    ahead = run.service.log.reader(run.entries()[0].lsn - 1)
    while entries := ahead.poll():
        seen = seen + [entry.lsn for entry in entries]
    assert seen[20:] == list(range(run.entries()[0].lsn, run.service.log.durable_lsn + 1))
    run.service.close()
    assert audit(run.directory).passed


def test_a_run_that_has_nothing_to_take_writes_nothing(run: Run) -> None:
    run.service.retain()
    last_lsn = run.service.state.last_lsn
    assert run.service.retain().outcomes == ()
    assert run.service.state.last_lsn == last_lsn


def test_what_is_not_published_stays_and_the_report_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.steps(30, published=False)
    report = run.service.retain()
    assert report.outcomes == ()
    assert "no telemetry is published" in report.text
    assert "field reports past LSN 0 are not published" in run.service.preview_retention().text
    run.steps(EVERY)
    run.steps(30)
    assert run.service.retain().outcomes
    run.service.close()


def test_a_report_that_waits_for_its_retry_keeps_its_payload_and_is_published_after_all(tmp_path: Path) -> None:
    run = Run(tmp_path, fr_retry_backoff_ms=1e6)
    run.steps(EVERY * 5)
    run.steps(1, published=False)
    waiting = [entry for entry in run.entries() if entry.kind == REPORT][-1]
    run.bus.refuse(_report_id(waiting))
    run.steps(60)
    assert list(run.service.state.outbox.retries) == [_report_id(waiting)]
    report = run.service.retain()
    assert report.outcomes
    assert f"the field report of LSN {waiting.lsn} waits" in report.text
    left = run.entries()
    assert left[waiting.lsn - left[0].lsn] == waiting
    run.bus.heal()
    run.clock.advance(2_000)
    run.steps(EVERY)
    assert _report_id(waiting) in run.bus.ids()
    assert run.service.retain().outcomes
    left = run.entries()
    assert left[0].lsn > waiting.lsn or isinstance(left[waiting.lsn - left[0].lsn], wal.Redacted)
    run.service.close()
    assert audit(run.directory).passed


def _report_id(entry: wal.Entry) -> str:
    event = decode(entry.kind, entry.payload)
    assert isinstance(event, journal.FieldReportIssued)
    return pb.FieldReport.FromString(event.report).report_id


def test_the_preview_says_what_the_run_takes_and_where_an_audit_begins_after_it(run: Run) -> None:
    last_lsn = run.service.state.last_lsn
    found = run.service.preview_retention()
    assert run.service.state.last_lsn == last_lsn
    (outcome,) = run.service.retain().outcomes
    assert [segment.number for segment in found.plan.segments] == [
        segment.segment for segment in outcome.completed.segments
    ]
    assert found.payloads.records == {REPORT: outcome.completed.payloads_redacted}
    run.service.close()
    assert audit(run.directory).begun_lsn == found.horizon_after_lsn
    assert found.horizon_lsn == 0
    assert "would prune" in found.text
    assert f"from LSN {found.horizon_after_lsn + 1} on after it" in found.text  # type: ignore[operator]
    assert found.as_dict()["audit_horizon_after_lsn"] == found.horizon_after_lsn


def test_packets_that_go_move_the_horizon_of_an_audit_and_the_preview_says_how_far(tmp_path: Path) -> None:
    run = Run(tmp_path, packet_retention_hours=0.005, observation_retention_hours=0.005, log_retention_hours=None)
    run.steps(60)
    found = run.service.preview_retention()
    assert set(found.payloads.records) >= {REPORT, PACKET}
    (outcome,) = run.service.retain().outcomes
    assert outcome.completed.payloads_redacted == found.payloads.total
    run.service.close()
    report = audit(run.directory)
    assert report.passed, report.text
    assert report.begun_lsn == found.horizon_after_lsn > 0  # type: ignore[operator]
    run.open()
    run.steps(EVERY)
    run.service.close()
    assert audit(run.directory).passed


def test_snapshots_of_before_the_base_go_with_what_they_would_need(run: Run) -> None:
    old = run.directory / "snapshots" / f"{5:020d}.snapshot"
    old.write_text("of long ago")
    run.service.retain()
    assert not old.exists()
    assert list((run.directory / "snapshots").glob("*.snapshot"))


# The archive.


def restored(run: Run, archive: Path, target: Path) -> Path:
    """The log as it was: what was archived, beside what is left, without BASE."""
    log = target / "wal"
    log.mkdir(parents=True)
    for path in run.log.glob("*.wal"):
        (log / path.name).write_bytes(path.read_bytes())
    for path in archive.iterdir():
        name = path.name.partition("-")[2].removesuffix(".zst")
        with path.open("rb") as kept:
            data = b"".join(zstandard.ZstdDecompressor().read_to_iter(kept))
        (log / name).write_bytes(data)
    return target


def test_the_archive_gives_back_the_log_of_before(run: Run, tmp_path: Path) -> None:
    archive, head = tmp_path / "kept" / "here", run.service.log.head()
    (outcome,) = run.service.retain(archive=archive).outcomes
    assert outcome.planned.archive == str(archive)
    run.service.close()
    kept = {segment.archived_as for segment in outcome.completed.segments}
    assert kept == {path.name for path in archive.iterdir()}
    back = restored(run, archive, tmp_path / "back")
    verdict = wal.verify(back / "wal", head)
    assert (verdict.first_lsn, verdict.sound, verdict.expected) == (1, True, "confirmed")
    found = audit(back)
    assert (found.passed, found.begun_lsn) == (True, 0), found.text


def test_an_archive_that_holds_something_else_is_not_written_over_and_nothing_goes(run: Run, tmp_path: Path) -> None:
    name = f"{run.service.log.head().log_id.hex()}-{run.service.log.segments()[0].path.name}.zst"
    (tmp_path / name).write_bytes(zstandard.compress(b"something else"))
    with pytest.raises(ArchiveUnusable, match="holds something else"):
        run.service.retain(archive=tmp_path)
    assert run.entries()[0].lsn == 1
    (tmp_path / name).unlink()
    (outcome,) = run.service.retain().outcomes
    assert (outcome.completed.resumed, outcome.planned.archive) == (True, str(tmp_path))


def test_an_archive_that_cannot_be_had_is_named_before_anything(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArchiveUnusable, match="give another folder"):
        run.service.retain(archive=tmp_path / "file")
    assert planned(run.entries()) == []


def test_a_run_whose_archive_failed_is_finished_into_another(run: Run, tmp_path: Path) -> None:
    def tell(stage: str, _: str) -> None:
        if stage == "archive":
            (tmp_path / "kept").rmdir()
            (tmp_path / "kept").write_text("in the way")

    retention = Retention(run.service.journal, run.settings.windows())
    with pytest.raises(ArchiveUnusable, match="give another folder"):
        retention.run(Order("run", tmp_path / "kept"), tell=tell)
    assert run.entries()[0].lsn == 1
    with pytest.raises(ArchiveUnusable):
        run.service.retain()
    (outcome,) = run.service.retain(archive=tmp_path / "other").outcomes
    assert outcome.planned.archive == str(tmp_path / "kept")
    kept = [Path(segment.archived_as) for segment in outcome.completed.segments]
    assert [path.parent for path in kept] == [tmp_path / "other"] * len(kept)
    assert all(path.exists() for path in kept)


def test_without_the_package_an_archive_is_refused_by_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ArchiveUnusable, match=r"pip install 'tamiyo\[archive\]'"):
        run.service.retain(archive=tmp_path / "kept")
    assert planned(run.entries()) == []


# Refusals.


def test_a_head_that_is_not_of_this_log_is_refused_before_anything(run: Run) -> None:
    head = run.service.log.head()
    with pytest.raises(HeadNotKept, match="contradicted"):
        run.service.retain(keep_heads=[replace(head, root=bytes(32))])
    with pytest.raises((HeadNotKept, wal.LogError)):
        run.service.retain(keep_heads=[replace(head, size=head.size + 10_000)])
    assert planned(run.entries()) == []


def test_a_head_that_is_kept_verifies_after_its_records_are_gone(run: Run) -> None:
    with wal_head_at(run, 10) as head:
        run.service.retain(keep_heads=[head])
        assert run.entries()[0].lsn > head.size
        assert wal.verify(run.log, head).expected == "confirmed"
        assert run.service.log.standing(head) == "confirmed"


class wal_head_at:  # noqa: N801  reads as a function
    """The head that the log had after so many records."""

    def __init__(self, run: Run, size: int) -> None:
        self._run, self._size = run, size

    def __enter__(self) -> wal.Head:
        from wal.disk import OsDisk
        from wal.leaves import tree_at

        for size in range(self._size, self._size + 50):  # the chain is known at the ends of batches
            tree, chain = tree_at(self._run.log, OsDisk(), size)
            if chain is not None:
                return wal.Head(self._run.service.log.head().log_id, size, tree.root(), chain)
        raise AssertionError("no batch ends there")

    def __exit__(self, *_: object) -> None:
        pass


def with_a_false_base(directory: Path) -> Aged:
    """A log whose last base says what the log does not come to."""
    made = history()
    false = replace(made.state, decisions=77)
    made.events.append(base_of(false, made._contents, made.state.event_time_ns + 1))
    made.state = evolve(made.state, made.state.last_lsn + 1, made.events[-1])
    made.drain()
    made.publish(succeeded=True)
    made.step(packet(), "timeout")
    made.drain()
    return write(None, made, directory / "wal")


@pytest.mark.parametrize("recorded", [True, False])
def test_a_base_that_is_not_the_state_stops_the_run_before_anything_goes(tmp_path: Path, recorded: bool) -> None:
    aged = with_a_false_base(tmp_path)
    call = partial(retain_directory, tmp_path, Order("run")) if recorded else partial(prune_unrecorded, tmp_path)
    with pytest.raises(RetentionUnproven, match="nothing more is taken away"):
        call(SETTINGS, clock=aged.clock())
    assert entries_of(None, tmp_path / "wal")[0].lsn == 1
    assert not any(isinstance(entry, wal.Redacted) for entry in entries_of(None, tmp_path / "wal"))


def test_a_log_that_takes_no_record_is_left_as_it_is() -> None:
    live = Live(segment_bytes=2**16, **KEPT)
    live.disk.fail("fdatasync", 5, forever=True)
    live.step(packet())
    with pytest.raises(NotRecorded):
        Retention(live.service.journal, live.settings.windows())._record(
            lambda _, now_ns: (journal.RetentionPlanned(event_time_ns=now_ns),), live.service.log, lambda: None
        )
    live.disk.heal()


def test_a_log_that_fails_meanwhile_ends_the_run_so_that_it_can_be_reopened(run: Run) -> None:
    retention = Retention(run.service.journal, run.settings.windows())
    log = run.service.log

    def tell(stage: str, _: str) -> None:
        if stage == "redact":
            log._writer.handover.end(wal.LogFailed("the disk is gone"))

    with pytest.raises((NotRecorded, wal.LogError)):
        retention.run(Order("run"), tell=tell)
    assert not any(isinstance(entry, wal.Redacted) for entry in entries_of(None, run.log))


def test_one_run_at_a_time(run: Run) -> None:
    retention = Retention(run.service.journal, run.settings.windows())

    def tell(stage: str, _: str) -> None:
        with pytest.raises(RetentionBusy):
            retention.run(Order("second"))

    assert retention.run(Order("first"), tell=tell).outcomes


def test_closing_stops_a_run_and_the_next_one_goes_on_with_it(run: Run) -> None:
    begun = threading.Event()
    beat = run.service._retainer._ended

    def tell(stage: str, _: str) -> None:
        if stage == "prove":
            beat.set()  # as close() does
            begun.set()

    run.service._retainer._retention.run = _telling(run.service._retainer._retention, tell)  # type: ignore[method-assign]
    with pytest.raises(ServiceClosed, match="stopped by close"):
        run.service.retain()
    assert begun.is_set()
    run.service.close()
    with pytest.raises(ServiceClosed):
        run.service.retain()
    run.open()
    (outcome,) = run.service.retain().outcomes
    assert outcome.completed.resumed
    run.service.close()
    assert audit(run.directory).passed


def _telling(retention: Retention, tell: Callable[[str, str], None]) -> Callable[..., object]:
    real = retention.run
    return lambda order, *, pace: real(order, pace=pace, tell=tell)


def test_a_run_without_a_base_leaves_all_to_the_one_after_the_next_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.service.journal.checkpoint_steps = 10**9
    run.steps(40)
    report = run.service.retain()
    assert (report.outcomes, report.wants_base) == ((), True)
    assert "holds no base" in report.text
    run.service.journal.checkpoint_steps = EVERY
    run.steps(2 * EVERY)
    assert run.service.retain().outcomes
    run.service.close()
    assert audit(run.directory).passed


def test_the_tables_of_a_service_that_retains_follow_its_log(run: Run) -> None:
    from tamiyo.projections import Projection

    run.service.retain()
    run.steps(EVERY)
    run.service.close()
    with Projection.open(run.directory) as projection:
        projection.catch_up(run.log)
        assert projection.applied_lsn == entries_of(None, run.log)[-1].lsn


# Requests.


def in_box(run: Run) -> list[str]:
    return sorted(path.name for path in (run.directory / "requests").glob("*.json"))


def test_a_request_is_taken_up_beside_the_steps_and_answered(run: Run) -> None:
    box = RequestBox(run.directory)
    path = box.leave(Request("asked", RETAIN, "ada", "", str(run.directory / "archive")))
    assert run.service.flush()  # it is taken up, and nothing waits for it
    while path.exists():
        run.steps(1, published=False)
        run.service.flush()
    answer = box.take_answer(path)
    assert answer is not None
    assert b"segments pruned" in answer
    assert box.take_answer(path) is None
    assert planned(run.entries())[0].run_id == "asked"
    assert (run.directory / "archive").is_dir()


def test_what_goes_wrong_with_a_request_stands_beside_it(run: Run) -> None:
    box = RequestBox(run.directory)
    path = box.leave(Request("asked", RETAIN, "ada", "", keep_heads=("no head",)))
    run.service.flush()
    assert "is not a log's head" in (run.directory / "requests/aside" / f"{path.name}.reason").read_text()
    assert run.entries()[0].lsn == 1


def test_other_requests_are_taken_up_while_a_run_is_at_work(run: Run) -> None:
    job: Future[bytes] = Future()
    directives = Directives(run.service.journal, RequestBox(run.directory), lambda _: job)
    box = RequestBox(run.directory)
    asked = box.leave(Request("asked", RETAIN, "ada", ""))
    box.leave(Request("r-2", "conservative_on", "ada", "meanwhile"))
    assert directives.take_up()
    assert run.service.state.conservative.operator == "ada"
    assert in_box(run) == [asked.name]
    job.set_result(b"{}")
    assert directives.take_up()
    assert in_box(run) == []


def test_a_request_that_a_closing_service_has_not_done_stays_for_the_next(run: Run) -> None:
    job: Future[bytes] = Future()
    directives = Directives(run.service.journal, RequestBox(run.directory), lambda _: job)
    path = RequestBox(run.directory).leave(Request("asked", RETAIN, "ada", ""))
    directives.take_up()
    job.set_exception(ServiceClosed("stopped"))
    directives.take_up()
    assert path.exists()


def test_requests_of_before_read_as_ever_and_a_run_is_no_directive(run: Run) -> None:
    box = RequestBox(run.directory)
    path = box.leave(Request("r-1", "conservative_on", "ada", "why"))
    assert b"archive" not in path.read_bytes()
    assert box.read(path) == Request("r-1", "conservative_on", "ada", "why")
    with pytest.raises(RequestRejected, match=r"TamiyoService\.retain"):
        run.service.direct(RETAIN, operator="ada")
    for wrong in ({"archive": "relative"}, {"keep_heads": ("x",) * 99}, {"keep_heads": ("",)}):
        with pytest.raises(RequestRejected):
            Request("r-1", RETAIN, "ada", "", **wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestRejected, match="has no archive"):
        Request("r-1", "conservative_on", "ada", "", "/kept")


# Without a service.


def test_a_directory_whose_log_holds_no_base_gets_one_and_an_audit_compares_it(tmp_path: Path) -> None:
    aged = write(None, history(base_every=10**9), tmp_path / "wal")
    assert list(bases(aged.entries)) == []
    report = retain_directory(tmp_path, Order("run"), SETTINGS, clock=aged.clock())
    left = check(None, aged, tmp_path / "wal")
    (base,) = bases(left)
    assert len(report.outcomes) == 1
    assert completed(left)[0].first_lsn == left[0].lsn > 1
    found = audit(tmp_path)
    assert found.passed, found.text
    assert base.at_lsn == found.begun_lsn
    again = retain_directory(tmp_path, Order("again"), SETTINGS, clock=aged.clock())
    assert again.outcomes == ()
    assert len(list(bases(entries_of(None, tmp_path / "wal")))) == 1, "one is enough"


def test_the_base_that_is_written_is_compared_by_an_audit_of_all_of_the_log(tmp_path: Path) -> None:
    kept = Settings(log_retention_hours=None, field_report_retention_hours=1)
    aged = write(None, history(base_every=10**9), tmp_path / "wal")
    assert retain_directory(tmp_path, Order("run"), kept, clock=aged.clock()).outcomes
    found = audit(tmp_path)
    assert found.passed, found.text
    assert found.begun_lsn == 0
    assert "recorded states compared" in found.text
    assert "not compared" not in found.text


def test_a_log_can_be_pruned_without_being_opened_and_opens_as_ever(tmp_path: Path) -> None:
    aged = write(None, history(), tmp_path / "wal")
    expected = preview(tmp_path, SETTINGS, clock=aged.clock())
    found, pruned = prune_unrecorded(tmp_path, SETTINGS, clock=aged.clock(), keep_heads=(aged.heads[3],))
    assert (found.plan, pruned.first_lsn) == (expected.plan, expected.plan.prune_before_lsn)
    left = entries_of(None, tmp_path / "wal")
    assert left == list(aged.entries[pruned.first_lsn - 1 :])
    assert wal.verify(tmp_path / "wal", aged.heads[3]).expected == "confirmed"
    assert audit(tmp_path).passed
    assert audited(left).state.digest() == aged.digest


def test_a_preview_beside_a_live_service_needs_no_lock(run: Run) -> None:
    found = preview(run.directory, run.settings, clock=run.clock)
    assert [segment.number for segment in found.plan.segments] == [
        segment.number for segment in run.service.preview_retention().plan.segments
    ]


def test_where_there_is_no_log_there_is_nothing_to_retain(tmp_path: Path) -> None:
    for call in (preview, prune_unrecorded, lambda path: retain_directory(path, Order("run"))):
        with pytest.raises(FileNotFoundError, match="there is no log"):
            call(tmp_path)
    assert list(tmp_path.iterdir()) == []
