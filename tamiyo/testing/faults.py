"""What can go wrong with a collaborator, in one vocabulary for policy, library, bus and clock.

    word            what its calls do from then on
    hang()          wait at the door until release()
    late()          wait at the door until the collaborator's next call begins, or release()
    fail(error)     raise
    garble(answer)  return what is no answer
    heal()          answer again; a call that waits goes on waiting until release()

A call passes the door first, and then does what it is told at that moment: one that hung may fail in the end. Each
word takes `op`, the name of one method (every method when None), and `times`, after so many calls it is forgotten.
The last word spoken holds. `wal.testing.FaultDisk` speaks the same language.

Rule: nothing here sleeps or looks at a clock. What waits is let go by a call, and a deadline passes when
`tamiyo.testing.FaultClock` says so.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

__all__ = ["Faults"]

T = TypeVar("T")
FAIL, HANG, LATE, GARBLE = "fail", "hang", "late", "garble"


@dataclass(slots=True)
class _Order:
    """What the next calls of one method do; `left` calls of them, or all when None."""

    kind: str
    detail: object
    left: int | None


@dataclass(slots=True)
class _Waiting:
    """A call at the door, and the thread that it holds."""

    op: str
    late: bool
    thread: threading.Thread
    free: bool = False
    on_free: Callable[[], object] = lambda: None

    def let_go(self) -> None:
        """Once and for all."""
        if not self.free:
            self.free = True
            self.on_free()


class Faults:
    """The switchboard behind a collaborator with methods `ops`. `calls` counts every call by method, as it begins.

    A subclass has its methods call `_perform`. Every word may be spoken from any thread.
    """

    def __init__(self, *ops: str) -> None:
        self.calls: Counter[str] = Counter()
        self._ops = ops
        self._changed = threading.Condition()
        self._doors: dict[str, _Order] = {}
        self._orders: dict[str, _Order] = {}
        self._waiting: list[_Waiting] = []

    def hang(self, *, op: str | None = None, times: int | None = None) -> None:
        """Wait until `release`."""
        self._set(self._doors, _Order(HANG, None, times), op)

    def late(self, *, op: str | None = None, times: int | None = None) -> None:
        """Wait until the next call of any method begins, or until `release`."""
        self._set(self._doors, _Order(LATE, None, times), op)

    def fail(self, error: BaseException | None = None, *, op: str | None = None, times: int | None = None) -> None:
        """Raise `error`, or an OSError that says so."""
        self._set(self._orders, _Order(FAIL, error or OSError("the collaborator was told to fail"), times), op)

    def garble(self, answer: object = None, *, op: str | None = None, times: int | None = None) -> None:
        """Return `answer` in place of an answer."""
        self._set(self._orders, _Order(GARBLE, answer, times), op)

    def heal(self, op: str | None = None) -> None:
        """Answer again."""
        with self._changed:
            for name in self._named(op):
                self._doors.pop(name, None)
                self._orders.pop(name, None)

    def release(self, op: str | None = None) -> None:
        """Open the door: every call that waits goes on, and later ones do not wait."""
        with self._changed:
            for name in self._named(op):
                self._doors.pop(name, None)
            for call in self._waiting:
                if op in (None, call.op):
                    call.let_go()
            self._changed.notify_all()

    def release_one(self) -> threading.Thread | None:
        """Let the call go that has waited longest, and return its thread; None where none waits."""
        with self._changed:
            for call in self._waiting:
                if not call.free:
                    call.let_go()
                    self._changed.notify_all()
                    return call.thread
        return None

    def is_stuck(self, op: str | None = None) -> bool:
        """Whether the next call would wait."""
        with self._changed:
            return any(name in self._doors for name in self._named(op))

    @property
    def waiting(self) -> tuple[threading.Thread, ...]:
        """The threads whose calls wait now, the longest wait first."""
        with self._changed:
            return tuple(call.thread for call in self._waiting if not call.free)

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

    def _set(self, orders: dict[str, _Order], order: _Order, op: str | None) -> None:
        with self._changed:
            for name in self._named(op):
                orders[name] = _Order(order.kind, order.detail, order.left)

    def _perform(self, op: str, honest: Callable[[], T]) -> T:
        """One call of `op`, on a thread of its own or its caller's: what it was told to do, else `honest()`."""
        with self._changed:
            call = self._arrive(op)
            try:
                self._changed.wait_for(lambda: call.free)
            finally:
                self._waiting.remove(call)
            order = _taken(self._orders, op)
        return self._obey(order, honest)

    async def _perform_async(self, op: str, honest: Callable[[], T], *, stubborn: bool = False) -> T:
        """The same on an event loop; a call that waits ends when it is cancelled, unless it is `stubborn`."""
        loop = asyncio.get_running_loop()
        door = asyncio.Event()
        with self._changed:
            call = self._arrive(op, lambda: _tell(loop, door))
        try:
            while not call.free:
                try:
                    await door.wait()
                except asyncio.CancelledError:
                    if not stubborn:
                        raise
        finally:
            with self._changed:
                self._waiting.remove(call)
        with self._changed:
            order = _taken(self._orders, op)
        return self._obey(order, honest)

    def _arrive(self, op: str, on_free: Callable[[], object] = lambda: None) -> _Waiting:
        """A call begins, and lets late ones go. It is free where there is no door; the lock is held."""
        self.calls[op] += 1
        for other in self._waiting:
            if other.late:
                other.let_go()
        door = _taken(self._doors, op)
        late = door is not None and door.kind == LATE
        call = _Waiting(op, late, threading.current_thread(), free=door is None, on_free=on_free)
        self._waiting.append(call)
        self._changed.notify_all()
        return call

    def _obey(self, order: _Order | None, honest: Callable[[], T]) -> T:
        if order is not None and order.kind == FAIL:
            assert isinstance(order.detail, BaseException)  # noqa: S101  `fail` put it there
            raise order.detail
        if order is not None:
            return cast(T, order.detail)  # it is none: that is the point
        return honest()


def _tell(loop: asyncio.AbstractEventLoop, door: asyncio.Event) -> None:
    """Open a door on its own loop; one that has ended has nobody at it."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(door.set)


def _taken(orders: dict[str, _Order], op: str) -> _Order | None:
    order = orders.get(op)
    if order is not None and order.left is not None:
        order.left -= 1
        if order.left <= 0:
            del orders[op]
    return order
