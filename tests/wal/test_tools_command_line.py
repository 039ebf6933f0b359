"""Every command on the same terms: exit status, JSON, pipes, terminals, interrupts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from tools_rig import BATCHES, COUNT, flip, run, segment_files, write_log

import wal
from wal.tools import COMMANDS, DAMAGED, INTERRUPTED, UNHEARD, UNREADABLE, main

READING = ["verify", "dump", "tail", "head", "salvage", "scrub"]


def python_m_wal(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "wal", *[str(one) for one in arguments]]


def test_the_help_names_every_command_and_each_has_help_of_its_own() -> None:
    page = run("--help").stdout
    for name, line in COMMANDS.items():
        assert name in page
        assert line in page
        own = run(name, "--help")
        assert own.exit_code == 0
        assert "Usage: " in own.stdout


def test_a_shell_can_complete_every_command() -> None:
    completion = ShellComplete(main, {}, "wal", "_WAL_COMPLETE")
    assert {item.value for item in completion.get_completions([], "")} == set(COMMANDS)
    assert [item.value for item in completion.get_completions([], "sc")] == ["scrub"]


def test_an_unknown_command_is_wrong_usage() -> None:
    answer = run("explode")
    assert answer.exit_code == 2
    assert "No such command" in answer.stderr


@pytest.mark.parametrize("name", READING)
def test_a_sound_log_gives_status_0_and_stays_as_it_was(name: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    before = {place.name: place.read_bytes() for place in log.iterdir()}
    answer = run(name, log)
    assert answer.exit_code == 0, answer.output
    assert {place.name: place.read_bytes() for place in log.iterdir()} == before


@pytest.mark.parametrize("name", READING)
def test_a_damaged_log_gives_status_1_and_stays_as_it_was(name: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[0 if name == "scrub" else -1], 700)
    before = {place.name: place.read_bytes() for place in log.iterdir()}
    answer = run(name, log)
    assert answer.exit_code == DAMAGED, answer.output
    assert {place.name: place.read_bytes() for place in log.iterdir()} == before


@pytest.mark.parametrize("name", READING)
def test_a_directory_without_a_log_gives_status_3(name: str, tmp_path: Path) -> None:
    answer = run(name, tmp_path)
    assert answer.exit_code == UNREADABLE
    assert "no segment is there" in answer.output


@pytest.mark.parametrize("name", READING)
def test_standard_output_may_be_closed(name: str, tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *python_m_wal(name, write_log(tmp_path / "log"))]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", READING)
def test_a_directory_that_is_not_there_gives_status_3_and_is_named(name: str, tmp_path: Path) -> None:
    answer = run(name, tmp_path / "nowhere")
    assert answer.exit_code == UNREADABLE
    assert f"Error: {tmp_path}/nowhere: No such file or directory" in answer.stderr


@pytest.mark.parametrize("name", READING)
def test_json_is_all_that_stands_on_standard_output(name: str, tmp_path: Path) -> None:
    answer = run(name, write_log(tmp_path / "log"), "--json")
    assert answer.exit_code == 0
    assert answer.stderr == ""
    for row in answer.stdout.splitlines():
        assert isinstance(json.loads(row), dict)


@pytest.mark.parametrize("name", READING)
def test_in_a_pipe_there_is_no_colour_and_no_progress(name: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    shown = subprocess.run(python_m_wal(name, log), capture_output=True, text=True, timeout=60, check=True)
    assert "\x1b" not in shown.stdout + shown.stderr
    assert not any(row != row.rstrip() for row in shown.stdout.splitlines())
    assert "━" not in shown.stderr


@pytest.mark.parametrize("name", [name for name in READING if name != "head"])
def test_on_a_terminal_no_line_is_wider_than_it(name: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    flip(segment_files(log)[0], 3 * 512 + 7)
    answer = run(name, log, TTY_COMPATIBLE="1", TTY_INTERACTIVE="0", COLUMNS="60", NO_COLOR="1")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", answer.stdout).splitlines()
    assert shown
    assert max(len(row) for row in shown) <= 60


def test_progress_is_shown_on_a_terminal_and_goes_to_standard_error(tmp_path: Path) -> None:
    answer = run("verify", write_log(tmp_path / "log"), TTY_COMPATIBLE="1", COLUMNS="80")
    assert "verifying" in answer.stderr
    assert "verifying" not in answer.stdout


def test_python_m_wal_is_the_command_line(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    shown = subprocess.run(
        python_m_wal("verify", log, "--json"), capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(shown.stdout)["records"] == COUNT


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", BATCHES * 30)
    for arguments in (("dump", log), ("dump", log, "--json"), ("verify", log), ("--help",)):
        read_end, write_end = os.pipe()
        os.close(read_end)
        ended = subprocess.run(
            python_m_wal(*arguments), stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        os.close(write_end)
        assert (ended.returncode, ended.stderr) == (UNHEARD, "")


def test_on_a_terminal_that_goes_away_too(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = os.environ | {"TTY_COMPATIBLE": "1"}
    ended = subprocess.run(
        python_m_wal("verify", log),
        stdout=write_end,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
        env=environment,
    )
    os.close(write_end)
    assert ended.returncode == UNHEARD


def test_ctrl_c_ends_a_follower_with_its_own_status_and_no_traceback(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    with subprocess.Popen(
        python_m_wal("tail", "-f", "-n", "1", log, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=listen_to_ctrl_c,  # noqa: PLW1509  it sets a signal and takes no lock
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert json.loads(follower.stdout.readline())["lsn"] == COUNT
        follower.send_signal(signal.SIGINT)
        try:
            assert follower.wait(60) == INTERRUPTED
        finally:
            follower.kill()
        assert follower.stderr.read() == "\n"


def listen_to_ctrl_c() -> None:
    """A background job of a shell ignores ctrl-C, and its children with it; a follower at a terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_log_of_another_format_gives_status_3_and_says_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent.parent / "golden" / "wal-v1", tmp_path / "log")
    for name in ("verify", "tail", "head"):
        answer = run(name, tmp_path / "log")
        assert answer.exit_code == UNREADABLE
        assert "newer one" in answer.output


def test_an_error_without_a_file_s_name_is_a_sentence_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: wal.OsDisk, fd: int, length: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    log = write_log(tmp_path / "log")
    monkeypatch.setattr(wal.OsDisk, "pread", fail)
    answer = run("verify", log)
    assert answer.exit_code == UNREADABLE
    assert answer.stderr == "Error: Input/output error. Look at the path, its permissions and its disk.\n"
