"""docs/log-tools.md, from top to bottom: every command in it is run, and prints what stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools_rig import run

from wal.tools import COMMANDS
from wal.tools.verify import VERDICTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "log-tools.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[str, str, bool]]:
    """Every block as (language, text, whether its numbers vary), in order."""
    found = re.findall(r"(<!-- numbers vary -->\n)?```(python|console)\n(.*?)```", PAGE, flags=re.DOTALL)
    return [(language, text, bool(mark)) for mark, language, text in found]


def calls(block: str) -> list[tuple[str, str]]:
    """Every command of a console block with what it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def as_pattern(printed: str, *, numbers_vary: bool) -> str:
    """What stands in the docs as a pattern: ... is anything on a line, and varying numbers are any."""
    pattern = re.escape(printed).replace(r"\.\.\.", ".*")
    return re.sub(r"(?:\\ )*\d+(?:\\\.\d+)?", r"\\ *[\\d.]+", pattern) if numbers_vary else pattern


def test_every_command_of_the_page_prints_what_stands_there(tmp_path: Path) -> None:
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    (binaries / "python").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ran = 0
    for language, text, numbers_vary in blocks():
        if language == "python":
            subprocess.run(
                [sys.executable, "-W", "error", "-c", text], cwd=work, env=environment, check=True, timeout=60
            )
            continue
        for command, printed in calls(text):
            done = subprocess.run(
                ["bash", "-c", command], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            pattern = as_pattern(printed, numbers_vary=numbers_vary)
            assert re.fullmatch(pattern, done.stdout), f"$ {command}\n{done.stdout}\ninstead of\n{printed}"
            ran += 1
    assert ran > 15


def test_the_page_names_every_command_and_every_status() -> None:
    for name in COMMANDS:
        assert f"python -m wal {name}" in PAGE
        assert f"[`{name}`](#" in PAGE
    for status, says in VERDICTS.items():
        assert re.search(rf"^\| `{status}` \|.*\| {says.exit_status} \|$", PAGE, flags=re.MULTILINE), status


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_the_page_names_exists(name: str) -> None:
    used = {
        option
        for command in re.findall(rf"python -m wal {name} ([^|;>\n]*)", PAGE)
        for option in re.findall(r"--[a-z-]+", command)
    }
    page = run(name, "--help").stdout
    assert [option for option in sorted(used) if option not in page] == []


def test_the_headings_that_the_page_links_to_are_there() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([a-z-]+)\)", PAGE)) <= headings
