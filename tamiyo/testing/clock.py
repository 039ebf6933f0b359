"""Clocks that move when they are told to."""

from collections import Counter
from dataclasses import dataclass

from tamiyo.testing.faults import Faults

__all__ = ["CALLS", "FaultClock", "ManualClock"]

CALLS = ("policy", "library", "log", "outbox", "bus")
"""What a service waits for, as it names them to `Clock.patience_s`."""

PATIENCE_S = 120.0
"""How long a wait that is not over may last in the machine's time: a test that needs it has already gone wrong."""


@dataclass(slots=True)
class ManualClock:
    """Wall and monotonic time in nanoseconds. `tick_ns` passes at each reading, so that time never stands still."""

    wall: int = 1_700_000_000_000_000_000
    monotonic: int = 0
    tick_ns: int = 1

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        self.wall += self.tick_ns
        return self.wall

    def monotonic_ns(self) -> int:
        """Nanoseconds since the clock was made."""
        self.monotonic += self.tick_ns
        return self.monotonic

    def patience_s(self, call: str, budget_s: float) -> float:  # noqa: ARG002  the same for every call
        """What is left of the budget, in the machine's own time."""
        return max(budget_s, 0.0)

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += int(seconds * 1e9)
        self.monotonic += int(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back; monotonic time knows nothing of it."""
        self.wall += int(seconds * 1e9)


class FaultClock(Faults, ManualClock):
    """A manual clock whose deadlines are turned by hand too, and whose readings can go wrong (`Faults`).

    A wait lasts until what is awaited comes, however slow the machine is; for a call that was named to `expire` it
    is over at once. `waits` counts them by call, as they begin.
    """

    def __init__(self, wall: int = ManualClock().wall) -> None:
        Faults.__init__(self, "wall_ns", "monotonic_ns")
        ManualClock.__init__(self, wall)
        self.waits: Counter[str] = Counter()
        self._expired: frozenset[str] = frozenset()

    def expire(self, *calls: str) -> None:
        """From now on the deadline of these calls, and of no others, has passed before they are waited for."""
        strange = set(calls) - set(CALLS)
        if strange:
            raise ValueError(f"nothing waits for {', '.join(sorted(strange))}; there are {', '.join(CALLS)}")
        self._expired = frozenset(calls)

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return self._perform("wall_ns", lambda: ManualClock.wall_ns(self))

    def monotonic_ns(self) -> int:
        """Nanoseconds since the clock was made."""
        return self._perform("monotonic_ns", lambda: ManualClock.monotonic_ns(self))

    def patience_s(self, call: str, budget_s: float) -> float:
        """Nothing where the deadline of `call` has passed, else as long as it takes."""
        self.waits[call] += 1
        return 0.0 if call in self._expired else max(budget_s, PATIENCE_S)
