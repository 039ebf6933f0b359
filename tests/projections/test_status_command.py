import json
import sqlite3

import pytest
from click.testing import CliRunner
from projection_rig import append, decided, history, open_log, opened, received, write_log
from projection_rig import command as made

import wal
from tamiyo.cli import main
from tamiyo.cli.status import command
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import BREAKERS
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import database


def status(directory, *options):
    return CliRunner().invoke(command, [str(directory), *options], env={"COLUMNS": "100"})


def as_json(directory):
    result = status(directory, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_table_says_what_was_decided_and_how_the_controller_stands(tmp_path):
    move = journal.BreakerMoved(breaker="inference", from_state=pb.CIRCUIT_STATE_CLOSED, to_state=pb.CIRCUIT_STATE_OPEN)
    mode = journal.ConservativeModeChanged(active=True, reason="breaker_inference")
    late = journal.CommitLate(decision_lsn=4, released_command_id="safe", cause="timeout_wal")
    write_log(tmp_path, *history(1234), [move, mode, late, received(1235)])
    result = status(tmp_path)
    assert result.exit_code == 0, result.output
    for words in (
        "baseline-1", "1,234 (last step 1,234, opened 1 time)", "3,707", "PAUSE 1,234", "policy 1,234",
        "1 decision, each answered with a safe PAUSE", "1 packet received, without a decision", "0.750 on average",
        "conservative (breaker_inference)", "inference OPEN, log CLOSED",
        "optimizer_family 5", "loss 0.8 ± 0.3",
    ):  # fmt: skip
        assert words in result.stdout, words


def test_steps_that_the_log_took_no_record_of_are_counted(tmp_path):
    write_log(tmp_path, *history(2), *[
        [journal.StepsUnrecorded(first_step_index=first, last_step_index=last, count=count, cause="log_full")]
        for first, last, count in [(3, 1_002, 1_000), (1_003, 1_003, 1)]
    ])  # fmt: skip
    assert "1,001 steps, each answered with a safe PAUSE while the log took none" in status(tmp_path).stdout
    assert as_json(tmp_path)["unrecorded"] == 1_001


def test_the_json_holds_every_figure(tmp_path):
    write_log(tmp_path, *history(2))
    found = as_json(tmp_path)
    assert found["applied_lsn"] == 7
    assert found["by_type"] == {"PAUSE": 2}
    assert found["by_reason"] == {"policy": 2}
    assert found["registries"]["optimizer_family"] == 5
    assert found["norms"]["momentum"]["mean"] == 0.9
    assert found["breakers"] == dict.fromkeys(BREAKERS, "CLOSED")
    assert (found["conservative"], found["conservative_reason"]) == (False, "")
    assert (found["decisions"], found["last_step_index"], found["undecided"], found["openings"]) == (2, 2, 0, 1)
    assert found["unrecorded"] == 0
    assert (found["superseded"], found["coverage_mean"], found["policy_version"]) == (0, 0.75, "baseline-1")
    assert found["reports"] == {}


def test_a_log_without_a_decision_has_a_status(tmp_path):
    write_log(tmp_path, [opened("v1")])
    result = status(tmp_path)
    assert result.exit_code == 0
    assert "none yet" in result.stdout
    assert as_json(tmp_path)["coverage_mean"] is None


def test_markup_and_unheard_of_numbers_are_shown_as_they_are(tmp_path):
    write_log(tmp_path, [opened(), received(), decided(2, made(99), reason="[red]x[/red]")])
    result = status(tmp_path)
    assert "[red]x[/red] 1" in result.stdout
    assert "99 1" in result.stdout


def test_a_writer_goes_on_undisturbed_beside_it(tmp_path):
    with open_log(tmp_path) as log:
        append(log, *history(2))
        assert as_json(tmp_path)["applied_lsn"] in {4, 7}  # the last batch shows once a later frame proves it
        append(log, [received(3)])
        assert log.failure is None
    found = as_json(tmp_path)
    assert (found["applied_lsn"], found["undecided"]) == (8, 1)


@pytest.mark.parametrize("name", ["nowhere", "empty", "without-segments"])
def test_a_directory_without_a_log_is_a_clear_error_and_left_alone(tmp_path, name):
    directory = tmp_path / name
    if name != "nowhere":
        directory.mkdir()
    if name == "without-segments":
        (directory / "wal").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = status(directory)
    assert result.exit_code == 2
    assert "has no log" in result.output
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


ASKED = ["status", "doctor", "retain", "export --to out", "conservative on"]


@pytest.mark.parametrize("words", ASKED)
def test_a_log_that_may_not_be_looked_into_is_not_called_missing(tmp_path, words):
    (tmp_path / "wal").symlink_to(tmp_path / "wal")  # nobody may, not even the one who may do all
    result = CliRunner().invoke(main, [*words.split(), str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert "Too many levels of symbolic links" in result.output
    assert "no log" not in result.output


def test_a_damaged_log_is_a_clear_error(tmp_path):
    write_log(tmp_path, *history(40))
    (segment,) = (tmp_path / "wal").glob("*.wal")
    with segment.open("r+b") as file:
        file.seek(2_000)
        file.write(b"\xa5" * 64)
    result = status(tmp_path)
    assert result.exit_code == 1
    assert "cannot be read" in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_log_of_a_newer_version_is_a_clear_error(tmp_path):
    with wal.Log.open(tmp_path / "wal") as log:
        log.append([(999, b"")])
    result = status(tmp_path)
    assert result.exit_code == 1
    assert "newer" in result.output


def test_a_projection_that_cannot_be_written_is_made_in_a_temporary_file_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    write_log(tmp_path, *history(2))
    (tmp_path / "projection.sqlite").mkdir()
    result = status(tmp_path, "--json")
    assert json.loads(result.stdout)["decisions"] == 2
    assert "into a temporary file instead" in result.stderr


def test_a_projection_that_another_process_has_locked_is_made_in_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    write_log(tmp_path, *history(1))
    assert as_json(tmp_path)["decisions"] == 1
    write_log(tmp_path, [received(2)])
    holder = sqlite3.connect(tmp_path / "projection.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    result = status(tmp_path, "--json")
    holder.close()
    assert json.loads(result.stdout)["undecided"] == 1
    assert "locked" in result.stderr


def test_a_projection_that_was_made_anew_is_said_to_be(tmp_path):
    write_log(tmp_path, *history(2))
    (tmp_path / "projection.sqlite").write_bytes(b"no database" * 1000)
    result = status(tmp_path, "--json")
    assert json.loads(result.stdout)["decisions"] == 2
    assert "made anew" in result.stderr


def test_the_command_is_one_of_the_command_lines_own(tmp_path):
    from tamiyo.cli import main

    write_log(tmp_path, *history(1))
    result = CliRunner().invoke(main, ["status", str(tmp_path), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["decisions"] == 1
