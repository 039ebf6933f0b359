"""A clock that moves when it is told to."""

from dataclasses import dataclass

__all__ = ["ManualClock"]


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

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += int(seconds * 1e9)
        self.monotonic += int(seconds * 1e9)

    def patience_s(self, call: str, budget_s: float) -> float:  # noqa: ARG002  the same for every call
        """What is left of the budget, in the machine's own time."""
        return max(budget_s, 0.0)
