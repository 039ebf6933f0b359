"""The recovery table: every input has one row, and the rows say what the promises say."""

import itertools
from pathlib import Path

import pytest

from wal import docs
from wal.recovery import ACCEPT, CUT, END, RECOVERY_CASES, REFUSE, RESEAL, Conditions, decide, matches

INPUTS = [Conditions(*bits) for bits in itertools.product([False, True], repeat=len(Conditions._fields))]


def test_every_combination_of_conditions_has_exactly_one_row() -> None:
    for conditions in INPUTS:
        assert [case.label for case in RECOVERY_CASES if matches(case, conditions)] == [decide(conditions).label]


def test_no_cell_could_be_another_without_an_input_that_has_no_row_or_two() -> None:
    for row, case in enumerate(RECOVERY_CASES):
        for column, cell in enumerate(case.when):
            for other in {True, False, None} - {cell}:
                changed = case._replace(when=(*case.when[:column], other, *case.when[column + 1 :]))
                table = [*RECOVERY_CASES[:row], changed, *RECOVERY_CASES[row + 1 :]]
                assert any(sum(matches(one, conditions) for one in table) != 1 for conditions in INPUTS)


def test_a_row_that_lacks_a_cell_is_an_error_and_no_match() -> None:
    for case in RECOVERY_CASES:
        with pytest.raises(ValueError, match="longer"):
            matches(case._replace(when=(None,) * (len(case.when) - 1)), INPUTS[0])


def test_every_row_is_reached_and_has_its_own_label() -> None:
    assert {decide(conditions).label for conditions in INPUTS} == {case.label for case in RECOVERY_CASES}
    assert len({case.label for case in RECOVERY_CASES}) == len(RECOVERY_CASES)


def test_nothing_proven_is_ever_cut_or_taken_for_the_end() -> None:
    for conditions in INPUTS:
        if conditions.proven and conditions.last and not conditions.mine:
            assert decide(conditions).action == REFUSE


def test_only_the_last_segment_is_ever_cut() -> None:
    assert all(conditions.last for conditions in INPUTS if decide(conditions).action == CUT)


def test_a_sound_frame_is_taken_only_where_it_belongs() -> None:
    for conditions in INPUTS:
        if decide(conditions).action == ACCEPT:
            assert conditions.whole
            assert conditions.mine
            assert not conditions.sealed


def test_the_next_frame_is_accepted_and_a_sealed_segment_with_nothing_behind_it_ends() -> None:
    for conditions in INPUTS:
        if conditions.whole and conditions.mine and not conditions.sealed:
            assert decide(conditions).action == ACCEPT
        if conditions.sealed and conditions.blank and not conditions.last:
            assert decide(conditions).action == END


@pytest.mark.parametrize("action", [END, CUT, RESEAL])
def test_no_frame_is_passed_over(action: str) -> None:
    for conditions in INPUTS:
        if decide(conditions).action == action and not conditions.sealed:
            assert not conditions.whole


def test_the_format_s_page_shows_the_table_as_it_is() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/log-format.md").read_text(encoding="utf-8")
    shown = text[text.index(docs.BEGIN) + len(docs.BEGIN) + 1 : text.index(docs.END)]
    assert shown == docs.recovery(), "run `python -m wal.docs` and put its output into docs/log-format.md"


def test_the_diagram_leads_every_input_to_its_row() -> None:
    lines = docs.recovery().split("flowchart TD\n")[1].split("```")[0].splitlines()
    edges = {tuple(line.split(" -- ")[0].split()): None for line in lines if " -- " in line}
    questions = {line.split("{")[0].strip(): line.split("{")[1].split("?")[0] for line in lines if "{" in line}
    leaves = {line.split("(")[0].strip(): line.split('"')[1].split()[0] for line in lines if "([" in line}
    assert len(edges) == len(questions)
    for conditions in INPUTS:
        node = "q"
        while node in questions:
            node += "y" if getattr(conditions, questions[node]) else "n"
        assert leaves[node] == decide(conditions).label
