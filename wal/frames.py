"""Frames: one batch each, whole or absent. The bytes, and nothing of files.

Rule 1: every byte of a frame, padding included, is under its CRC32C, and zero is never a frame.
Rule 2: chain and tree commit to digests of the records, never to frame bytes, so that a payload can be
redacted to its digest without breaking any proof.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import google_crc32c

from wal.entries import Entry, Redacted
from wal.errors import UnsupportedFormat
from wal.segment import SECTOR_BYTES, VERSION
from wal.tree import HASH_BYTES, LEAF, frontier_length

MAGIC = b"\xf3WAL"
DATA, STAGED, OPEN, HEARTBEAT, CLOSE, SEAL = range(1, 7)
TYPE_NAMES = {DATA: "data", STAGED: "staged", OPEN: "open", HEARTBEAT: "heartbeat", CLOSE: "close", SEAL: "seal"}
RECORD_TYPES = frozenset({DATA, STAGED})

_FIELDS = struct.Struct("<4sBBHII16sQQQQQQ32sI")
_HEAD = struct.Struct(_FIELDS.format + "I")
_CRC = struct.Struct("<I")
_TAIL = struct.Struct("<32sI")
_RECORD = struct.Struct("<HHI16s")
_UNSALTED = struct.Struct("<HHI")
_LINK = struct.Struct("<B32sQI32s")
_PROMISE = struct.Struct("<QQ")
_PROMISE_AT = struct.calcsize("<4sBBHII16sQQQQ")
_PROMISE_END = _PROMISE_AT + _PROMISE.size
HEAD_BYTES = _HEAD.size
RECORD_HEAD_BYTES = _RECORD.size
SALT_BYTES = 16
CONTROL_BYTES = SECTOR_BYTES
REDACTED = 1  # a record's flag: of its payload only H(salt, payload) is left, and no salt
_NO_SALT = bytes(SALT_BYTES)

# Reading makes one Frame, and several entries, for every few hundred bytes. A named tuple's own constructor is
# Python code that costs more than a checksum; `tuple.__new__` makes the same object for a third of the time.
_tuple = tuple.__new__
_crc32c = google_crc32c.value
_sha256 = hashlib.sha256
_pack_link = _LINK.pack
_pack_leaf = LEAF.pack
_unpack_unsalted = _UNSALTED.unpack_from
_pack_crc = _CRC.pack
_pack_promise = _PROMISE.pack
_pack_fields = _FIELDS.pack
_TAIL_BYTES = _TAIL.size

Fields = tuple[bytes, int, int, int, int, int, bytes, int, int, int, int, int, int, bytes, int, int]


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
        leaves.append((kind, _sha256(salt + payload).digest()))
    return b"".join(parts), leaves


def stub(kind: int, inner: bytes) -> bytes:
    """Return the record that stands for one whose payload was redacted; it hashes to the same leaf."""
    return _RECORD.pack(kind, REDACTED, HASH_BYTES, _NO_SALT) + inner


def link(prev: bytes, first_lsn: int, leaves: Sequence[bytes]) -> bytes:
    """Return the chain after a batch, from its records' leaf hashes."""
    root = _sha256(b"\x02" + b"".join(leaves)).digest()
    return _sha256(_pack_link(3, prev, first_lsn, len(leaves), root)).digest()


def seal_bytes(size: int) -> int:
    """Return how long the seal is that a segment would get after `size` records of the log."""
    return frame_bytes(HASH_BYTES * frontier_length(size))


def frontier(buffer: bytes, at: int, seal: Frame) -> list[bytes] | None:
    """Return the tree's frontier that a checked seal carries, or None when it is not one of its size."""
    if seal.body_bytes != HASH_BYTES * frontier_length(seal.first_lsn - 1):
        return None
    at += HEAD_BYTES
    return [buffer[here : here + HASH_BYTES] for here in range(at, at + seal.body_bytes, HASH_BYTES)]


def encode(frame: Frame, body: bytes) -> bytes:
    """Return the frame's bytes, both checksums filled in."""
    (kind, length, count, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset, prev, _,
     chain) = frame  # fmt: skip
    return encode_fields(
        kind, length, count, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset, prev, body, chain
    )


def encode_fields(
    kind: int, length: int, count: int, log_id: bytes, segment: int, offset: int, epoch: int, first_lsn: int,
    durable_lsn: int, durable_offset: int, prev: bytes, body: bytes, chain: bytes,
) -> bytes:  # fmt: skip
    """Return the bytes of the frame with these fields, both checksums filled in; they are those of `Frame`."""
    body_bytes = len(body)
    head = _pack_fields(
        MAGIC, kind, 0, VERSION, length, count, log_id, segment, offset, epoch, first_lsn, durable_lsn,
        durable_offset, prev, body_bytes,
    )  # fmt: skip
    padding = bytes(length - HEAD_BYTES - body_bytes - _TAIL_BYTES)
    covered = b"".join((head, _pack_crc(_crc32c(head)), body, padding, chain))
    return covered + _pack_crc(_crc32c(covered))


def with_promise(frame: bytes, durable_lsn: int, durable_offset: int) -> bytes:
    """Return an encoded frame with another promise, and both checksums made right for it."""
    head = frame[:_PROMISE_AT] + _pack_promise(durable_lsn, durable_offset) + frame[_PROMISE_END : _FIELDS.size]
    covered = b"".join((head, _pack_crc(_crc32c(head)), frame[HEAD_BYTES : -_CRC.size]))
    return covered + _pack_crc(_crc32c(covered))


def read_head(buffer: bytes, at: int) -> Fields | None:
    """Return the fields of the frame header at `at`, the length among them, or None when no sound one stands there."""
    if len(buffer) < at + HEAD_BYTES:
        return None
    head: Fields = _HEAD.unpack_from(buffer, at)
    if head[0] != MAGIC or head[-1] != _crc32c(buffer[at : at + HEAD_BYTES - _CRC.size]):
        return None
    return head


def decode(buffer: bytes, at: int, head: Fields) -> Frame | None:
    """Return the frame at `at`, whose header was read, or None when its checksum is wrong.

    Raises UnsupportedFormat for a frame that is sound but of a version, type or flags unknown here.
    """
    (_, kind, flags, version, length, count, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset,
     prev, body_bytes, _) = head  # fmt: skip
    end = at + length
    if length < CONTROL_BYTES or length % SECTOR_BYTES or end > len(buffer):
        return None
    chain, crc = _TAIL.unpack_from(buffer, end - _TAIL.size)
    if crc != _crc32c(buffer[at : end - _CRC.size]):
        return None
    if version != VERSION or flags or kind not in TYPE_NAMES:
        raise UnsupportedFormat(
            f"frame type {kind} of format {version} with flags {flags:#x}", f"segment {segment}, offset {offset}"
        )
    return _tuple(Frame, (
        kind, length, count, log_id, segment, offset, epoch, first_lsn, durable_lsn, durable_offset, prev,
        body_bytes, chain,
    ))  # fmt: skip


def records(buffer: bytes, at: int, frame: Frame) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield the records of a checked frame: (kind, flags, salt, payload), the payload of a stub being its digest.

    Raises UnsupportedFormat for a record with flags unknown here.
    """
    unpack = _RECORD.unpack_from
    at += HEAD_BYTES
    for lsn in range(frame.first_lsn, frame.first_lsn + frame.records):
        kind, flags, length, salt = unpack(buffer, at)
        if flags & ~REDACTED:
            raise UnsupportedFormat(f"a record with flags {flags:#x}", f"segment {frame.segment}, LSN {lsn}")
        at += RECORD_HEAD_BYTES
        yield kind, flags, salt, buffer[at : at + length]
        at += length


def entries(buffer: bytes, at: int, frame: Frame) -> list[Entry]:
    """Return the entries of a checked frame. Raises as `records`."""
    found: list[Entry] = []
    unpack = _unpack_unsalted
    place = at + HEAD_BYTES
    for lsn in range(frame.first_lsn, frame.first_lsn + frame.records):
        kind, flags, length = unpack(buffer, place)
        if flags:
            return _with_stubs(buffer, at, frame)
        payload_at = place + RECORD_HEAD_BYTES
        place = payload_at + length
        found.append(_tuple(Entry, (lsn, kind, buffer[payload_at:place])))
    return found


def _with_stubs(buffer: bytes, at: int, frame: Frame) -> list[Entry]:
    return [
        Redacted(lsn, kind, b"") if flags else Entry(lsn, kind, payload)
        for lsn, (kind, flags, _, payload) in enumerate(records(buffer, at, frame), frame.first_lsn)
    ]


def stubs(buffer: bytes, at: int, frame: Frame) -> int:
    """Return how many records of a checked frame are redacted. Raises as `records`."""
    return sum([1 for _, flags, _, _ in records(buffer, at, frame) if flags])


def leaves_of(buffer: bytes, at: int, frame: Frame) -> list[bytes] | None:
    """Return the leaf hashes of a checked frame, or None when its chain does not follow from its records.

    A frame without records has none, and repeats the chain before it. This is where most of the time goes that it
    takes to verify a log, so it does in one loop what `leaf_hashes` and `link` do for a batch that is written.
    """
    kind, _, count, _, _, _, _, lsn, _, _, prev, body_bytes, chain = frame
    if kind not in RECORD_TYPES:
        return [] if count == 0 and chain == prev else None
    leaves: list[bytes] = []
    place = at + HEAD_BYTES
    end = place + body_bytes
    for number in range(lsn, lsn + count):
        payload_at = place + RECORD_HEAD_BYTES
        if payload_at > end:
            return None
        kind, flags, length = _unpack_unsalted(buffer, place)
        place = payload_at + length
        if not flags & REDACTED:
            inner = _sha256(buffer[payload_at - SALT_BYTES : place]).digest()  # the salt stands before the payload
        elif length == HASH_BYTES:
            inner = buffer[payload_at:place]
        else:
            return None
        leaves.append(_sha256(_pack_leaf(0, number, kind, inner)).digest())
    return leaves if place == end and chain == link(prev, lsn, leaves) else None
