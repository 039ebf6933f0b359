"""Replay what is left of a log on disk, whatever was pruned or redacted before."""

from collections.abc import Callable
from pathlib import Path

import wal
from tamiyo.audit.bases import base_past
from tamiyo.audit.follower import Asked
from tamiyo.audit.replay import Replay, replay
from tamiyo.errors import RecordRedacted

__all__ = ["replayed"]


def replayed(path: Path, first_lsn: int, progress: Callable[[int], None] | None, asked: Asked | None = None) -> Replay:
    """Replay what can be: from the first record on, or from the first base past which nothing needed is missing.

    Raises:
        JournalUnreadable: no base is left to begin with, or a record cannot be read.
        wal.LogError: the log is damaged.
    """
    missing_lsn = first_lsn - 1
    while True:
        base = base_past(path, missing_lsn)[1] if missing_lsn else None
        if asked is not None:
            asked.begin(base)
        try:
            entries = wal.read(path, 0 if base is None else base.needs_lsn - 1)
            return replay(entries, progress, base=base, follower=asked)
        except RecordRedacted as redacted:
            missing_lsn = redacted.lsn
        except wal.Trimmed as trimmed:  # pruned since it was verified, or under our eyes
            missing_lsn = trimmed.first_lsn - 1
