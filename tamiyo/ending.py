"""What is under way on threads of ours when the process ends is waited for first.

A daemon thread that comes back from a library while the interpreter is torn down is ended on the spot, and C++ code on
its way does not bear that: the process is aborted, "terminate called without an active exception", although all it had
to do is done. (From Python 3.14 on such a thread stands still instead.) So whatever may be in a library's own code on a
daemon thread is done inside `under_way`.

Rule: what hangs keeps no process from ending. All of it together is waited for `ENDING_S` at most.
"""

import atexit
import os
import threading
import time
from types import TracebackType

__all__ = ["ENDING_S", "is_ending", "under_way"]

ENDING_S = 5.0
"""Ten times what loading and trying out the largest network there is takes."""

_held: set[threading.Lock] = set()
_ending = threading.Event()


class under_way:  # noqa: N801  it reads as a word behind `with`
    """What is done inside, on any thread, is waited for when the process ends. Costs half a microsecond."""

    __slots__ = ("_lock",)

    def __enter__(self) -> None:
        """Begin."""
        self._lock = threading.Lock()
        self._lock.acquire()
        _held.add(self._lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It is done, however it ended."""
        _held.discard(self._lock)
        self._lock.release()


def is_ending() -> bool:
    """The process ends, and waits: nothing more that can be left undone is to be begun."""
    return _ending.is_set()


@atexit.register
def _let_all_end() -> None:
    _ending.set()
    deadline_s = time.monotonic() + ENDING_S
    while _held and time.monotonic() < deadline_s:
        for lock in tuple(_held):
            if lock.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
                lock.release()


os.register_at_fork(after_in_child=_held.clear)  # a child has none of these threads
