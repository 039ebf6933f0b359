"""Everything the log can refuse, grouped by the moment at which it is raised.

Each message says what was attempted, where, and what to do next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wal.entries import Pending
    from wal.flips import Flip


class LogError(Exception):
    """The base of every error the log raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        """Come back from another process as it was: left to itself it would be made anew, of its message alone."""
        return _made_again, (type(self), self.args, self.__dict__.copy())


def _made_again(kind: type[LogError], said: tuple[object, ...], known: dict[str, object]) -> LogError:
    error = kind.__new__(kind, *said)
    error.__dict__.update(known)
    return error


# Raised when a log is opened, read or verified.


class LogCorrupt(LogError):
    """Acknowledged data is damaged or missing; nothing was changed, and the message names the place.

    `segment` is the segment number, `offset_bytes` the place in its file. `lsn` is the first record that is lost to
    the damage, and `last_lsn` the last: `lsn - 1` when the damaged frames held none. Each is None when it is not known.
    `flipped` is the one bit whose flip explains the damage, None when no single one does or none was looked for.
    `path` is the log's directory, which a note beside the message names as well; None until that is known.
    """

    def __init__(
        self, problem: str, *, segment: int, offset_bytes: int, lsn: int | None = None, last_lsn: int | None = None,
        flipped: "Flip | None" = None,
    ) -> None:  # fmt: skip
        if flipped is not None:
            problem = f"{problem} (bit {flipped.bit} of the byte at offset {flipped.offset_bytes} is flipped)"
        super().__init__(
            f"segment {segment}, offset {offset_bytes}{_lost(lsn, last_lsn)}: {problem}. Nothing was changed; copy the"
            " directory, run `python -m wal verify` on the copy, and restore this segment from a backup."
        )
        self.problem = problem
        self.segment = segment
        self.offset_bytes = offset_bytes
        self.lsn = lsn
        self.last_lsn = last_lsn
        self.flipped = flipped
        self.path: Path | None = None


def named(damage: LogCorrupt, path: Path) -> LogCorrupt:
    """Say of damage which log it is in; who said so first has the word."""
    if damage.path is None:
        damage.path = path
        damage.add_note(f"The log is {path}.")
    return damage


@contextmanager
def of_log(path: Path) -> Iterator[None]:
    """Say of damage that is raised inside which log it is in."""
    try:
        yield
    except LogCorrupt as error:
        named(error, path)
        raise


def _lost(lsn: int | None, last_lsn: int | None) -> str:
    if lsn is None:
        return ""
    if last_lsn is None:
        return f", from LSN {lsn}"
    if last_lsn < lsn:
        return f", before LSN {lsn}"
    return f", LSN {lsn}" if last_lsn == lsn else f", LSN {lsn}..{last_lsn}"


class LogTampered(LogCorrupt):
    """Every checksum is right and the hashes are not, or the log contradicts a head: this was no accident."""


class Trimmed(LogError):
    """The records asked for were pruned; `first_lsn` is the first that is left. Read on from `after=first_lsn - 1`."""

    def __init__(self, wanted_lsn: int, first_lsn: int) -> None:
        super().__init__(
            f"LSN {wanted_lsn} was pruned: the log now begins at {first_lsn}. Read with after={first_lsn - 1}, or"
            " look for the older records in an archive."
        )
        self.wanted_lsn = wanted_lsn
        self.first_lsn = first_lsn


class UnsupportedFormat(LogError):
    """The log was written by a format version, or with flags, that this code does not know; nothing was guessed."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(
            f"{where}: {what} is not known here. Open the log with the release that wrote it, or a newer one."
        )


class LogLocked(LogError):
    """Another writer has the log open; `holder_pid` is its process id when it could be read (else None)."""

    def __init__(self, path: Path, holder_pid: int | None) -> None:
        holder = "another writer" if holder_pid is None else f"process {holder_pid}"
        super().__init__(f"cannot open {path} for writing: {holder} holds it. Stop that writer, or use wal.read.")
        self.path = path
        self.holder_pid = holder_pid


# Raised when records are handed in. Nothing was written and no LSN was used.


class RecordTooLarge(LogError):
    """One payload is longer than the log's `max_record_bytes`; nothing was written."""

    def __init__(self, length_bytes: int, max_bytes: int) -> None:
        super().__init__(f"cannot append a record of {length_bytes} bytes: at most {max_bytes} are allowed. Split it.")


class BatchTooLarge(LogError):
    """The batch is longer than the log's `max_batch_bytes`; nothing was written."""

    def __init__(self, length_bytes: int, max_bytes: int) -> None:
        super().__init__(f"cannot append a batch of {length_bytes} bytes: at most {max_bytes} are allowed. Split it.")


class LogBusy(LogError):
    """The queue is full, or the next segment is still being allocated; nothing was written, try again later."""


class Late(LogError):
    """The time given to `append` passed. The batch was queued and keeps its place: it may be durable any moment.

    `pending` goes on waiting for it; `first_lsn` and `last_lsn` are its numbers. Do not append it again.
    """

    def __init__(self, pending: "Pending", timeout_s: float) -> None:
        super().__init__(
            f"LSN {pending.first_lsn}..{pending.last_lsn} is not known durable after {timeout_s} s; the batch keeps its"
            " place. Wait for `pending`, or close the log; do not append it again."
        )
        self.pending = pending
        self.first_lsn = pending.first_lsn
        self.last_lsn = pending.last_lsn


class LogFull(LogError):
    """The disk has no room for the next segment; nothing was written, and the log stays open and usable."""


class LogClosed(LogError):
    """The log was closed, or belongs to the parent of this forked process; open it again."""


# Raised when the disk failed. Reopening is the only way back.


class LogFailed(LogError):
    """An I/O operation failed, and the writer takes nothing more: close the log and open it again."""


class TakenOver(LogFailed):
    """Another writer opened the log and began to write in a new file: this one was cut off, and its lock was lost.

    That takes a lock that does not hold: a LOCK file that was removed, a network file system that gave the lock away,
    or a process that was stopped and resumed on a copy of its machine. Nothing more is acknowledged here.
    """


class OutcomeUnknown(LogError):
    """The writer failed before it could say whether this batch is durable; reopen the log and look for its LSN."""

    def __init__(self, first_lsn: int, last_lsn: int, cause: str) -> None:
        super().__init__(
            f"whether LSN {first_lsn}..{last_lsn} is durable is unknown: {cause.rstrip('.')}. Close the log, open it "
            "again, and read from there."
        )
        self.first_lsn = first_lsn
        self.last_lsn = last_lsn


# Raised when a log is copied.


class CopyFailed(LogError):
    """The copy could not be made. The source is as it was; what is left of the copy is refused by every reader."""

    def __init__(self, source: Path, target: Path, why: str) -> None:
        super().__init__(f"cannot copy the log at {source} to {target}: {why}")
        self.source = source
        self.target = target
