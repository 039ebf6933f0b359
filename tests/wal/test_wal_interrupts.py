"""An interrupt at any line of `append`, `submit` and `stage`: the batch is queued whole, or nothing happened."""

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import wal
from wal.testing import MemoryDisk

WATCHED = ("handover.py", "room.py", "entries.py", "batch.py", "frames.py", "tree.py")


class _Interrupter:
    """Raises KeyboardInterrupt at the n-th line that runs in the watched files on this thread.

    Leaving a `with` block counts as a line of its own for a tracer, but no signal is ever taken there: the interpreter
    looks for one after a call, at a jump backwards and where a function begins, and then the block is still entered.
    """

    def __init__(self, nth: int) -> None:
        self.left = nth
        self._entered: set[tuple[int, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if Path(path).name not in WATCHED:
            return None
        if event == "call":
            self._entered = {(of, line) for of, line in self._entered if of != id(frame)}
        if event == "line" and not self._leaves_a_with_block(frame, path):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def _leaves_a_with_block(self, frame: FrameType, path: str) -> bool:
        place = id(frame), frame.f_lineno
        left = place in self._entered
        if linecache.getline(path, frame.f_lineno).lstrip().startswith("with "):
            self._entered ^= {place}
        return left


OPERATIONS: dict[str, Callable[[wal.Log], object]] = {
    "append": lambda log: log.append([(2, b"second")]),
    "append in time": lambda log: log.append([(2, b"second")], timeout_s=60),
    "submit": lambda log: log.submit([(2, b"second")]),
    "submit and wait": lambda log: log.submit([(2, b"second")]).result(),
    "stage": lambda log: log.stage(2, b"second"),
    "stage and wait": lambda log: log.stage(2, b"second").wait(),
}


@pytest.mark.parametrize("op", OPERATIONS)
def test_an_interrupt_at_any_line_leaves_no_gap_and_no_double(op: str) -> None:
    nth, finished = 0, False
    while not finished:
        nth += 1
        disk = MemoryDisk()
        log = wal.Log.open("log", disk=disk, segment_bytes=2**16)
        log.append([(1, b"first")])
        expected = log.next_lsn
        tracer = sys.gettrace()  # a measurement of coverage, if any
        sys.settrace(_Interrupter(nth))
        try:
            OPERATIONS[op](log)
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracer)
        taken = log.next_lsn - expected
        assert taken in (0, 1), f"line {nth}"
        log.append([(3, b"third")])
        found = [entry.payload for entry in log.read()]
        assert found == [b"first", *([b"second"] if taken else []), b"third"], f"line {nth}"
        log.close()
        assert wal.verify("log", disk=disk).status == "intact"
    assert nth > 25, "the interrupter never came near"
