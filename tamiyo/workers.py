"""Calls under a deadline: the caller gets its answer in time, or the fact that there is none.

A call that does not return keeps its thread; the worker goes on with a new one. At most `abandoned_max`
threads are out at a time, so the number of threads is bounded for ever; with that many out a call is not
attempted. What an abandoned call returns later is dropped.

The limits of this: a call that holds the interpreter lock in C code and never releases it stops the whole
process. A pure-Python busy loop takes the lock in turns of a switch interval (5 ms, see `sys.getswitchinterval`): with
n such loops abandoned, each time the caller waits for the lock costs up to n turns, and a step waits several times:
20 to 130 ms with one to four loops were seen on two cores. Late commits follow from that too.
"""

import queue
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tamiyo.ending import under_way

__all__ = ["DeadlineWorker", "NotAttempted", "Outcome", "Raised", "Returned", "TimedOut", "in_words"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Returned(Generic[T]):
    """The call's value."""

    value: T
    elapsed_ns: int


@dataclass(frozen=True, slots=True)
class Raised:
    """What the call raised; `words` were made on the call's own thread, where even `str(error)` may hang."""

    error: BaseException
    words: str
    elapsed_ns: int


@dataclass(frozen=True, slots=True)
class TimedOut:
    """There was no answer within the deadline; the call was abandoned."""

    elapsed_ns: int


@dataclass(frozen=True, slots=True)
class NotAttempted:
    """Every thread is still out on an earlier call, or the process can have no more."""

    abandoned: int


Outcome = Returned[T] | Raised | TimedOut | NotAttempted


def in_words(error: BaseException) -> str:
    """An exception's type and message; of one that cannot say its message, the type."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001  somebody else's __str__
        return type(error).__name__


class _Job(Generic[T]):
    __slots__ = ("done", "function", "outcome", "started_ns")

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.started_ns = time.perf_counter_ns()
        self.done = threading.Lock()  # let go when it is done; an Event takes several times as long, on a step's path
        self.done.acquire()
        self.outcome: Returned[T] | Raised | None = None

    def run(self) -> None:
        try:
            value = self.function()
        except BaseException as error:  # noqa: BLE001  whatever a collaborator raises is its outcome, a value
            self.outcome = Raised(error, in_words(error), time.perf_counter_ns() - self.started_ns)
        else:
            self.outcome = Returned(value, time.perf_counter_ns() - self.started_ns)
        self.done.release()


class _Out:
    """How many threads are out on a call nobody waits for any more."""

    __slots__ = ("count", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


class _Line:
    """The jobs of one thread; None at its end. `abandoned` once nobody waits for that thread any more.

    It is all that the thread holds, so that a worker can be dropped while its thread waits.
    """

    __slots__ = ("abandoned", "jobs", "out")

    def __init__(self, out: _Out) -> None:
        self.jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self.abandoned = False
        self.out = out

    def serve(self) -> None:
        while (job := self.jobs.get()) is not None:
            with under_way():
                job.run()
            del job  # an idle thread holds on to no result
        with self.out.lock:
            self.out.count -= self.abandoned

    def abandon(self) -> None:
        with self.out.lock:
            self.abandoned = True
            self.out.count += 1
        self.jobs.put(None)


class DeadlineWorker:
    """One thread that runs calls in order for one caller at a time."""

    def __init__(self, name: str, *, abandoned_max: int = 4) -> None:
        self._name = name
        self._abandoned_max = abandoned_max
        self._out = _Out()
        self._line: _Line | None = None

    @property
    def abandoned(self) -> int:
        """Threads that are out on a call nobody waits for any more."""
        return self._out.count

    def call(self, function: Callable[[], T], timeout_s: float) -> Outcome[T]:
        """Run `function` and wait for at most `timeout_s`."""
        if self.abandoned >= self._abandoned_max:
            return NotAttempted(self.abandoned)
        job = _Job(function)
        try:
            line = self._line or self._start()
        except RuntimeError:  # no thread to be had
            return NotAttempted(self.abandoned)
        line.jobs.put(job)
        if job.done.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX)) and job.outcome is not None:
            return job.outcome
        self._line = None
        self._ending.detach()
        line.abandon()
        return TimedOut(time.perf_counter_ns() - job.started_ns)

    def close(self) -> None:
        """Let the idle thread end. One that is out on a call ends when the call does."""
        if self._line is not None:
            self._ending()
            self._line = None

    def _start(self) -> _Line:
        line = _Line(self._out)
        threading.Thread(target=line.serve, name=self._name, daemon=True).start()
        # A worker that is dropped lets its thread go, closed or not. What is kept for that does not lead back here.
        self._ending = weakref.finalize(self, line.jobs.put, None)
        self._line = line
        return line
