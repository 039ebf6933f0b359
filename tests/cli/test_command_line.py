"""`tamiyo COMMAND`: a status that stands for a verdict is never that of something else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import tamiyo.audit
import tamiyo.projections
from tamiyo import TamiyoService
from tamiyo.cli import main
from tamiyo.leyline import leyline_pb2 as pb

READING = ["audit", "status", "doctor", "policy list"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("controller")
    with TamiyoService.open(made, secret="a secret for tests only") as tamiyo:
        tamiyo.evaluate_step(pb.SystemStatePacket(training_run_id="run-1"))
    return made


@pytest.mark.parametrize("name", READING)
def test_a_reader_that_goes_away_ends_a_command_quietly(name: str, directory: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", "from tamiyo.cli import main; main()", *name.split(), str(directory)]
    ended = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert ended.returncode == 141
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_the_program_itself_answers_is_cut_short_with_the_same_status(option: str) -> None:
    command = [sys.executable, "-c", "from tamiyo.cli import main; main()", option]
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (ended.returncode, ended.stderr) == (141, "")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr


def test_of_a_verdict_that_nobody_reads_too(tmp_path: Path) -> None:
    with TamiyoService.open(tmp_path, secret="a secret for tests only") as tamiyo:
        tamiyo.evaluate_step(pb.SystemStatePacket(training_run_id="run-1"))
    segment = next((tmp_path / "wal").glob("*.wal"))
    segment.write_bytes(segment.read_bytes().replace(b"run-1", b"run-2", 1))
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", "from tamiyo.cli import main; main()", "audit", str(tmp_path)]
    ended = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize(("module", "called", "name"), [
    (tamiyo.audit, "audit", "audit"),
    (tamiyo.projections, "diagnose", "doctor"),
])  # fmt: skip
def test_ctrl_c_is_no_verdict(module: object, called: str, name: str, directory: Path, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, called, interrupted)
    assert CliRunner().invoke(main, [name, str(directory)]).exit_code == 130


def test_a_log_that_cannot_be_read_did_not_fail_its_audit(tmp_path: Path) -> None:
    (tmp_path / "wal").symlink_to(tmp_path / "wal")  # nobody may, not even the one who may do all
    result = CliRunner().invoke(main, ["audit", str(tmp_path)])
    assert result.exit_code == 3, result.output
    assert "Too many levels of symbolic links" in result.output


@pytest.mark.parametrize("name", ["audit", "status", "doctor"])
def test_a_full_disk_under_the_output_is_told_in_a_line(name: str, directory: Path) -> None:
    command = [sys.executable, "-c", "from tamiyo.cli import main; main()", name, str(directory)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 3
    assert (
        "Error: cannot go on, and what was printed may be cut short: [Errno 28] No space left on device" in ended.stderr
    )
    assert "Traceback" not in ended.stderr
