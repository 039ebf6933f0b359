import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.integrations.kasmina import Blend
from tamiyo.integrations.kasmina.alpha import SHAPES, shape

METHODS = range(len(BLENDING_METHODS))
HALVES = {"linear": 0.5, "cosine": 0.5, "warmup_hold": 1.0, "sigmoid": 0.5}
QUARTERS = {
    "linear": 0.25,
    "cosine": (1 - math.cos(math.pi / 4)) / 2,
    "warmup_hold": 0.5,
    "sigmoid": 0.5 * (1 - math.tanh(1.5) / math.tanh(3.0)),
}


def test_there_is_one_shape_for_each_method():
    assert len(SHAPES) == len(BLENDING_METHODS)


@pytest.mark.parametrize("method", METHODS, ids=BLENDING_METHODS.__getitem__)
def test_a_shape_starts_at_zero_and_ends_at_one(method):
    assert shape(method, 0.0) == 0.0
    assert shape(method, 1.0) == 1.0
    assert shape(method, -3.0) == 0.0
    assert shape(method, 4.0) == 1.0


@pytest.mark.parametrize("method", METHODS, ids=BLENDING_METHODS.__getitem__)
def test_a_shape_passes_through_its_known_points(method):
    name = BLENDING_METHODS[method]
    assert shape(method, 0.5) == pytest.approx(HALVES[name], abs=1e-12)
    assert shape(method, 0.25) == pytest.approx(QUARTERS[name], abs=1e-12)


@given(
    method=st.sampled_from(METHODS),
    fractions=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    temperature=st.floats(0.1, 10),
)
def test_a_shape_never_falls_and_stays_within_its_bounds(method, fractions, temperature):
    low, high = (shape(method, fraction, temperature) for fraction in fractions)
    assert 0.0 <= low <= 1.0
    assert low <= high + 1e-12


@given(
    method=st.sampled_from(METHODS),
    target=st.floats(0, 1),
    interval=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    total=st.integers(1, 300),
)
def test_a_blend_is_zero_before_its_start_and_its_target_from_its_end_on(method, target, interval, total):
    blend = Blend(method, target, *interval, total)
    assert blend.fault() == ""
    alphas = [blend.alpha(step) for step in range(total + 2)]
    assert all(0.0 <= alpha <= target for alpha in alphas)
    assert all(before <= after + 1e-12 for before, after in pairwise(alphas))
    assert alphas[total] == target
    for step, alpha in enumerate(alphas):
        if step / total <= interval[0] and not blend.completed(step):
            assert alpha == 0.0
        if blend.completed(step):
            assert alpha == target


def test_a_schedule_whose_ends_meet_is_one_jump():
    blend = Blend(0, 0.6, 0.5, 0.5, 10)
    assert [blend.alpha(step) for step in (0, 4, 5, 10)] == [0.0, 0.0, 0.6, 0.6]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method_index": 4}, "blending_method_index"),
        ({"method_index": -1}, "blending_method_index"),
        ({"target": 1.01}, "alpha"),
        ({"target": math.nan}, "alpha"),
        ({"start": 0.8, "end": 0.2}, "schedule"),
        ({"start": -0.1}, "schedule"),
        ({"end": math.nan}, "schedule"),
    ],
)
def test_an_impossible_blend_says_what_is_wrong(changed, named):
    order = {"method_index": 0, "target": 0.5, "start": 0.0, "end": 1.0, "total_steps": 10} | changed
    assert named in Blend(**order).fault()
