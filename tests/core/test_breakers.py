"""Breakers: the table of transitions walked in full, and the laws that hold on any history."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.core.breakers import (
    CLOSED,
    FAILURE,
    HALF_OPEN,
    OPEN,
    REQUEST,
    SUCCESS,
    TRANSITIONS,
    WRITER_FAILED,
    Breaker,
    admits,
    counted,
    move_after,
    moved,
)
from tamiyo.core.thresholds import Thresholds

THRESHOLDS = Thresholds()
SECOND_NS = 1_000_000_000
EVENTS = (SUCCESS, FAILURE, REQUEST, WRITER_FAILED)

EXPECTED = {
    # (state, event, counted so far or seconds since the move): the next state
    (CLOSED, SUCCESS, 2): CLOSED,
    (CLOSED, FAILURE, 0): CLOSED,
    (CLOSED, FAILURE, 1): CLOSED,
    (CLOSED, FAILURE, 2): OPEN,
    (CLOSED, REQUEST, 2): CLOSED,
    (CLOSED, WRITER_FAILED, 0): OPEN,
    (OPEN, SUCCESS, 9): OPEN,
    (OPEN, FAILURE, 9): OPEN,
    (OPEN, REQUEST, 0): OPEN,
    (OPEN, REQUEST, 1): HALF_OPEN,
    (OPEN, WRITER_FAILED, 9): OPEN,
    (HALF_OPEN, SUCCESS, 0): HALF_OPEN,
    (HALF_OPEN, SUCCESS, 1): CLOSED,
    (HALF_OPEN, FAILURE, 1): OPEN,
    (HALF_OPEN, REQUEST, 1): HALF_OPEN,
    (HALF_OPEN, WRITER_FAILED, 1): OPEN,
}


def after(breaker: Breaker, event: str, now_ns: int) -> Breaker:
    breaker = counted(breaker, event)
    move = move_after(breaker, event, now_ns, THRESHOLDS)
    return breaker if move is None else moved(breaker, move, now_ns)


@pytest.mark.parametrize(("state", "event", "count"), EXPECTED)
def test_each_case_leads_where_the_table_says(state: int, event: str, count: int) -> None:
    breaker = Breaker(state=state, failures=count, successes=count, moved_at_ns=0)
    assert after(breaker, event, count * SECOND_NS).state == EXPECTED[state, event, count]


def test_every_state_and_event_is_among_the_cases() -> None:
    assert {(state, event) for state, event, _ in EXPECTED} == set(itertools.product(TRANSITIONS, EVENTS))


def test_the_transition_table_has_no_other_event() -> None:
    assert {event for row in TRANSITIONS.values() for event in row} <= set(EVENTS)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 2)), max_size=60))
def test_on_any_history_half_open_comes_from_open_and_only_after_the_cool_down(
    history: list[tuple[str, float]],
) -> None:
    breaker, now_ns = Breaker(), 0
    for event, elapsed_s in history:
        now_ns += int(elapsed_s * SECOND_NS)
        before = breaker
        breaker = after(before, event, now_ns)
        if breaker.state == HALF_OPEN and before.state != HALF_OPEN:
            assert before.state == OPEN
            assert now_ns - before.moved_at_ns >= SECOND_NS
        if breaker.state == CLOSED and before.state != CLOSED:
            assert before.state == HALF_OPEN
            assert before.successes == 1
        assert breaker.failures >= 0


@given(st.integers(0, 3 * SECOND_NS))
def test_an_open_breaker_admits_nothing_before_its_cool_down(elapsed_ns: int) -> None:
    assert admits(Breaker(OPEN, moved_at_ns=5), 5 + elapsed_ns, THRESHOLDS) == (elapsed_ns >= SECOND_NS)
