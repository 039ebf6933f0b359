"""The journal: the log, the state folded from it, and the one lock under which both move.

Rule 1: a batch is decided, folded, encoded and queued under one lock, in LSN order, and the lock is never held
        across a sync. An event that is illegal raises before anything is queued.
Rule 2: after a fault the log is tried again in the background, never on a step: from disk where its writer
        failed, with one batch where it was only slow. Meanwhile steps are refused, and counted.
Rule 3: event time is the last one plus the monotonic time elapsed, at least 1 ns; the wall clock only anchors
        it when the journal opens.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import wal
from tamiyo.clock import Clock
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import OPEN
from tamiyo.core.decide import log_trial, pause_released
from tamiyo.core.events import Event, decode, encode
from tamiyo.core.evolve import evolve
from tamiyo.core.observation import Observation
from tamiyo.core.state import State
from tamiyo.errors import PacketRejected, TamiyoError

__all__ = ["Journal", "JournalUnavailable", "Recorded", "ReleasedPause"]

T = TypeVar("T")
OpenLog = Callable[[], wal.Log]
CLOSE_TIMEOUT_S = 5.0


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
    pending: wal.Pending

    def lsn_of(self, event: Event) -> int:
        """The LSN of one of the batch's events."""
        return self.first_lsn + next(index for index, other in enumerate(self.events) if other is event)


@dataclass(frozen=True, slots=True)
class ReleasedPause:
    """A received step that was answered with a safe PAUSE; `decision_lsn` is 0 where no decision was recorded."""

    observation: Observation
    received: journal.StepReceived
    step_lsn: int
    decision_lsn: int
    cause: str


class Journal:
    """Owns the log and the state; every method may be called from any thread."""

    def __init__(self, open_log: OpenLog, clock: Clock) -> None:
        """Open the log and fold it. Raises what `wal.Log.open` and `decode` raise."""
        self._open_log = open_log
        self._clock = clock
        self._lock = threading.RLock()
        self._owed: ReleasedPause | None = None
        self._failed_at_ns: int | None = None
        self._trial: threading.Thread | None = None
        self._closed = False
        self._contents: dict[str, bytes] = {}
        self._fault: TamiyoError | None = None
        self._pending: tuple[wal.Log, State, dict[str, bytes]] | None = None
        self._unrecorded_cause = ""
        self._log = open_log()
        self._state = self._first_fold()
        self.steps_seen = self._state.steps_received
        self._anchor_ns = max(self._state.event_time_ns + 1, clock.wall_ns())
        self._anchor_monotonic_ns = clock.monotonic_ns()

    @property
    def state(self) -> State:
        """The state after everything that was queued."""
        return self._state

    @property
    def log(self) -> wal.Log:
        """The log in use; another object after a reopen."""
        return self._log

    def content(self, digest: str) -> bytes | None:
        """The stored `BlueprintContent` of a blueprint's last version; None once a newer one is there."""
        return self._contents.get(digest)

    def now_ns(self) -> int:
        """Event time now: later than every event so far."""
        elapsed_ns = self._clock.monotonic_ns() - self._anchor_monotonic_ns
        return max(self._state.event_time_ns + 1, self._anchor_ns + elapsed_ns)

    def refusal(self) -> str | None:
        """Why no record is taken at the moment, as a risk reason, or None. Starts a trial when one is due.

        Raises:
            TamiyoError: what a trial in the background found wrong with the history itself.
        """
        with self._lock:
            self._adopt_pending()
            if self._fault is not None:
                raise self._fault
            if self._log.failure is not None and self._failed_at_ns is None:
                self._failed_at_ns = self.now_ns()
            if self._failed_at_ns is None and self._trial is None and self._state.breakers["log"].state != OPEN:
                return None
            self._start_trial_when_due()
            return "log_failed"

    def record(self, make: Callable[[State, int], Sequence[Event]]) -> Recorded:
        """Queue one batch: `make(state, event_time_ns)` says its events, from the state just before them.

        Raises:
            JournalUnavailable: the log takes no record; the state is as it was.
            InvariantViolation: an event is illegal; nothing was queued.
        """
        with self._lock:
            self._adopt_pending()
            events = tuple(make(self._state, self.now_ns()))
            with self._adopting(events):
                pending = _translated(lambda: self._log.submit([encode(event) for event in events]))
            return Recorded(events, pending.first_lsn, pending)

    def begin(self, make: Callable[[State, int], Sequence[Event]]) -> None:
        """Record a batch and wait until it is durable, however long.

        Raises:
            wal.LogError: the log does not take it.
        """
        try:
            self.record(make).pending.result()
        except JournalUnavailable as unavailable:
            raise unavailable.__cause__ or unavailable from None

    def abandon(self) -> None:
        """Let go of the log after a failure to open: nothing is owed yet."""
        self._log.close()

    def stage(self, make: Callable[[State, int], Event]) -> tuple[Event, wal.Staged]:
        """Queue one event ahead of the batch that it belongs to: written at once, durable with that batch."""
        with self._lock:
            self._adopt_pending()
            event = make(self._state, self.now_ns())
            with self._adopting((event,)):
                staged = _translated(lambda: self._log.stage(*encode(event)))
            return event, staged

    def count_unrecorded(self, cause: str) -> None:
        """Count a step that is answered without a record of it, and remember why."""
        with self._lock:
            self.steps_seen += 1
            self._unrecorded_cause = cause

    def note_pause(self, released: ReleasedPause) -> None:
        """Remember a received step that was answered with a safe PAUSE; the next batch begins with it."""
        self._owed = released

    def settle(self) -> None:
        """Queue what is owed from before: the PAUSE that was released, and the steps that no record was taken of."""
        with self._lock:
            self._adopt_pending()
            owed = self._owed
            if owed is not None and self._is_owed(owed):
                self.record(lambda state, now_ns: _pause_events(state, owed, now_ns))
            self._owed = None
            if self.steps_seen > self._state.steps_received:
                self.record(lambda state, now_ns: log_trial(state, self._unrecorded(state, now_ns)))

    def wait_for_trial(self, timeout_s: float | None = None) -> None:
        """Wait until the trial that is under way has ended; returns at once when there is none."""
        trial = self._trial
        if trial is not None:
            trial.join(timeout_s)

    def close(self) -> None:
        """Settle what is owed and close the log; may be called again where the disk did not answer.

        Raises what `wal.Log.close` raises.
        """
        with self._lock:
            self._closed = True
        try:
            self.wait_for_trial(CLOSE_TIMEOUT_S)
            # Where the log takes no record the steps stay uncounted; closing it reports its failure.
            with suppress(JournalUnavailable):
                self.settle()
        finally:
            self._log.close(CLOSE_TIMEOUT_S)

    def _is_owed(self, owed: ReleasedPause) -> bool:
        """False where the step, or its decision, did not survive a reopen: then there is nothing to say of it."""
        if not owed.decision_lsn:
            return owed.step_lsn in self._state.undecided
        return self._state.unsettled is not None and self._state.unsettled.step_lsn == owed.step_lsn

    @contextmanager
    def _adopting(self, events: Sequence[Event]) -> Iterator[None]:
        """Fold first, queue inside, adopt after.

        An interrupt may come at any line, the last ones included: what was folded is remembered until it is adopted,
        and whoever holds the lock next asks the log first what it took.
        """
        after = self._state
        for event in events:
            after = evolve(after, after.last_lsn + 1, event)
        contents = self._contents_after(events, after)
        self._pending = (self._log, after, contents)
        try:
            yield
        finally:
            self._adopt_pending()

    def _adopt_pending(self) -> None:
        """Take over what the log took; doing it again, or late, comes to the same."""
        if self._pending is None:
            return
        log, after, contents = self._pending
        if log is self._log and log.next_lsn == after.last_lsn + 1:
            self._contents = contents
            self.steps_seen = max(self.steps_seen, after.steps_received)
            self._state = after
        self._pending = None

    def _first_fold(self) -> State:
        try:
            return self._fold(self._log)
        except BaseException:  # whatever stops the fold, the lock must not stay behind
            self._log.close()
            raise

    def _fold(self, log: wal.Log) -> State:
        """Fold a whole log. Its contents are kept at the end, so that nothing is half-way visible meanwhile."""
        state, contents = State(), dict[str, bytes]()
        for entry in log.read():
            event = decode(entry.kind, entry.payload)
            state = evolve(state, entry.lsn, event)
            contents = _with_content(contents, event, state)
        self._contents = contents
        return state

    def _contents_after(self, events: Sequence[Event], after: State) -> dict[str, bytes]:
        contents = self._contents
        for event in events:
            contents = _with_content(contents, event, after)
        return contents

    def _unrecorded(self, state: State, now_ns: int) -> journal.StepsUnrecorded:
        first = state.steps_received + 1
        return journal.StepsUnrecorded(
            first_step_index=first,
            last_step_index=self.steps_seen,
            count=self.steps_seen - first + 1,
            event_time_ns=now_ns,
            cause=self._unrecorded_cause,
        )

    def _start_trial_when_due(self) -> None:
        cool_down_ns = self._state.thresholds.breaker_cool_down_s * 1e9
        since_ns = self._failed_at_ns if self._failed_at_ns is not None else self._state.breakers["log"].moved_at_ns
        if self._closed or self._trial is not None or self.now_ns() - since_ns < cool_down_ns:
            return
        self._trial = threading.Thread(target=self._try_again, name="tamiyo-log-trial", daemon=True)
        try:
            self._trial.start()
        except RuntimeError:  # no thread to be had: the next step tries again
            self._trial = None

    def _try_again(self) -> None:
        """One trial: reopen where the writer failed, then one batch; success lets steps in again."""
        failed_at_ns = self._failed_at_ns
        try:
            if failed_at_ns is not None:
                self._reopen()
            self.record(lambda state, now_ns: self._trial_events(state, now_ns, failed_at_ns)).pending.result()
        except (wal.LogError, JournalUnavailable, OSError):
            with self._lock:
                if failed_at_ns is not None or self._log.failure is not None:
                    self._failed_at_ns = self.now_ns()
        except TamiyoError as error:
            self._fault = error  # the history itself is unusable: the next step raises it
        else:
            with self._lock:
                self._failed_at_ns = self._owed = None
        finally:
            self._trial = None

    def _reopen(self) -> None:
        """Back from disk: nothing in memory is trusted. The fold holds no lock: steps are refused meanwhile."""
        self._log.close()
        log = self._open_log()
        try:
            state = self._fold(log)
        except BaseException:  # a log that nobody owns must not keep its lock
            log.close()
            raise
        with self._lock:
            if not self._closed:
                self._log, self._state = log, state
                return
        log.close()
        raise JournalUnavailable("log_failed")  # close() did not wait for this

    def _trial_events(self, state: State, now_ns: int, failed_at_ns: int | None) -> tuple[Event, ...]:
        owed = self._owed
        events = _pause_events(state, owed, now_ns) if owed is not None and self._is_owed(owed) else ()
        for event in events:
            state = evolve(state, state.last_lsn + 1, event)
        unrecorded = self._unrecorded(state, now_ns)
        return (*events, *log_trial(state, unrecorded, writer_failed_at_ns=failed_at_ns))


def _with_content(contents: dict[str, bytes], event: Event, after: State) -> dict[str, bytes]:
    """The content of each blueprint's last version, no more: it is there before the state names it."""
    if not isinstance(event, journal.BlueprintObserved) or not event.content:
        return contents
    live = {seen.blueprint.digest for seen in after.blueprints.values() if seen.blueprint is not None}
    return {digest: kept for digest, kept in contents.items() if digest in live} | {event.digest: event.content}


def _pause_events(state: State, owed: ReleasedPause, now_ns: int) -> tuple[Event, ...]:
    return pause_released(
        state,
        owed.observation,
        owed.received,
        step_lsn=owed.step_lsn,
        decision_lsn=owed.decision_lsn,
        cause=owed.cause,
        event_time_ns=now_ns,
    )


def _translated(submit: Callable[[], T]) -> T:
    try:
        return submit()
    except wal.RecordTooLarge as error:
        raise PacketRejected(f"the packet does not fit the log: {error}; raise TAMIYO_SEGMENT_BYTES") from error
    except (wal.LogFull, wal.BatchTooLarge) as error:
        raise JournalUnavailable("log_full") from error
    except (wal.LogFailed, wal.LogClosed, wal.OutcomeUnknown) as error:
        raise JournalUnavailable("log_failed") from error
    except wal.LogBusy as error:
        raise JournalUnavailable("timeout_wal") from error
