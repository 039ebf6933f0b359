"""What a failed fdatasync leaves behind, by file system.

Source: Rebello, Patel, Alagappan, A. and R. Arpaci-Dusseau, "Can Applications Recover from fsync Failures?", USENIX
ATC 2020, section 3, and CuttleFS, their emulator. On all of them the pages that could not be written are marked
clean: a second fdatasync succeeds and writes nothing. They differ in what the page cache shows afterwards, in
which call hears of the failure, and in whether the file's new length reaches the medium.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncModel:
    """How one file system fails a sync.

    `late`: the failing call succeeds, and the next one on the file raises EIO and writes nothing. `reverts`: the
    page cache goes back to what is on the medium, and nothing of this sync reaches it; otherwise the cache
    keeps the new bytes, marked clean. `grows`: the file's new length reaches the medium although bytes did not.
    """

    name: str
    late: bool
    reverts: bool
    grows: bool


EXT4_ORDERED = SyncModel("ext4-ordered", late=False, reverts=False, grows=True)
"""ext4, data=ordered, the default: the call fails; reads give the new bytes until they leave the cache."""

EXT4_DATA = SyncModel("ext4-data", late=True, reverts=False, grows=True)
"""ext4, data=journal: the bytes reach the journal, so the call succeeds; their way from there fails later, and the
next sync hears of it. A sync that succeeded was a lie; no program can know before the next one."""

XFS = SyncModel("xfs", late=False, reverts=False, grows=False)
"""XFS: as ext4 ordered, but the length on the medium stays what it was until a later sync succeeds."""

BTRFS = SyncModel("btrfs", late=False, reverts=True, grows=False)
"""Btrfs: copy-on-write, so the file as a whole goes back to its state before, in the cache as on the medium."""

SYNC_MODELS = (EXT4_ORDERED, EXT4_DATA, XFS, BTRFS)
