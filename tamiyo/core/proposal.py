"""What a policy proposes: final probabilities and scores, nothing left to interpret."""

import math
from dataclasses import dataclass

from tamiyo.core.lifecycle import is_candidate
from tamiyo.core.observation import Observation

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
    """Which policy spoke: journaled beside every inference."""

    version: str
    architecture: str
    engine: str
    checkpoint_digest: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
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
    widths = (
        ("action", proposal.action, ACTIONS),
        ("risk", proposal.risk, RISK_CLASSES),
        ("param_deltas", proposal.param_deltas, PARAM_DELTAS),
        ("blending_method", proposal.blending_method, len(BLENDING_METHODS)),
        ("schedule", proposal.schedule, 2),
        ("breaker_scores", proposal.breaker_scores, 2),
    )
    faults = (
        *(_vector_fault(*vector) for vector in widths),
        *(_distribution_fault(name, values) for name, values, _ in widths if name in _DISTRIBUTIONS),
        *(_bounds_fault(name, values) for name, values, _ in widths if name in _BOUNDED),
        *(
            _number_fault(name, score)
            for name, score in (("value", proposal.value), ("seed_score", proposal.seed_score))
        ),
        _selection_fault(proposal, observation, blueprints),
    )
    return next((fault for fault in faults if fault is not None), None)


_BOUNDED = ("param_deltas", "schedule")
_DISTRIBUTIONS = ("action", "risk", "blending_method")


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
