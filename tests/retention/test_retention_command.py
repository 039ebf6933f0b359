"""`tamiyo retain`: what it prints, its exit statuses, beside a live service and without one."""

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from retention_rig import Aged, completed, entries_of, history, planned, write
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import audit
from tamiyo.cli import main
from tamiyo.cli import retain as command
from tamiyo.requests import RequestBox
from tamiyo.testing import FixedPolicy

PATIENT = {"step_timeout_ms": 60_000, "commit_timeout_ms": 60_000, "segment_bytes": 2**14 * 4}


def retain(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["retain", *map(str, arguments)])


def policies(directory: Path) -> str:
    """The last line of what `tamiyo policy list` says: who decides."""
    said = CliRunner().invoke(main, ["policy", "list", str(directory)])
    return said.output.splitlines()[-1]


@pytest.fixture
def aged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aged:
    """A log of long ago: by the machine's clock all of it is older than any window."""
    monkeypatch.setenv("TAMIYO_LOG_RETENTION_HOURS", "48")
    return write(None, history(), tmp_path / "wal")


def test_what_is_left_with_a_live_service_is_told_and_is_no_json(tmp_path: Path) -> None:
    with wal.Log.open(tmp_path / "wal"):  # whoever has it open takes no requests up
        said = retain(tmp_path, "--json", "--wait", 0)
    assert said.exit_code == 4
    assert said.stdout == ""
    assert f"left in {tmp_path}/requests/" in said.stderr
    assert "is not done yet" in said.stderr


def test_a_log_that_cannot_be_read_is_named_with_what_was_wanted_of_it(tmp_path):
    (tmp_path / "wal").symlink_to(tmp_path / "wal")  # nobody may, not even the one who may do all
    said = CliRunner().invoke(main, ["retain", str(tmp_path), "--dry-run"])
    assert said.exit_code == 1
    assert f"retention in {tmp_path} cannot go on: [Errno 40]" in said.output
    assert "look at the path, its permissions and its disk" in said.output


def test_a_dry_run_says_what_would_go_and_changes_nothing(tmp_path: Path, aged: Aged) -> None:
    said = retain(tmp_path, "--dry-run")
    assert said.exit_code == 0, said.output
    assert "would prune" in said.output
    assert "hours ago" in said.output
    assert "audit level 2: decisions can be recomputed from the first one now" in said.output
    assert entries_of(None, tmp_path / "wal") == list(aged.entries)
    found = json.loads(retain(tmp_path, "--dry-run", "--json").output)
    assert found["segments"][0]["first_lsn"] == 1
    assert found["audit_horizon_lsn"] == 0


def test_a_run_takes_it_keeps_it_and_says_so(tmp_path: Path, aged: Aged) -> None:
    head = aged.heads[3]
    decides = policies(tmp_path)
    assert decides.startswith("decides: ")
    said = retain(tmp_path, "--archive", tmp_path / "kept", "--keep-head", head, "--json")
    assert said.exit_code == 0, said.output
    (run,) = json.loads(said.output)["runs"]
    left = entries_of(None, tmp_path / "wal")
    assert left[0].lsn == int(run["completed"]["first_lsn"]) > 1
    assert len(list((tmp_path / "kept").iterdir())) == len(run["completed"]["segments"])
    assert wal.verify(tmp_path / "wal", head).expected == "confirmed"
    assert audit(tmp_path).passed
    assert policies(tmp_path) == decides
    again = retain(tmp_path)
    assert (again.exit_code, again.output.splitlines()[0]) == (0, "nothing to take")


def test_beside_a_live_service_the_service_does_it(tmp_path: Path, aged: Aged) -> None:
    settings = Settings(**PATIENT, log_retention_hours=48)
    with TamiyoService.open(tmp_path, policy=FixedPolicy(), secret=SECRET, settings=settings) as service:
        stop = threading.Event()

        def steps() -> None:
            while not stop.is_set():
                service.evaluate_step(packet())

        stepping = threading.Thread(target=steps)
        stepping.start()
        said = retain(tmp_path, "--archive", tmp_path / "kept")
        stop.set()
        stepping.join()
        assert said.exit_code == 0, said.output
        assert "segments pruned" in said.output
        left = list(service.log.read(None))
    assert len(planned(left)) == len(completed(left)) == 1
    assert left[0].lsn > 1
    assert audit(tmp_path).passed
    assert [path.name for path in (tmp_path / "requests").glob("*.json")] == []


def test_what_the_live_service_refuses_is_said_with_its_reason(tmp_path: Path, aged: Aged) -> None:
    (tmp_path / "file").write_text("in the way")
    with TamiyoService.open(tmp_path, policy=FixedPolicy(), secret=SECRET, settings=Settings(**PATIENT)):
        said = retain(tmp_path, "--archive", tmp_path / "file" / "kept")
    assert said.exit_code == 1
    assert "ArchiveUnusable" in said.output


def test_a_live_service_that_is_not_done_in_time_goes_on(tmp_path: Path, aged: Aged) -> None:
    with wal.Log.open(tmp_path / "wal", segment_bytes=2**14):  # somebody who takes up no requests
        said = retain(tmp_path, "--wait", "0")
    assert said.exit_code == 4, said.output
    assert len(RequestBox(tmp_path).waiting()) == 1


def test_what_nobody_takes_up_is_done_here_once_whoever_had_the_log_has_gone(
    tmp_path: Path, aged: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "GONE_S", 0.0)
    log = wal.Log.open(tmp_path / "wal", segment_bytes=2**14)  # another such run, or a service that dies

    def leave() -> None:
        while not RequestBox(tmp_path).waiting():
            pass
        log.close()

    leaving = threading.Thread(target=leave)
    leaving.start()
    said = retain(tmp_path, "--wait", "60")
    leaving.join()
    assert (said.exit_code, "segments pruned" in said.output) == (0, True), said.output
    assert RequestBox(tmp_path).waiting() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no log"),
        (["nowhere", "--dry-run"], "there is no log"),
        (["nowhere", "--keep-head", "x"], "is not a log's head"),
        (["nowhere", "--unrecorded", "--dry-run"], "goes with neither"),
    ],
)
def test_wrong_use_is_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = retain(*arguments)
    assert (said.exit_code, words in said.output) == (2, True), said.output
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_status_1_and_says_what_to_do(tmp_path: Path, aged: Aged) -> None:
    (tmp_path / "file").write_text("in the way")
    said = retain(tmp_path, "--archive", tmp_path / "file" / "kept")
    assert (said.exit_code, "give another folder" in said.output) == (1, True), said.output


def test_pruning_without_a_record_says_so(tmp_path: Path, aged: Aged) -> None:
    said = retain(tmp_path, "--unrecorded")
    assert said.exit_code == 0, said.output
    assert "Keep this line" in said.output
    left = entries_of(None, tmp_path / "wal")
    assert left[0].lsn > 1
    assert planned(left) == []
    assert audit(tmp_path).passed
