"""What operators ask for: taken down in the journal, once each, whether asked in code or by a request in a file.

A job that is asked for (a retention run) is handed on, and its request stays in its place until that has ended: a crash
meanwhile leaves it for the next process.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import wal
from tamiyo.core.directives import operator_directed
from tamiyo.core.events import Event
from tamiyo.core.state import State
from tamiyo.errors import NotRecorded, RequestRejected, ServiceClosed
from tamiyo.journal import Journal
from tamiyo.records import JournalUnavailable, Recorded
from tamiyo.requests import JOBS, PER_SCAN_MAX, POLICY_INSTALL, POLICY_ROLLBACK, RETAIN, Request, RequestBox

__all__ = ["Directives"]

TOLD_MAX = 1_024
METHODS = {RETAIN: "retain", POLICY_INSTALL: "ingest_policy_update", POLICY_ROLLBACK: "roll_back_policy"}
"""What to call in place of asking for a job."""
BeginJob = Callable[[Request], Future[bytes]]
"""Begins what a request asks for, on a thread of its own; the answer is what the asker is to read."""

logger = logging.getLogger(__name__)


class Directives:
    """The operators' way into one journal. Every method may be called from any thread but that of a step."""

    def __init__(self, journal: Journal, box: RequestBox | None, begin_job: BeginJob | None = None) -> None:
        """`box` is where requests are left, None where nobody does; `begin_job` begins what is no directive.

        Without `begin_job` a job's request stays in its place.
        """
        self._journal = journal
        self._begin_job = begin_job
        self._jobs: dict[Path, Future[bytes]] = {}
        self._box = box
        self._taking = threading.Lock()
        self._queued: dict[Path, Recorded] = {}  # journaled, and not known to be durable
        self._taken: dict[Path, None] = {}  # durable, and their files cannot be removed; the one tried last comes last
        self._refused: dict[Path, str] = {}  # the same of those that cannot be moved aside, with the reason
        self._told: frozenset[str] = frozenset()

    def direct(self, request: Request) -> Recorded | None:
        """Journal a directive; None where its request was taken up before.

        Raises:
            RequestRejected: it is no directive but a job.
            NotRecorded: the log takes no record at the moment.
        """
        if request.directive in JOBS:
            raise RequestRejected(
                f"{request.directive} is no directive: call TamiyoService.{METHODS[request.directive]}"
            )
        try:
            return self._journal.record_aside(lambda state, now_ns: _directed(state, request, now_ns))
        except JournalUnavailable as unavailable:
            raise NotRecorded(
                f"the directive {request.directive} was not recorded ({unavailable.cause}) and is not in force; every "
                "step is answered with a PAUSE meanwhile: give it again once the log is back"
            ) from unavailable

    def take_up(self, timeout_s: float | None = None) -> bool:
        """Take up the requests that wait, oldest first; False where some still wait afterwards.

        Waits for the disk, for each request at most `timeout_s`.
        """
        if self._box is None:
            return True
        if not self._taking.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return False
        try:
            return self._take_up(self._box, timeout_s)
        finally:
            self._taking.release()

    def _take_up(self, box: RequestBox, timeout_s: float | None) -> bool:
        all_taken, more = True, True
        self._clear_away(box)
        while more:
            try:
                waiting = box.waiting({path.name for path in (*self._taken, *self._refused)})
            except OSError as error:
                self._tell_once(str(box.path), f"the requests in {box.path} cannot be read: {error}")
                return False
            left = 0
            for path in waiting:
                try:
                    left += not self._take(box, path, timeout_s)
                except NotRecorded as error:  # whoever was asked later does not overtake
                    self._tell_once(path.name, f"request {path.name!r} stays in its place, to be tried again: {error}")
                    return False
            all_taken = all_taken and not left
            more = len(waiting) == PER_SCAN_MAX and left + len(self._jobs) < len(waiting)
        return all_taken and not self._refused

    def _take(self, box: RequestBox, path: Path, timeout_s: float | None) -> bool:
        """One request; False where it stays in its place and nobody has taken it up. Raises NotRecorded."""
        try:
            try:
                if path in self._jobs or self._is_job(box, path):
                    return self._look_at_job(box, path)
                self._journal_request(box, path, timeout_s)
                self._taken[path] = None
                self._remove(box, path)
            except RequestRejected as rejected:
                self._jobs.pop(path, None)
                self._refused[path] = str(rejected)
                self._put_aside(box, path)
        except FileNotFoundError:
            return True  # it was taken back
        except (OSError, wal.LogError) as error:
            self._tell_once(path.name, f"request {path.name!r} stays in its place, to be tried again: {error}")
            return False
        return True

    def _clear_away(self, box: RequestBox) -> None:
        """Try again to remove what was taken up and to move what was refused, a bounded number at a time."""
        for path in list(self._taken)[:PER_SCAN_MAX]:
            self._remove(box, path)
        for path in list(self._refused)[:PER_SCAN_MAX]:
            self._put_aside(box, path)

    def _remove(self, box: RequestBox, path: Path) -> None:
        """A request was taken up, durably. Where its file stays, its name is kept: the log forgets old ids."""
        del self._taken[path]
        try:
            box.done(path)
        except OSError as error:
            self._taken[path] = None
            self._tell_once(path.name, f"request {path.name!r} was taken up, and cannot be removed: {error}")

    def _put_aside(self, box: RequestBox, path: Path) -> None:
        """A request was refused. Where it cannot be moved it stays, and is in nobody's way."""
        reason = self._refused.pop(path)
        try:
            box.put_aside(path, reason)
        except FileNotFoundError:
            return  # it was taken back
        except OSError as error:
            self._refused[path] = reason
            self._tell_once(path.name, f"request {path.name!r} stays in its place ({reason}): {error}")
        else:
            logger.warning("request %r was moved aside: %s", path.name, reason)

    def _is_job(self, box: RequestBox, path: Path) -> bool:
        """Whether a request asks for a job; it is begun then, where that is done here."""
        if path in self._queued:
            return False
        request = box.read(path)
        if request.directive not in JOBS:
            return False
        if self._begin_job is None:
            return True
        refusal = self._journal.refusal()
        if refusal is not None:  # what it is about to do would come to nothing
            raise NotRecorded(f"the log takes no record at the moment ({refusal})")
        self._jobs[path] = self._begin_job(request)
        logger.info("request %r was taken up: %s", path.name, request.directive)
        return True

    def _look_at_job(self, box: RequestBox, path: Path) -> bool:
        """Answer a request whose job has ended. One that the end of this process stopped stays for the next."""
        job = self._jobs.get(path)
        if job is None:
            return False  # no jobs are done here: it stays for the service
        if not job.done():
            return True
        failure = job.exception()
        if isinstance(failure, ServiceClosed):
            del self._jobs[path]
            return True
        if isinstance(failure, NotRecorded):  # it is begun again; who is behind it need not wait for that
            del self._jobs[path]
            self._tell_once(path.name, f"request {path.name!r} stays in its place, to be tried again: {failure}")
            return False
        if isinstance(failure, RequestRejected):  # it says so in its own words
            raise failure
        if failure is not None:
            raise RequestRejected(f"{type(failure).__name__}: {failure}") from failure
        box.answer(path, job.result())
        box.done(path)
        del self._jobs[path]
        return True

    def _journal_request(self, box: RequestBox, path: Path, timeout_s: float | None) -> None:
        recorded = self._queued.pop(path, None) or self.direct(box.read(path))
        if recorded is None:
            return  # an earlier process took it up and had no time to remove it
        try:
            recorded.result(timeout_s)
        except TimeoutError:
            self._queued[path] = recorded
            raise
        logger.info("request %r was taken up at LSN %d", path.name, recorded.first_lsn)

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self._told:
            logger.warning("%s", message)
            self._told = (self._told if len(self._told) < TOLD_MAX else frozenset()) | {what}


def _directed(state: State, request: Request, now_ns: int) -> tuple[Event, ...]:
    if request.request_id in state.directives:
        return ()
    return operator_directed(
        state,
        request.directive,
        operator=request.operator,
        reason=request.reason,
        now_ns=now_ns,
        request_id=request.request_id,
    )
