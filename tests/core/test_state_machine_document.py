"""docs/state-machine.md is what the tables say, and leaves none of them out."""

from pathlib import Path

import pytest

from tamiyo.core import docs
from tamiyo.core.behaviour import FLAGS
from tamiyo.core.breakers import BREAKERS, TRANSITIONS
from tamiyo.core.intent import POLICY_ACTIONS
from tamiyo.core.risk import RISK_ROWS
from tamiyo.leyline import leyline_pb2 as pb

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "state-machine.md"


def test_the_document_shows_the_tables() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text[text.index(docs.BEGIN) + len(docs.BEGIN) + 1 : text.index(docs.END)]
    assert shown == docs.tables(), "run `python -m tamiyo.core.docs` and put its output into docs/state-machine.md"


def section(title: str) -> list[str]:
    text = next(part for part in docs.tables().split("### ") if part.startswith(title))
    return [line for line in text.splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize(
    ("title", "rows"),
    [
        ("Risk", len(RISK_ROWS)),
        ("Breakers", sum(map(len, TRANSITIONS.values()))),
        ("Lifecycle", len(pb.SeedLifecycleStage.values())),
        ("Policy actions", len(POLICY_ACTIONS) + 1),
        ("Behaviour flags", len(FLAGS)),
    ],
)
def test_no_row_of_a_table_is_left_out(title: str, rows: int) -> None:
    assert len(section(title)) == rows


def test_each_transition_is_an_arrow_of_the_diagram() -> None:
    arrows = [line for line in docs.tables().splitlines() if "-->" in line and ":" in line]
    assert len(arrows) == sum(map(len, TRANSITIONS.values()))
    assert all(name in docs.tables() for name in BREAKERS)
