"""What the disk under a directory can do, measured before a service promises anything on it."""

import os
import statistics
import tempfile
import time
from pathlib import Path

__all__ = ["sync_ms"]

ROUNDS = 5
BLOCK = b"\0" * 4_096


def sync_ms(directory: Path) -> float:
    """The median time of a 4 KiB write and its `fdatasync` into space that is there already, in milliseconds.

    Raises:
        OSError: the directory cannot be written.
    """
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, BLOCK * ROUNDS, 0)
        os.fsync(descriptor)
        return statistics.median(_timed_sync(descriptor, place * len(BLOCK)) for place in range(ROUNDS))


def _timed_sync(descriptor: int, offset_bytes: int) -> float:
    started_ns = time.perf_counter_ns()
    os.pwrite(descriptor, BLOCK, offset_bytes)
    os.fdatasync(descriptor)
    return (time.perf_counter_ns() - started_ns) / 1e6
