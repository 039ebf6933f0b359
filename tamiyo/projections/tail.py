"""Reading on from where a projection stands, after making sure that it stands in this log.

A projection knows its log by the log's own id, and by the digest of the record at the applied LSN. With what the log
shows of both, there are these cases:

    log id     record at the applied LSN     verdict
    any        (applied is 0)                FOLLOW
    another    -                             FOREIGN
    the same   the same                      FOLLOW
    the same   another                       FOREIGN   the log was cut and written anew
    the same   pruned, or redacted           GONE      nothing says what came between: the rest is projected anew
    the same   not seen, all is visible      AHEAD     the log was cut, or restored from a backup
    the same   not seen, a writer is at work WAIT      its last batch shows up in a moment
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import wal
from wal.lock import is_locked
from wal.shelf import read_segment, segment_paths

__all__ = ["AHEAD", "FOLLOW", "FOREIGN", "GONE", "WAIT", "LogSource", "Position", "Tail", "record_digest", "verdict"]

LogSource = wal.Log | Path | str
"""The log itself, where it is open in this process, or its directory."""

FOLLOW, FOREIGN, GONE, AHEAD, WAIT = "follow", "foreign", "gone", "ahead", "wait"

_LOOKS = 8  # as many prunes may take the first segment away between its name and its header


class Position:
    """Where a projection stands; an LSN of 0 is before the first record. The others: `models.Applied`."""

    __slots__ = ("first_lsn", "folded_lsn", "log_id", "lsn", "record_digest")

    def __init__(
        self, lsn: int = 0, log_id: str = "", record_digest: str = "", folded_lsn: int = 0, first_lsn: int = 1
    ) -> None:
        self.lsn = lsn
        self.log_id = log_id
        self.record_digest = record_digest
        self.folded_lsn = folded_lsn
        self.first_lsn = first_lsn

    def after(self, entries: Sequence[wal.Entry], log_id: str, folded_lsn: int) -> "Position":
        """The position once `entries`, at least one, have been applied."""
        last = entries[-1]
        return Position(last.lsn, log_id, record_digest(last), max(folded_lsn, last.lsn), self.first_lsn)


def record_digest(entry: wal.Entry) -> str:
    """SHA-256, hex, of a record's kind and bytes."""
    return sha256(entry.kind.to_bytes(2, "big") + entry.payload).hexdigest()


def verdict(position: Position, log_id: str, here: wal.Entry | None, *, pruned: bool, all_visible: bool) -> str:
    """Whether the log continues what was projected, from its id and the record at the applied LSN."""
    if position.lsn == 0:
        return FOLLOW
    if log_id != position.log_id and (log_id or all_visible):
        return FOREIGN
    if pruned:
        return GONE
    if here is None:
        return AHEAD if all_visible else WAIT
    if record_digest(here) == position.record_digest:
        return FOLLOW
    return GONE if isinstance(here, wal.Redacted) else FOREIGN


class Tail:
    """The log past one position. Opened once and polled, so that following does not read a segment again."""

    def __init__(self, source: LogSource, position: Position) -> None:
        """Find the position in the log. Raises what `wal.Reader.poll` raises, but for Trimmed."""
        # Asked before reading: a writer that leaves meanwhile has made everything visible, one that comes has not.
        all_visible = isinstance(source, wal.Log) or not is_locked(wal.OsDisk(), Path(source))
        self.log_id = _log_id(source)
        here, pruned = _entry_at(source, position.lsn) if position.lsn else (None, False)
        self.verdict = verdict(position, self.log_id, here, pruned=pruned, all_visible=all_visible)
        self._source = source
        self._reader = reader(source, position.lsn or None)
        self._ahead: list[wal.Entry] = []  # read, and not handed over: a reader gives whole batches

    def follows(self, source: LogSource, position: Position) -> bool:
        """Whether polling goes on from `position` of the same log."""
        return self.verdict == FOLLOW and self._source == source and self._last_lsn == position.lsn

    @property
    def _last_lsn(self) -> int:
        return self._ahead[0].lsn - 1 if self._ahead else self._reader.last_lsn

    def poll(self, about: int, most: int | None = None) -> list[wal.Entry]:
        """The entries that follow: about so many, and never more than `most`. Raises what `wal.Reader.poll` raises.

        What a reader gives beyond that is kept for the next time: one that is set back, to stand where the rows stand,
        reads its segment again from the beginning.
        """
        found = self._ahead or self._reader.poll(about)
        self._ahead = [] if most is None else found[most:]
        return found[:most]


def reader(source: LogSource, after: int | None) -> wal.Reader:
    """A reader of the log past an LSN, or of all that is left."""
    return source.reader(after) if isinstance(source, wal.Log) else wal.Reader(source, after)


def first_lsn_of(source: LogSource) -> int:
    """The first record that the log still holds, 1 for one that is empty. Raises what `wal.Reader.poll` raises."""
    entries = reader(source, None).poll(1)
    return entries[0].lsn if entries else 1


def _entry_at(source: LogSource, lsn: int) -> tuple[wal.Entry | None, bool]:
    """The record at an LSN, and whether it was pruned."""
    try:
        entries = reader(source, lsn - 1).poll(1)
    except wal.Trimmed:
        return None, True
    return (entries[0] if entries else None), False


def _log_id(source: LogSource) -> str:
    """The id that a log got when it was begun, hex; "" for a directory that holds none."""
    if isinstance(source, wal.Log):
        return source.head().log_id.hex()
    disk, directory = wal.OsDisk(), Path(source)
    for _ in range(_LOOKS):
        paths = segment_paths(directory, disk)
        if not paths:
            return ""
        try:
            return read_segment(paths[-1], disk).header.log_id.hex()
        except FileNotFoundError:
            continue  # even the last one may have been renamed or pruned since it was listed
    return read_segment(segment_paths(directory, disk)[-1], disk).header.log_id.hex()
