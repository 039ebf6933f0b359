"""A real process on a real disk is killed amid a retention run: at each stage, at any call, beside running steps."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from retention_rig import (
    SEGMENT_BYTES,
    SETTINGS,
    Aged,
    check,
    completed,
    entries_of,
    history,
    planned,
    write,
)

import wal
from tamiyo.audit import audit
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, decode
from tamiyo.retention import Order, retain_directory
from tamiyo.retention.run import STAGES

CHILD = Path(__file__).with_name("kill_retention.py")
OPERATIONS_MAX = 70
SILENCE_MAX_S = 120


class Killer:
    """The process that forks the victims."""

    def __init__(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip

    def run(self, **plan: Any) -> bool:
        """Whether the victim was killed; else it came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, signal.SIGKILL), "the victim failed before it was killed"
        return status != 0

    def close(self) -> None:
        self._process.communicate(timeout=SILENCE_MAX_S)


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    made = Killer()
    yield made
    made.close()


class Victim:
    """A directory with a log that has come of age, on the real disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "wal"
        self.archive = directory / "archive"
        self.aged: Aged = write(None, history(), self.log)
        self.heads = (self.aged.heads[4], self.aged.heads[len(self.aged.heads) // 2])

    def plan(self, mode: str, **changed: Any) -> dict[str, Any]:
        return {
            "mode": mode, "directory": str(self.directory), "heads": [str(head) for head in self.heads],
            "now_ns": self.aged.now_ns, **changed,
        }  # fmt: skip

    def resume(self) -> None:
        """The next run finishes it; then everything is as it would have been."""
        left = check(None, self.aged, self.log)
        begun, done = planned(left), completed(left)
        order = Order("next", None if begun else self.archive, () if begun else self.heads)
        report = retain_directory(self.directory, order, SETTINGS, clock=self.aged.clock())
        assert len(report.outcomes) == (0 if done else 1)
        left = check(None, self.aged, self.log, heads=self.heads)
        (completion,) = completed(left)
        assert completion.resumed == (bool(begun) and not done)
        assert completion.first_lsn == left[0].lsn > 1
        assert any(isinstance(entry, wal.Redacted) for entry in left)
        if planned(left)[0].archive:
            self._check_archive(completion)
        assert audit(self.directory).passed

    def _check_archive(self, completion: journal.RetentionCompleted) -> None:
        kept = {path.name for path in self.archive.iterdir() if not path.name.startswith(".")}
        assert kept == {segment.archived_as for segment in completion.segments}
        assert all(segment.archived_sha256 for segment in completion.segments)


@pytest.mark.parametrize("stage", STAGES)
def test_a_process_is_killed_at_a_stage_of_its_run(tmp_path: Path, killer: Killer, stage: str) -> None:
    victim = Victim(tmp_path)
    assert killer.run(**victim.plan("retain", stage=stage, archive=str(victim.archive)))
    victim.resume()


def kill_at(killer: Killer, directory: Path, operations: int, seed: int) -> bool:
    victim = Victim(directory)
    killed = killer.run(**victim.plan("retain", operations=operations, seed=seed))
    victim.resume()
    return killed


@pytest.mark.parametrize("operations", random.Random(3).sample(range(OPERATIONS_MAX), 8))
def test_a_process_is_killed_at_any_call_of_the_disk(tmp_path: Path, killer: Killer, operations: int) -> None:
    kill_at(killer, tmp_path, operations, operations)


@pytest.mark.long
def test_a_process_is_killed_at_every_call_of_the_disk(
    tmp_path: Path, killer: Killer, record_property: Callable[[str, object], None]
) -> None:
    killed = 0
    for seed in range(5):
        for operations in range(OPERATIONS_MAX + 20):
            killed += kill_at(killer, tmp_path / f"{seed}-{operations}", operations, seed * 1_000 + operations)
    record_property("killed", killed)
    assert killed > 5 * 60


def kill_beside_steps(killer: Killer, directory: Path, operations: int) -> bool:
    """What was acknowledged before the kill is in the log, or was taken as planned."""
    victim = Victim(directory)
    told = directory / "acknowledged"
    told.touch()
    plan = victim.plan("live", operations=operations, seed=operations, acknowledged=str(told), segment_bytes=2**16)
    killed = killer.run(**plan)
    left = check(None, victim.aged, victim.log)
    decisions = {
        event.command_id
        for entry in left
        if entry.kind == KINDS[journal.DecisionMade]
        for event in [_command(decode(entry.kind, entry.payload))]
    }
    acknowledged = told.read_text(encoding="ascii").split("\n")[:-1]
    assert set(acknowledged) <= decisions
    retain_directory(victim.directory, Order("next"), SETTINGS, clock=victim.aged.clock())
    left = check(None, victim.aged, victim.log)
    assert len(planned(left)) == len(completed(left)) >= 1
    return killed


def _command(event: Any) -> Any:
    from tamiyo.leyline import leyline_pb2 as pb

    return pb.AdaptationCommand.FromString(event.command)


@pytest.mark.parametrize("operations", [15, 60, 90])
def test_a_live_service_is_killed_while_it_steps_and_retains(tmp_path: Path, killer: Killer, operations: int) -> None:
    kill_beside_steps(killer, tmp_path, operations)


@pytest.mark.long
def test_a_live_service_is_killed_again_and_again(
    tmp_path: Path, killer: Killer, record_property: Callable[[str, object], None]
) -> None:
    killed = sum(kill_beside_steps(killer, tmp_path / str(n), n) for n in range(180))
    record_property("killed", killed)
    assert killed > 60


def test_the_rig_reads_what_it_wrote(tmp_path: Path) -> None:
    victim = Victim(tmp_path)
    assert check(None, victim.aged, victim.log) == list(victim.aged.entries)
    assert {info.size_bytes for info in wal.segments(victim.log)} == {SEGMENT_BYTES}
    assert entries_of(None, victim.log)[0].lsn == 1
