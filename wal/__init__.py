"""A durable write-ahead log of byte records. It knows bytes, and nothing of what they mean."""

from wal.disk import Disk, OsDisk
from wal.entries import Commit, Entry, Pending, Staged
from wal.errors import (
    BatchTooLarge,
    LogBusy,
    LogClosed,
    LogCorrupt,
    LogError,
    LogFailed,
    LogFull,
    LogLocked,
    OutcomeUnknown,
    RecordTooLarge,
    UnsupportedFormat,
)
from wal.log import Log
from wal.reader import Reader, read
from wal.repair import Recovery
from wal.verify import Verdict, verify

__all__ = [
    "BatchTooLarge",
    "Commit",
    "Disk",
    "Entry",
    "Log",
    "LogBusy",
    "LogClosed",
    "LogCorrupt",
    "LogError",
    "LogFailed",
    "LogFull",
    "LogLocked",
    "OsDisk",
    "OutcomeUnknown",
    "Pending",
    "Reader",
    "RecordTooLarge",
    "Recovery",
    "Staged",
    "UnsupportedFormat",
    "Verdict",
    "read",
    "verify",
]
