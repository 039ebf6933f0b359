"""An interrupt at any line of `append`, `submit` and `stage`: the batch is queued whole, or nothing happened."""

import contextlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from interrupt_rig import run

import wal
from wal.testing import MemoryDisk

WATCHED = ("handover.py", "room.py", "entries.py", "batch.py", "frames.py", "tree.py")


@cache
def watched(path: str) -> bool:
    return Path(path).name in WATCHED


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
        with contextlib.suppress(KeyboardInterrupt):
            run(lambda log=log: OPERATIONS[op](log), nth, watched)
            finished = True
        taken = log.next_lsn - expected
        assert taken in (0, 1), f"line {nth}"
        log.append([(3, b"third")])
        found = [entry.payload for entry in log.read()]
        assert found == [b"first", *([b"second"] if taken else []), b"third"], f"line {nth}"
        log.close()
        assert wal.verify("log", disk=disk).status == "intact"
    assert nth > 25, "the interrupter never came near"
