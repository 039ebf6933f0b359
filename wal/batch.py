"""Turning what a caller hands in into what the writer writes, on the caller's own thread."""

from collections.abc import Callable, Sequence

from wal.entries import Appended, Pending, Records, Staged
from wal.errors import BatchTooLarge, RecordTooLarge
from wal.frames import (
    DATA,
    RECORD_HEAD_BYTES,
    SALT_BYTES,
    encode_fields,
    frame_bytes,
    link,
    pack_records,
    with_promise,
)
from wal.segment import Limits
from wal.tree import leaf_hashes

KIND_MAX = 0xFFFF


class Batch:
    """A packed batch on its way to the file. Lengths and offsets in bytes.

    `kind` is DATA or STAGED. When it is queued it gets its place (`segment`, `offset`, `first_lsn`), its `waiter`, and
    then its `frame`, which promises what was durable at that moment, with the `leaves` of the tree and the `chain`
    that follow from it.
    """

    __slots__ = (
        "_body", "_inners", "chain", "emergency", "first_lsn", "frame", "kind", "leaves", "length", "offset", "promise",
        "records", "segment", "waiter",
    )  # fmt: skip

    segment: int
    offset: int
    first_lsn: int
    waiter: Appended | Pending | Staged
    promise: tuple[int, int]
    leaves: list[bytes]
    chain: bytes
    frame: bytes

    def __init__(self, records: Records, salts: bytes) -> None:
        """Pack records that `pack` has checked."""
        self.records = records
        self._body, self._inners = pack_records(records, salts)
        self.length = frame_bytes(len(self._body))
        self.kind = DATA
        self.emergency = False

    def build(self, log_id: bytes, epoch: int, prev: bytes, promise: tuple[int, int]) -> None:
        """Build the frame for the place it was given, on the caller's time and while the caller's caches are warm.

        `prev` is the chain before it, `promise` the durable LSN and offset.
        """
        self.promise = promise
        self.leaves = leaves = leaf_hashes(self.first_lsn, self._inners)
        self.chain = link(prev, self.first_lsn, leaves)
        self.frame = encode_fields(
            self.kind, self.length, len(leaves), log_id, self.segment, self.offset, epoch, self.first_lsn, *promise,
            prev, self._body, self.chain,
        )  # fmt: skip
        self._body = b""

    def frame_with(self, promise: tuple[int, int]) -> bytes:
        """Return the frame with this promise: more may have become durable while the batch was queued."""
        return self.frame if promise == self.promise else with_promise(self.frame, *promise)


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
