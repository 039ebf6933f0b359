"""Events of other threads that wait to go along with the next batch, and those whose batch is not durable yet.

Frozen: the journal takes over a whole new value at once, so that an interrupt at any line loses and repeats nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from tamiyo.core.events import Event
from tamiyo.core.evolve import Folded
from tamiyo.core.state import State

__all__ = ["RIDERS_MAX", "RIDERS_PER_BATCH", "Make", "Riders"]

Make = Callable[[State, int], Sequence[Event] | Folded]
"""The events of a batch, from the state just before them and the event time."""

RIDERS_MAX = 1_024
RIDERS_PER_BATCH = 64  # so that a batch with riders still fits the smallest segment


@dataclass(frozen=True, slots=True)
class Riders:
    """Who waits, first come first; and who has ridden, with the LSN up to which the log must be durable for that."""

    waiting: tuple[Make, ...] = ()
    ridden: tuple[tuple[int, Make], ...] = ()

    @property
    def next(self) -> tuple[Make, ...]:
        """Who goes along with the next batch."""
        return self.waiting[:RIDERS_PER_BATCH]

    def joined(self, make: Make) -> Self:
        """One more waits."""
        return replace(self, waiting=(*self.waiting, make))

    def queued(self, riders: int, last_lsn: int, durable_lsn: int) -> Self:
        """The first `riders` are in a batch that ends at `last_lsn`."""
        gone = tuple((last_lsn, make) for make in self.waiting[:riders])
        kept = tuple(pair for pair in self.ridden if pair[0] > durable_lsn)
        return replace(self, waiting=self.waiting[riders:], ridden=(*kept, *gone))

    def reopened(self, last_lsn: int) -> Self:
        """The log came back and ends at `last_lsn`: who is past that waits again, in the old order."""
        lost = tuple(make for lsn, make in self.ridden if lsn > last_lsn)
        return replace(self, waiting=(*lost, *self.waiting), ridden=())
