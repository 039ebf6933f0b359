"""An interrupt at any line of `submit` and `stage`: the batch is queued whole, or nothing happened."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import wal
from wal.testing import MemoryDisk

WATCHED = ("writer.py", "room.py", "entries.py")


class _Interrupter:
    """Raises KeyboardInterrupt at the n-th line that runs in the watched files on this thread."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if Path(frame.f_code.co_filename).name not in WATCHED:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("op", ["submit", "stage"])
def test_an_interrupt_at_any_line_leaves_no_gap_and_no_double(op: str) -> None:
    nth, finished = 0, False
    while not finished:
        nth += 1
        disk = MemoryDisk()
        log = wal.Log.open("log", disk=disk, segment_bytes=2**16)
        log.append([(1, b"first")])
        expected = log.next_lsn
        sys.settrace(_Interrupter(nth))
        try:
            log.submit([(2, b"second")]) if op == "submit" else log.stage(2, b"second")
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        taken = log.next_lsn - expected
        assert taken in (0, 1), f"line {nth}"
        log.append([(3, b"third")])
        found = [entry.payload for entry in log.read()]
        assert found == [b"first", *([b"second"] if taken else []), b"third"], f"line {nth}"
        log.close()
        assert wal.verify("log", disk=disk).status == "intact"
    assert nth > 10, "the interrupter never came near"
