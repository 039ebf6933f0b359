"""The clocks a service reads. What it reads is journaled, so nothing downstream needs a clock of its own."""

import time
from typing import Protocol

__all__ = ["AHEAD_MAX_NS", "Clock", "SystemClock", "words_of_a_log_ahead"]

AHEAD_MAX_NS = 60 * 10**9
"""A log's time may run so far ahead of the wall clock before anybody is told: clocks are set by seconds every day."""


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


def words_of_a_log_ahead(event_time_ns: int, wall_ns: int) -> str:
    """What to tell an operator where a log's time is more than a minute ahead of the wall clock; "" where it is not."""
    ahead_s = (event_time_ns - wall_ns) / 1e9
    if ahead_s * 1e9 <= AHEAD_MAX_NS:
        return ""
    return (
        f"the log's time is {ahead_s:,.0f} s ahead of this machine's clock: that stood ahead when the log was opened "
        "before, or it is behind now. No cool-down, retry or window waits for it; see 'A clock that was wrong' in "
        "docs/operations.md"
    )
