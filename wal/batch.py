"""Turning what a caller hands in into what the writer writes, on the caller's own thread."""

from collections.abc import Callable, Sequence

from wal.entries import Entry, Pending, Staged
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
    waiter: Pending | Staged

    def __init__(self, records: Sequence[tuple[int, bytes]], salts: bytes) -> None:
        """Pack records that `pack` has checked."""
        self.records = records
        self.body, self.inners = pack_records(records, salts)
        self.emergency = False
        self.length = frame_bytes(len(self.body))

    def entries(self) -> tuple[Entry, ...]:
        """Return the records as the log numbers them."""
        return tuple([Entry(lsn, *record) for lsn, record in enumerate(self.records, self.first_lsn)])


def pack(records: Sequence[tuple[int, bytes]], limits: Limits, entropy: Callable[[int], bytes]) -> Batch:
    """Check and pack a batch. Each record gets a random salt, so that its digest says nothing of its bytes.

    Raises RecordTooLarge, BatchTooLarge, ValueError (an empty batch, or a kind outside 0..65535) or TypeError.
    """
    records = tuple(records)
    if not records:
        raise ValueError("cannot append an empty batch: hand in at least one (kind, payload)")
    total = 0
    for kind, payload in records:
        _check(kind, payload, limits)
        total += RECORD_HEAD_BYTES + len(payload)
    if total > limits.max_batch_bytes:
        raise BatchTooLarge(total, limits.max_batch_bytes)
    return Batch(records, entropy(SALT_BYTES * len(records)))


def _check(kind: int, payload: bytes, limits: Limits) -> None:
    if not 0 <= kind <= KIND_MAX:
        raise ValueError(f"cannot append a record of kind {kind}: kinds are 0..{KIND_MAX}")
    if not isinstance(payload, bytes):
        raise TypeError(f"cannot append {type(payload).__name__}: a payload is bytes")
    if len(payload) > limits.max_record_bytes:
        raise RecordTooLarge(len(payload), limits.max_record_bytes)
