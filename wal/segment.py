"""A segment file: its name, its header, and the limits it was written under."""

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from wal.errors import LogCorrupt, UnsupportedFormat

MAGIC = b"\x89WALSEG\n"
VERSION = 1
SECTOR_BYTES = 512
HEADER_BYTES = SECTOR_BYTES
LOCK_NAME = "LOCK"
SPARE_NAME = "spare.tmp"
REPAIR_NAME = "repair.tmp"

_FIELDS = struct.Struct("<8sHHI16sQQQQQQQQQQ32s")
_CRC = struct.Struct("<I")
_CRC_AT = HEADER_BYTES - _CRC.size
_NAME = re.compile(r"(\d{8})-(\d{20})\.wal")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a segment's writer may do, in bytes; stored in its header so that every reader allows as much."""

    segment_bytes: int
    max_record_bytes: int
    max_batch_bytes: int
    in_doubt_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """The first sector of a segment.

    `first_lsn`, `chain` and `prev_end` tell where the predecessor must have ended: at LSN
    `first_lsn - 1`, with that chain, its seal ending at offset `prev_end` (0 for the first segment).
    """

    log_id: bytes
    segment: int
    epoch: int
    first_lsn: int
    limits: Limits
    prev_end: int
    chain: bytes


def genesis(log_id: bytes) -> bytes:
    """Return the chain value before the first record; it differs from log to log."""
    return hashlib.sha256(b"\x01" + log_id).digest()


def file_name(segment: int, first_lsn: int) -> str:
    """Return the segment's file name: 00000002-00000000000000000057.wal is segment 2, from LSN 57."""
    return f"{segment:08d}-{first_lsn:020d}.wal"


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (segment, first LSN), or None for a file that is not a segment."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


def encode_header(header: Header) -> bytes:
    """Return the header's sector."""
    limits = header.limits
    fields = _FIELDS.pack(
        MAGIC, VERSION, 0, HEADER_BYTES, header.log_id, header.segment, header.epoch, header.first_lsn,
        limits.segment_bytes, limits.max_record_bytes, limits.max_batch_bytes, limits.in_doubt_bytes,
        header.segment - 1, header.first_lsn - 1, header.prev_end, header.chain,
    )  # fmt: skip
    body = fields.ljust(_CRC_AT, b"\0")
    return body + _CRC.pack(google_crc32c.value(body))


def decode_header(sector: bytes, segment: int, path: Path) -> Header:
    """Return the header; raise LogCorrupt when it is damaged, UnsupportedFormat when it is from elsewhere."""
    if len(sector) < HEADER_BYTES:
        raise LogCorrupt("the file ends inside its header", segment=segment, offset_bytes=len(sector))
    if _CRC.unpack_from(sector, _CRC_AT)[0] != google_crc32c.value(sector[:_CRC_AT]):
        raise LogCorrupt("the segment header's checksum is wrong", segment=segment, offset_bytes=0)
    fields = _FIELDS.unpack_from(sector)
    if fields[:4] != (MAGIC, VERSION, 0, HEADER_BYTES):
        raise UnsupportedFormat(f"segment format {fields[1]} with flags {fields[2]:#x}", str(path))
    header = Header(
        log_id=fields[4], segment=fields[5], epoch=fields[6], first_lsn=fields[7],
        limits=Limits(*fields[8:12]), prev_end=fields[14], chain=fields[15],
    )  # fmt: skip
    if fields[12:14] != (header.segment - 1, header.first_lsn - 1):
        raise LogCorrupt("the segment header contradicts itself", segment=segment, offset_bytes=0)
    return header
