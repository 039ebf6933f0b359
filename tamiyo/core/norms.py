"""Running mean and variance of the inputs whose scale differs from run to run.

One update a step for each input that is present and finite:
mean' = mean + a (x - mean) and var' = (1 - a) (var + a (x - mean)^2), the exponentially weighted form of
Welford's update (West, 1979), with a = 0.1. A feature is then (x - mean) / sqrt(var + 1e-6).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["EPSILON", "NORM_INDEX", "NORM_INPUTS", "PRIORS", "Norm", "NormInput", "folded", "scaled", "updated"]

ALPHA = 0.1
KEPT = 1.0 - ALPHA
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class NormInput:
    """One row: `log1p` says that the value is log(1 + x) before it is normalised and recorded."""

    name: str
    mean: float
    sd: float
    log1p: bool


NORM_INPUTS = (
    NormInput("loss", 0.8, 0.3, log1p=False),
    NormInput("gradient_norm", 1.0, 0.5, log1p=False),
    NormInput("samples_per_s", 4500.0, 500.0, log1p=False),
    NormInput("hook_latency_ms", 12.0, 6.0, log1p=False),
    NormInput("parameter_count", 1.0, 0.4, log1p=True),
    NormInput("learning_rate", 0.01, 0.005, log1p=True),
    NormInput("gradient_variance", 0.001, 0.0005, log1p=True),
    NormInput("momentum", 0.9, 0.05, log1p=False),
)
"""The eight inputs with their priors, by row number: the number is journaled."""

NORM_INDEX = {row.name: index for index, row in enumerate(NORM_INPUTS)}


class Norm(NamedTuple):
    """Mean and variance of one input, in its scaled form. A plain pair: eight new ones are made every step."""

    mean: float
    variance: float


class _Input(Protocol):
    """A recorded input, as the journal has it."""

    @property
    def index(self) -> int: ...
    @property
    def value(self) -> float: ...


PRIORS = tuple(Norm(row.mean, row.sd * row.sd) for row in NORM_INPUTS)


def updated(norm: Norm, value: float) -> Norm:
    """The norm after one more finite value."""
    mean, variance = norm
    delta = value - mean
    return Norm(mean + ALPHA * delta, KEPT * (variance + ALPHA * delta * delta))


def folded(norms: tuple[Norm, ...], inputs: Iterable[_Input]) -> tuple[Norm, ...]:
    """The norms after one step's inputs, each (index, value) finite.

    Raises:
        IndexError: an index is past the last norm.
    """
    changed = list(norms)
    for entry in inputs:
        index, value = entry.index, entry.value
        mean, variance = changed[index]
        delta = value - mean
        changed[index] = Norm(mean + ALPHA * delta, KEPT * (variance + ALPHA * delta * delta))
    return tuple(changed)


def scaled(norm: Norm, value: float) -> float:
    """`value` in standard deviations from the mean."""
    return (value - norm.mean) / math.sqrt(norm.variance + EPSILON)
