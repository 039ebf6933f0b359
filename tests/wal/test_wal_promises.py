"""Every promise of the log and every cell of its fault matrix has a test, and the page names the tests there are."""

import importlib
from typing import Any

import pytest
from promise_tables import BEGIN, END, PAGE, TIMES, load, named, tables

DATA = load()


def collected(name: str) -> Any:
    """The test function or class that pytest collects under this name."""
    file, _, test = name.partition("::")
    assert file.startswith("test_"), name
    assert file.endswith(".py"), name
    assert test.startswith(("test_", "Test")), name
    return getattr(importlib.import_module(file.removesuffix(".py")), test, None)


@pytest.mark.parametrize("name", sorted({test for tests in named(DATA).values() for test in tests}))
def test_every_test_that_the_page_names_exists_and_runs_by_default(name: str) -> None:
    test = collected(name)
    assert callable(test), f"{name} is not there: name another test in promises.toml"
    assert "long" not in {mark.name for mark in getattr(test, "pytestmark", [])}, f"{name} runs only with -m long"


def test_every_promise_and_every_cell_has_a_test() -> None:
    assert list(DATA["promises"]) == [f"P{number}" for number in range(1, 31)]
    assert (len(DATA["faults"]), sum(len(cells) for cells in DATA["faults"].values())) == (23, 69)
    for fault, cells in DATA["faults"].items():
        assert cells.keys() <= TIMES.keys(), fault
    assert [what for what, tests in named(DATA).items() if not tests] == []


def test_the_page_shows_the_tables_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text[text.index(BEGIN) + len(BEGIN) + 1 : text.index(END)]
    assert shown == tables(), "run `python tests/wal/promise_tables.py`"
