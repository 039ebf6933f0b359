"""Where a projection begins in a log that has lost records: the StateBase that says what they had come to.

What stands (`tamiyo.projections.standing`) is folded from every record. Where one of those is pruned, or redacted, it
is taken from the first base whose state is of that record or a later one, and folded on from there.
"""

from collections.abc import Sequence

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import read_base
from tamiyo.core.events import KINDS, MESSAGES, decode
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable
from tamiyo.projections.standing import FOLDS
from tamiyo.projections.tail import LogSource, Position, reader

__all__ = ["base_past", "lost_lsn"]

_BASE_KIND = KINDS[journal.StateBase]


def lost_lsn(position: Position, entries: Sequence[wal.Entry]) -> int:
    """The last record up to `entries` that what stands cannot be folded from; 0 where none is missing."""
    lost = entries[0].lsn - 1 if position.lsn == 0 else 0
    for entry in entries:
        if isinstance(entry, wal.Redacted) and entry.lsn > position.folded_lsn and MESSAGES.get(entry.kind) in FOLDS:
            lost = entry.lsn
    return lost if lost > position.folded_lsn else 0


def base_past(log: LogSource, lsn: int) -> State:
    """The state of the first readable base at or past an LSN.

    Raises:
        JournalUnreadable: the log holds none; a later one may be there once its writer has gone on.
        wal.LogError: the log is damaged, or was pruned meanwhile (Trimmed).
        OSError: it cannot be read.
    """
    problem = "it holds no StateBase that is as late"
    reading = reader(log, lsn)
    while entries := reading.poll():
        for entry in entries:
            if entry.kind != _BASE_KIND or isinstance(entry, wal.Redacted):
                continue
            event = decode(entry.kind, entry.payload)
            if isinstance(event, journal.StateBase) and event.at_lsn >= lsn:
                try:
                    return read_base(event)
                except JournalUnreadable as error:
                    problem = f"the base at LSN {entry.lsn} cannot be read: {error}"
    raise JournalUnreadable(
        f"records up to LSN {lsn} are pruned or redacted, and the log does not say what they had come to: {problem}. "
        "Open it with the version that pruned it, or put the pruned segments back from their archive"
    )
