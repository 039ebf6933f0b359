"""The journal: the log, the state folded from it, and the one lock under which both move.

Rule 1: a batch is decided, folded, encoded and queued under one lock, in LSN order, and the lock is never held
        across a sync. An event that is illegal raises before anything is queued.
Rule 2: after a fault the log is tried again in the background, never on a step: from disk where its writer
        failed, with one batch where it was only slow. Meanwhile steps are refused, and counted.
Rule 3: event time is the last one plus the monotonic time elapsed, at least 1 ns; anchored by the wall clock, once.
Rule 4: what other threads have to say (`ride`) goes along with the next batch of a step, or alone (`flush`); it is
        refused while the log's breaker is open, as a step is, and what is owed from before comes first.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import wal
from tamiyo.beginning import beginning, folded, reopened, with_content
from tamiyo.clock import Clock
from tamiyo.core.base import CHECKPOINT_STEPS
from tamiyo.core.breakers import OPEN
from tamiyo.core.decide import log_trial
from tamiyo.core.events import Event, encode
from tamiyo.core.evolve import Folded, evolve, evolve_all
from tamiyo.core.state import State
from tamiyo.errors import TamiyoError
from tamiyo.owed import Owed, ReleasedPause
from tamiyo.records import Arrival, Checkpoint, JournalUnavailable, Recorded, translated
from tamiyo.riders import RIDERS_MAX, Make, Riders
from tamiyo.snapshots import Snapshots
from tamiyo.words import counted

__all__ = ["Journal"]

OpenLog = Callable[[], wal.Log]
CLOSE_TIMEOUT_S = ROOM_TIMEOUT_S = 5.0
GLANCE_S = 0.001
logger = logging.getLogger(__name__)
_UNTOLD = "the log is closed without word of %s answered with a safe PAUSE, and of %s between steps: %s"


class Journal:
    """Owns the log and the state; every method may be called from any thread."""

    checkpoint_steps = CHECKPOINT_STEPS

    def __init__(self, open_log: OpenLog, clock: Clock, snapshots: Snapshots | None = None) -> None:
        """Open the log and fold it, from a snapshot where there is one. Raises what opening and reading a log raise."""
        self._open_log = open_log
        self._clock = clock
        self._snapshots = snapshots
        self._checkpoint: Checkpoint | None = None
        self._lock = threading.RLock()
        self._riders = Riders()
        self._failed_at_ns: int | None = None
        self._trial: threading.Thread | None = None
        self._tried_at_ns = 0  # the last trial that came to nothing
        self._open_step_lsn = 0  # of a step that is under way: what is released for it is not certain yet
        self._closed = False
        self._contents: dict[str, bytes] = {}
        self._fault: TamiyoError | None = None
        self._told = ""  # why the last trial came to nothing
        self._pending: tuple[wal.Log, State, dict[str, bytes], Riders] | None = None
        self._last: weakref.ref[wal.Pending] | None = None  # of the last batch: the log holds it until it is settled
        self._log = open_log()
        self._state = self._first_fold()
        self._owed = Owed(self._state.steps_received)
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

    @property
    def snapshots(self) -> Snapshots | None:
        """Where snapshots of the state are kept; None where none are."""
        return self._snapshots

    @property
    def steps_seen(self) -> int:
        """The number of the last step that was answered, recorded or not."""
        return self._owed.steps_seen

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

    def require(self) -> None:
        """Raise JournalUnavailable where `refusal` names a cause, and what that raises."""
        refusal = self.refusal()
        if refusal is not None:
            raise JournalUnavailable(refusal)

    def record(self, make: Make, *, log: wal.Log | None = None) -> Recorded:
        """Queue one batch: who rides along, then what `make` says from the state after them.

        Args:
            make: the events.
            log: the log they refer into; the batch is refused when that was reopened meanwhile.

        Raises:
            JournalUnavailable: the log takes no record; the state is as it was.
            InvariantViolation: an event is illegal; nothing was queued.
        """
        with self._lock:
            self._adopt_pending()
            if log is not None and log is not self._log:
                raise JournalUnavailable("log_failed")
            riders = self._riders.next
            return self._queue([*riders, make], len(riders))

    def record_aside(self, make: Make, *, log: wal.Log | None = None) -> Recorded | None:
        """Queue a batch of another thread's, after what is owed from before; None where there is nothing to say.

        `log` is as for `record`. Raises as `record`, and what `refusal` raises; JournalUnavailable while the log's
        breaker is open, too.
        """
        with self._lock:
            self._settle_aside()
            self.require()  # what was owed may have opened the breaker
            recorded = self.record(make, log=log)
            return recorded if recorded.events else None

    def record_in_emergency(self, make: Make, *, log: wal.Log) -> Recorded | None:
        """Queue a batch into the room that a full log keeps for that, alone: what is owed and who rides need more room.

        Raises as `record_aside`.
        """
        with self._lock:
            self.require()
            self._adopt_pending()
            if log is not self._log:
                raise JournalUnavailable("log_failed")
            recorded = self._queue([make], emergency=True)
            return recorded if recorded.events else None

    def ride(self, make: Make) -> bool:
        """Let `make` speak with the next batch; False when too many wait already, and this one was not taken."""
        with self._lock:
            self._adopt_pending()
            if len(self._riders.waiting) >= RIDERS_MAX:
                return False
            self._riders = self._riders.joined(make)
            return True

    def is_durable(self, timeout_s: float) -> bool:
        """Whether all batches that were queued so far are known to be durable within `timeout_s`."""
        with self._lock:
            log, pending = self._log, None if self._last is None else self._last()
        if pending is not None:
            try:
                pending.result(timeout_s)
            except (TimeoutError, wal.LogError):
                return False
        return log.failure is None

    @property
    def first_rider(self) -> Make | None:
        """Who has waited longest to ride, None where nobody waits."""
        return next(iter(self._riders.waiting), None)

    def flush(self) -> Recorded | None:
        """Queue what is owed and who waits to ride, without a step; None where there is neither. As `record_aside`.

        What is owed waits as long as the disk hangs: told behind the late commit, it would only be late as well.
        """
        recorded = None
        with self._lock:
            is_owing = self._owed.is_owing(self._state)
        if is_owing and self.is_durable(0.0):
            with self._lock:
                recorded = self._settle_aside()
        while self._riders.waiting:  # the lock is free between batches: a step may want it
            recorded = self.record_aside(lambda _state, _now_ns: ()) or recorded
        return recorded

    def begin(self, make: Make) -> None:
        """Record a batch and wait until it is durable, however long. Nobody else uses the journal yet.

        A log that was just opened near the end of a segment makes the next one first: that is waited for, too.

        Raises:
            wal.LogError: the log does not take it; LogBusy where it had no place for it in `ROOM_TIMEOUT_S`.
        """
        glance, glances = threading.Event(), int(ROOM_TIMEOUT_S / GLANCE_S)
        while True:
            try:
                self.record(make).result()
            except JournalUnavailable as unavailable:
                glances -= 1
                if glances <= 0 or not isinstance(unavailable.__cause__, wal.LogBusy):
                    raise unavailable.__cause__ or unavailable from None
            else:
                return
            glance.wait(GLANCE_S)

    def abandon(self) -> None:
        """Let go of the log after a failure to open: nothing is owed yet."""
        self._log.close()

    def stage(self, make: Callable[[State, int], Event]) -> Arrival:
        """Queue one event ahead of its batch: written at once, durable with that. Raises as `record` and `require`."""
        with self._lock:
            self.require()  # what was owed may have opened the log's breaker, whichever thread has told it
            event = make(self._state, self.now_ns())
            after = evolve(self._state, self._state.last_lsn + 1, event)
            record = encode(event)
            with self._adopting((event,), after, self._riders):
                staged = translated(lambda: self._log.stage(*record))
            self._open_step_lsn = staged.lsn
            if after.steps_received % self.checkpoint_steps == 0 and not self._owed.pauses:
                # With a PAUSE still to be told, going on from here would need the packets of earlier steps as well.
                self._checkpoint = Checkpoint(after, self._contents, self._log, wal.Entry(staged.lsn, *record))
            return Arrival(event, staged, self._state, self._log)

    def take_checkpoint(self) -> Checkpoint | None:
        """The last state that a step has left to be looked at, once; None where none has since the last call."""
        with self._lock:
            checkpoint, self._checkpoint = self._checkpoint, None
            return checkpoint

    def last_checkpoint(self) -> Checkpoint | None:
        """The state at the end of the log; None where the log does not hold all of it, or nothing yet.

        Raises what reading the log raises.
        """
        with self._lock:
            state, contents, log = self._state, self._contents, self._log
        last = next(log.read(state.last_lsn - 1), None) if state.last_lsn else None
        return None if last is None else Checkpoint(state, contents, log, last)

    def count_unrecorded(self, cause: str) -> None:
        """Count a step that is answered without a record of it, and remember why."""
        with self._lock:
            self._owed.count_step(cause)

    def note_pause(self, released: ReleasedPause) -> None:
        """Remember a received step that was answered with a safe PAUSE; the next batch begins with it."""
        with self._lock:
            self._owed.pauses.append(released)
            self._open_step_lsn = 0

    def note_release(self) -> None:
        """The command of the step under way is released: what the log says of it is certain."""
        self._open_step_lsn = 0

    def certain_lsn(self) -> int:
        """How far the log is durable, and says for certain what was released for each step."""
        with self._lock:
            durable_lsn = self._log.durable_lsn
            open_lsns = [self._open_step_lsn] if self._open_step_lsn else []
            uncertain = [*open_lsns, *self._owed.untold(durable_lsn)]
            return min([durable_lsn, *(lsn - 1 for lsn in uncertain)])

    def settle(self) -> Recorded:
        """Queue what is owed from before: the PAUSE that was released, and the steps that no record was taken of."""
        with self._lock:
            self._adopt_pending()
            if not self._owed.pauses and not self._owed.is_owing(self._state):  # as before nearly every step
                return Recorded((), self._state.last_lsn + 1, None)
            told = self._queue([self._owed.pause_events])
            self._owed.told(self._state.last_lsn, self._log.durable_lsn)
            if self._owed.steps_seen > self._state.steps_received:
                told = self._queue([lambda state, now_ns: log_trial(state, self._owed.unrecorded(state, now_ns))])
            return told

    def _settle_aside(self) -> Recorded | None:
        self.require()
        told = self.settle()
        return told if told.events else None

    def wait_for_trial(self, timeout_s: float | None = None) -> None:
        """Wait until the trial that is under way has ended; returns at once when there is none."""
        trial = self._trial
        if trial is not None:
            trial.join(timeout_s)

    def close(self) -> None:
        """Settle what is owed, let the last riders go, close the log. Call it again where the disk did not answer.

        Raises what `wal.Log.close` raises.
        """
        with self._lock:
            self._closed = True
        try:
            self.wait_for_trial(CLOSE_TIMEOUT_S)
            self.settle()
            while self._riders.waiting:
                self.record(lambda _state, _now_ns: ())
        except JournalUnavailable as unavailable:  # closing a log that failed raises; one that is full closes well
            steps, others = self._owed.steps(self._state), len(self._riders.waiting)
            why = str(unavailable.__cause__ or unavailable)
            logger.warning(_UNTOLD, counted(steps, "step"), counted(others, "event"), why)
        finally:
            self._log.close(CLOSE_TIMEOUT_S)

    def _queue(self, makers: Sequence[Make], riders: int = 0, *, emergency: bool = False) -> Recorded:
        """Fold and queue what `makers` say, each after the one before it; the first `riders` of them have ridden."""
        after, now_ns, events = self._state, self.now_ns(), list[Event]()
        for make in makers:
            made = make(after, now_ns)
            folded = made if isinstance(made, Folded) else Folded(tuple(made), evolve_all(after, made))
            after = folded.state
            events += folded.events
        first_lsn = self._state.last_lsn + 1
        ridden = self._riders.queued(riders, after.last_lsn, self._log.durable_lsn) if riders else self._riders
        if not events:
            self._riders = ridden
            return Recorded((), first_lsn, None)
        with self._adopting(events, after, ridden):
            records = [encode(event) for event in events]
            pending = translated(lambda: self._log.submit(records, emergency=emergency))
        self._last = weakref.ref(pending)
        return Recorded(tuple(events), pending.first_lsn, pending)

    @contextmanager
    def _adopting(self, events: Sequence[Event], after: State, riders: Riders) -> Iterator[None]:
        """Fold first, queue inside, adopt after.

        An interrupt may come at any line, the last ones included: what was folded is remembered until it is adopted,
        and whoever holds the lock next asks the log first what it took.
        """
        self._pending = (self._log, after, self._contents_after(events, after), riders)
        try:
            yield
        finally:
            self._adopt_pending()

    def _adopt_pending(self) -> None:
        """Take over what the log took; doing it again, or late, comes to the same."""
        if self._pending is None:
            return
        log, after, contents, riders = self._pending
        if log is self._log and log.next_lsn == after.last_lsn + 1:
            self._contents = contents
            self._owed.steps_seen = max(self._owed.steps_seen, after.steps_received)
            self._riders = riders
            self._state = after
        self._pending = None

    def _first_fold(self) -> State:
        try:
            return self._fold(self._log)
        except BaseException:  # whatever stops the fold, the lock must not stay behind
            self._log.close()
            raise

    def _fold(self, log: wal.Log) -> State:
        """Fold a log to its end. Its contents are kept at the end, so that nothing is half-way visible meanwhile."""
        state, self._contents = folded(log, beginning(log, self._snapshots))
        return state

    def _contents_after(self, events: Sequence[Event], after: State) -> dict[str, bytes]:
        contents = self._contents
        for event in events:
            contents = with_content(contents, event, after)
        return contents

    def _start_trial_when_due(self) -> None:
        cool_down_ns = self._state.thresholds.breaker_cool_down_s * 1e9
        since_ns = self._failed_at_ns if self._failed_at_ns is not None else self._state.breakers["log"].moved_at_ns
        since_ns = max(since_ns, self._tried_at_ns)
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
            self._try_batch(failed_at_ns)
        except (wal.LogError, JournalUnavailable, OSError) as error:
            if str(error) != self._told:
                logger.warning("the log is tried again and again, and takes no records: %s", str(error))
            with self._lock:  # no record can say so: the cool-down starts again in memory
                self._tried_at_ns, self._told = self.now_ns(), str(error)
        except TamiyoError as error:
            self._fault = error  # the history itself is unusable: the next step raises it
        else:
            with self._lock:
                self._failed_at_ns, self._told = None, ""
        finally:
            self._trial = None

    def _reopen(self) -> None:
        """Back from disk: nothing in memory is trusted. The fold holds no lock: steps are refused meanwhile."""
        log = reopened(self._log, self._open_log)
        try:
            state = self._fold(log)
        except BaseException:  # a log that nobody owns must not keep its lock
            log.close()
            raise
        with self._lock:
            if not self._closed:
                self._log, self._state, self._checkpoint, self._last = log, state, None, None
                self._owed.reopened(state.last_lsn)
                self._riders = self._riders.reopened(state.last_lsn)
                return
        log.close()
        raise JournalUnavailable("log_failed")  # close() did not wait for this

    def _try_batch(self, failed_at_ns: int | None) -> None:
        with self._lock:
            self._adopt_pending()
            trial = self._queue(
                [
                    self._owed.pause_events,
                    lambda state, now_ns: log_trial(
                        state, self._owed.unrecorded(state, now_ns), writer_failed_at_ns=failed_at_ns
                    ),
                ]
            )
            self._owed.told(self._state.last_lsn, self._log.durable_lsn)
        trial.result()
