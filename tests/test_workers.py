"""Calls under a deadline: answered in time or given up, with a bounded number of threads."""

import threading

from tamiyo.workers import DeadlineWorker, NotAttempted, Raised, Returned, TimedOut

LONG_S = 30.0
SHORT_S = 0.001


def test_a_call_returns_its_value() -> None:
    worker = DeadlineWorker("test")
    outcome = worker.call(lambda: 42, LONG_S)
    assert isinstance(outcome, Returned)
    assert outcome.value == 42
    worker.close()


def test_what_a_call_raises_is_its_outcome() -> None:
    worker = DeadlineWorker("test")
    outcome = worker.call(lambda: 1 // 0, LONG_S)
    assert isinstance(outcome, Raised)
    assert isinstance(outcome.error, ZeroDivisionError)
    worker.close()


def test_calls_share_one_thread() -> None:
    worker = DeadlineWorker("test")
    threads = {worker.call(threading.get_ident, LONG_S).value for _ in range(5)}
    assert len(threads) == 1
    worker.close()


def test_a_call_that_hangs_is_abandoned_and_the_next_one_runs() -> None:
    worker, release = DeadlineWorker("test"), threading.Event()
    assert isinstance(worker.call(release.wait, SHORT_S), TimedOut)
    assert worker.abandoned == 1
    assert isinstance(worker.call(lambda: 1, LONG_S), Returned)
    release.set()
    worker.close()


def test_with_four_out_nothing_is_attempted_until_one_comes_back() -> None:
    worker = DeadlineWorker("test")
    releases = [threading.Event() for _ in range(4)]
    before = threading.active_count()
    for release in releases:
        assert isinstance(worker.call(release.wait, SHORT_S), TimedOut)
    ran: list[int] = []
    for _ in range(10):
        assert isinstance(worker.call(lambda: ran.append(1), LONG_S), NotAttempted)
    assert ran == []
    assert threading.active_count() <= before + 4
    stuck = [thread for thread in threading.enumerate() if thread.name == "test"]
    releases[0].set()
    while sum(thread.is_alive() for thread in stuck) == 4:
        for thread in stuck:
            thread.join(0.01)
    assert isinstance(worker.call(lambda: 1, LONG_S), Returned)
    for release in releases:
        release.set()
    worker.close()


def test_a_late_result_is_dropped() -> None:
    worker, release = DeadlineWorker("test"), threading.Event()
    worker.call(lambda: (release.wait(), "late")[1], SHORT_S)
    release.set()
    assert worker.call(lambda: "fresh", LONG_S).value == "fresh"
    worker.close()


def test_a_worker_that_is_dropped_unclosed_lets_its_thread_go() -> None:
    worker = DeadlineWorker("dropped")
    worker.call(lambda: 1, LONG_S)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "dropped"]
    del worker
    thread.join(timeout=30)
    assert not thread.is_alive()
