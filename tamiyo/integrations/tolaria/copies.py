"""How long copies to the device take: `h2d_copy_ms`.

A copy to a CUDA device runs after the call that asks for it, so events on its stream time it; they are read in
a later step, when the device says that it is past them, and nobody waits. Any other copy is timed by the clock.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from tamiyo.integrations.tolaria.hardware import Tries, cuda_index

__all__ = ["CopyTimer"]

COPIES_MAX = 4_096
"""Of one step; a loop that never asks for its packet does not gather them for ever."""
STEPS_MAX = 64
"""Steps whose copies the device has yet to reach: far more than it lets a host run ahead."""
_NS_PER_MS = 1e6

_Timed = tuple[torch.cuda.Event, torch.cuda.Event]


class CopyTimer:
    """Times copies, step by step. Not for several threads.

    Args:
        clock_ns: a monotonic clock.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._tries = Tries()
        self._clocked_ns: int | None = None
        self._copies: deque[_Timed] = deque(maxlen=COPIES_MAX)
        self._steps: deque[tuple[_Timed, ...]] = deque(maxlen=STEPS_MAX)

    @contextmanager
    def copying(self, device: torch.device | None) -> Iterator[None]:
        """A copy to `device`, on the stream that is current here; None is CUDA's current one if it is in use."""
        found = self._tries.get("h2d_copy_ms", lambda: (cuda_index(device),))
        if found is None:  # which device is not known: the clock might stop long before the copy does
            yield
            return
        (index,) = found
        with self._by_clock() if index is None else self._by_events(index):
            yield

    def take(self) -> float | None:
        """The time of the copies of the step that ends here, None where it had none.

        Of those on a device it is that of the last step known to be over, this one or one before; None where
        none is.
        """
        clocked_ns, self._clocked_ns = self._clocked_ns, None
        if not self._copies:
            return None if clocked_ns is None else clocked_ns / _NS_PER_MS
        self._steps.append(tuple(self._copies))
        self._copies.clear()
        return self._tries.get("h2d_copy_ms", self._last_over_ms)

    def _last_over_ms(self) -> float | None:
        over: tuple[_Timed, ...] = ()
        while self._steps and all(end.query() for _, end in self._steps[0]):  # type: ignore[no-untyped-call]
            over = self._steps.popleft()
        return sum(start.elapsed_time(end) for start, end in over) if over else None

    @contextmanager
    def _by_clock(self) -> Iterator[None]:
        started_ns = self._clock_ns()
        try:
            yield
        finally:
            self._clocked_ns = (self._clocked_ns or 0) + self._clock_ns() - started_ns

    @contextmanager
    def _by_events(self, index: int) -> Iterator[None]:
        begun = self._tries.get("h2d_copy_ms", lambda: _begin(index))
        try:
            yield
        finally:
            if begun is not None:
                stream, start = begun
                end = self._tries.get("h2d_copy_ms", lambda: _mark(stream))
                if end is not None:
                    self._copies.append((start, end))


def _begin(index: int) -> tuple[torch.cuda.Stream, torch.cuda.Event]:
    stream = torch.cuda.current_stream(index)
    return stream, _mark(stream)


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
