"""Retention beside a running service: on a thread of its own, at a pace that steps do not feel, stopped by a close."""

import threading
from concurrent.futures import Future

import orjson

from tamiyo.core.retention import Windows
from tamiyo.errors import ServiceClosed
from tamiyo.journal import Journal
from tamiyo.pace import Restful
from tamiyo.retention.report import Report
from tamiyo.retention.run import Order, Retention

__all__ = ["Retainer", "answered"]


class Retainer:
    """The retention runs of one service."""

    def __init__(self, journal_: Journal, windows: Windows) -> None:
        self._retention = Retention(journal_, windows)
        self._ended = threading.Event()
        self._threads: set[threading.Thread] = set()

    def begin(self, order: Order) -> Future[Report]:
        """Begin a run; what it raises is the future's. Returns at once."""
        future: Future[Report] = Future()
        thread = threading.Thread(target=self._work, args=(order, future), name="tamiyo-retention", daemon=True)
        self._threads = {alive for alive in self._threads if alive.is_alive()} | {thread}
        try:
            thread.start()
        except RuntimeError as error:  # no thread to be had
            self._threads.discard(thread)
            future.set_exception(error)
        return future

    def stop(self, timeout_s: float) -> None:
        """End what is under way, as a crash would: the next run goes on with it. Waits `timeout_s` at most for each."""
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _work(self, order: Order, future: Future[Report]) -> None:
        try:
            report = self._retention.run(order, pace=_Pace(self._ended))
        except Exception as error:  # noqa: BLE001  whoever asked gets it, whatever it is
            future.set_exception(error)
        else:
            future.set_result(report)


def answered(run: Future[Report]) -> Future[bytes]:
    """What a run comes to, as whoever asked for it in a file reads it: JSON."""
    answer: Future[bytes] = Future()

    def pass_on(ended: Future[Report]) -> None:
        failure = ended.exception()
        if failure is not None:
            answer.set_exception(failure)
        else:
            report = ended.result()
            answer.set_result(orjson.dumps(report.as_dict() | {"text": report.text}))

    run.add_done_callback(pass_on)
    return answer


class _Pace(Restful):
    """Rests, and raises once the service ends."""

    def __init__(self, ended: threading.Event) -> None:
        super().__init__()
        self._ended = ended

    def __call__(self) -> None:
        """Rest, when it is time to. Raises ServiceClosed."""
        if self._ended.is_set():
            raise ServiceClosed("a retention run was stopped by close(); the next one goes on with it")
        super().__call__()
