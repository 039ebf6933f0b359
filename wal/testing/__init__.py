"""Disks that fail, hang, fill up and lose power: for the tests of the log, and of whoever embeds it."""

from wal.testing.faults import FaultDisk
from wal.testing.memory import MemoryDisk

__all__ = ["FaultDisk", "MemoryDisk"]
