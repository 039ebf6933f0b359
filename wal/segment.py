"""A segment file: its name, its header, and the limits it was written under."""

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from wal.errors import LogCorrupt, UnsupportedFormat
from wal.flips import flipped_bit

MAGIC = b"\x89WALSEG\n"
VERSION = 2
SECTOR_BYTES = 512
HEADER_BYTES = SECTOR_BYTES
LOCK_NAME = "LOCK"
BASE_NAME = "BASE"
SPARE_NAME = "spare.tmp"
REPAIR_NAME = "repair.tmp"
REDACT_NAME = "redact.tmp"
_REDACTED = 1  # a header's flag: the segment was written anew, shorter, with stubs for redacted payloads

_FIELDS = struct.Struct("<8sHHI16sQQQQQQQQQQ32s32sQQ")
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

    `first_lsn`, `chain`, `root` and `prev_end` tell where the predecessor must have ended: at LSN
    `first_lsn - 1` after `prev_records` records of its own, with that chain and that root of the tree over all
    records, its seal ending at offset `prev_end` (0 for the first segment). A redacted segment remembers in
    `sealed_end` where its own seal ended before, since that is what its successor knows; 0 for any other.
    """

    log_id: bytes
    segment: int
    epoch: int
    first_lsn: int
    limits: Limits
    prev_end: int
    prev_records: int
    chain: bytes
    root: bytes
    sealed_end: int = 0

    @property
    def redacted(self) -> bool:
        """Whether the segment was written anew by a redaction."""
        return self.sealed_end > 0

    def known_end(self, end: int) -> int:
        """Return what the successor must say of a seal that ends here at offset `end`."""
        return self.sealed_end or end


def genesis(log_id: bytes) -> bytes:
    """Return the chain value before the first record; it differs from log to log."""
    return hashlib.sha256(b"\x04" + log_id).digest()


def file_name(segment: int, first_lsn: int) -> str:
    """Return the segment's file name: 00000002-00000000000000000057.wal is segment 2, from LSN 57."""
    return f"{segment:08d}-{first_lsn:020d}.wal"


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (segment, first LSN), or None for a file that is not a segment."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


def number_of(place: Path) -> int:
    """Return the number that a segment file's name states; the name is one that parses."""
    return int(place.name[:8])


def first_lsn_of(place: Path) -> int:
    """Return the first LSN that a segment file's name states; the name is one that parses."""
    return int(place.name[9:29])


def encode_header(header: Header) -> bytes:
    """Return the header's sector."""
    limits = header.limits
    fields = _FIELDS.pack(
        MAGIC, VERSION, _REDACTED if header.redacted else 0, HEADER_BYTES, header.log_id, header.segment, header.epoch,
        header.first_lsn, limits.segment_bytes, limits.max_record_bytes, limits.max_batch_bytes, limits.in_doubt_bytes,
        header.segment - 1, header.first_lsn - 1, header.prev_end, header.chain, header.root, header.prev_records,
        header.sealed_end,
    )  # fmt: skip
    body = fields.ljust(_CRC_AT, b"\0")
    return body + _CRC.pack(google_crc32c.value(body))


def decode_header(sector: bytes, segment: int, path: Path) -> Header:
    """Return the header; raise LogCorrupt when it is damaged, UnsupportedFormat when it is from elsewhere."""
    if len(sector) < HEADER_BYTES:
        raise LogCorrupt("the file ends inside its header", segment=segment, offset_bytes=len(sector))
    if _CRC.unpack_from(sector, _CRC_AT)[0] != google_crc32c.value(sector[:_CRC_AT]):
        problem, flipped = "the segment header's checksum is wrong", flipped_bit(sector)
        raise LogCorrupt(problem, segment=segment, offset_bytes=0, flipped=flipped)
    fields = _FIELDS.unpack_from(sector)
    if (fields[0], fields[1], fields[2] & ~_REDACTED, fields[3]) != (MAGIC, VERSION, 0, HEADER_BYTES):
        raise UnsupportedFormat(f"segment format {fields[1]} with flags {fields[2]:#x}", str(path))
    header = Header(
        log_id=fields[4], segment=fields[5], epoch=fields[6], first_lsn=fields[7],
        limits=Limits(*fields[8:12]), prev_end=fields[14], chain=fields[15], root=fields[16], prev_records=fields[17],
        sealed_end=fields[18],
    )  # fmt: skip
    if fields[12:14] != (header.segment - 1, header.first_lsn - 1) or header.redacted != bool(fields[2] & _REDACTED):
        raise LogCorrupt("the segment header contradicts itself", segment=segment, offset_bytes=0)
    return header
