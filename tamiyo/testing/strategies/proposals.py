"""Proposals: well formed ones that a policy might make, and what is none."""

from collections.abc import Sequence

from hypothesis import strategies as st

from tamiyo.core.proposal import ACTIONS, Proposal
from tamiyo.testing.policies import fitted

__all__ = ["malformed_proposals", "proposals"]

MEANINGFUL = 6
"""Classes of the action head that are not reserved."""
RISKS: tuple[tuple[float, ...], ...] = (
    (1.0, 0.0, 0.0, 0.0, 0.0),
    (0.5, 0.25, 0.125, 0.125, 0.0),
    (0.0, 0.0, 0.0, 0.5, 0.5),
    (0.0, 0.0, 0.0, 0.0625, 0.9375),
    (0.0, 0.0, 0.0, 0.0, 1.0),
)
"""Expected classes on either side of the thresholds of elevated (0.85) and critical (0.98) risk."""
UNIT = st.floats(-1.0, 1.0)
SCORES = st.floats(-1e6, 1e6)


@st.composite
def proposals(draw: st.DrawFn, candidates: Sequence[int] = (0,), blueprints: int = 1) -> Proposal:
    """A proposal that fits a graph with these candidate seeds and so many blueprints."""
    made = Proposal(
        action=_one_hot(draw(st.integers(0, MEANINGFUL - 1) | st.integers(0, ACTIONS - 1)), ACTIONS),
        risk=draw(st.sampled_from(RISKS) | _distributions(5)),
        value=draw(SCORES),
        param_deltas=(draw(UNIT), draw(UNIT), 0.0, 0.0),
        blending_method=_one_hot(draw(st.integers(0, 3)), 4),
        schedule=(draw(UNIT), draw(UNIT)),
        seed_index=draw(st.integers(0, 7)),
        seed_score=draw(SCORES),
        blueprint_index=draw(st.integers(-1, 7)),
        breaker_scores=(0.0, 0.0),
    )
    return fitted(made, candidates, blueprints)


CALM = Proposal(
    action=tuple(1.0 if place == 0 else 0.0 for place in range(ACTIONS)),
    risk=RISKS[0],
    value=0.0,
    param_deltas=(0.0, 0.0, 0.0, 0.0),
    blending_method=(1.0, 0.0, 0.0, 0.0),
    schedule=(-1.0, 1.0),
    seed_index=0,
    seed_score=0.0,
    blueprint_index=-1,
    breaker_scores=(0.0, 0.0),
)
WRONG = (
    {"action": (1.0,)},
    {"action": (float("nan"),) * ACTIONS},
    {"action": [1.0] + [0.0] * (ACTIONS - 1)},
    {"risk": (2.0, 0.0, 0.0, 0.0, 0.0)},
    {"risk": (0.0,) * 5},
    {"value": float("inf")},
    {"value": 10**400},
    {"param_deltas": (0.0, 1e308, 0.0, 0.0)},
    {"blending_method": ("linear", 0.0, 0.0, 0.0)},
    {"schedule": (0.0, 1.5)},
    {"seed_index": -1},
    {"seed_index": 2**70},
    {"seed_index": False},
    {"seed_score": "high"},
    {"blueprint_index": 10_000},
    {"breaker_scores": None},
)


def malformed_proposals() -> st.SearchStrategy[object]:
    """What a policy may return and is no proposal for any graph."""
    wrong = st.sampled_from(WRONG).map(lambda change: CALM._replace(**change))  # type: ignore[arg-type]  # ill-typed on purpose
    return wrong | st.sampled_from((None, 7, "a proposal", {}, Proposal))


def _one_hot(index: int, width: int) -> tuple[float, ...]:
    return tuple(1.0 if place == index else 0.0 for place in range(width))


def _distributions(width: int) -> st.SearchStrategy[tuple[float, ...]]:
    weights = st.lists(st.integers(0, 1_000), min_size=width, max_size=width).filter(any)
    return weights.map(lambda parts: tuple(part / sum(parts) for part in parts))
