"""The pace of work beside a running step: a thread that wants the interpreter waits no longer than one stretch of it.

Python hands the interpreter over only every 5 ms where nobody lets go of it, which is a step's whole budget.
"""

import time

__all__ = ["REST_S", "WORK_S", "Restful"]

WORK_S, REST_S = 300e-6, 100e-6


class Restful:
    """Rests 100 us whenever 300 us have been worked. One thread at a time."""

    def __init__(self) -> None:
        """Begin rested."""
        self._busy_since = time.perf_counter()

    def __call__(self) -> None:
        """Rest, when it is time to."""
        if time.perf_counter() - self._busy_since > WORK_S:
            time.sleep(REST_S)
            self._busy_since = time.perf_counter()
