"""Disks that fail, hang, fill up and lose power: for the tests of the log, and of whoever embeds it.

`MemoryDisk` is a file system in memory: it loses power, kills its user, and fails a sync as ext4, XFS or Btrfs do.
Recorded, it tells what was done to it, and `crash_states` yields every disk that power loss could have left.
`FaultDisk` wraps any disk and fails, hangs, shortens or refuses what it is told to. docs/log-testing.md shows both.
"""

from wal.testing.crash import ANY, JOURNAL, CrashState, crash_states
from wal.testing.faults import FaultDisk, every_fault
from wal.testing.memory import MemoryDisk
from wal.testing.syncs import BTRFS, EXT4_DATA, EXT4_ORDERED, SYNC_MODELS, XFS, SyncModel
from wal.testing.system import Operation, Trace

__all__ = [
    "ANY",
    "BTRFS",
    "EXT4_DATA",
    "EXT4_ORDERED",
    "JOURNAL",
    "SYNC_MODELS",
    "XFS",
    "CrashState",
    "FaultDisk",
    "MemoryDisk",
    "Operation",
    "SyncModel",
    "Trace",
    "crash_states",
    "every_fault",
]
