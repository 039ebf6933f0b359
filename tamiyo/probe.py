"""What a service finds as it opens, before it promises anything: what the disk can do, what the clock says."""

import logging
import os
import statistics
import tempfile
import time
from pathlib import Path

__all__ = ["sync_ms", "warn_of_a_log_ahead", "warn_of_a_slow_disk", "words_of_a_log_ahead"]

logger = logging.getLogger(__name__)

ROUNDS = 5
BLOCK = b"\0" * 4_096
AHEAD_MAX_NS = 60 * 10**9
"""A log's time may run so far ahead of the wall clock before anybody is told: clocks are set by seconds every day."""


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


def warn_of_a_slow_disk(directory: Path, budget_ms: int) -> None:
    """Say so where a sync usually takes longer than a commit may."""
    try:
        measured_ms = sync_ms(directory)
    except OSError as error:
        logger.warning("how long a sync takes under %s cannot be measured: %s", directory, str(error))
        return
    if measured_ms > budget_ms:
        logger.warning(
            "a sync under %s takes %.1f ms and the budget of a commit is %d ms: steps whose commit is late get "
            "a PAUSE; use a faster disk or raise TAMIYO_COMMIT_TIMEOUT_MS",
            directory,
            measured_ms,
            budget_ms,
        )


def words_of_a_log_ahead(event_time_ns: int, wall_ns: int) -> str:
    """What to tell an operator where a log's time is more than a minute ahead of the wall clock; "" where it is not."""
    ahead_s = (event_time_ns - wall_ns) / 1e9
    if ahead_s * 1e9 <= AHEAD_MAX_NS:
        return ""
    return (
        f"the log's time is {ahead_s:,.0f} s ahead of this machine's clock: that stood ahead when the log was opened "
        "before, or it is behind now. No cool-down, retry or window waits for it; see 'A clock that was wrong' in "
        "docs/operations.md"
    )


def warn_of_a_log_ahead(event_time_ns: int, wall_ns: int) -> None:
    """Say so where the log's time is far ahead of the wall clock."""
    words = words_of_a_log_ahead(event_time_ns, wall_ns)
    if words:
        logger.warning("%s", words)
