"""The log when it is late, full or dead, to the letter: what is released, and what the log says of it later."""

import errno
import uuid
from collections import Counter

import pytest
from live import LateClock, Live, library, reason, recover, step_until
from rig import packet

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.events import Event, decode
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.records import JournalUnavailable
from tamiyo.testing import FixedPolicy


def late(live: Live) -> pb.AdaptationCommand:
    """A step whose commit misses its budget, because the disk hangs."""
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    command = live.step(packet())
    assert live.disk.wait_until_hung("fdatasync")
    return command


def on_time(live: Live) -> None:
    """The disk goes on, and everything that waits for it is durable."""
    live.disk.release()
    live.clock.late.clear()
    while live.service.log.failure is None and live.service.log.durable_lsn < live.service.state.last_lsn:
        pass


def after(live: Live, lsn: int) -> list[Event]:
    return [decode(entry.kind, entry.payload) for entry in live.entries() if entry.lsn > lsn]


def reports(live: Live, command_id: str) -> list[int]:
    found = [pb.FieldReport.FromString(event.report) for event in live.events(journal.FieldReportIssued)]
    return [report.outcome for report in found if report.command_id == command_id]


def test_the_safe_pause_is_a_function_of_packet_and_cause() -> None:
    live = Live(clock=LateClock())
    command = late(live)
    on_time(live)
    received = live.events(journal.StepReceived)[-1]
    assert command.command_id == str(uuid.uuid5(uuid.UUID(received.decision_id), "timeout_wal"))
    assert command.command_type == pb.COMMAND_PAUSE
    assert command.WhichOneof("payload") is None
    assert command.issued_at.ToNanoseconds() == received.received_unix_ns
    assert command.execution_deadline_ms == received.budget_ms
    live.close()


def test_the_next_batch_begins_with_the_late_commit_whoever_writes_it() -> None:
    """A lookup answers before the next step does: the log hears of the late commit first."""
    known = library()
    live = Live(urza=known, clock=LateClock())
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    paused = late(live)
    last = live.service.state.last_lsn
    live.service.journal.record_aside(
        lambda _, now_ns: (journal.BlueprintObserved(blueprint_id="other", event_time_ns=now_ns),)
    )
    on_time(live)
    kinds = [type(event) for event in after(live, last)]
    assert kinds == [journal.CommitLate, journal.FieldReportIssued, journal.BlueprintObserved]
    assert live.events(journal.CommitLate)[0].released_command_id == paused.command_id
    live.check()
    live.close()


def test_a_step_is_refused_where_another_thread_told_what_opens_the_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the step has looked, and before it comes to tell that itself."""
    live = Live(clock=LateClock())
    for _ in range(3):
        late(live)
        on_time(live)
    journal_, last = live.service.journal, live.service.state.last_lsn
    settle = journal_.settle

    def beside_another() -> object:
        monkeypatch.undo()
        journal_.flush()
        return settle()

    monkeypatch.setattr(journal_, "settle", beside_another)
    assert reason(live.step(packet())) == "log_failed"
    assert live.service.state.breakers["log"].state == OPEN
    live.durable()
    assert not [event for event in after(live, last) if isinstance(event, journal.StepReceived)]
    live.check()
    live.close()


def test_a_late_commit_supersedes_command_and_report_and_counts_for_the_breaker() -> None:
    live = Live(clock=LateClock())
    paused = late(live)
    on_time(live)
    decided = pb.AdaptationCommand.FromString(live.decisions()[-1].command)
    assert live.service.state.breakers["log"].failures == 0, "not judged before the log says so"
    live.step(packet())
    told = live.events(journal.CommitLate)[0]
    assert (told.released_command_id, told.cause) == (paused.command_id, "timeout_wal")
    assert live.service.state.commits_late == 1
    assert reports(live, paused.command_id) == [pb.FIELD_REPORT_OUTCOME_NEUTRAL]
    assert decided.command_id != paused.command_id
    assert live.service.state.breakers["log"].failures == 1, "the step after it has not been judged yet"
    live.step(packet())
    assert live.service.state.breakers["log"].failures == 0, "a commit in time ends the row of failures"
    live.check()
    live.close()


def test_a_late_commit_is_told_again_where_the_disk_lost_the_first_telling() -> None:
    live = Live(clock=LateClock())
    live.step(packet())
    paused = late(live)
    second = live.step(packet())  # begins with the CommitLate, which never reaches the disk
    assert reason(second) == "timeout_wal"
    live.disk.fail("pwrite", errno.EIO)
    on_time(live)
    assert live.service.log.failure is not None
    recover(live)
    assert [event.released_command_id for event in live.events(journal.CommitLate)] == [paused.command_id]
    assert reports(live, paused.command_id) == [pb.FIELD_REPORT_OUTCOME_NEUTRAL]
    assert live.service.state.steps_received == live.service.journal.steps_seen
    assert sum(event.count for event in live.events(journal.StepsUnrecorded)) == live.service.state.steps_unrecorded
    live.check()
    live.close()


def test_a_germination_whose_supersession_was_lost_is_forgotten_all_the_same() -> None:
    live = Live(urza=library(blueprint_id="bp-9"), clock=LateClock())
    step_until(live, lambda: "bp-9" in live.service.state.blueprints, made=packet(seeds=0))
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    live.step(packet(pb.SEED_STAGE_DORMANT))
    live.disk.wait_until_hung("fdatasync")
    live.step(packet(seeds=0))
    live.disk.fail("pwrite", errno.EIO)
    on_time(live)
    recover(live)
    live.step(packet(seeds=0))
    assert live.service.state.blueprint_of("seed-0") == "", "its command was never released"
    live.check()
    live.close()


def test_a_decision_that_the_disk_lost_leaves_its_step_paused() -> None:
    """The packet was written, the batch was not: nothing stays undecided, and its PAUSE is told."""
    live = Live()
    live.step(packet())
    live.disk.fail("pwrite", errno.EIO, nth=2)
    paused = live.step(packet())
    assert reason(paused) == "log_failed"
    recover(live)
    assert live.service.state.undecided == ()
    (told,) = live.events(journal.StepPaused)
    assert (told.released_command_id, told.cause) == (paused.command_id, "log_failed")
    assert reports(live, paused.command_id) == [pb.FIELD_REPORT_OUTCOME_NEUTRAL]
    live.check()
    live.close()


def test_while_the_breaker_is_open_nothing_touches_the_disk() -> None:
    live = Live(clock=LateClock())
    for _ in range(3):
        late(live)
    assert reason(late(live)) == "log_failed"
    on_time(live)
    while live.service.log._writer._busy_since is not None:
        pass  # the writer rests
    calls, last = Counter(live.disk.calls), live.service.log.next_lsn
    for _ in range(20):
        assert reason(live.step(packet())) == "log_failed"
    with pytest.raises(JournalUnavailable, match="log_failed"):
        live.service.journal.record_aside(lambda *_: ())
    assert live.service.log.next_lsn == last
    assert {op: live.disk.calls[op] - calls[op] for op in ("pwrite", "fdatasync")} in (
        {"pwrite": 0, "fdatasync": 0},
        {"pwrite": 1, "fdatasync": 1},  # the writer's own heartbeat
    )
    live.close()


def test_the_trial_runs_in_the_background_one_at_a_time_and_two_successes_close_the_breaker() -> None:
    live = Live(clock=LateClock())
    for _ in range(4):
        late(live)
    assert live.service.state.breakers["log"].state == OPEN
    live.clock.late.clear()
    live.clock.advance(1.5)  # the disk hangs on: so does the trial
    trials = set()
    for _ in range(10):
        assert reason(live.step(packet())) == "log_failed"
        trials.add(live.service.journal._trial)
        live.clock.advance(1.5)
    assert len(trials) == 1
    live.disk.release()
    live.service.journal.wait_for_trial()
    assert live.service.state.breakers["log"].state == HALF_OPEN
    live.step(packet())
    live.step(packet())
    assert live.service.state.breakers["log"].state == CLOSED
    moves = [event.cause for event in live.events(journal.BreakerMoved) if event.breaker == "log"]
    assert moves == ["failures", "cooled_down", "trials_passed"]
    unrecorded = live.events(journal.StepsUnrecorded)
    assert sum(event.count for event in unrecorded) == live.service.state.steps_unrecorded == 11
    live.check()
    live.close()


def test_a_late_commit_in_the_trial_opens_the_breaker_again() -> None:
    live = Live(clock=LateClock())
    for _ in range(4):
        late(live)
    live.disk.release()
    live.clock.late.clear()
    live.clock.advance(1.5)
    live.step(packet())
    live.service.journal.wait_for_trial()
    assert live.service.state.breakers["log"].state == HALF_OPEN
    assert reason(late(live)) == "timeout_wal"
    assert reason(late(live)) == "log_failed", "one failure is enough"
    assert live.service.state.breakers["log"].state == OPEN
    on_time(live)
    recover(live)
    live.check()
    live.close()


def test_a_trial_that_comes_to_nothing_restarts_the_cool_down() -> None:
    live = Live()
    live.disk.fail("fdatasync", errno.EIO, forever=True)
    live.step(packet())
    live.step(packet())
    reopened = []
    open_log = live.service.journal._open_log
    live.service.journal._open_log = lambda: (reopened.append(1), open_log())[1]
    for round_ in range(1, 4):
        live.clock.advance(1.5)
        for _ in range(5):
            live.step(packet())
            live.service.journal.wait_for_trial()
        assert len(reopened) == round_
    live.disk.heal()
    recover(live)
    live.check()
    live.close()


def test_a_step_under_way_while_the_log_is_reopened_is_paused_and_told() -> None:
    """Another thread may find the log dead, and bring it back, while the policy thinks."""

    class Reopener:
        identity = FixedPolicy().identity
        live: Live | None = None

        def propose(self, graph: object) -> object:
            live, self.live = self.live, None
            if live is not None:
                live.disk.fail("fdatasync", errno.EIO)
                observed = journal.BlueprintObserved(blueprint_id="x")
                pending = live.service.journal.record_aside(lambda _, now_ns: (observed,))
                with pytest.raises(wal.LogError):
                    pending.result()
                while live.service.log.failure is None:
                    pass
                live.service.journal.refusal()
                live.clock.advance(1.5)
                live.service.journal.refusal()
                live.service.journal.wait_for_trial()
                assert live.service.log.failure is None
            return FixedPolicy().propose(graph)

    policy: Policy = Reopener()
    live = Live(policy=policy)
    live.step(packet())
    policy.live = live
    paused = live.step(packet())
    assert (reason(paused), paused.command_type) == ("log_failed", pb.COMMAND_PAUSE)
    live.step(packet())
    assert live.service.state.undecided == ()
    assert [event.released_command_id for event in live.events(journal.StepPaused)] == [paused.command_id]
    live.check()
    live.close()


def test_steps_are_numbered_as_if_every_one_had_been_recorded() -> None:
    live = Live()
    live.step(packet())
    live.disk.fail("fdatasync", errno.EIO, forever=True)
    for _ in range(5):
        live.step(packet())
    live.disk.heal()
    recover(live)
    live.step(packet())
    numbers = [event.step_index for event in live.events(journal.StepReceived)]
    spans = [(event.first_step_index, event.last_step_index) for event in live.events(journal.StepsUnrecorded)]
    missing = [number for first, last in spans for number in range(first, last + 1)]
    assert sorted(numbers + missing) == list(range(1, live.service.journal.steps_seen + 1))
    live.check()
    live.close()


def be_busy(patch: pytest.MonkeyPatch) -> None:
    """The log is making its next segment, and has no room left in this one."""

    def refuse(*_: object, **__: object) -> None:
        raise wal.LogBusy("the next segment is still being allocated; nothing was written. Try again in a moment.")

    for call in ("stage", "submit"):
        patch.setattr(wal.Log, call, refuse)


def test_steps_that_a_busy_log_refuses_are_failures_of_its_breaker_once_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = Live()
    live.step(packet())
    with monkeypatch.context() as patch:
        be_busy(patch)
        assert [reason(live.step(packet())) for _ in range(2)] == ["timeout_wal"] * 2
    live.step(packet())
    assert live.service.state.breakers["log"].failures == 0, "its commit was in time"
    with monkeypatch.context() as patch:
        be_busy(patch)
        assert [reason(live.step(packet())) for _ in range(3)] == ["timeout_wal"] * 3
    assert reason(live.step(packet())) == "log_failed"
    live.durable()
    assert [(told.count, told.timed_out) for told in live.events(journal.StepsUnrecorded)] == [(2, 2), (3, 3)]
    assert live.service.state.breakers["log"].state == OPEN
    recover(live)
    live.step(packet())
    assert live.service.state.breakers["log"].state == CLOSED
    live.check()
    live.reopen()
    live.check()
    live.close()


def test_opening_near_the_end_of_a_segment_waits_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    live, submit, refusals = Live(), wal.Log.submit, [wal.LogBusy("the next segment is still being allocated")] * 3

    def slowly(log: wal.Log, batch: list[tuple[int, bytes]], **options: bool) -> wal.Pending:
        if refusals:
            raise refusals.pop()
        return submit(log, batch, **options)

    live.step(packet())
    live.service.close()
    monkeypatch.setattr(wal.Log, "submit", slowly)
    live.service = live._open()
    assert refusals == []
    assert len(live.events(journal.ServiceOpened)) == 2
    live.check()
    live.close()


def test_opening_gives_up_on_a_log_that_stays_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live()
    live.service.close()
    monkeypatch.setattr("tamiyo.journal.ROOM_TIMEOUT_S", 0.0)
    with monkeypatch.context() as patch:
        be_busy(patch)
        with pytest.raises(wal.LogBusy):
            live._open()
    live.service = live._open()
    live.close()
