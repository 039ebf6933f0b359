"""An audit by several processes reports what an audit by one reports, word for word."""

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from audit.cutting import Here, checkpoints_every, dies, written
from audit.runs import PATIENT_MS, Moody, PatientClock, training_packet
from click.testing import CliRunner
from rig import SECRET

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import AuditReport, audit, reading, report, workers
from tamiyo.audit.bases import Cut
from tamiyo.audit.inference import asking_alone
from tamiyo.audit.parts import Missing, Part, Passed, in_parts
from tamiyo.audit.workers import Workers
from tamiyo.bench.samples import OneHost, small_host
from tamiyo.cli import main
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS
from tamiyo.core.events import KINDS, Event, decode, encode
from tamiyo.policy import Policy
from tamiyo.policy.checkpoint import init_checkpoint, load_policy
from wal.testing import MemoryDisk

EVERY = 8
"""Steps between two checkpoints of the short run."""


def opened(disk: MemoryDisk, policy: Policy | None) -> TamiyoService:
    settings = Settings(step_timeout_ms=PATIENT_MS, commit_timeout_ms=PATIENT_MS, segment_bytes=2**16)
    return TamiyoService.open(
        Path("/run"), policy=policy, urza=OneHost(small_host()), secret=SECRET, settings=settings,
        clock=PatientClock(), disk=disk,
    )  # fmt: skip


def steps(tamiyo: TamiyoService, numbers: range, every: int) -> None:
    for number in numbers:
        tamiyo.evaluate_step(training_packet(number))
        if number % every == every - 1:
            tamiyo.flush()  # the base is written by then


@dataclass(frozen=True)
class Run:
    directory: Path
    entries: list[wal.Entry]
    checkpoint: Path

    def bases(self) -> list[int]:
        return [entry.lsn for entry in self.entries if entry.kind == KINDS[journal.StateBase]]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Sixty steps with a checkpoint every eight: half by the baseline, half by a network, across a restart."""
    folder, disk = tmp_path_factory.mktemp("short"), MemoryDisk()
    checkpoint = init_checkpoint(folder / "untrained.safetensors", 7).path
    for policy, numbers in ((None, range(30)), (load_policy(checkpoint), range(30, 60))):
        with opened(disk, policy) as tamiyo:
            tamiyo.journal.checkpoint_steps = EVERY
            steps(tamiyo, numbers, EVERY)
            entries = list(tamiyo.log.read())
    return Run(written(folder / "run", entries, 2**16), entries, checkpoint)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two checkpoints as they are in earnest."""
    folder = tmp_path_factory.mktemp("long")
    with opened(MemoryDisk(), None) as tamiyo:
        steps(tamiyo, range(2 * CHECKPOINT_STEPS + 100), CHECKPOINT_STEPS)
        entries = list(tamiyo.log.read())
    return Run(written(folder / "run", entries, 2**20), entries, folder)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Who does it in this process, in many parts."""
    here = Here()

    def made(_: int, prepare: Any) -> Here:
        here.prepare = prepare
        return here

    monkeypatch.setattr(report, "Workers", made)
    checkpoints_every(monkeypatch, EVERY)
    return here


@contextmanager
def torch_s_threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def both(directory: Path, level: int, **given: Any) -> tuple[AuditReport, AuditReport]:
    """By one process, and by two; in all of them torch has as many threads, on which the last bits depend."""
    with torch_s_threads_kept():
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))
        return audit(directory, level, **given), audit(directory, level, workers=2, **given)


def same(whole: AuditReport, found: AuditReport) -> None:
    assert asdict(found) == asdict(whole)
    assert found.text == whole.text


@pytest.mark.parametrize("level", [2, 3])
def test_a_run_is_reported_alike(short: Run, hands: Here, level: int) -> None:
    whole, found = both(short.directory, level, checkpoints=[short.checkpoint])
    assert whole.passed, whole.text
    same(whole, found)
    passed = [outcome for _, outcome in hands.ran if isinstance(outcome, Passed)]
    assert len(passed) == len(hands.ran) > 4
    if level == 3:
        assert all(one.inferences is not None and one.inferences.graphs > 0 for one in passed)
        assert found.inferences is not None
        assert (found.inferences.graphs, found.inferences.inferences) == (60, 45)


def another(
    entries: list[wal.Entry], kind: type[Event], place: int, change: Callable[[Any], object]
) -> list[wal.Entry]:
    index = [index for index, entry in enumerate(entries) if entry.kind == KINDS[kind]][place]
    event = decode(entries[index].kind, entries[index].payload)
    change(event)
    return [*entries[:index], wal.Entry(entries[index].lsn, *encode(event)), *entries[index + 1 :]]


TAMPERED: dict[str, tuple[type[Event], Callable[[Any], object], int]] = {
    "decision": (journal.DecisionMade, lambda event: setattr(event, "risk_reason", "x"), 2),
    "graph": (journal.GraphObserved, lambda event: event.edge_counts.__setitem__(0, event.edge_counts[0] + 1), 3),
    "inference": (journal.InferenceObserved, lambda event: event.param_deltas.__setitem__(3, 0.5), 3),
}


@pytest.mark.parametrize("place", [0, 0.5, 0.99], ids=["first", "middle", "last"])
@pytest.mark.parametrize(("kind", "change", "level"), TAMPERED.values(), ids=TAMPERED.keys())
def test_what_does_not_follow_is_reported_alike_in_each_part(
    short: Run,
    hands: Here,
    tmp_path: Path,
    kind: type[Event],
    change: Callable[[Any], object],
    level: int,
    place: float,
) -> None:
    places = sum(entry.kind == KINDS[kind] for entry in short.entries)
    written(tmp_path, another(short.entries, kind, int(place * places), change), 2**16)
    whole, found = both(tmp_path, 3, checkpoints=[short.checkpoint])
    assert whole.verdict_line == f"audit: FAIL (level {level})"
    same(whole, found)
    assert sum(isinstance(outcome, Passed) for _, outcome in hands.ran) >= 2, "others were sound"


def test_what_cannot_be_said_is_reported_alike(short: Run, hands: Here) -> None:
    whole, found = both(short.directory, 3)
    assert whole.verdict_line == "audit: UNVERIFIABLE (level 3)"
    same(whole, found)
    assert hands.ran


@pytest.mark.parametrize("work", ["prune", "redact"])
def test_a_log_that_lost_its_beginning_is_reported_alike(short: Run, hands: Here, tmp_path: Path, work: str) -> None:
    gone_lsn = short.bases()[1]
    written(tmp_path, short.entries, 2**16)
    with wal.Log.open(tmp_path / "wal", segment_bytes=2**16) as log:
        if work == "prune":
            log.prune(before_lsn=gone_lsn)
        else:
            log.redact(lambda entry: entry.lsn < gone_lsn and entry.kind == KINDS[journal.InferenceObserved])
    whole, found = both(tmp_path, 3, checkpoints=[short.checkpoint])
    assert whole.passed, whole.text
    assert whole.begun_lsn > 0
    same(whole, found)
    assert sum(isinstance(outcome, Passed) for _, outcome in hands.ran) > 2
    assert any(isinstance(outcome, Missing) for _, outcome in hands.ran) == (work == "redact")


def test_a_graph_that_is_wrong_before_what_was_taken_out_is_reported_alike(
    short: Run, hands: Here, tmp_path: Path
) -> None:
    """An audit begins anew after that, and forgets nothing."""
    kind, change, _ = TAMPERED["graph"]
    written(tmp_path, another(short.entries, kind, 3, change), 2**16)
    gone_lsn = [entry.lsn for entry in short.entries if entry.kind == KINDS[journal.InferenceObserved]][6]
    with wal.Log.open(tmp_path / "wal", segment_bytes=2**16) as log:
        assert log.redact(lambda entry: entry.lsn == gone_lsn).records == 1
    whole, found = both(tmp_path, 3, checkpoints=[short.checkpoint])
    assert whole.verdict_line == "audit: FAIL (level 3)"
    assert whole.begun_lsn > gone_lsn
    same(whole, found)


def test_what_is_appended_meanwhile_is_audited_too(long: Run) -> None:
    whole = audit(long.directory)
    found = in_parts(long.directory / "wal", 1, long.bases()[-1] + 50, Here(count=2))
    assert found is not None
    assert found[0].decisions == 2 * CHECKPOINT_STEPS + 100
    assert found[0].state.digest() == whole.state_digest


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What `in_parts` said, when an audit asked it."""
    said: list[object] = []

    def asked(*given: Any) -> object:
        said.append(in_parts(*given))
        return said[-1]

    monkeypatch.setattr(report, "in_parts", asked)
    return said


@pytest.mark.parametrize("level", [2, 3])
def test_processes_report_alike(long: Run, kept: list[object], level: int) -> None:
    told = list[int]()
    whole = audit(long.directory, level)
    found = audit(long.directory, level, told.append, workers=2)
    assert kept[0] is not None
    same(whole, found)
    assert told == sorted(told)
    assert told[-1] <= long.entries[-1].lsn


def test_processes_leave_what_does_not_follow_to_one(long: Run, kept: list[object], tmp_path: Path) -> None:
    written(tmp_path, another(long.entries, journal.DecisionMade, -1, TAMPERED["decision"][1]))
    whole, found = both(tmp_path, 2)
    assert kept == [None]
    assert whole.verdict_line == "audit: FAIL (level 2)"
    same(whole, found)


def test_one_process_does_it_all_where_others_die(
    long: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kept: list[object]
) -> None:
    monkeypatch.setattr(report, "_prepared", lambda *_: dies)
    whole, found = both(long.directory, 3)
    assert kept == [None]
    same(whole, found)
    assert "a process of the audit was ended" in caplog.text
    assert not multiprocessing.active_children()


def test_one_process_does_it_all_where_no_other_can_be_begun(
    long: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with Workers(2) as hands:
        monkeypatch.setattr(hands._pool, "submit", refuse)
        assert in_parts(long.directory / "wal", 1, long.entries[-1].lsn, hands) is None
    assert "or not begun" in caplog.text


def test_processes_hear_of_no_interrupt_and_go_with_their_maker_s(long: Run) -> None:
    path, last_lsn = long.directory / "wal", long.entries[-1].lsn

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    def interrupted_again() -> None:
        with Workers(2) as hands:
            assert in_parts(path, 1, last_lsn, hands) is not None
            begun = multiprocessing.active_children()
            assert len(begun) == 2
            for process in begun:
                os.kill(process.pid or 0, signal.SIGINT)
            assert in_parts(path, 1, last_lsn, hands) is not None, "they went on"
            in_parts(path, 1, last_lsn, hands, interrupted)

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupted_again()
    assert not multiprocessing.active_children()
    assert threading.active_count() == threads


def test_the_same_processes_check_one_log_after_another(long: Run, tmp_path: Path) -> None:
    forged = written(tmp_path, another(long.entries, journal.DecisionMade, 5, TAMPERED["decision"][1])) / "wal"
    sound, last_lsn = long.directory / "wal", long.entries[-1].lsn
    with Workers(2) as hands:
        assert in_parts(forged, 1, last_lsn, hands) is None
        assert in_parts(sound, 1, last_lsn, hands) is not None, "what was stopped is begun anew"
        missing = hands.run(tmp_path / "nowhere", [Part(None, None, is_first=True)], lambda _: None)
    assert [type(outcome).__name__ for outcome in missing] == ["Unproven"]


def test_long_parts_are_begun_early() -> None:
    """After the first one, which may find that the audit has to begin later, and the last, of which more may come."""
    cuts = [Cut(lsn, lsn, lsn) for lsn in (10, 20, 70, 90)]
    parts = [Part(one, other, is_first=one is None) for one, other in pairwise([None, *cuts, None])]
    assert workers._in_turn(parts) == [0, 4, 2, 3, 1]
    assert workers._in_turn([]) == []


def test_processes_of_level_2_know_no_torch() -> None:
    code = "import sys, tamiyo.audit.workers; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_processes_of_level_3_share_the_cores(short: Run) -> None:
    cores = len(os.sched_getaffinity(0))
    for count, share in ((2, max(1, cores // 2)), (10 * cores, 1)):
        prepare = report._prepared(short.directory, (), count)
        assert isinstance(prepare, partial)
        assert prepare.func is asking_alone
        with torch_s_threads_kept():
            torch.set_num_threads(share + 1)
            one, other = prepare()(), prepare()()
            assert torch.get_num_threads() == share
        assert one is not other


def test_workers_that_cannot_be_are_refused(short: Run) -> None:
    with pytest.raises(ValueError, match="one worker or more, not 0"):
        audit(short.directory, workers=0)
    with pytest.raises(ValueError, match="cannot be handed to other processes: audit with workers=1"):
        audit(short.directory, 3, policies=[Moody()], workers=2)


def test_the_command_takes_workers(long: Run, kept: list[object]) -> None:
    command = ["audit", str(long.directory), "--json"]
    result = CliRunner().invoke(main, [*command, "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert kept[0] is not None
    assert json.loads(result.output) == json.loads(CliRunner().invoke(main, command).output)
    refused = CliRunner().invoke(main, [*command, "--workers", "0"])
    assert refused.exit_code == 2
    assert "0 is not in the range x>=1" in refused.output


@pytest.mark.parametrize("level", ["1", "2"])
def test_the_command_takes_a_checkpoint_for_level_3_alone(short: Run, level: str) -> None:
    command = ["audit", str(short.directory), "--level", level, "--checkpoint", str(short.checkpoint)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--checkpoint is for level 3" in result.output


WAITING = """
import os, sys
from click.testing import CliRunner
from tamiyo.cli import main
CliRunner().invoke(main, ["audit", *sys.argv[1:]])  # without the checkpoint, which takes seconds to load
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("level", "said", "found"), [("2", None, "None"), ("3", None, "passive"), ("3", "active", "active")]
)
def test_threads_of_a_level_3_of_its_own_process_sleep_while_they_wait(
    short: Run, level: str, said: str | None, found: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ran = subprocess.run(
        [sys.executable, "-c", WAITING, str(short.directory), "--level", level],
        env=environment | ({} if said is None else {"OMP_WAIT_POLICY": said}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.split() == [found]


def test_all_that_is_loaded_is_rarely_looked_through(long: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a process of ours nor while the command runs; whoever calls that keeps their own thresholds."""
    ours = (*gc.get_threshold()[:2], workers.COLLECT_ALL_AFTER)
    with Workers(1) as hands:
        assert hands._pool.submit(gc.get_threshold).result() == ours
    seen = []
    replay = reading.replay
    monkeypatch.setattr(reading, "replay", lambda *a, **k: (seen.append(gc.get_threshold()), replay(*a, **k))[1])
    before = gc.get_threshold()
    assert CliRunner().invoke(main, ["audit", str(long.directory)]).exit_code == 0
    assert (seen, gc.get_threshold()) == ([ours], before)
