"""`tamiyo learn`: from a log to a checkpoint that the log's controller takes."""

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audit.runs import opened, training_packet
from click.testing import CliRunner, Result

from tamiyo.cli import main
from tamiyo.cli.learn import command
from tamiyo.integrations import simic
from tamiyo.integrations.simic.dataset import HORIZON, LAST
from tamiyo.policy.checkpoint import read_checkpoint
from tamiyo.testing import FixedPolicy

PAGE = Path(__file__).resolve().parents[2] / "docs/learning.md"
STEPS = 110


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("controller")
    with opened(directory, FixedPolicy(1)) as tamiyo:
        for step in range(STEPS):
            packet = training_packet(step)
            packet.validation_loss = 2.0 * 0.99**step
            tamiyo.evaluate_step(packet)
    return directory


def called(line: str) -> Result:
    return CliRunner().invoke(main, shlex.split(line))


def test_what_was_learned_is_told_and_can_be_installed(recorded: Path, tmp_path: Path) -> None:
    out, found = tmp_path / "folder" / "learned.safetensors", tmp_path / "found.json"
    result = called(f"learn {recorded} --out {out} --epochs 1 --batch 16 --horizon 4 --label mine --json {found}")
    assert result.exit_code == 0, result.output
    checkpoint = read_checkpoint(out)
    assert f"wrote {out}: {checkpoint.version}" in result.output
    assert checkpoint.label == "mine"
    assert checkpoint.manifest["learned_from"]["settings"]["batch"] == 16
    told = json.loads(found.read_text())
    assert told["examples"] == checkpoint.manifest["learned_from"]["examples"]
    assert f"examples   {told['examples']} learned from, {told['held_out']} held out" in result.output
    assert set(told["quality"]) == {
        "agreement", "commonest", "value_r2", "risk_nats", "risk_nats_of_frequencies",
    }  # fmt: skip
    assert f"tamiyo policy install {recorded} {out}" in result.output
    assert f"best_epoch {told['best_epoch']}" in called(f"policy show {out}").output
    shown = called(f"policy show {out}")
    assert f"log_id '{told['log_id']}'" in shown.output
    assert called(f"policy install {recorded} {out}").exit_code == 0
    assert f"decides: {checkpoint.version}" in called(f"policy list {recorded}").output


def test_the_commands_of_the_page_run_as_they_stand_there(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    shutil.copytree(recorded, tmp_path / "controller")
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        result = called(line.removeprefix("tamiyo "))
        assert result.exit_code == 0, f"{line}: {result.output}"


def test_a_file_that_is_there_is_kept(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.write_text("precious")
    result = called(f"learn {recorded} --out {out}")
    assert (result.exit_code, out.read_text()) == (1, "precious")
    assert "--force replaces it" in result.output


def test_too_short_a_log_says_so(recorded: Path, tmp_path: Path) -> None:
    result = called(f"learn {recorded} --out {tmp_path / 'out'} --last 8")
    assert result.exit_code == 1
    assert "Let the run go on" in result.output
    assert not (tmp_path / "out").exists()


def test_without_a_log_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    result = called(f"learn {tmp_path} --out {tmp_path / 'out'}")
    assert result.exit_code != 0
    assert "no log" in result.output


def test_a_label_that_cannot_stand_is_refused_before_anything_is_learned(recorded: Path, tmp_path: Path) -> None:
    result = called(f"learn {recorded} --out {tmp_path / 'out'} --label 'No Label'")
    assert result.exit_code != 0
    assert "label" in result.output
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_named(recorded: Path, tmp_path: Path) -> None:
    """Before anything is learned."""
    (tmp_path / "file").touch()
    out, nowhere = tmp_path / "out", tmp_path / "file" / "out"
    for line in (f"--out {nowhere}", f"--out {out} --json {nowhere}"):
        result = called(f"learn {recorded} {line} --epochs 1 --horizon 4")
        assert result.exit_code == 1
        assert "cannot be used" in result.output
        assert "examples" not in result.output
    assert not out.exists()


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Something else comes of it."""
    learn = simic.learn

    def comes_to(**other: Any) -> None:
        quality = other.pop("quality", {})

        def learns(*given: Any, **named: Any) -> simic.Learned:
            found = learn(*given, **named)
            return replace(found, quality=replace(found.quality, **quality), **other)

        monkeypatch.setattr(simic, "learn", learns)

    return comes_to


def test_weights_that_nothing_was_learned_by_are_no_checkpoint(
    recorded: Path, tmp_path: Path, learning: Callable[..., None]
) -> None:
    learning(best_epoch=0)
    out, found = tmp_path / "out", tmp_path / "found.json"
    result = called(f"learn {recorded} --out {out} --epochs 1 --horizon 4 --json {found}")
    assert result.exit_code == 1
    assert "no checkpoint is written" in result.output
    assert "policy install" not in result.output
    assert not out.exists()
    assert json.loads(found.read_text())["best_epoch"] == 0


def test_what_cannot_be_said_is_no_number(recorded: Path, tmp_path: Path, learning: Callable[..., None]) -> None:
    learning(quality=dict.fromkeys(("agreement", "commonest", "value_r2"), math.nan))
    found = tmp_path / "found.json"
    result = called(f"learn {recorded} --out {tmp_path / 'out'} --epochs 1 --horizon 4 --json {found}")
    assert result.exit_code == 0
    assert "nan" not in result.output
    assert "none of those held out was the policy's own" in result.output

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    quality = json.loads(found.read_text(), parse_constant=refuse)["quality"]
    assert quality["agreement"] is quality["commonest"] is quality["value_r2"] is None


def test_where_nothing_else_is_said_the_library_s_defaults_hold() -> None:
    """They are written down once more so that asking for help does not import torch."""
    said = {option.name: option.default for option in command.params}
    settings = simic.LearnerSettings()
    assert (said["horizon"], said["last"]) == (HORIZON, LAST)
    assert (said["epochs"], said["batch"], said["seed"]) == (settings.epochs, settings.batch, settings.seed)
