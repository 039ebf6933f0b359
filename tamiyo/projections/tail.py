"""Reading on from where a projection stands, after making sure that it stands in this log.

A projection knows its log by two digests: that of the log's first record, and that of the record at the applied
LSN. With what the log shows of both, there are these cases:

    first record     record at the applied LSN     verdict
    (applied is 0)   -                             FOLLOW
    another          -                             FOREIGN
    the same         the same                      FOLLOW
    the same         another                       FOREIGN   the log was cut and written anew
    the same         not seen, all is visible      AHEAD     the log was cut, or restored from a backup
    the same         not seen, a writer is at work WAIT      its last batch shows up in a moment
    none seen        (as above)
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import wal
from wal.lock import is_locked

__all__ = ["AHEAD", "FOLLOW", "FOREIGN", "WAIT", "LogSource", "Position", "Tail", "record_digest", "verdict"]

LogSource = wal.Log | Path | str
"""The log itself, where it is open in this process, or its directory."""

FOLLOW, FOREIGN, AHEAD, WAIT = "follow", "foreign", "ahead", "wait"


class Position:
    """Where a projection stands; an LSN of 0 is before the first record."""

    __slots__ = ("log_id", "lsn", "record_digest")

    def __init__(self, lsn: int = 0, log_id: str = "", record_digest: str = "") -> None:
        self.lsn = lsn
        self.log_id = log_id
        self.record_digest = record_digest

    def after(self, entries: Sequence[wal.Entry]) -> "Position":
        """The position once `entries`, at least one, have been applied."""
        first, last = entries[0], entries[-1]
        log_id = self.log_id if first.lsn > 1 else record_digest(first)
        return Position(last.lsn, log_id, record_digest(last))


def record_digest(entry: wal.Entry) -> str:
    """SHA-256, hex, of a record's kind and bytes."""
    return sha256(entry.kind.to_bytes(2, "big") + entry.payload).hexdigest()


def verdict(position: Position, first: wal.Entry | None, here: wal.Entry | None, *, all_visible: bool) -> str:
    """Whether the log continues what was projected, from its first record and the one at the applied LSN."""
    if position.lsn == 0:
        return FOLLOW
    if first is not None and record_digest(first) != position.log_id:
        return FOREIGN
    if here is not None:
        return FOLLOW if record_digest(here) == position.record_digest else FOREIGN
    return AHEAD if all_visible else WAIT


class Tail:
    """The log past one position. Opened once and polled, so that following does not read a segment again."""

    def __init__(self, source: LogSource, position: Position) -> None:
        """Find the position in the log. Raises what `wal.Reader.poll` raises."""
        # Asked before reading: a writer that leaves meanwhile has made everything visible, one that comes has not.
        all_visible = isinstance(source, wal.Log) or not is_locked(wal.OsDisk(), Path(source))
        first = _entry_at(source, 1) if position.lsn else None
        here = _entry_at(source, position.lsn) if position.lsn > 1 else first
        self.verdict = verdict(position, first, here, all_visible=all_visible)
        self._source = source
        self._reader = _reader(source, position.lsn)

    def follows(self, source: LogSource, position: Position) -> bool:
        """Whether polling goes on from `position` of the same log."""
        return self.verdict == FOLLOW and self._source == source and self._reader.last_lsn == position.lsn

    def poll(self, limit: int) -> list[wal.Entry]:
        """The entries that follow, about `limit` at most. Raises what `wal.Reader.poll` raises."""
        return self._reader.poll(limit)


def _reader(source: LogSource, after: int) -> wal.Reader:
    return source.reader(after) if isinstance(source, wal.Log) else wal.Reader(source, after)


def _entry_at(source: LogSource, lsn: int) -> wal.Entry | None:
    entries = _reader(source, lsn - 1).poll(1)
    return entries[0] if entries else None
