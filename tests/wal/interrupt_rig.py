"""An exception at any line of the log's own code: what the tests of interrupts share."""

import linecache
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import wal

SOURCE = Path(wal.__file__).parent
Line = tuple[str, int]


class Interrupter:
    """Raises `error` at the `nth` line that runs in the watched files on this thread; `seen` are those by then.

    Leaving a `with` block, a bare `try:` and returning what has a name count as lines for a tracer, but no signal is
    ever taken there: the interpreter looks for one after a call, at a jump backwards and where a function begins.
    """

    def __init__(self, nth: int, watched: Callable[[str], bool], error: BaseException) -> None:
        self.left = nth
        self.seen: list[Line] = []
        self._watched = watched
        self._error = error
        self._entered: set[tuple[int, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not self._watched(path):
            return None
        if event == "call" and _begins(frame):
            self._entered = {(of, line) for of, line in self._entered if of != id(frame)}
        if event == "line" and not (self._leaves_a_with_block(frame, path) or is_safe(path, frame.f_lineno)):
            self.seen.append((path, frame.f_lineno))
            self.left -= 1
            if self.left == 0:
                raise self._error
        return self

    def _leaves_a_with_block(self, frame: FrameType, path: str) -> bool:
        place = id(frame), frame.f_lineno
        left = place in self._entered
        if _line(path, frame.f_lineno).startswith("with "):
            self._entered ^= {place}
        return left


def _begins(frame: FrameType) -> bool:
    """Whether this call enters a function, and does not go on with a generator: RESUME's argument says which."""
    return frame.f_code.co_code[frame.f_lasti + 1] & 3 == 0


@cache
def is_safe(path: str, number: int) -> bool:
    return re.fullmatch(r"try:|return \w+", _line(path, number)) is not None


@cache
def _line(path: str, number: int) -> str:
    return linecache.getline(path, number).strip()


@cache
def the_log_s(path: str) -> bool:
    """Whether a file is the log's own, and neither a tool nor a disk for tests."""
    return Path(path).parent == SOURCE


def run(
    action: Callable[[], object],
    nth: int,
    watched: Callable[[str], bool] = the_log_s,
    error: BaseException | None = None,
) -> Interrupter:
    """Run it until its `nth` line; `left` says whether it came that far. What it raises is the caller's to catch."""
    interrupter = Interrupter(nth, watched, KeyboardInterrupt() if error is None else error)
    tracer = sys.gettrace()  # a measurement of coverage, if any
    sys.settrace(interrupter)
    try:
        action()
    finally:
        sys.settrace(tracer)
    return interrupter


def every_line(action: Callable[[], object], *, last_time_too: bool = False) -> Iterator[int]:
    """Yield where to interrupt it: at each line of code that it runs, the first time, or the first and the last.

    It is run once, undisturbed, and must do the same every time.
    """
    seen = run(action, 0).seen
    first = {line: nth for nth, line in reversed(list(enumerate(seen, 1)))}
    last = {line: nth for nth, line in enumerate(seen, 1)} if last_time_too else {}
    yield from sorted({*first.values(), *last.values()})
