"""Telling how far long work has come."""

from collections.abc import Callable

# Called with the bytes done and the bytes there are; about once for each mebibyte, and when all is done.
Progress = Callable[[int, int], None]
STEP_BYTES = 1 << 20


class Meter:
    """Counts the bytes done and tells `progress` now and then. Bytes that turn up meanwhile are added to the total."""

    def __init__(self, progress: Progress | None, total_bytes: int) -> None:
        """Begin at nothing; `total_bytes` is what is known to be there."""
        self._progress = progress
        self._total = total_bytes
        self._told = 0
        self.done_bytes = 0

    def add(self, length: int) -> None:
        """Count `length` bytes more, and tell when a step is full or all is done."""
        self.done_bytes += length
        self._total = max(self._total, self.done_bytes)
        full = self.done_bytes - self._told >= STEP_BYTES or self.done_bytes == self._total
        if self._progress is not None and length and full:
            self._told = self.done_bytes
            self._progress(self.done_bytes, self._total)
