"""The page docs/log-promises.md, written from promises.toml: `python tests/wal/promise_tables.py`."""

import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE / "promises.toml"
PAGE = HERE.parents[1] / "docs" / "log-promises.md"
BEGIN, END = "<!-- promises: begin -->", "<!-- promises: end -->"
"""Between these lines of the page stands what `tables` returns."""

TIMES = {
    "appending": "while appending",
    "at_rest": "at rest, opening",
    "maintaining": "rotating, pruning, redacting",
    "reading": "for readers",
}


def load() -> dict[str, Any]:
    """Return the promises, each with `group`, `says`, `tests`, and the faults, by time with `expect` and `tests`."""
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def named(data: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tests of each promise and of each cell of the fault matrix."""
    promises = {name: promise["tests"] for name, promise in data["promises"].items()}
    cells = {
        f"{fault}, {TIMES[time]}": cell["tests"]
        for fault, cells in data["faults"].items()
        for time, cell in cells.items()
    }
    return promises | cells


def tables() -> str:
    """Return the promises and the fault matrix as Markdown."""
    data = load()
    parts = []
    for group, promises in groupby(data["promises"].items(), key=lambda item: item[1]["group"]):
        parts.append(f"### {group}\n")
        parts += [f"- **{name}** {promise['says']}\n{_list(promise['tests'], '  ')}" for name, promise in promises]
    parts.append("## Faults\n")
    for fault, cells in data["faults"].items():
        parts.append(f"### {fault[0].upper()}{fault[1:]}\n")
        parts += [
            f"- *{words}*: {cells[time]['expect']}.\n{_list(cells[time]['tests'], '  ')}"
            for time, words in TIMES.items()
            if time in cells
        ]
    return "\n".join(parts)


def _list(tests: list[str], indent: str) -> str:
    return "".join([f"{indent}- `{test}`\n" for test in tests])


def write() -> None:
    """Write the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
