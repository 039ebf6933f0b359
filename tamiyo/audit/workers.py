"""Processes that check the parts of a log: what several cores make of an audit.

Rule 1: nobody needs to clean up. A process of ours ends with the one that made it, whatever that dies of, and at once.
Rule 2: a Ctrl-C is the business of the one that made them.
"""

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tamiyo.audit.follower import Asked
from tamiyo.audit.parts import PARTS_EACH, Missing, Outcome, Part, Unproven, checked

__all__ = ["Workers", "rarely_collecting_all"]

TELL_EVERY_S = 0.1
COLLECT_ALL_AFTER = 1_000
"""Collections of younger objects between two of all."""


@contextmanager
def rarely_collecting_all() -> Iterator[None]:
    """For a process that does nothing but an audit: what is loaded stays, and an audit leaves little in cycles.

    To look through all of it for them, some 360,000 objects of torch's and others', takes 4 % of level 3.
    """
    before = gc.get_threshold()
    _rarely_collect_all()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _rarely_collect_all() -> None:
    gc.set_threshold(*gc.get_threshold()[:2], COLLECT_ALL_AFTER)


class _Here:
    """What a process of ours was given when it began."""

    asking: Callable[[], Asked] | None = None
    stopped: Any = None
    done: Any = None


def _begin(alive: Connection, stopped: Any, done: Any, prepare: Callable[[], Callable[[], Asked]] | None) -> None:
    """First of all in a process of ours: it ends when the process that made it does, or lets it go."""

    def end() -> None:
        alive.poll(None)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    _rarely_collect_all()
    _Here.stopped, _Here.done = stopped, done
    _Here.asking = None if prepare is None else prepare()


def _check_here(path: Path, part: Part, place: int) -> Outcome:
    def goes_on(records: int) -> bool:
        _Here.done[place] = records
        return not _Here.stopped.value

    if not goes_on(0):
        return Unproven()
    return checked(path, part, None if _Here.asking is None else _Here.asking(), goes_on)


class Workers:
    """Processes that check parts, as a context manager. They begin with the first parts there are, and stay."""

    def __init__(self, count: int, prepare: Callable[[], Callable[[], Asked]] | None = None) -> None:
        """So many; `prepare` is called in each, for level 3, and makes followers. It is a function of a module."""
        self.count = count
        context = get_context("spawn")  # a fork would take over locks that torch's and our threads hold
        self._stopped = context.RawValue("b", 0)
        self._done = context.RawArray("Q", count * PARTS_EACH)
        self._theirs, self._ours = context.Pipe(duplex=False)
        given = (self._theirs, self._stopped, self._done, prepare)
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=given)

    def run(self, path: Path, parts: Sequence[Part], tell: Callable[[int], None]) -> Sequence[Outcome]:
        """Check these; see `tamiyo.audit.parts.Hands`.

        Raises:
            BrokenExecutor: one of the processes died, or could not be begun.
        """
        self._stopped.value = 0
        for place in range(len(self._done)):
            self._done[place] = 0
        try:
            with _uninterrupted():
                begun = {place: self._pool.submit(_check_here, path, parts[place], place) for place in _in_turn(parts)}
        except OSError as error:  # no place for another process
            self._stopped.value = 1
            raise BrokenExecutor(f"a process could not be begun: {error}") from error
        futures = [begun[place] for place in range(len(parts))]
        left = set(futures)
        while left and not _decided(futures):
            _, left = wait(left, TELL_EVERY_S, FIRST_COMPLETED)
            tell(sum(self._done))
        self._stopped.value = 1
        for future in left:
            future.cancel()
        wait([future for future in futures if not future.cancelled()])
        return [Unproven() if future.cancelled() else future.result() for future in futures]

    def __enter__(self) -> Self:
        """Return it; no process runs yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let them end; at once, whatever they are at, where an exception passes through."""
        if kind is not None:
            self._ours.close()
        self._pool.shutdown(cancel_futures=True)
        self._ours.close()
        self._theirs.close()


def _in_turn(parts: Sequence[Part]) -> list[int]:
    """Which to begin when: the first tells soonest where an audit can begin; then the long ones, to end together."""

    def urgency(place: int) -> tuple[bool, bool, int]:
        end, begun_lsn = parts[place].end, parts[place].begun_lsn
        return place > 0, end is not None, 0 if end is None else begun_lsn - end.at_lsn

    return sorted(range(len(parts)), key=urgency)


def _decided(futures: Sequence[Future[Outcome]]) -> bool:
    """Whether nothing more has to be waited for."""
    done = [future for future in futures if future.done()]
    if any(future.exception() is not None or isinstance(future.result(), Unproven) for future in done):
        return True
    first = next((future for future in futures if not future.done() or isinstance(future.result(), Missing)), None)
    return first is None or first.done()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are begun inside never hear of a Ctrl-C; this one does afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
