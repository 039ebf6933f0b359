"""How far a seed is blended in: alpha over the steps of its blend.

A blend takes `total_steps`. Alpha is 0 up to the fraction `start` of them, reaches `target` at the fraction
`end` and stays there. In between it follows one of four shapes, chosen by index; each is 0 at 0, 1 at 1 and
never falls:

    0 linear       f
    1 cosine       (1 - cos(pi f)) / 2
    2 warmup_hold  min(1, 2 f): up over the first half, held over the second
    3 sigmoid      the logistic curve of steepness 12 / temperature around 1/2, scaled so that it starts at
                   exactly 0 and ends at exactly 1
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.integrations.kasmina.modes import CONVEX, BlendMode

__all__ = ["SHAPES", "Blend", "shape"]

_STEEPNESS = 12.0  # at temperature 1 the unscaled logistic runs from 0.0025 to 0.9975


def _linear(fraction: float, _temperature: float) -> float:
    return fraction


def _cosine(fraction: float, _temperature: float) -> float:
    return 0.5 * (1.0 - math.cos(math.pi * fraction))


def _warmup_hold(fraction: float, _temperature: float) -> float:
    return min(1.0, 2.0 * fraction)


def _sigmoid(fraction: float, temperature: float) -> float:
    half_width = 0.5 * _STEEPNESS / temperature
    return 0.5 * (1.0 + math.tanh(half_width * (fraction - 0.5)) / math.tanh(half_width * 0.5))


SHAPES: tuple[Callable[[float, float], float], ...] = (_linear, _cosine, _warmup_hold, _sigmoid)
"""By blending method index, in the order of `tamiyo.core.proposal.BLENDING_METHODS`."""


@dataclass(frozen=True, slots=True)
class Blend:
    """One blend as it was ordered; fractions are of `total_steps`."""

    method_index: int
    target: float
    start: float
    end: float
    total_steps: int
    temperature: float = 1.0
    mode: BlendMode = CONVEX

    def fault(self) -> str:
        """Say in words what is wrong with this order, or ""; NaN fails every comparison."""
        if not 0 <= self.method_index < len(BLENDING_METHODS):
            return f"blending_method_index {self.method_index} is none of {len(BLENDING_METHODS)}"
        if not 0.0 <= self.target <= 1.0:
            return f"alpha {self.target} is outside 0..1"
        if not 0.0 <= self.start <= self.end <= 1.0:
            return f"the blending schedule {self.start}..{self.end} is not an interval within 0..1"
        return ""

    def alpha(self, step: int) -> float:
        """Alpha after `step` steps of the blend, in 0..target."""
        if self.completed(step):
            return self.target
        done = step / self.total_steps
        if done <= self.start:
            return 0.0
        return self.target * shape(self.method_index, (done - self.start) / (self.end - self.start), self.temperature)

    def completed(self, step: int) -> bool:
        """Whether `step` is at or past the end of the schedule, so that alpha has arrived."""
        return step >= self.end * self.total_steps


def shape(method_index: int, fraction: float, temperature: float = 1.0) -> float:
    """The share of the target reached at `fraction` (clipped to 0..1) of the schedule."""
    return SHAPES[method_index](min(1.0, max(0.0, fraction)), temperature)
