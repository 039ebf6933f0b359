"""What a policy proposes: final probabilities and scores, nothing left to interpret."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tamiyo.core.lifecycle import is_candidate
from tamiyo.core.observation import Observation, Seed

__all__ = [
    "ACTIONS",
    "BLENDING_METHODS",
    "PolicyIdentity",
    "Proposal",
    "argmax",
    "malformation",
]

ACTIONS = 32
"""Classes of the action head; 0 to 5 have a meaning, the rest are reserved."""

BLENDING_METHODS = ("linear", "cosine", "warmup_hold", "sigmoid")
"""By index: there is no Leyline enum, so the number travels and the name is only an annotation."""

RISK_CLASSES = 5
SUM_TOLERANCE = 1e-3
"""What half-precision probabilities may miss 1 by."""
PARAM_DELTAS = 4


@dataclass(frozen=True, slots=True)
class PolicyIdentity:
    """Which policy spoke: journaled beside every inference.

    `is_compiled`: a compiled engine runs it. `compile_fallbacks`: how often it fell back to a slower form since it was
    loaded. `compile_warm_ms`: what compiling and warming up took.
    """

    version: str
    architecture: str
    engine: str
    checkpoint_digest: str = ""
    is_compiled: bool = False
    compile_fallbacks: int = 0
    compile_warm_ms: float = 0.0


class Proposal(NamedTuple):
    """One answer of a policy.

    Shapes: `action` 32 and `risk` 5 and `blending_method` 4 probabilities; `param_deltas` 4 and `schedule` 2
    values in [-1, 1]; `breaker_scores` 2. `seed_index` and `blueprint_index` are places in the packet's seeds
    and the graph's blueprints, -1 for none. `value` and `seed_score` are plain scores.
    """

    action: tuple[float, ...]
    risk: tuple[float, ...]
    value: float
    param_deltas: tuple[float, ...]
    blending_method: tuple[float, ...]
    schedule: tuple[float, ...]
    seed_index: int
    seed_score: float
    blueprint_index: int
    breaker_scores: tuple[float, ...]


def argmax(values: tuple[float, ...]) -> int:
    """The index of the largest value; ties go to the lowest index."""
    return values.index(max(values))


def malformation(proposal: object, observation: Observation, blueprints: int) -> str | None:
    """Say in words what is wrong with a proposal for this packet, or None. Such a proposal counts as failed."""
    if not isinstance(proposal, Proposal):
        return f"a {type(proposal).__name__} is no Proposal"
    if _is_surely_sound(proposal, observation.seeds, blueprints):
        return None
    faults = (
        *_vector_faults(proposal),
        _number_fault("value", proposal.value),
        _number_fault("seed_score", proposal.seed_score),
        _selection_fault(proposal, observation, blueprints),
    )
    return next((fault for fault in faults if fault is not None), None)


_WIDTHS = {
    "action": ACTIONS,
    "risk": RISK_CLASSES,
    "param_deltas": PARAM_DELTAS,
    "blending_method": len(BLENDING_METHODS),
    "schedule": 2,
    "breaker_scores": 2,
}
_BOUNDED = ("param_deltas", "schedule")
_DISTRIBUTIONS = ("action", "risk", "blending_method")

_WIDTHS_IN_ORDER = tuple(_WIDTHS.values())
_TUPLES_ONLY, _FLOATS_ONLY = {tuple}, {float}


def _is_surely_sound(proposal: Proposal, seeds: Sequence[Seed], blueprints: int) -> bool:
    """Whether nothing can be wrong with it, in a fraction of the time; False means: look at its parts one by one.

    A finite sum has only finite terms, and of those the least and the largest are what they seem.
    """
    action, risk, value, deltas, method, schedule, seed, score, blueprint, scores = proposal
    vectors = (action, risk, deltas, method, schedule, scores)
    if set(map(type, vectors)) != _TUPLES_ONLY or tuple(map(len, vectors)) != _WIDTHS_IN_ORDER:
        return False
    shares, bounded = action + risk + method, deltas + schedule
    values = (*shares, *bounded, *scores, value, score)
    return (
        type(seed) is type(blueprint) is int
        and 0 <= seed < len(seeds)
        and is_candidate(seeds[seed])
        and -1 <= blueprint < blueprints
        and set(map(type, values)) == _FLOATS_ONLY
        and math.isfinite(sum(values))
        and min(shares) >= 0.0
        and max(shares) <= 1.0
        and min(bounded) >= -1.0
        and max(bounded) <= 1.0
        and abs(sum(action) - 1.0) <= SUM_TOLERANCE
        and abs(sum(risk) - 1.0) <= SUM_TOLERANCE
        and abs(sum(method) - 1.0) <= SUM_TOLERANCE
    )


def _vector_faults(proposal: Proposal) -> tuple[str | None, ...]:
    """What is wrong with each vector: first its form, then its sum, then its bounds."""
    vectors = {name: getattr(proposal, name) for name in _WIDTHS}
    return (
        *(_vector_fault(name, vectors[name], width) for name, width in _WIDTHS.items()),
        *(_distribution_fault(name, vectors[name]) for name in _DISTRIBUTIONS),
        *(_bounds_fault(name, vectors[name]) for name in _BOUNDED),
    )


def _is_number(value: object) -> bool:
    """A float that is finite, or a small whole number; a bool is neither."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**53
    return isinstance(value, float) and math.isfinite(value)


def _is_place(value: object, least: int, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < end


def _vector_fault(name: str, values: object, width: int) -> str | None:
    if not isinstance(values, tuple) or len(values) != width:
        return f"{name} is no tuple of {width} numbers"
    return None if all(map(_is_number, values)) else f"{name} holds a value that is not a finite number"


def _distribution_fault(name: str, values: object) -> str | None:
    if not isinstance(values, tuple) or not all(_is_number(value) and 0.0 <= value <= 1.0 for value in values):
        return f"{name} is no probability distribution"
    return None if abs(sum(values) - 1.0) <= SUM_TOLERANCE else f"{name} sums to {sum(values):.6f}, not to 1"


def _bounds_fault(name: str, values: object) -> str | None:
    if not isinstance(values, tuple) or not all(_is_number(value) and -1.0 <= value <= 1.0 for value in values):
        return f"{name} holds a value outside -1 to 1"
    return None


def _number_fault(name: str, value: object) -> str | None:
    return None if _is_number(value) else f"{name} is no finite number"


def _selection_fault(proposal: Proposal, observation: Observation, blueprints: int) -> str | None:
    seed: object = proposal.seed_index  # a policy is somebody else's code: its types are checked, not believed
    blueprint: object = proposal.blueprint_index
    seeds = observation.seeds
    if not _is_place(seed, 0, len(seeds)) or not is_candidate(seeds[proposal.seed_index]):
        return f"seed_index {seed!r} is no candidate among {len(seeds)} seeds"
    if not _is_place(blueprint, -1, blueprints):
        return f"blueprint_index {blueprint!r} is outside the {blueprints} blueprints of the graph"
    return None
