"""Calls in turns, and quantiles of what they took."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

__all__ = ["COLD_BYTES", "NOT_YET_HOT", "Figures", "Progress", "Times", "Turn", "in_turns", "quantiles_ms"]

Figures: TypeAlias = dict[str, Any]
"""What was measured, as it goes into JSON."""

Progress: TypeAlias = Callable[[str], None]
"""Told what is measured next."""

COLD_BYTES = 96 * 10**6
"""Written before each cold call: more than a processor caches, as a training step beside the controller does."""

NOT_YET_HOT = 20
"""After another's turn the caches are its own. On a Zen 4, whose last-level cache holds what the cores' own let go, the
sixteenth call of the network's engine after three of PyTorch Geometric was the first that was as fast as any later one
(the first took twice as long); on a Xeon the fourth was."""


def quantiles_ms(times_ns: Sequence[int]) -> dict[str, float]:
    """p50, p95 and p99, in milliseconds; of fewer than a hundred calls the p99 is the slowest."""
    ordered = sorted(times_ns)
    return {f"p{share}": round(ordered[len(ordered) * share // 100] / 1e6, 4) for share in (50, 95, 99)}


@dataclass(slots=True)
class Times:
    """What calls took, in nanoseconds: by the clock, and the CPU time of the thread that called."""

    wall_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)

    def call(self, function: Callable[[], object]) -> None:
        """Make one call and count it."""
        started_ns, busy_ns = time.perf_counter_ns(), time.thread_time_ns()
        function()
        self.wall_ns.append(time.perf_counter_ns() - started_ns)
        self.cpu_ns.append(time.thread_time_ns() - busy_ns)

    def figures(self) -> Figures:
        """How many calls, and the quantiles of both."""
        wall_ms, cpu_ms = quantiles_ms(self.wall_ns), quantiles_ms(self.cpu_ns)
        return {"calls": len(self.wall_ns), "wall_ms": wall_ms, "cpu_ms": cpu_ms}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one of those compared does in its turn: `lead` calls that are not counted, then those that are."""

    call: Callable[[], object]
    times: int
    lead: int = NOT_YET_HOT


def in_turns(turns: Mapping[str, Turn], rounds: int, *, cold: bool = False) -> dict[str, Figures]:
    """Let each have its turn in every round, after one call of each that is not counted.

    Hot is back to back: a turn begins with calls that bring back the caches. Cold: `COLD_BYTES` are written before each
    call.
    """
    times = {name: Times() for name in turns}
    scratch = np.zeros(COLD_BYTES if cold else 0, np.uint8)
    for turn in turns.values():
        turn.call()
    for number in range(rounds):
        for name, turn in turns.items():
            for _ in range(0 if cold else turn.lead):
                turn.call()
            for _ in range(turn.times):
                scratch.fill(number % 256)
                times[name].call(turn.call)
    return {name: taken.figures() for name, taken in times.items()}
