"""Collaborators that hang, fail and come back: every step is answered, and nothing acknowledged is lost."""

import errno
import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from live import PATIENT_MS, Live, library, reason, recover, step_until
from rig import packet

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.events import KINDS
from tamiyo.errors import PacketRejected
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FailingPolicy, FixedPolicy, HangingPolicy


def test_a_policy_that_hangs_is_given_up_and_the_controller_recovers_by_itself() -> None:
    policy = HangingPolicy()
    live = Live(policy=policy, step_timeout_ms=1)
    reasons = [reason(live.step(packet())) for _ in range(4)]
    assert reasons == ["timeout_inference"] * 3 + ["breaker_open"]
    assert live.service.state.breakers["inference"].state == OPEN
    policy.release()
    live.service.close()
    live.settings = live.settings.model_copy(update={"step_timeout_ms": PATIENT_MS})
    live.service = live._open()
    for _ in range(6):
        live.clock.advance(1.5)
        last = live.step(packet())
    assert live.service.state.breakers["inference"].state == CLOSED
    assert reason(last) == "policy"
    live.check()
    live.close()


def test_hanging_calls_never_use_more_than_four_threads_and_one() -> None:
    policy = HangingPolicy()
    live = Live(policy=policy, step_timeout_ms=1)
    before = threading.active_count()
    for _ in range(12):
        live.clock.advance(1.5)
        live.step(packet())
    assert threading.active_count() <= before + 5
    failures = [event.error for event in live.events(journal.InferenceFailed)]
    assert all("not attempted" in error for error in failures)
    assert failures
    policy.release()
    live.check()
    live.close()


def test_a_late_result_never_touches_the_state() -> None:
    policy = HangingPolicy(action=0)
    live = Live(policy=policy, step_timeout_ms=1)
    live.step(packet())
    before = live.service.state.digest()
    policy.release()
    assert live.service.state.digest() == before
    live.close()


@pytest.mark.parametrize("answer", [None, "a proposal", 7])
def test_a_policy_that_returns_nonsense_counts_as_failed(answer: object) -> None:
    policy = FixedPolicy()
    live = Live(policy=type("Odd", (), {"identity": policy.identity, "propose": lambda _, graph: answer})())
    assert reason(live.step(packet())) == "inference_failed"
    assert "is no Proposal" in live.events(journal.InferenceFailed)[0].error
    live.close()


def test_what_a_policy_raises_is_journaled_in_words() -> None:
    live = Live(policy=FailingPolicy(RuntimeError("x" * 5_000 + "\ud800")))
    assert reason(live.step(packet())) == "inference_failed"
    assert live.events(journal.InferenceFailed)[0].error.startswith("RuntimeError: xxx")
    live.check()
    live.close()


def test_a_commit_that_is_late_is_superseded_in_the_log() -> None:
    live = Live(commit_timeout_ms=1)
    live.disk.hang("fdatasync")
    late = live.step(packet())
    assert (late.command_type, reason(late)) == (pb.COMMAND_PAUSE, "timeout_wal")
    live.disk.release()
    live.service.close()
    live.settings = live.settings.model_copy(update={"commit_timeout_ms": PATIENT_MS})
    live.service = live._open()
    assert reason(live.step(packet())) == "policy"
    superseded = live.events(journal.CommitLate)
    assert [event.released_command_id for event in superseded] == [late.command_id]
    entry = next(e for e in live.entries() if e.lsn == superseded[0].decision_lsn)
    assert entry.kind == KINDS[journal.DecisionMade]
    reports = [pb.FieldReport.FromString(event.report) for event in live.events(journal.FieldReportIssued)]
    assert [r.outcome for r in reports if r.command_id == late.command_id] == [pb.FIELD_REPORT_OUTCOME_NEUTRAL]
    live.check()
    live.close()


def test_three_late_commits_open_the_log_s_breaker_and_steps_are_counted_until_it_is_back() -> None:
    live = Live(commit_timeout_ms=20)
    live.disk.hang("fdatasync")
    reasons = Counter(reason(live.step(packet())) for _ in range(8))
    assert reasons == {"timeout_wal": 3, "log_failed": 5}
    assert live.service.state.breakers["log"].state == OPEN
    live.disk.release()
    while live.service.log.durable_lsn < live.service.state.last_lsn:
        pass
    recover(live)
    unrecorded = live.events(journal.StepsUnrecorded)
    assert sum(event.count for event in unrecorded) == live.service.state.steps_unrecorded >= 4
    causes = [event.cause for event in live.events(journal.BreakerMoved) if event.breaker == "log"]
    assert causes[:2] == ["failures", "cooled_down"]
    live.check()
    live.close()


@pytest.mark.parametrize("op", ["fdatasync", "pwrite"])
def test_a_writer_that_failed_is_reopened_from_disk_in_the_background(op: str) -> None:
    live = Live()
    first = live.step(packet())
    live.disk.fail(op, errno.EIO)
    failed = live.step(packet())
    assert (failed.command_type, reason(failed)) == (pb.COMMAND_PAUSE, "log_failed")
    assert live.service.log.failure is not None
    assert reason(live.step(packet())) == "log_failed", "the cool-down has not passed"
    recover(live)
    assert live.service.log.failure is None
    moves = [(m.to_state, m.cause) for m in live.events(journal.BreakerMoved)]
    assert moves[:2] == [(OPEN, "writer_failed"), (HALF_OPEN, "cooled_down")]
    live.step(packet())
    assert live.service.state.breakers["log"].state == CLOSED
    assert live.service.state.steps_received == live.service.journal.steps_seen
    ids = [pb.AdaptationCommand.FromString(event.command).command_id for event in live.decisions()]
    assert first.command_id in ids
    live.check()
    live.close()


def test_a_log_that_stays_dead_is_tried_again_and_again() -> None:
    live = Live()
    live.disk.fail("fdatasync", errno.EIO, forever=True)
    for _ in range(3):
        live.clock.advance(1.5)
        assert reason(live.step(packet())) == "log_failed"
        live.service.journal.wait_for_trial()
    live.disk.heal()
    recover(live)
    live.check()
    live.close()


def test_a_full_disk_pauses_and_goes_on_once_there_is_room() -> None:
    live = Live(segment_bytes=2**16)
    live.disk.no_space()
    big = packet(experiment_name="x" * 4_000)
    while reason(live.step(big)) != "log_full":
        pass
    for _ in range(3):
        assert reason(live.step(big)) in ("log_full", "timeout_wal", "log_failed"), "full, or busy finding out"
    live.disk.free_space()
    for _ in range(200):
        live.clock.advance(1.5)  # a log that was busy three times running is tried again after its cool-down
        if reason(live.step(packet())) == "policy":
            break
        live.service.journal.wait_for_trial()
    live.durable()
    told = [event for event in live.events() if isinstance(event, journal.StepPaused | journal.CommitLate)]
    assert live.service.state.steps_unrecorded + len(told) >= 4, "each PAUSE is accounted for"
    assert live.service.state.undecided == ()
    causes = {event.cause for event in live.events(journal.StepsUnrecorded)}
    assert causes <= {"log_full", "timeout_wal", "log_failed"}
    assert live.service.state.steps_received == live.service.journal.steps_seen
    live.check()
    live.close()


def test_a_library_that_hangs_delays_one_step_and_its_answer_counts_later() -> None:
    known = library(quarantine_only=True)
    known.gate = threading.Event()
    live = Live(urza=known)
    assert reason(live.step(packet())) == "timeout_urza"
    assert reason(live.step(packet())) in ("policy", "timeout_urza")
    known.gate.set()
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    assert reason(live.step(packet())) in ("bp_quarantine", "conservative_mode")
    live.check()
    live.close()


def test_a_library_that_fails_opens_its_breaker_and_never_pauses_training() -> None:
    known = library()
    known.error = OSError("gone")
    live = Live(urza=known)
    reasons = {reason(live.step(packet())) for _ in range(10)}
    assert reasons <= {"metadata_failed", "policy", "timeout_urza"}
    assert live.service.state.breakers["metadata"].state == OPEN
    assert not live.service.state.conservative.active
    known.error = None
    step_until(live, lambda: "run-1" in live.service.state.blueprints, elapsed_s=1.5)
    assert live.service.state.blueprints["run-1"].blueprint is not None
    live.check()
    live.close()


@pytest.mark.parametrize("sheet", [{"risk_score": "high"}, {"hazard_band": "CRITICAL"}, [1, 2], "text"])
def test_an_ill_typed_safety_sheet_makes_the_lookup_fail(sheet: object) -> None:
    known = library()
    object.__setattr__(known.records["run-1"], "extras", {"bsds": sheet})
    live = Live(urza=known)
    reasons = {reason(live.step(packet())) for _ in range(5)}
    assert "metadata_failed" in reasons
    live.check()
    live.close()


def test_a_second_writer_is_refused(tmp_path: object) -> None:
    live = Live()
    with pytest.raises(wal.LogLocked):
        live._open()
    live.close()


def test_any_order_of_faults_is_answered_and_replays() -> None:
    """Hung and failing collaborators in turn, two at a time."""
    for policy_fault, log_fault in itertools.product((False, True), ("none", "late", "dead")):
        policy = FailingPolicy(failing=policy_fault)
        live = Live(policy=policy, commit_timeout_ms=20 if log_fault == "late" else PATIENT_MS)
        if log_fault == "late":
            live.disk.hang("fdatasync")
        if log_fault == "dead":
            live.disk.fail("fdatasync", errno.EIO)
        for _ in range(5):
            assert live.step(packet()).command_type in (pb.COMMAND_PAUSE, pb.COMMAND_OPTIMIZER)
        live.disk.release()
        live.disk.heal()
        policy.failing = False
        while live.service.log.failure is None and live.service.log.durable_lsn < live.service.state.last_lsn:
            pass
        recover(live)
        live.check()
        live.close()


@pytest.mark.parametrize("op", ["stage", "submit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_between_log_and_state_leaves_them_together(
    op: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live()
    live.step(packet())
    log, original = live.service.log, getattr(live.service.log, op)

    def interrupted(*arguments: object, **options: object) -> object:
        monkeypatch.undo()
        if when == "after":
            original(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(log, op, interrupted)
    with pytest.raises(KeyboardInterrupt):
        live.step(packet())
    for _ in range(3):
        assert live.step(packet()).command_id
    live.check()
    live.crash()
    live.check()
    live.close()


def test_a_late_commit_that_the_disk_then_lost_is_not_charged_to_another_step() -> None:
    live = Live(commit_timeout_ms=20)
    for _ in range(3):
        live.step(packet())
    live.disk.hang("pwrite")
    assert reason(live.step(packet())) == "timeout_wal"
    live.disk.fail("pwrite", errno.EIO)
    live.disk.release("pwrite")
    while live.service.log.failure is None:
        pass
    live.step(packet())
    recover(live)
    live.check()
    live.close()


def test_a_reopen_that_hangs_keeps_no_step_waiting() -> None:
    live = Live()
    live.step(packet())
    live.disk.fail("fdatasync", errno.EIO)
    live.step(packet())
    live.disk.hang("pread")
    live.clock.advance(1.5)
    for _ in range(5):
        assert reason(live.step(packet())) == "log_failed"
    live.disk.release()
    live.service.journal.wait_for_trial()
    recover(live)
    live.check()
    live.close()


def test_a_failed_writer_brings_on_conservative_mode() -> None:
    live = Live(policy=FixedPolicy(1))
    live.disk.fail("fdatasync", errno.EIO)
    live.step(packet())
    recover(live)
    assert live.service.state.conservative.reason == "breaker_log"
    assert live.decisions()[-1].risk_reason == "conservative_mode"
    for _ in range(6):
        live.clock.advance(1.5)
        last = live.step(packet())
    assert reason(last) == "policy"
    live.check()
    live.close()


def test_a_step_whose_decision_could_not_be_recorded_is_told_of_later(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live()
    log = live.service.log

    def refused(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise wal.LogFull("no room")

    monkeypatch.setattr(log, "submit", refused)
    paused = live.step(packet())
    assert reason(paused) == "log_full"
    live.step(packet())
    (told,) = live.events(journal.StepPaused)
    assert told.released_command_id == paused.command_id
    assert live.service.state.undecided == ()
    reports = [pb.FieldReport.FromString(event.report).command_id for event in live.events(journal.FieldReportIssued)]
    assert paused.command_id in reports
    live.check()
    live.close()


def test_a_germination_that_was_never_released_is_forgotten() -> None:
    live = Live(urza=library(blueprint_id="bp-9"), commit_timeout_ms=20)
    step_until(live, lambda: "bp-9" in live.service.state.blueprints, made=packet(seeds=0))
    live.disk.hang("fdatasync")
    live.step(packet(pb.SEED_STAGE_DORMANT))
    assert live.service.state.blueprint_of("seed-0") == "bp-9"
    live.disk.release()
    while live.service.log.durable_lsn < live.service.state.last_lsn:
        pass
    live.step(packet(seeds=0))
    assert live.service.state.blueprint_of("seed-0") == ""
    live.check()
    live.close()


def test_a_blueprint_that_its_library_withdraws_keeps_its_risk() -> None:
    known = library(quarantine_only=True)
    live = Live(urza=known)
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    known.records.clear()
    step_until(live, lambda: live.service.state.blueprints["run-1"].withdrawn, elapsed_s=400)
    for _ in range(8):
        live.clock.advance(1.5)
        live.step(packet())
    reasons = {row.reason for row in live.decisions()[-1].rows}
    assert "bp_quarantine" in reasons
    live.check()
    live.close()


def test_a_blueprint_that_its_library_withdraws_is_no_candidate() -> None:
    known = library()
    live = Live(urza=known)
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    assert live.step(packet(pb.SEED_STAGE_DORMANT)).command_type == pb.COMMAND_SEED
    known.records.clear()
    step_until(live, lambda: live.service.state.blueprints["run-1"].withdrawn, elapsed_s=400)
    assert live.step(packet(pb.SEED_STAGE_DORMANT)).command_type == pb.COMMAND_PAUSE
    assert not live.events(journal.GraphObserved)[-1].blueprints
    live.check()
    live.close()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), RuntimeError("x")])
def test_whatever_a_library_raises_it_is_asked_again(error: BaseException) -> None:
    known = library()
    known.error = error
    live = Live(urza=known)
    for _ in range(8):
        live.clock.advance(1.5)
        live.step(packet())
    known.error = None
    step_until(live, lambda: "run-1" in live.service.state.blueprints, elapsed_s=1.5)
    assert live.service.state.blueprints["run-1"].blueprint is not None
    live.check()
    live.close()


@pytest.mark.parametrize("ids", [[5], ["\ud800"], [None], "abc", 7])
def test_a_library_that_lists_nonsense_is_a_fault_and_no_more(ids: object) -> None:
    known = library()
    known.list = lambda: ids
    live = Live(urza=known)
    for _ in range(5):
        assert live.step(packet()).command_id
    live.check()
    live.close()


def test_closing_again_lets_go_of_a_log_whose_disk_did_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamiyo.journal.CLOSE_TIMEOUT_S", 0.01)
    live = Live(commit_timeout_ms=1)
    live.disk.hang("fdatasync")
    live.step(packet())
    with pytest.raises(wal.LogBusy):
        live.close()
    live.disk.release()
    monkeypatch.undo()
    live.close()
    live.service = live._open()
    live.check()
    live.close()


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("it cannot be said")


@pytest.mark.parametrize("error", [Unspeakable(), SystemExit(3), RecursionError()])
def test_whatever_a_policy_raises_the_step_is_answered(error: BaseException) -> None:
    live = Live(policy=FailingPolicy(error))
    assert reason(live.step(packet())) == "inference_failed"
    assert live.events(journal.InferenceFailed)[0].error.startswith(type(error).__name__)
    live.check()
    live.close()


@pytest.mark.parametrize("given", [None, 7, "text", pb.SeedState(seed_id="seed-1"), pb.AdaptationCommand()])
def test_what_is_no_packet_is_rejected(given: object) -> None:
    live = Live()
    with pytest.raises(PacketRejected, match="is no packet"):
        live.step(given)
    assert live.events(journal.StepReceived) == []
    assert live.step(bytearray(packet().SerializeToString())).command_id
    live.close()


def let_go_of() -> memoryview:
    """Memory of a packet that its owner took back."""
    view = memoryview(packet().SerializeToString())
    view.release()
    return view


def without_a_required_field() -> Message:
    """A packet of bindings that have one, which is not set."""
    described = descriptor_pb2.FileDescriptorProto(name="host.proto", package="host", syntax="proto2")
    described.message_type.add(name="SystemStatePacket").field.add(name="version", number=1, type=13, label=2)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("host.SystemStatePacket"))()


@pytest.mark.parametrize("given", [let_go_of, without_a_required_field])
def test_a_packet_that_gives_no_bytes_is_rejected_and_the_service_goes_on(given: Callable[[], object]) -> None:
    live = Live()
    with pytest.raises(PacketRejected, match="gives no bytes"):
        live.step(given())
    assert live.service.packets_rejected == 1
    assert live.step(packet()).command_id
    live.close()


def test_a_seed_without_a_name_is_no_candidate() -> None:
    made = pb.SystemStatePacket(training_run_id="run-1")
    made.seed_states.add(stage=pb.SEED_STAGE_TRAINING)
    live = Live()
    assert reason(live.step(made)) == "no_seed_candidates"
    live.close()


def test_an_id_that_hangs_is_asked_for_once_at_a_time() -> None:
    known, asked = library(), []
    gate = threading.Event()
    live = Live(urza=known)
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    known.get = lambda blueprint_id: (asked.append(blueprint_id), gate.wait())[0]
    for _ in range(8):
        live.clock.advance(400)
        live.step(packet())
    assert asked == ["run-1"]
    assert live.service.state.blueprints["run-1"].blueprint is not None, "the last version is used meanwhile"
    gate.set()
    live.check()
    live.close()


INTERRUPTED = ("journal.py", "owed.py", "riders.py", "records.py", "writer.py", "room.py")


class _Interrupter:
    """Raises KeyboardInterrupt at the n-th line that runs in the journal on this thread."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType, event: str, _: object) -> object:
        if Path(frame.f_code.co_filename).name not in INTERRUPTED:
            return self if frame.f_code.co_filename.endswith(("stages.py", "log.py", "contextlib.py")) else None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_line_of_the_journal_parts_nothing() -> None:
    nth, finished = 0, False
    while not finished:
        nth += 1
        live = Live()
        command = live.step(packet())
        live.service.record_delivery(command.command_id, "applied")
        sys.settrace(_Interrupter(nth))
        try:
            live.step(packet())
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert live.step(packet()).command_id, f"line {nth}"
        live.check()
        assert len(live.events(journal.CommandDelivered)) == 1, f"line {nth}: neither lost nor told twice"
        live.crash()
        live.check()
        live.close()
    assert nth > 50, "the interrupter never came near"


@pytest.mark.parametrize("name", ["tamiyo-inference", "tamiyo-lookups"])
def test_without_a_thread_to_be_had_the_step_is_answered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    live = Live(urza=library())
    for _ in range(3):
        assert live.step(packet()).command_id
    monkeypatch.undo()
    step_until(
        live,
        lambda: "run-1" in live.service.state.blueprints and live.service.state.breakers["inference"].state == CLOSED,
        elapsed_s=1.5,
    )
    assert live.service.state.blueprints["run-1"].blueprint is not None
    live.check()
    live.close()
