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
    best = 0
    for index in range(1, len(values)):
        if values[index] > values[best]:
            best = index
    return best


def malformation(proposal: Proposal, observation: Observation, blueprints: int) -> str | None:
    """Say in words what is wrong with a proposal for this packet, or None. Such a proposal counts as failed."""
    widths = (
        ("action", proposal.action, ACTIONS),
        ("risk", proposal.risk, RISK_CLASSES),
        ("param_deltas", proposal.param_deltas, PARAM_DELTAS),
        ("blending_method", proposal.blending_method, len(BLENDING_METHODS)),
        ("schedule", proposal.schedule, 2),
        ("breaker_scores", proposal.breaker_scores, 2),
    )
    for name, values, width in widths:
        if len(values) != width:
            return f"{name} has {len(values)} values, not {width}"
        if not all(math.isfinite(value) for value in values):
            return f"{name} holds a value that is not finite"
    for name, score in (("value", proposal.value), ("seed_score", proposal.seed_score)):
        if not math.isfinite(score):
            return f"{name} is not finite"
    for name, values in (
        ("action", proposal.action),
        ("risk", proposal.risk),
        ("blending_method", proposal.blending_method),
    ):
        if min(values) < 0.0 or max(values) > 1.0:
            return f"{name} is no probability distribution"
    if not 0 <= proposal.seed_index < len(observation.seeds) or not is_candidate(
        observation.seeds[proposal.seed_index]
    ):
        return f"seed_index {proposal.seed_index} is no candidate among {len(observation.seeds)} seeds"
    if not -1 <= proposal.blueprint_index < blueprints:
        return f"blueprint_index {proposal.blueprint_index} is outside the {blueprints} blueprints of the graph"
    return None
