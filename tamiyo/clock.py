"""The clocks a service reads. What it reads is journaled, so nothing downstream needs a clock of its own."""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Wall time for what people and verifiers compare; monotonic time for everything that is measured."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since any fixed point; never goes back."""
        ...

    def patience_s(self, call: str, budget_s: float) -> float:
        """How many seconds of the machine's time a caller waits when `budget_s` of its budget are left; from 0 on.

        `call` is what is waited for: "policy", "library", "log", "outbox" (the thread that reads for the bus) or "bus".
        A clock turned by hand says here when a
        deadline has passed, so that a test of deadlines depends on no machine's speed.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may jump."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds since any fixed point; never goes back."""
        return time.monotonic_ns()

    def patience_s(self, call: str, budget_s: float) -> float:  # noqa: ARG002  the same for every call
        """What is left of the budget."""
        return max(budget_s, 0.0)
