"""What can go wrong with a collaborator, in one vocabulary for policy, library, bus and clock.

    word            what its calls do from then on
    fail(error)     raise
    hang()          wait until release()
    late()          wait until the collaborator's next call begins, or release(); then they answer
    garble(answer)  return what is no answer
    heal()          answer again; a call that waits goes on waiting until release()

Each word takes `op`, the name of one method (every method when None), and `times`, after so many calls the method
answers again by itself. The last word spoken for a method holds. `wal.testing.FaultDisk` speaks the same language.

Rule: nothing here sleeps or looks at a clock. What waits is let go by a call, and a deadline passes when
`tamiyo.testing.FaultClock` says so.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

__all__ = ["Faults"]

T = TypeVar("T")
FAIL, HANG, LATE, GARBLE = "fail", "hang", "late", "garble"
WAITS = (HANG, LATE)


@dataclass(slots=True)
class _Fault:
    """What the next calls of one method do; `left` calls of them, or all when None."""

    kind: str
    detail: object
    left: int | None


@dataclass(slots=True)
class _Waiting:
    """A call that has not been let go."""

    op: str
    late: bool
    free: bool = False


class Faults:
    """The switchboard behind a collaborator with methods `ops`. `calls` counts every call by method, as it begins.

    A subclass has its methods call `_perform`. Every word may be spoken from any thread.
    """

    def __init__(self, *ops: str) -> None:
        self.calls: Counter[str] = Counter()
        self._ops = ops
        self._changed = threading.Condition()
        self._faults: dict[str, _Fault] = {}
        self._waiting: list[_Waiting] = []

    def fail(self, error: BaseException | None = None, *, op: str | None = None, times: int | None = None) -> None:
        """Raise `error`, or an OSError that says so."""
        self._set(_Fault(FAIL, error or OSError("the collaborator was told to fail"), times), op)

    def hang(self, *, op: str | None = None, times: int | None = None) -> None:
        """Wait until `release`, then answer."""
        self._set(_Fault(HANG, None, times), op)

    def late(self, *, op: str | None = None, times: int | None = None) -> None:
        """Wait until the next call of any method begins, or until `release`, then answer."""
        self._set(_Fault(LATE, None, times), op)

    def garble(self, answer: object = None, *, op: str | None = None, times: int | None = None) -> None:
        """Return `answer` in place of an answer."""
        self._set(_Fault(GARBLE, answer, times), op)

    def heal(self, op: str | None = None) -> None:
        """Answer again."""
        with self._changed:
            for name in self._named(op):
                self._faults.pop(name, None)

    def release(self, op: str | None = None) -> None:
        """Let every call go that waits, and answer again where later ones would have waited."""
        with self._changed:
            for name in self._named(op):
                if name in self._faults and self._faults[name].kind in WAITS:
                    del self._faults[name]
            for call in self._waiting:
                call.free = call.free or op in (None, call.op)
            self._changed.notify_all()

    def is_stuck(self, op: str | None = None) -> bool:
        """Whether the next call would wait."""
        with self._changed:
            return any(name in self._faults and self._faults[name].kind in WAITS for name in self._named(op))

    @property
    def waiting(self) -> int:
        """Calls that wait now."""
        with self._changed:
            return sum(not call.free for call in self._waiting)

    def wait_until_hung(self, op: str | None = None, timeout_s: float = 30) -> bool:
        """Wait until a call waits; False when none did within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(op in (None, call.op) for call in self._waiting if not call.free), timeout_s
            )

    def _named(self, op: str | None) -> tuple[str, ...]:
        if op is not None and op not in self._ops:
            raise ValueError(f"{type(self).__name__} has no method {op!r} to go wrong; it has {', '.join(self._ops)}")
        return self._ops if op is None else (op,)

    def _set(self, fault: _Fault, op: str | None) -> None:
        with self._changed:
            for name in self._named(op):
                self._faults[name] = _Fault(fault.kind, fault.detail, fault.left)

    def _perform(self, op: str, honest: Callable[[], T]) -> T:
        """One call of `op`: what it was told to do, else `honest()`."""
        fault = self._begin(op)
        if fault is not None and fault.kind == FAIL:
            assert isinstance(fault.detail, BaseException)  # noqa: S101  `fail` put it there
            raise fault.detail
        if fault is not None and fault.kind == GARBLE:
            return cast(T, fault.detail)  # it is none: that is the point
        return honest()

    def _begin(self, op: str) -> _Fault | None:
        with self._changed:
            self.calls[op] += 1
            for call in self._waiting:
                call.free = call.free or call.late
            fault = self._take(op)
            if fault is not None and fault.kind in WAITS:
                self._wait(_Waiting(op, late=fault.kind == LATE))
            self._changed.notify_all()
            return fault

    def _take(self, op: str) -> _Fault | None:
        fault = self._faults.get(op)
        if fault is not None and fault.left is not None:
            fault.left -= 1
            if fault.left <= 0:
                del self._faults[op]
        return fault

    def _wait(self, call: _Waiting) -> None:
        self._waiting.append(call)
        self._changed.notify_all()
        try:
            self._changed.wait_for(lambda: call.free)
        finally:
            self._waiting.remove(call)
