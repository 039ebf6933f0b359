"""Where the next frame will stand, and whether there is a place for it at all. Pure: no thread, no disk.

A frame gets its segment, offset and LSN when it is submitted, from what is known to be allocated: the
segment in use, and one spare. So a full disk is met here, before anything is written.
"""

from wal.errors import LogBusy, LogFull
from wal.segment import HEADER_BYTES, Limits
from wal.tail import RESERVE_BYTES_MAX, emergency_bytes, reserve_bytes

READY, MAKING, REFUSED = "ready", "making", "refused"


class Room:
    """The plan for frames to come. Offsets and lengths in bytes.

    `spare` is READY when an allocated file waits to become the next segment, MAKING when one is due, REFUSED
    when the disk had no room for one (`refusal` says why): then every frame asks for it again. The owner's lock covers
    every call.
    """

    def __init__(self, segment: int, offset: int, next_lsn: int, segment_bytes: int, limits: Limits) -> None:
        """Begin at the log's end, in a segment of `segment_bytes`; the ones to come have `limits`."""
        self.segment = segment
        self.offset = offset
        self.next_lsn = next_lsn
        self.spare = MAKING
        self.refusal = ""
        self._limits = limits
        self._set_segment_bytes(segment_bytes)

    def _set_segment_bytes(self, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        # A frame that ends before this has a place however many records there are: no need to ask how long a seal is.
        self._plenty_until = segment_bytes - emergency_bytes(segment_bytes) - RESERVE_BYTES_MAX

    def place(self, length: int, records: int, *, emergency: bool = False) -> None:
        """Take the next place for a frame; afterwards `segment`, `offset` and `next_lsn` are those past it.

        An emergency may use what is kept for one, when there is no other room. Raises LogFull, or LogBusy while the
        spare is being made; then nothing was taken.
        """
        if self.offset + length > self._plenty_until:
            end = self.offset + length + reserve_bytes(self.next_lsn - 1 + records)
            if end + emergency_bytes(self._segment_bytes) > self._segment_bytes:
                in_reserve = emergency and end <= self._segment_bytes
                if not in_reserve or self.spare == READY:
                    self._next_segment()
        if self.spare == REFUSED:
            self.spare = MAKING  # there may be space again by now: whoever finds no place here must not be told of then
        self.offset += length
        self.next_lsn += records

    def mark(self) -> tuple[int, int, int, str, int]:
        """Where the plan stands, for `back_to`."""
        return self.segment, self.offset, self.next_lsn, self.spare, self._segment_bytes

    def back_to(self, mark: tuple[int, int, int, str, int]) -> None:
        """Take back every place given since `mark`."""
        self.segment, self.offset, self.next_lsn, self.spare, segment_bytes = mark
        self._set_segment_bytes(segment_bytes)

    def heartbeat(self, length: int) -> None:
        """Take a heartbeat's place: every frame left one free behind it."""
        self.offset += length

    def _next_segment(self) -> None:
        if self.spare == MAKING:
            raise LogBusy("the next segment is still being allocated; nothing was written. Try again in a moment.")
        if self.spare == REFUSED:
            self.spare = MAKING
            raise LogFull(
                f"no room for the next segment of {self._limits.segment_bytes} bytes ({self.refusal}); nothing was"
                " written. Free space and append again."
            )
        self.spare = MAKING
        self.segment += 1
        self.offset = HEADER_BYTES
        self._set_segment_bytes(self._limits.segment_bytes)
