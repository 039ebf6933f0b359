"""Carrying out a command in time: the trainer waits for the seed manager (Kasmina) within a budget, then goes on.

A call that does not return keeps its thread; at most four are out, and with four out, or no thread to be had, nothing
is attempted. What comes back late has changed nothing: a call asks for leave once, before its first change, and gets
none after the deadline. One that has leave is waited for, because what is left of it are assignments.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from tamiyo.ending import under_way
from tamiyo.integrations.kasmina import NOT_ATTEMPTED, TIMED_OUT, Applied
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["ABANDONED_MAX", "Executor", "InTime"]

ABANDONED_MAX = 4
REASON = "kasmina_timeout"


class Executor(Protocol):
    """Carries out commands; `tamiyo.integrations.kasmina.SeedManager` does."""

    def apply(self, command: pb.AdaptationCommand, *, may_change: Callable[[], bool] = ...) -> Applied:
        """Carry out one command; asks `may_change` once, before the first change, and makes none where it is False."""


class _Call:
    """One command on its thread. Leave to change is given or refused once, under the lock."""

    def __init__(self, executor: Executor, command: pb.AdaptationCommand) -> None:
        self._executor = executor
        self._command = command
        self._lock = threading.Lock()
        self._late = False
        self.has_leave = False
        self.done = threading.Event()
        self.applied: Applied | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        with under_way():
            try:
                self.applied = self._executor.apply(self._command, may_change=self._may_change)
            except BaseException as error:  # noqa: BLE001  it is raised on the trainer's thread
                self.error = error
        self.done.set()

    def give_up(self) -> bool:
        """Refuse leave from now on; False where it was given already."""
        with self._lock:
            self._late = not self.has_leave
            return self._late

    def _may_change(self) -> bool:
        with self._lock:
            self.has_leave = not self._late
            return self.has_leave


class InTime:
    """Hands commands to one executor, one at a time."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._out: list[_Call] = []

    def apply(self, command: pb.AdaptationCommand, budget_ms: float) -> Applied:
        """Carry out a command within its budget; without one (0) however long it takes.

        Raises what the executor raises.
        """
        if not budget_ms:
            return self._executor.apply(command)
        self._out = [call for call in self._out if not call.done.is_set()]
        if len(self._out) >= ABANDONED_MAX:
            return Applied(NOT_ATTEMPTED, REASON, f"{len(self._out)} earlier commands have not come back")
        started_ns = time.perf_counter_ns()
        call = _Call(self._executor, command)
        try:
            threading.Thread(target=call.run, name="tolaria-apply", daemon=True).start()
        except RuntimeError as error:  # no thread to be had: training goes on, as with four out
            return Applied(NOT_ATTEMPTED, REASON, str(error))
        call.done.wait(budget_ms / 1e3)
        if not call.done.is_set() and call.give_up():
            self._out.append(call)
            apply_ms = (time.perf_counter_ns() - started_ns) / 1e6
            return Applied(TIMED_OUT, REASON, f"not carried out within {budget_ms:g} ms; nothing was changed", apply_ms)
        call.done.wait()
        if call.error is not None:
            raise call.error
        assert call.applied is not None  # noqa: S101  a call that is done has one or the other
        return call.applied
