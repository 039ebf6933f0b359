"""What a caller gets back: an entry, a commit, and the two kinds of waiting for one."""

import threading
from concurrent.futures import Future
from typing import NamedTuple

from wal.errors import LogError


class Entry(NamedTuple):
    """One record of the log: its number (dense, from 1), its kind (0..65535) and its bytes."""

    lsn: int
    kind: int
    payload: bytes


class Redacted(Entry):
    """A record whose payload was redacted: its number and kind are left, and every proof of it still holds."""

    __slots__ = ()


_MAKER = object()


class Commit:
    """Proof that a batch is durable. Only the log can make one, so what it holds may be acted upon.

    `first_lsn` and `last_lsn` are the batch's numbers; `entries` are its records as they were logged.
    """

    __slots__ = ("entries", "first_lsn", "last_lsn")

    first_lsn: int
    last_lsn: int
    entries: tuple[Entry, ...]

    def __init__(self, entries: tuple[Entry, ...], maker: object = None) -> None:
        """Refuse every maker but the log; raise TypeError."""
        if maker is not _MAKER:
            raise TypeError("a Commit is made by the log alone: append a batch to get one")
        object.__setattr__(self, "first_lsn", entries[0].lsn)
        object.__setattr__(self, "last_lsn", entries[-1].lsn)
        object.__setattr__(self, "entries", entries)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a commit is a fact. Raise AttributeError."""
        raise AttributeError(f"cannot set {name}: a Commit does not change")

    def __delattr__(self, name: str) -> None:
        """Refuse: a commit is a fact. Raise AttributeError."""
        raise AttributeError(f"cannot delete {name}: a Commit does not change")

    def __eq__(self, other: object) -> bool:
        """Two commits are equal when they cover the same LSNs."""
        if not isinstance(other, Commit):
            return NotImplemented
        return (self.first_lsn, self.last_lsn) == (other.first_lsn, other.last_lsn)

    def __hash__(self) -> int:
        """Hash as equality compares."""
        return hash((self.first_lsn, self.last_lsn))

    def __repr__(self) -> str:
        """Name the LSNs and leave the payloads out: they can be megabytes."""
        return f"Commit(first_lsn={self.first_lsn}, last_lsn={self.last_lsn})"


def make_commit(entries: tuple[Entry, ...]) -> Commit:
    """Make the commit of a durable batch. For the writer alone."""
    return Commit(entries, _MAKER)


class Pending(Future[Commit]):
    """A batch whose place is fixed and whose durability is awaited. It cannot be cancelled.

    `result(timeout)` returns the `Commit` or raises `OutcomeUnknown`. Callbacks run on the writer's
    thread: they must be short.
    """

    def __init__(self, first_lsn: int, last_lsn: int) -> None:
        """Name the batch's LSNs; made by `Log.submit`."""
        super().__init__()
        self.first_lsn = first_lsn
        self.last_lsn = last_lsn
        self.set_running_or_notify_cancel()  # a queued batch keeps its place, so cancel() answers False


class Staged:
    """A record that is written ahead of its batch; it is durable only with the batch that follows it."""

    def __init__(self, lsn: int) -> None:
        """Name the record's LSN; made by `Log.stage`."""
        self.lsn = lsn
        self._settled = threading.Event()
        self._error: LogError | None = None

    def done(self) -> bool:
        """Whether the record was handed to the file system, or the writer failed before it could be."""
        return self._settled.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the record survives the death of this process; False when `timeout_s` passed first.

        Raises OutcomeUnknown when the writer failed before the record was written.
        """
        if not self._settled.wait(timeout_s):
            return False
        if self._error is not None:
            raise self._error
        return True

    def settle(self, error: LogError | None = None) -> None:
        """Say that the record was written, or why it may not have been. For the writer alone."""
        self._error = error
        self._settled.set()
