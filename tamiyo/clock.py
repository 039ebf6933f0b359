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


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may jump."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds since any fixed point; never goes back."""
        return time.monotonic_ns()
