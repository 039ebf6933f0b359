"""What a caller gets back: an entry, a commit, and the two kinds of waiting for one."""

import contextlib
import threading
from concurrent.futures import Future
from typing import NamedTuple

from wal.errors import LogError

Records = tuple[tuple[int, bytes], ...]


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

    __slots__ = ("_entries", "_records", "first_lsn", "last_lsn")

    first_lsn: int
    last_lsn: int
    _records: Records
    _entries: tuple[Entry, ...] | None

    def __init__(self, records: Records, first_lsn: int = 0, maker: object = None) -> None:
        """Refuse every maker but the log; raise TypeError."""
        if maker is not _MAKER:
            raise TypeError("a Commit is made by the log alone: append a batch to get one")
        fix = object.__setattr__
        fix(self, "first_lsn", first_lsn)
        fix(self, "last_lsn", first_lsn + len(records) - 1)
        fix(self, "_records", records)
        fix(self, "_entries", None)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The batch's records as the log numbers them; made when first asked for, not on the writer's time."""
        if self._entries is None:
            entries = tuple([Entry(lsn, *record) for lsn, record in enumerate(self._records, self.first_lsn)])
            object.__setattr__(self, "_entries", entries)
            return entries
        return self._entries

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


def make_commit(first_lsn: int, records: Records) -> Commit:
    """Make the commit of a durable batch. For the writer alone."""
    return Commit(records, first_lsn, _MAKER)


class _Awaited:
    """Something that the writer's thread settles once, and any number of callers wait for.

    A bare lock, a bell, for each that waits: a Condition or an Event costs an append several times as much as the
    hand-over itself. Any step may be interrupted: a bell that nobody waits for any more does no harm, and one that is
    hung up too late is never waited for, because `settled` is looked at after that.
    """

    def __init__(self) -> None:
        super().__init__()  # a Pending is a Future as well
        self.settled: bool = False
        self.error: LogError | None = None
        self._bells: list[threading.Lock] = []

    def wait_settled(self, timeout_s: float | None) -> bool:
        """Wait until `settled`; False when `timeout_s` passed first."""
        settled_already = self.settled
        if settled_already:
            return True
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        if self.settled or bell.acquire(timeout=lock_timeout(timeout_s)):
            return True
        with contextlib.suppress(ValueError):  # being rung just now
            self._bells.remove(bell)
        return False

    def settle(self, error: LogError | None = None) -> list[threading.Lock]:
        """Say that it is done, or why nobody knows; the first word stands. Returns the bells, for `ring`.

        For the writer alone, which rings when it has nothing else left to do: a thread that wakes up while another
        still runs has to wait for it, and that costs more than the wake-up itself.
        """
        if not self.settled:
            self.error = error
            self.settled = True
        return self._bells


def ring(bells: list[threading.Lock]) -> None:
    """Let go of everyone who waits for something that is settled; doing it again does nothing."""
    while bells:
        bells.pop().release()


def lock_timeout(timeout_s: float | None) -> float:
    """Return what a lock takes for this many seconds, or for no limit."""
    return -1 if timeout_s is None else min(max(timeout_s, 0.0), threading.TIMEOUT_MAX)


class Appended:
    """What `Log.append` itself waits for: one bell and no Future, because nobody else ever sees it."""

    __slots__ = ("_bells", "_pending", "bell", "error", "settled")

    def __init__(self, _first_lsn: int, _records: Records) -> None:
        """Wait for a batch that is about to be queued."""
        self.settled = False
        self.error: LogError | None = None
        self.bell = threading.Lock()
        self.bell.acquire()
        self._bells = [self.bell]
        self._pending: Pending | None = None

    def become(self, pending: "Pending") -> None:
        """Let a Pending tell the rest of the story, to a caller who waits no longer."""
        self._pending = pending
        if self.settled:
            ring(pending.settle(self.error))

    def settle(self, error: LogError | None = None) -> list[threading.Lock]:
        """Say that it is done, or why nobody knows; the first word stands. Returns the bells, for `ring`."""
        if not self.settled:
            self.error = error
            self.settled = True
        return self._bells if self._pending is None else self._pending.settle(self.error)


class Pending(_Awaited, Future[Commit]):
    """A batch whose place is fixed and whose durability is awaited. It cannot be cancelled.

    `result(timeout)` returns the `Commit`, or raises `OutcomeUnknown`, or TimeoutError when `timeout` seconds
    passed first. Callbacks run on the writer's thread: they must be short.
    """

    def __init__(self, first_lsn: int, records: Records) -> None:
        """Name the batch; made by the log."""
        super().__init__()
        self.first_lsn = first_lsn
        self.last_lsn = first_lsn + len(records) - 1
        self._commit = make_commit(first_lsn, records)  # nobody sees it before it is true

    def cancel(self) -> bool:
        """Refuse: a queued batch keeps its place."""
        return False

    def running(self) -> bool:
        """Whether the outcome is still awaited."""
        return not self.done()

    def result(self, timeout: float | None = None) -> Commit:
        """Wait for the commit; `timeout` is in seconds. Raises OutcomeUnknown, or TimeoutError."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._commit

    def exception(self, timeout: float | None = None) -> LogError | None:
        """Wait for the outcome; return OutcomeUnknown, or None for a durable batch. Raises TimeoutError."""
        if not self.wait_settled(timeout):
            raise TimeoutError(
                f"LSN {self.first_lsn}..{self.last_lsn} is not known durable yet; it keeps its place. Wait on."
            )
        return self.error

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self.settled

    def settle(self, error: LogError | None = None) -> list[threading.Lock]:
        """Say that it is done, or why nobody knows, and call back whoever asked for that. Returns the bells."""
        bells = super().settle(error)
        if not super().done():  # what else a Future is for: callbacks, `wait`, asyncio
            if self.error is None:
                self.set_result(self._commit)
            else:
                self.set_exception(self.error)
        return bells


class Staged(_Awaited):
    """A record that is written ahead of its batch; it is durable only with the batch that follows it."""

    def __init__(self, lsn: int, _records: Records) -> None:
        """Name the record's LSN; made by `Log.stage`."""
        super().__init__()
        self.lsn = lsn

    def done(self) -> bool:
        """Whether the record was handed to the file system, or the writer failed before it could be."""
        return self.settled

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the record survives the death of this process; False when `timeout_s` passed first.

        Raises OutcomeUnknown when the writer failed before the record was written.
        """
        if not self.wait_settled(timeout_s):
            return False
        if self.error is not None:
            raise self.error
        return True
