"""What a proposal comes to, worked out once: the classes it prefers, the numbers that commands and reports name."""

from typing import NamedTuple

from tamiyo.core.proposal import Proposal, argmax
from tamiyo.core.signals import policy_risk_score

__all__ = ["Choice", "choice_of"]


class Choice(NamedTuple):
    """Schedule and alpha from 0 to 1; `risk_score` is the expected risk class, 0 safe and 1 critical."""

    action: int
    param_delta: float  # the parameter output that the action uses: p1 for OPTIMIZER, else p0
    value: float
    risk_index: int
    risk_score: float
    method: int
    alpha: float
    schedule_start: float
    schedule_end: float


def choice_of(proposal: Proposal) -> Choice:
    """Work a proposal out; ties go to the lowest index."""
    action = argmax(proposal.action)
    one, other = proposal.schedule
    one, other = _fraction((one + 1.0) / 2.0), _fraction((other + 1.0) / 2.0)
    return Choice(
        action,
        proposal.param_deltas[1 if action == 1 else 0],
        proposal.value,
        argmax(proposal.risk),
        policy_risk_score(proposal),
        argmax(proposal.blending_method),
        _fraction(0.1 + proposal.param_deltas[0]),
        min(one, other),
        max(one, other),
    )


def _fraction(value: float) -> float:
    return min(max(value, 0.0), 1.0)
