"""More risk is never less restrictive: a recorded step is decided again with a signal added, and raised bit by bit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

from tamiyo.core.blueprint import Blueprint
from tamiyo.core.choice import choice_of
from tamiyo.core.decide import decide
from tamiyo.core.inputs import Inputs
from tamiyo.core.state import State
from tamiyo.testing.machine.commands import restrictiveness
from tamiyo.testing.machine.law import require
from tamiyo.testing.strategies.packets import READINGS

__all__ = ["CHAINS", "SINKING", "check_monotone"]

SINKING = frozenset({"gpu_mem_free_gb", "optimizer_lr"})
"""Metrics in which less is worse."""
HUGE = 3e38
LAW = "more risk is never less restrictive"
Step = tuple[State, Inputs]
Change = Callable[[State, Inputs], Step]


def check_monotone(state: State, inputs: Inputs, signal: str) -> None:
    """Raise `LawBroken` where more of `signal` would have been answered by something less restrictive.

    Args:
        state: what the step was decided on.
        inputs: the step's own; what they say of the signal is replaced.
        signal: a key of `CHAINS`.
    """
    decided = [decide(*change(state, inputs)) for change in CHAINS[signal]]
    for place, (less, more) in enumerate(pairwise(decided)):
        told = f"{signal}, from value {place} to {place + 1} of its chain, turned {less.reason!r} into {more.reason!r}"
        require(restrictiveness(more.command) >= restrictiveness(less.command), LAW, told)


def _metric(name: str, value: float | None) -> Change:
    def changed(state: State, inputs: Inputs) -> Step:
        metrics = {other: kept for other, kept in inputs.observation.metrics.items() if other != name}
        if value is not None:
            metrics[name] = value
        observation = inputs.observation._replace(metrics=MappingProxyType(metrics))
        return state, inputs._replace(observation=observation)

    return changed


def _policy_risk(share: float) -> Change:
    """A share of the probability moves to the worst class."""

    def changed(state: State, inputs: Inputs) -> Step:
        if inputs.proposal is None:
            return state, inputs
        *lower, worst = inputs.proposal.risk
        risk = (*(part * (1.0 - share) for part in lower), worst + share * sum(lower))
        proposal = inputs.proposal._replace(risk=risk)
        return state, inputs._replace(proposal=proposal, choice=choice_of(proposal))

    return changed


def _blueprints(raised: Callable[[Blueprint], Blueprint]) -> Change:
    """Every observed blueprint is changed."""

    def changed(state: State, inputs: Inputs) -> Step:
        riskier = {
            blueprint_id: replace(seen, blueprint=raised(seen.blueprint)) if seen.blueprint else seen
            for blueprint_id, seen in state.blueprints.items()
        }
        return replace(state, blueprints=MappingProxyType(riskier)), inputs

    return changed


def _blueprint_risk(risk: float) -> Change:
    return _blueprints(lambda blueprint: replace(blueprint, descriptor_risk=risk))


def _metric_chain(name: str) -> Sequence[Change]:
    """Absent, then from harmless to harmful, then not finite."""
    values = sorted(value for other, value in READINGS if other == name and math.isfinite(value))
    rising = [*values, HUGE] if name not in SINKING else [*reversed(values), -HUGE]
    return [_metric(name, value) for value in (None, *rising, math.nan)]


CHAINS: Mapping[str, Sequence[Change]] = {
    **{name: _metric_chain(name) for name in dict(READINGS)},
    "policy_risk": [_policy_risk(share) for share in (0.0, 0.5, 0.9, 0.97, 1.0)],
    "blueprint_risk": [_blueprint_risk(risk) for risk in (0.0, 0.25, 0.5, 0.75, 0.8125, 1.0, math.nan)],
    "blueprint_quarantine": [
        _blueprints(lambda blueprint: replace(blueprint, quarantine_only=False)),
        _blueprints(lambda blueprint: replace(blueprint, quarantine_only=True)),
    ],
}
"""What can be raised, by name: changes of a recorded step, each at least as risky as the one before it."""
