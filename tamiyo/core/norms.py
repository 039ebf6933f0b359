"""Running mean and variance of the inputs whose scale differs from run to run.

One update a step for each input that is present and finite:
mean' = mean + a (x - mean) and var' = (1 - a) (var + a (x - mean)^2), the exponentially weighted form of
Welford's update (West, 1979), with a = 0.1. A feature is then (x - mean) / sqrt(var + 1e-6).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

from tamiyo.core import journal_pb2 as journal

__all__ = [
    "EPSILON",
    "NORM_INDEX",
    "NORM_INPUTS",
    "PRIORS",
    "Norm",
    "NormInput",
    "folded",
    "packed",
    "recorded",
    "scaled",
    "updated",
]

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


_norm: Callable[[tuple[float, float]], Norm] = partial(tuple.__new__, Norm)
"""A norm from its pair, in half the time that the class takes for it."""

PRIORS = tuple(Norm(row.mean, row.sd * row.sd) for row in NORM_INPUTS)


def updated(norm: Norm, value: float) -> Norm:
    """The norm after one more finite value."""
    mean, variance = norm
    delta = value - mean
    return Norm(mean + ALPHA * delta, KEPT * (variance + ALPHA * delta * delta))


def folded(norms: tuple[Norm, ...], inputs: Iterable[tuple[int, float]]) -> tuple[Norm, ...]:
    """The norms after one step's inputs, (row, value) each; the values are finite.

    Raises:
        IndexError: a row is past the last norm.
    """
    changed = list(norms)
    for index, value in inputs:
        mean, variance = changed[index]
        delta = value - mean
        changed[index] = _norm((mean + ALPHA * delta, KEPT * (variance + ALPHA * delta * delta)))
    return tuple(changed)


def packed(inputs: Iterable[tuple[int, float]]) -> tuple[int, list[float]]:
    """Inputs, (row, value) in the order of their rows, as they are journaled: which rows, and their values."""
    present, values = 0, []
    for index, value in inputs:
        present |= 1 << index
        values.append(value)
    return present, values


def recorded(event: journal.GraphObserved) -> Iterable[tuple[int, float]]:
    """The inputs that an event holds, (row, value) each.

    Raises:
        ValueError: it has not one value for each row that it names.
    """
    present, values = event.norms_present, event.norm_values[:]
    if present or values:
        return zip(_rows(present), values, strict=True)
    return [(entry.index, entry.value) for entry in event.norm_inputs]  # of a log from before there were the two


@lru_cache(maxsize=512)
def _rows(present: int) -> tuple[int, ...]:
    return tuple(index for index in range(present.bit_length()) if present >> index & 1)


def scaled(norm: Norm, value: float) -> float:
    """`value` in standard deviations from the mean."""
    return (value - norm.mean) / math.sqrt(norm.variance + EPSILON)
