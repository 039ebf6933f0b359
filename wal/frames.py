"""Frames: one batch each, whole or absent. The bytes, and nothing of files.

Rule 1: every byte of a frame, padding included, is under its CRC32C, and zero is never a frame.
Rule 2: the chain commits to digests of the records, never to frame bytes, so that a payload can one
day be pruned to its digest without breaking any proof.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import google_crc32c

from wal.entries import Entry
from wal.errors import UnsupportedFormat
from wal.segment import SECTOR_BYTES, VERSION

MAGIC = b"\xf3WAL"
DATA, STAGED, OPEN, HEARTBEAT, CLOSE, SEAL = range(1, 7)
TYPE_NAMES = {DATA: "data", STAGED: "staged", OPEN: "open", HEARTBEAT: "heartbeat", CLOSE: "close", SEAL: "seal"}
RECORD_TYPES = frozenset({DATA, STAGED})

_HEAD = struct.Struct("<4sBBHII16sQQQQQQ32sI")
_CRC = struct.Struct("<I")
_TAIL = struct.Struct("<32sI")
_RECORD = struct.Struct("<HHI16s")
_LEAF = struct.Struct("<BQH32s")
_LINK = struct.Struct("<B32sQI32s")
HEAD_BYTES = _HEAD.size + _CRC.size
RECORD_HEAD_BYTES = _RECORD.size
SALT_BYTES = 16
CONTROL_BYTES = SECTOR_BYTES


class Frame(NamedTuple):
    """A frame's header. Lengths and offsets in bytes; `chain` is the chain after it, None until it is read."""

    type: int
    length: int
    records: int
    log_id: bytes
    segment: int
    offset: int
    epoch: int
    first_lsn: int
    durable_lsn: int
    durable_offset: int
    prev: bytes
    body_bytes: int
    chain: bytes

    @property
    def end(self) -> int:
        """The offset after the frame."""
        return self.offset + self.length


def frame_bytes(body_bytes: int) -> int:
    """Return how long a frame with this body is: whole sectors, so that no acknowledged sector is ever rewritten."""
    raw = HEAD_BYTES + body_bytes + _TAIL.size
    return raw + -raw % SECTOR_BYTES


def body_room(length: int) -> int:
    """Return the longest body that fits in a frame of `length` bytes."""
    return length - HEAD_BYTES - _TAIL.size


def pack_records(records: Sequence[tuple[int, bytes]], salts: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return a batch's body, and each record's (kind, H(salt, payload)). `salts` has 16 bytes for each record."""
    parts: list[bytes] = []
    leaves: list[tuple[int, bytes]] = []
    at = 0
    for kind, payload in records:
        salt = salts[at : at + SALT_BYTES]
        at += SALT_BYTES
        parts += (_RECORD.pack(kind, 0, len(payload), salt), payload)
        leaves.append((kind, hashlib.sha256(salt + payload).digest()))
    return b"".join(parts), leaves


def link(prev: bytes, first_lsn: int, leaves: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the chain after a batch, from its records' (kind, H(salt, payload))."""
    digest = hashlib.sha256
    hashes = [digest(_LEAF.pack(0, lsn, kind, inner)).digest() for lsn, (kind, inner) in enumerate(leaves, first_lsn)]
    root = digest(b"\x02" + b"".join(hashes)).digest()
    return digest(_LINK.pack(3, prev, first_lsn, len(hashes), root)).digest()


def encode(frame: Frame, body: bytes) -> bytes:
    """Return the frame's bytes, both checksums filled in."""
    head = _HEAD.pack(
        MAGIC, frame.type, 0, VERSION, frame.length, frame.records, frame.log_id, frame.segment, frame.offset,
        frame.epoch, frame.first_lsn, frame.durable_lsn, frame.durable_offset, frame.prev, frame.body_bytes,
    )  # fmt: skip
    padding = bytes(frame.length - HEAD_BYTES - len(body) - _TAIL.size)
    covered = b"".join((head, _CRC.pack(google_crc32c.value(head)), body, padding, frame.chain))
    return covered + _CRC.pack(google_crc32c.value(covered))


def read_length(buffer: bytes, at: int) -> int | None:
    """Return the length of the frame at `at`, or None when no sound frame header stands there."""
    if not buffer.startswith(MAGIC, at) or len(buffer) < at + HEAD_BYTES:
        return None
    if _CRC.unpack_from(buffer, at + _HEAD.size)[0] != google_crc32c.value(buffer[at : at + _HEAD.size]):
        return None
    length: int = _HEAD.unpack_from(buffer, at)[4]
    return length


def decode(buffer: bytes, at: int, length: int) -> Frame | None:
    """Return the frame of `length` bytes at `at`, or None when its checksum is wrong.

    Raises UnsupportedFormat for a frame that is sound but of a version, type or flags unknown here.
    """
    end = at + length
    if length < CONTROL_BYTES or length % SECTOR_BYTES or end > len(buffer):
        return None
    chain, crc = _TAIL.unpack_from(buffer, end - _TAIL.size)
    if crc != google_crc32c.value(buffer[at : end - _CRC.size]):
        return None
    (_, kind, flags, version, _, count, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset,
     prev, body_bytes) = _HEAD.unpack_from(buffer, at)  # fmt: skip
    if version != VERSION or flags or kind not in TYPE_NAMES:
        raise UnsupportedFormat(
            f"frame type {kind} of format {version} with flags {flags:#x}", f"segment {segment}, offset {offset}"
        )
    return Frame(
        kind, length, count, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset, prev,
        body_bytes, chain,
    )  # fmt: skip


def entries(buffer: bytes, at: int, frame: Frame) -> list[Entry]:
    """Return the records of a checked frame."""
    found: list[Entry] = []
    unpack = _RECORD.unpack_from
    at += HEAD_BYTES
    for lsn in range(frame.first_lsn, frame.first_lsn + frame.records):
        kind, flags, length, _ = unpack(buffer, at)
        if flags:
            raise UnsupportedFormat(f"a record with flags {flags:#x}", f"segment {frame.segment}, LSN {lsn}")
        at += RECORD_HEAD_BYTES
        found.append(Entry(lsn, kind, buffer[at : at + length]))
        at += length
    return found


def digests(buffer: bytes, at: int, frame: Frame) -> list[tuple[int, bytes]] | None:
    """Return each record's (kind, H(salt, payload)), or None when the records do not fill the body exactly."""
    found: list[tuple[int, bytes]] = []
    at += HEAD_BYTES
    end = at + frame.body_bytes
    for _ in range(frame.records):
        if at + RECORD_HEAD_BYTES > end:
            return None
        kind, _, length, salt = _RECORD.unpack_from(buffer, at)
        at += RECORD_HEAD_BYTES
        found.append((kind, hashlib.sha256(salt + buffer[at : at + length]).digest()))
        at += length
    return found if at == end else None


def chain_holds(buffer: bytes, at: int, frame: Frame) -> bool:
    """Whether the chain stored in a checked frame follows from its records. Frames without records repeat `prev`."""
    if frame.type not in RECORD_TYPES:
        return frame.records == 0 and frame.chain == frame.prev
    leaves = digests(buffer, at, frame)
    return leaves is not None and frame.chain == link(frame.prev, frame.first_lsn, leaves)
