"""The operator's page: its commands run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from rig import SECRET, packet

from tamiyo import Settings, TamiyoService
from tamiyo.cli import main
from tamiyo.core.notices import NOTICES
from tamiyo.core.risk import RISK_ROWS

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text(encoding="utf-8")
SETTINGS = Settings(step_timeout_ms=60_000, commit_timeout_ms=60_000, segment_bytes=2**16)


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("tamiyo ")]


def test_the_page_has_commands() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize("live", [True, False])
def test_every_command_of_the_page_runs_beside_a_live_service_and_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    tamiyo = TamiyoService.open("controller", secret=SECRET, settings=SETTINGS)
    tamiyo.evaluate_step(packet())
    if not live:
        tamiyo.close()
    for line in commands():
        result = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
    tamiyo.close()


def test_every_reason_and_event_that_the_page_names_exists() -> None:
    reasons = {row.reason for row in RISK_ROWS}
    for name in ("timeout_wal", "log_full", "log_failed", "breaker_open", "conservative_mode"):
        assert f"`{name}`" in PAGE
        assert name in reasons
    kinds = {message.DESCRIPTOR.name for message in NOTICES}
    assert {"BreakerMoved", "CommitLate", "StepsUnrecorded", "OperatorDirected", "PublishAttempted"} <= kinds
