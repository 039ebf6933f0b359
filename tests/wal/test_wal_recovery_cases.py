"""The recovery table: every input has one row, and the rows say what the promises say."""

import itertools

import pytest

from wal.recovery import ACCEPT, CUT, END, RECOVERY_CASES, REFUSE, RESEAL, Conditions, decide, matches

INPUTS = [Conditions(*bits) for bits in itertools.product([False, True], repeat=len(Conditions._fields))]


def test_every_combination_of_conditions_has_exactly_one_row() -> None:
    for conditions in INPUTS:
        assert [case.label for case in RECOVERY_CASES if matches(case, conditions)] == [decide(conditions).label]


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


@pytest.mark.parametrize("action", [END, CUT, RESEAL])
def test_no_frame_is_passed_over(action: str) -> None:
    for conditions in INPUTS:
        if decide(conditions).action == action and not conditions.sealed:
            assert not conditions.whole
