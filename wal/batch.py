"""Turning what a caller hands in into what the writer writes, on the caller's own thread."""

from collections.abc import Callable, Sequence

from wal.entries import Appended, Pending, Staged
from wal.errors import BatchTooLarge, RecordTooLarge
from wal.frames import RECORD_HEAD_BYTES, SALT_BYTES, frame_bytes, pack_records
from wal.segment import Limits

KIND_MAX = 0xFFFF


class Batch:
    """A packed batch on its way to the file.

    `inners` are its records' (kind, H(salt, payload)); `segment`, `first_lsn` and `waiter` are set when it is
    queued. Lengths in bytes.
    """

    __slots__ = ("body", "emergency", "first_lsn", "inners", "length", "offset", "records", "segment", "waiter")

    segment: int
    offset: int
    first_lsn: int
    waiter: Appended | Pending | Staged

    def __init__(self, records: tuple[tuple[int, bytes], ...], salts: bytes) -> None:
        """Pack records that `pack` has checked."""
        self.records = records
        self.body, self.inners = pack_records(records, salts)
        self.emergency = False
        self.length = frame_bytes(len(self.body))


def pack(records: Sequence[tuple[int, bytes]], limits: Limits, entropy: Callable[[int], bytes]) -> Batch:
    """Check and pack a batch. Each record gets a random salt, so that its digest says nothing of its bytes.

    Raises RecordTooLarge, BatchTooLarge, ValueError (an empty batch, or a kind outside 0..65535) or TypeError.
    """
    kept: list[tuple[int, bytes]] = []
    total = 0
    for kind, payload in records:
        if not 0 <= kind <= KIND_MAX:
            raise ValueError(f"cannot append a record of kind {kind}: kinds are 0..{KIND_MAX}")
        if not isinstance(payload, bytes):
            raise TypeError(f"cannot append {type(payload).__name__}: a payload is bytes")
        if len(payload) > limits.max_record_bytes:
            raise RecordTooLarge(len(payload), limits.max_record_bytes)
        total += RECORD_HEAD_BYTES + len(payload)
        kept.append((kind, payload))  # a pair of our own: the commit shows later what was logged now
    if not kept:
        raise ValueError("cannot append an empty batch: hand in at least one (kind, payload)")
    if total > limits.max_batch_bytes:
        raise BatchTooLarge(total, limits.max_batch_bytes)
    return Batch(tuple(kept), entropy(SALT_BYTES * len(kept)))
