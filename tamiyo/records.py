"""What goes into the log, and what comes back: batches, staged events, and the log's refusals by cause."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import wal
from tamiyo.core.events import Event
from tamiyo.core.state import State
from tamiyo.errors import PacketRejected

__all__ = ["Arrival", "Checkpoint", "JournalUnavailable", "Recorded", "translated"]

T = TypeVar("T")


class JournalUnavailable(Exception):
    """The log cannot take this record now; `cause` is the reason that the safe PAUSE names."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Recorded:
    """A queued batch: its events, where they will lie, and the promise of their durability."""

    events: tuple[Event, ...]
    first_lsn: int
    pending: wal.Pending | None  # None where there was nothing to queue

    def result(self, timeout_s: float | None = None) -> wal.Commit:
        """The batch's commit, once it is durable.

        Raises:
            TimeoutError: it is not, within `timeout_s`.
            wal.LogError: the log's writer failed; whether the batch is durable is unknown.
        """
        assert self.pending is not None  # noqa: S101  a batch of nothing has nothing to wait for
        return self.pending.result(timeout_s)

    def is_durable(self, timeout_s: float) -> bool:
        """Whether it is known to be durable within `timeout_s`."""
        try:
            self.result(timeout_s)
        except (TimeoutError, wal.LogError):
            return False
        return True

    def lsn_of(self, event: Event) -> int:
        """The LSN of one of the batch's events."""
        return self.first_lsn + next(index for index, other in enumerate(self.events) if other is event)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A staged event: where it lies, the state just after it, and the log that has it."""

    event: Event
    staged: wal.Staged
    state: State
    log: wal.Log


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state just after one record, with the contents of its blueprints, and the log that has it."""

    state: State
    contents: Mapping[str, bytes]
    log: wal.Log
    record: wal.Entry


def translated(submit: Callable[[], T]) -> T:
    """Call the log, and give its refusals the cause that a safe PAUSE names.

    Raises:
        PacketRejected: one record alone does not fit.
        JournalUnavailable: everything else that the log refuses.
    """
    try:
        return submit()
    except wal.RecordTooLarge as error:
        raise PacketRejected(f"a record does not fit the log: {error}; raise TAMIYO_SEGMENT_BYTES") from error
    except (wal.LogFull, wal.BatchTooLarge) as error:
        raise JournalUnavailable("log_full") from error
    except (wal.LogFailed, wal.LogClosed, wal.OutcomeUnknown) as error:
        raise JournalUnavailable("log_failed") from error
    except wal.LogBusy as error:
        raise JournalUnavailable("timeout_wal") from error
