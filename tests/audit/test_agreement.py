"""Grades of agreement between two inferences, each walked."""

from collections.abc import Sequence

import pytest
from rig import IDENTITY, packet, proposal

from tamiyo.audit.agreement import (
    ANOTHER,
    CLOSE,
    EQUAL,
    INEXACT_TOLERANCE,
    SAME_CHOICE,
    TOLERANCE,
    Agreement,
    Reinference,
    agreement,
    tolerance_of,
)
from tamiyo.audit.found import Divergence
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.inputs import inference_message
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import Observation, read_packet
from tamiyo.core.proposal import Proposal

EXACT, HALF, TF32 = "folded fp32, openvino 1; large float32", "eager fp32; large bfloat16", "cuda tf32"
"""Engines; those with the large graph in bf16 are asked for large ones here."""


def recorded(made: Proposal, engine: str = EXACT) -> journal.InferenceObserved:
    observation: Observation = read_packet(packet(seeds=3).SerializeToString(), UNLIMITED)
    event = inference_message(7, IDENTITY, made, observation=observation, blueprints=2)
    assert isinstance(event, journal.InferenceObserved)
    event.identity.engine = engine
    return event


BASE = proposal(blueprint_index=1)
NEAR, FAR, OFF = TOLERANCE / 2, TOLERANCE * 10, INEXACT_TOLERANCE * 2

TABLE: tuple[tuple[str, Proposal, str, tuple[Sequence[float], Sequence[float]] | None, str, bool], ...] = (
    ("equal", BASE, EXACT, None, EQUAL, False),
    ("a value that is near", BASE._replace(value=0.5 + NEAR), EXACT, None, CLOSE, False),
    ("a value that is far", BASE._replace(value=0.5 + FAR), EXACT, None, ANOTHER, False),
    ("far, in bf16", BASE._replace(value=0.5 + FAR), HALF, None, CLOSE, False),
    ("far, in tf32", BASE._replace(value=0.5 + FAR), TF32, None, CLOSE, False),
    ("past every tolerance, the same choice", BASE._replace(value=0.5 + OFF), HALF, None, SAME_CHOICE, False),
    ("past every tolerance, another choice", BASE._replace(value=0.6, seed_index=1), HALF, None, ANOTHER, False),
    ("another seed", BASE._replace(seed_index=1), EXACT, None, ANOTHER, False),
    ("another seed, that is as good", BASE._replace(seed_index=1), EXACT, ((1.0, 1.0 + NEAR), (0, 1)), CLOSE, True),
    ("another seed, that is better", BASE._replace(seed_index=1), EXACT, ((1.0 - FAR, 1.0), (0, 1)), ANOTHER, False),
    ("another blueprint", BASE._replace(blueprint_index=0), EXACT, ((1.0,), (1, 0)), ANOTHER, False),
    ("another blueprint, as good", BASE._replace(blueprint_index=0), EXACT, ((1.0,), (1, 1 - NEAR)), CLOSE, True),
    ("a head of another length", BASE._replace(schedule=(0.5,)), EXACT, None, ANOTHER, False),
    ("no number", BASE._replace(value=float("nan")), EXACT, None, ANOTHER, False),
)  # fmt: skip


@pytest.mark.parametrize(("what", "made", "engine", "scores", "grade", "is_tie"), TABLE, ids=[row[0] for row in TABLE])
def test_every_grade(
    what: str,
    made: Proposal,
    engine: str,
    scores: tuple[Sequence[float], Sequence[float]] | None,
    grade: str,
    is_tie: bool,
) -> None:
    found = agreement(recorded(BASE, engine), made, scores, is_large=engine == HALF)
    assert (found.grade, found.is_tie) == (grade, is_tie), what


def test_classes_that_are_close_to_each_other_may_change_places() -> None:
    one = BASE._replace(risk=(0.5, 0.5 - NEAR, 0.0, 0.0, NEAR))
    other = BASE._replace(risk=(0.5 - NEAR, 0.5, 0.0, 0.0, NEAR))
    found = agreement(recorded(one), other, ((1.0,), (0.0, 1.0)))
    assert (found.grade, found.is_tie) == (CLOSE, True)


def test_an_error_counts_against_the_largest_number_of_its_head() -> None:
    found = agreement(recorded(BASE._replace(value=1e3)), BASE._replace(value=1e3 + 1e-2))
    assert found.grade == CLOSE
    assert found.error == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize("value", [1.7e308, -1.7e308])
def test_numbers_whose_sum_has_no_float_are_close_where_they_are(value: float) -> None:
    made = BASE._replace(value=value, breaker_scores=(abs(value), 1e308))
    moved = made._replace(value=value * (1 - 1e-9), seed_score=made.seed_score + 1e-9)
    assert agreement(recorded(made), moved).grade == CLOSE
    assert agreement(recorded(made), made._replace(value=-value)).grade == ANOTHER


def test_tolerances_go_by_the_engine_that_is_recorded() -> None:
    assert [tolerance_of(engine) for engine in (EXACT, HALF, TF32)] == [TOLERANCE, TOLERANCE, INEXACT_TOLERANCE]
    large = [tolerance_of(engine, is_large=True) for engine in (EXACT, HALF, TF32)]
    assert large == [TOLERANCE, INEXACT_TOLERANCE, INEXACT_TOLERANCE]


def test_what_was_found_adds_up() -> None:
    found = Reinference()
    for lsn, each in enumerate((Agreement(EQUAL), Agreement(CLOSE, 0.5), Agreement(CLOSE, 0.1, 0.02, is_tie=True))):
        found.count(lsn, each)
    assert (found.inferences, found.equal, found.close, found.ties) == (3, 1, 2, 1)
    assert (found.largest_error, found.largest_error_lsn, found.tolerance) == (0.5, 1, 0.02)
    for lsn in (9, 5, 7):
        found.diverge(Divergence(lsn, 1, "what"))
    assert found.divergence is not None
    assert found.divergence.lsn == 5
