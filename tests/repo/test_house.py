"""The repository's own rules: layers, no local enums, small files, docs that run, links that lead somewhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("tamiyo/**/*.py"), *ROOT.glob("wal/**/*.py")])
DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests/README.md", ROOT / "var/README.md"])


def test_imports_keep_their_direction() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_local_enum_fails_the_lint(tmp_path: Path) -> None:
    offender = tmp_path / "offender.py"
    offender.write_text('"""A module."""\n\nimport enum\n\nKIND = enum.IntEnum\n', encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--select", "TID251"]
    refused = subprocess.run([*command, str(offender)], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "no local Enum" in refused.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_holds_one_idea(path: Path) -> None:
    if not path.name.endswith("_pb2.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def logged_exceptions(source: str) -> list[int]:
    """The lines at which a logger is handed a caught exception itself."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        caught = {node.name for node in ast.walk(function) if isinstance(node, ast.ExceptHandler)}
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="logger")), args=[_, *words]):
                    found += [word.lineno for word in words if isinstance(word, ast.Name) and word.id in caught]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_log_is_handed_words_and_no_exception(path: Path) -> None:
    """A handler that keeps records would keep its frames as well, and with them a service and all that it holds."""
    assert logged_exceptions(path.read_text(encoding="utf-8")) == []


def test_a_logged_exception_is_found() -> None:
    source = "def f():\n    try:\n        g()\n    except OSError as error:\n        logger.warning('%s', {})\n"
    assert logged_exceptions(source.format("error")) == [5]
    assert logged_exceptions(source.format("str(error)")) == []


def test_every_variable_is_in_the_settings_page() -> None:
    from tamiyo.config import environment_names

    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert [name for name in environment_names() if f"`{name}`" not in page] == []


def test_every_default_of_the_settings_page_is_the_one_in_force() -> None:
    from tamiyo.config import Settings

    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `TAMIYO_(\w+)` \| ([^ ]+) \|", page, re.MULTILINE)
    assert len(rows) > 40
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    for name, said in rows:
        group, _, member = name.lower().partition("__")
        default = getattr(defaults[group], member) if member else defaults[group]
        number = isinstance(default, int | float) and not isinstance(default, bool)
        shown = f"{default:,}".removesuffix(".0") if number else "never" if default is None else str(default)
        assert said.lower() == shown.lower(), name


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return [link for link in found if "://" not in link]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_the_docs_leads_somewhere(path: Path) -> None:
    for link in links(path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), f"{path.name} links to {link}"


def python_blocks() -> list[tuple[str, str]]:
    found = []
    for path in DOCS:
        blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        found += [(f"{path.relative_to(ROOT)}:{index}", block) for index, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in python_blocks()])
def test_the_code_in_the_docs_runs(code: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
