"""A durable write-ahead log of byte records. It knows bytes, and nothing of what they mean.

A log is a directory. Its life, from the writer's side and from everybody else's:

    with wal.Log.open("var/log") as log:            # recovers, takes the lock
        commit = log.append([(1, b"a"), (2, b"b")])  # one batch, whole or absent; returns once it is durable
        pending = log.submit([(1, b"c")])            # the same without waiting: LSNs fixed, pending.result()
        staged = log.stage(3, b"d")                  # written at once, durable with the batch that follows
        head = log.head()                            # a line of text to keep elsewhere
        log.redact(lambda entry: entry.kind == 1)    # payloads go from finished segments, proofs stay
        log.prune(before_lsn=1_000_000)              # whole segments go, oldest first

    for lsn, kind, payload in wal.read("var/log"):   # takes no lock; a writer may be at work
        ...
    wal.verify("var/log", head).status               # "intact", "truncated", "tampered"...; changes nothing
    wal.prove_inclusion("var/log", lsn=7).holds(head)
    wal.segments("var/log")                          # which file holds which records
    wal.copy("var/log", "backup/log")                # also beside a writer; a copy always opens clean
    wal.scrub("var/log", first_segment=3)            # finished segments again, on a budget
    wal.salvage("damaged/log").report                # what is sound, and exactly which LSNs are lost

From a shell: `python -m wal verify | dump | tail | head | proof | salvage | scrub | copy | bench`, `docs/log-tools.md`.

**A torn tail is repaired, anything else is refused, and both are reported.** Opening sets aside only the
last write, and only when nothing in the log proves it acknowledged: `wal.recovery.RECOVERY_CASES`.

The directory (`docs/log-format.md` has every field, and why):

    00000001-00000000000000000001.wal    a segment: its number, and the LSN of its first record
    00000002-00000000000000000057.wal
    BASE                                 which segment is the first since the last prune
    LOCK                                 flock'ed by the one writer, and names its process
    spare.tmp, repair.tmp, redact.tmp    files under construction; nothing in them counts before a rename
    quarantine-00000002-4096-1.bin       bytes that recovery cut from segment 2 at offset 4096

A segment has its whole length from the start, zeros where nothing is written yet. Integers are little-endian.

    segment = header sector | frame | frame | ... | zeros
    header  = 512 bytes: magic, version 2, flags, log id, segment, epoch, first LSN, limits, where its
              predecessor ended (segment, LSN, offset, chain, root, count), zeros, CRC32C
    frame   = whole sectors of 512 bytes, so that no acknowledged sector is ever written again:
              head 116 | CRC32C of the head 4 | records | zeros | chain 32 | CRC32C of all before it 4
    head    = magic F3 57 41 4C, type, flags 0, version 2, length, count, log id 16, segment, offset, epoch,
              first LSN, durable LSN, durable offset, chain before, length of the records
    record  = kind 2 | flags 2 | length 4 | salt 16 | payload

    types: 1 data (a batch), 2 staged (one record), 3 open (a writer's epoch begins), 4 heartbeat,
           5 close, 6 seal (the segment is finished; its body is the frontier of the tree over all
           records). Only data and staged frames have records and LSNs.

Each frame says how far the log was durable when it was built, and one sync group at most is outstanding: so
a later frame proves every earlier group, and in doubt is never more than the last. A SHA-256 chain over the
batches and an RFC 6962 tree over the records commit to digests of payloads, so that redaction breaks neither.
"""

from wal.copy import Copied, copy
from wal.disk import Disk, OsDisk
from wal.entries import Commit, Entry, Pending, Redacted, Staged
from wal.errors import (
    BatchTooLarge,
    CopyFailed,
    Late,
    LogBusy,
    LogClosed,
    LogCorrupt,
    LogError,
    LogFailed,
    LogFull,
    LogLocked,
    LogTampered,
    OutcomeUnknown,
    RecordTooLarge,
    TakenOver,
    Trimmed,
    UnsupportedFormat,
)
from wal.flips import Flip
from wal.head import Head, head
from wal.listing import SegmentInfo, segments
from wal.log import Log
from wal.proofs import Consistency, Inclusion, prove_consistency, prove_inclusion
from wal.prune import Pruned, prune
from wal.reader import Reader, read
from wal.redact import Redaction
from wal.repair import Recovery
from wal.runs import Damage
from wal.salvage import Loss, Salvage, SalvageReport, salvage
from wal.scrub import Scrubbed, scrub
from wal.verify import Verdict, verify

__all__ = [
    "BatchTooLarge",
    "Commit",
    "Consistency",
    "Copied",
    "CopyFailed",
    "Damage",
    "Disk",
    "Entry",
    "Flip",
    "Head",
    "Inclusion",
    "Late",
    "Log",
    "LogBusy",
    "LogClosed",
    "LogCorrupt",
    "LogError",
    "LogFailed",
    "LogFull",
    "LogLocked",
    "LogTampered",
    "Loss",
    "OsDisk",
    "OutcomeUnknown",
    "Pending",
    "Pruned",
    "Reader",
    "RecordTooLarge",
    "Recovery",
    "Redacted",
    "Redaction",
    "Salvage",
    "SalvageReport",
    "Scrubbed",
    "SegmentInfo",
    "Staged",
    "TakenOver",
    "Trimmed",
    "UnsupportedFormat",
    "Verdict",
    "copy",
    "head",
    "prove_consistency",
    "prove_inclusion",
    "prune",
    "read",
    "salvage",
    "scrub",
    "segments",
    "verify",
]
