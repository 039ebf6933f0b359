"""The way out: what the journal holds past its cursor goes to a bus, and the journal says how far that has come.

Rule 1: nothing here is on a step's way. The bus is awaited on the caller's event loop, the disk on a thread.
Rule 2: every outcome of the bus is journaled before the next call where its breaker is not CLOSED, so that trials
        come one at a time; an OPEN breaker's bus is not called.
Rule 3: at least once. What went out and could not be journaled is said with the next batch that the log takes; what
        a crash loses of that goes out again, under the same ids.
Rule 4: a call that does not return is abandoned, 4 at most; with 4 out the bus is not called.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import TypeVar

import wal
from tamiyo.backlog import PORTION_MAX, Backlog, Piece, Portion
from tamiyo.bus import Bus, Letter
from tamiyo.clock import Clock
from tamiyo.core import outbox
from tamiyo.core.breakers import CLOSED, heeds_success
from tamiyo.core.events import Event
from tamiyo.core.outbox import DueReport, publishing_admitted
from tamiyo.core.state import State
from tamiyo.journal import Journal
from tamiyo.line import Doubt, Line
from tamiyo.records import JournalUnavailable
from tamiyo.riders import Make
from tamiyo.words import printable
from tamiyo.workers import in_words

__all__ = ["Outbox"]

ABANDONED_MAX = 4
DISK_TIMEOUT_S = 5.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Stopped(Exception):
    """Not everything goes now: the log, the disk or the bus's breaker is in the way."""


class Outbox:
    """Publishes one journal. One `publish` at a time; another that comes meanwhile has nothing to do."""

    def __init__(self, journal: Journal, clock: Clock, before: Callable[[float], object], *, budget_ms: int) -> None:
        """`before` runs first, on a thread that may wait for the disk, so many seconds."""
        self._journal = journal
        self._clock = clock
        self._before = before
        self._budget_ms = budget_ms
        self._backlog = Backlog(journal)
        self._line = Line(lambda strikes: outbox.backoff_ns(journal.state.options, strikes))
        self._publishing = threading.Lock()
        self._on_disk = threading.Lock()  # held by the thread that reads, for as long as the disk holds it up
        self._out: set[asyncio.Task[None]] = set()

    async def publish(self, bus: Bus) -> bool:
        """Publish what is certain by now; whether everything went. Raises TamiyoError where the history is unusable."""
        if not self._publishing.acquire(blocking=False):
            return False
        try:
            return await self._publish(bus)
        except _Stopped as stopped:
            logger.info("not everything was published: %s", str(stopped))
            return False
        finally:
            self._publishing.release()

    async def _publish(self, bus: Bus) -> bool:
        await self._aside(self._settle)
        upto_lsn, complete = self._journal.certain_lsn(), True
        while complete:
            self._require_admitted()
            portion = await self._aside(lambda: self._backlog.portion(upto_lsn))
            if not portion:
                break
            complete = await self._send(bus, portion)
        return complete and not self._journal.state.outbox.retries

    def _settle(self) -> None:
        """What waits to be said comes first: the state must know what went out before."""
        patience_s = self._clock.patience_s("log", DISK_TIMEOUT_S)
        self._before(patience_s)
        self._journal.require()
        recorded = self._journal.flush()
        if recorded is not None:
            recorded.result(patience_s)

    async def _send(self, bus: Bus, portion: Portion) -> bool:
        """One portion; False where something was refused."""
        complete = not portion.telemetry or await self._send_telemetry(bus, portion.telemetry)
        for reports in (portion.fresh, portion.again):
            complete = (not reports or await self._send_reports(bus, reports)) and complete
        return complete

    async def _send_telemetry(self, bus: Bus, pieces: Sequence[Piece]) -> bool:
        """What is in line, in order, but for packets that the bus refuses while it takes later ones."""
        line, left = self._line, deque(pieces)
        letters = [letter for piece in pieces for letter in piece.letters]
        line.begin(letters, full=len(letters) >= PORTION_MAX)
        self._say_taken(left, fresh=False)  # an interrupt may have come before they were settled
        unsaid = False  # something was taken since the log was told
        while True:
            self._require_admitted()
            letter = line.next(self._journal.now_ns(), on_trial=self._is_on_trial)
            failure = "" if letter is None else await self._deliver(bus, letter)
            if letter is not None and not failure:
                line.taken(letter, self._journal.now_ns())
                unsaid = True
            if unsaid and (letter is None or failure or self._is_on_trial):
                self._say_taken(left, fresh=True)
                unsaid = False
            if letter is None:
                return line.is_done
            if failure:
                line.refused(letter, failure)
                self._say(partial(_telemetry_attempted, failure), _nothing)

    def _say_taken(self, left: deque[Piece], *, fresh: bool) -> None:
        """The cursor moves past what is settled; where nothing is, the breaker is told of what was taken just now."""
        settled = list(takewhile(lambda piece: self._line.is_settled(piece.letters), left))
        dropped = [doubt for piece in settled for doubt in self._line.dropped(piece.letters)]
        if sum(len(piece.letters) for piece in settled) > len(dropped):
            self._say_drained(settled, dropped)
            for _ in settled:
                left.popleft()
        elif fresh and heeds_success(self._journal.state.breakers["publishing"]):
            self._say(partial(_telemetry_attempted, ""), _nothing)

    async def _send_reports(self, bus: Bus, reports: Sequence[tuple[DueReport, Letter]]) -> bool:
        complete, gone = True, list[DueReport]()
        for due, letter in reports:
            self._require_admitted()
            failure = await self._deliver(bus, letter)
            if failure or (gone and gone[0].attempt != due.attempt):
                self._say_attempted(gone)
                gone = []
            if failure:
                self._say_attempted([due], failure)
                complete = False
            else:
                gone.append(due)
            if self._is_on_trial:
                self._say_attempted(gone)
                gone = []
        self._say_attempted(gone)
        return complete

    @property
    def _is_on_trial(self) -> bool:
        return self._journal.state.breakers["publishing"].state != CLOSED

    def _require_admitted(self) -> None:
        if not publishing_admitted(self._journal.state, self._journal.now_ns()):
            raise _Stopped("the bus has failed, and its breaker is open")

    def _say_drained(self, pieces: Sequence[Piece], dropped: Sequence[Doubt]) -> None:
        through_lsn = pieces[-1].through_lsn
        message_ids = [letter.message_id for piece in pieces for letter in piece.letters]

        def drained(state: State, now_ns: int) -> tuple[Event, ...]:
            if through_lsn <= state.outbox.telemetry_lsn:
                return ()
            packets = len(message_ids) - len(dropped)
            return (
                *(_telemetry_dropped(doubt, now_ns) for doubt in dropped),
                *outbox.telemetry_drained(state, through_lsn=through_lsn, packets=packets, now_ns=now_ns),
            )

        def settle() -> None:
            self._backlog.drained(len(pieces))
            self._line.forget(message_ids)
            for doubt in dropped:
                logger.warning("telemetry packet %s is published no more: refused %d times (%s)", *_words(doubt))

        self._say(drained, settle)

    def _say_attempted(self, reports: Sequence[DueReport], failure: str = "") -> None:
        if not reports:
            return

        def attempted(state: State, now_ns: int) -> tuple[Event, ...]:
            if not _is_news(state, reports):
                return ()
            return outbox.publish_attempted(state, reports, succeeded=not failure, cause=failure, now_ns=now_ns)

        self._say(attempted, lambda: self._backlog.tried(reports, succeeded=not failure))

    def _say(self, make: Make, settle: Callable[[], None]) -> None:
        """Journal an outcome, now or with the next batch that the log takes, and let the backlog go on.

        In this order: an interrupt in between sends the same once more, and the second word of it says nothing.
        """
        if not self._journal.ride(make):
            raise _Stopped("the log takes no records, and no more can wait")
        settle()
        try:
            self._journal.flush()
        except JournalUnavailable as unavailable:
            raise _Stopped(f"the log takes no records ({unavailable.cause})") from unavailable

    async def _deliver(self, bus: Bus, letter: Letter) -> str:
        """Hand one letter over, within the budget: "", or what went wrong in words."""
        self._out = {task for task in self._out if not task.done() and not task.get_loop().is_closed()}
        if len(self._out) >= ABANDONED_MAX:
            return f"not attempted: {len(self._out)} earlier calls have not returned"

        async def hand_over() -> None:
            await bus.publish(letter.stream, letter.message_id, letter.payload, letter.attributes)

        task = asyncio.ensure_future(hand_over())
        try:
            await asyncio.wait({task}, timeout=self._clock.patience_s("bus", self._budget_ms / 1e3))
        finally:
            if not task.done():
                self._abandon(task)
        if not task.done():
            return f"no answer within {self._budget_ms} ms"
        if task.cancelled():
            return "the bus gave the call up"
        error = task.exception()
        return "" if error is None else printable(in_words(error))

    def _abandon(self, task: asyncio.Task[None]) -> None:
        """Nobody waits for it any more: it is asked to end, and what it says is not heard."""
        self._out.add(task)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        task.cancel()

    async def _aside(self, function: Callable[[], T]) -> T:
        """Run what may wait for the disk on a thread, one at a time, and wait for it, not for ever.

        Raises:
            _Stopped: the disk does not answer, or the log takes no record.
        """
        if not self._on_disk.acquire(blocking=False):
            raise _Stopped("the disk has not answered yet")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        thread = threading.Thread(target=self._run, args=(function, loop, answer), name="tamiyo-outbox", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._on_disk.release()
            raise _Stopped(f"no thread to be had: {error}") from error
        try:
            await asyncio.wait({answer}, timeout=self._clock.patience_s("outbox", DISK_TIMEOUT_S))
        finally:
            answer.cancel()  # without effect where it is there
        if answer.cancelled():
            raise _Stopped("the disk does not answer")
        try:
            return answer.result()
        except (JournalUnavailable, wal.LogError, OSError) as error:
            raise _Stopped(f"the log cannot be read or written: {in_words(error)}") from error

    def _run(self, function: Callable[[], T], loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[T]") -> None:
        value, problem = None, None
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001  it is raised where it was asked for
            problem = error
        finally:
            self._on_disk.release()

        def settle() -> None:
            if answer.cancelled():
                return
            if problem is not None:
                answer.set_exception(problem)
            else:
                answer.set_result(value)  # type: ignore[arg-type]  # it is T where nothing was raised

        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            logger.info("the event loop that asked to publish has ended")


def _is_news(state: State, reports: Sequence[DueReport]) -> bool:
    """Whether the log does not say yet what became of these."""
    if reports[0].attempt == 1:
        return state.outbox.reports_lsn < reports[0].report_lsn and reports[-1].report_lsn <= state.last_lsn
    waiting = [state.outbox.retries.get(due.report_id) for due in reports]
    return [retry.attempts + 1 for retry in waiting if retry is not None] == [due.attempt for due in reports]


def _telemetry_attempted(failure: str, state: State, now_ns: int) -> tuple[Event, ...]:
    """What the log says of telemetry that was refused, or taken while the cursor stays."""
    return outbox.publish_attempted(state, (), succeeded=not failure, cause=failure, now_ns=now_ns)


def _telemetry_dropped(doubt: Doubt, now_ns: int) -> Event:
    packet_id, attempts, cause = _words(doubt)
    return outbox.telemetry_dropped(packet_id, attempts=attempts, cause=cause, now_ns=now_ns)


def _words(doubt: Doubt) -> tuple[str, int, str]:
    return doubt.letter.message_id, doubt.refusals, doubt.cause


def _nothing() -> None:
    """Nothing is to be settled."""
