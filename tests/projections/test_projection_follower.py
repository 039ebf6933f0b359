import threading

import pytest
from projection_rig import append, history, made_new, open_log, projected, step, write_log

from tamiyo.errors import JournalUnreadable, ProjectionUnusable
from tamiyo.projections import Projection, ProjectionFollower, follower

WAIT_S = 30  # no test takes as long unless it fails


class Attempts:
    """Stands between the follower and the projection: holds it where a test wants it, and says when it was there."""

    def __init__(self, monkeypatch):
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.fault = None
        catch_up = Projection.catch_up

        def held(projection, log, limit=None):
            self.begun.release()
            assert self.go.wait(WAIT_S)
            try:
                if self.fault is not None:
                    raise self.fault
                return catch_up(projection, log, limit)
            finally:
                self.ended.release()

        monkeypatch.setattr(Projection, "catch_up", held)


@pytest.fixture
def attempts(monkeypatch):
    return Attempts(monkeypatch)


def test_closing_catches_up_with_everything_that_was_logged(tmp_path):
    with open_log(tmp_path) as log:
        following = ProjectionFollower(tmp_path, log)
        for batch in history(5):
            append(log, batch)
            following.wake()
        assert following.close(WAIT_S)
    assert following.failure is None
    with Projection.open(tmp_path) as projection:
        assert projection.contents() == made_new(tmp_path)


def test_a_follower_of_a_directory_ends_with_every_row_once_the_log_is_closed(tmp_path):
    with open_log(tmp_path) as log:
        following = ProjectionFollower(tmp_path)
        append(log, *history(2))
        following.wake()
    assert following.close(WAIT_S)
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == 7
        assert projection.rebuilt_because == ""


def test_a_wake_brings_the_rows_without_closing(tmp_path, attempts):
    with open_log(tmp_path) as log:
        append(log, *history(1))
        following = ProjectionFollower(tmp_path, log)
        assert attempts.ended.acquire(timeout=WAIT_S)
        append(log, step(5, 2))
        following.wake()
        assert attempts.ended.acquire(timeout=WAIT_S)
        with Projection.open(tmp_path) as projection:
            assert projection.applied_lsn == 7
        following.close(WAIT_S)


def test_waking_and_logging_do_not_wait_for_a_projection_that_hangs(tmp_path, attempts):
    attempts.go.clear()
    with open_log(tmp_path) as log:
        following = ProjectionFollower(tmp_path, log)
        assert attempts.begun.acquire(timeout=WAIT_S)
        for batch in history(3):
            append(log, batch)
            following.wake()
        assert following.close(timeout_s=0.01) is False
        attempts.go.set()
        assert following.close(WAIT_S) is True
    with projected(tmp_path) as projection:
        assert projection.contents() == made_new(tmp_path)


def test_wakes_during_an_attempt_are_one_attempt_afterwards(tmp_path, attempts):
    write_log(tmp_path, *history(1))
    attempts.go.clear()
    following = ProjectionFollower(tmp_path)
    assert attempts.begun.acquire(timeout=WAIT_S)
    for _ in range(100):
        following.wake()
    attempts.go.set()
    assert attempts.begun.acquire(timeout=WAIT_S)
    assert attempts.ended.acquire(timeout=WAIT_S)
    assert attempts.ended.acquire(timeout=WAIT_S)
    assert not attempts.begun.acquire(blocking=False)
    following.close(WAIT_S)


@pytest.mark.parametrize("fault", [ProjectionUnusable("locked"), JournalUnreadable("newer"), OSError("gone")])
def test_a_fault_is_kept_logged_once_and_over_when_an_attempt_works(tmp_path, attempts, caplog, fault):
    write_log(tmp_path, *history(1))
    attempts.fault = fault
    following = ProjectionFollower(tmp_path)
    assert attempts.ended.acquire(timeout=WAIT_S)
    following.wake()
    assert attempts.begun.acquire(timeout=WAIT_S)
    assert attempts.begun.acquire(timeout=WAIT_S)  # the second has begun, so the first fault has been noted
    assert following.failure is fault
    assert attempts.ended.acquire(timeout=WAIT_S)
    attempts.fault = None
    following.close(WAIT_S)
    assert following.failure is None
    assert [record.name for record in caplog.records] == [follower.__name__]
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == 4


def test_a_fault_that_lasts_is_there_after_closing(tmp_path):
    following = ProjectionFollower(tmp_path / "nowhere")
    following.close(WAIT_S)
    assert isinstance(following.failure, ProjectionUnusable)


def test_how_far_it_has_come_and_how_far_behind_it_is_can_be_seen(tmp_path, attempts):
    with open_log(tmp_path) as log:
        append(log, *history(1))
        following = ProjectionFollower(tmp_path, log)
        assert attempts.ended.acquire(timeout=WAIT_S)
        following.wake()
        assert attempts.begun.acquire(timeout=WAIT_S)
        assert attempts.begun.acquire(timeout=WAIT_S)  # the second has begun, so the first is accounted for
        assert (following.applied_lsn, following.lag_records) == (4, 0)
        assert attempts.ended.acquire(timeout=WAIT_S)
        append(log, step(5, 2))
        assert following.lag_records == 3
        following.close(WAIT_S)
        assert (following.applied_lsn, following.lag_records) == (7, 0)


def test_what_is_read_from_a_directory_has_no_known_lag(tmp_path):
    write_log(tmp_path, *history(1))
    following = ProjectionFollower(tmp_path)
    following.close(WAIT_S)
    assert (following.applied_lsn, following.lag_records) == (4, None)


def test_a_follower_that_looks_by_itself_need_not_be_woken(tmp_path, attempts):
    with open_log(tmp_path) as log:
        following = ProjectionFollower(tmp_path, log, every_s=0.001)
        assert attempts.ended.acquire(timeout=WAIT_S)
        append(log, *history(1))
        while following.applied_lsn < 4:
            assert attempts.ended.acquire(timeout=WAIT_S)
        following.close(WAIT_S)


def test_a_long_backlog_is_applied_in_parts_that_can_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "BATCH_ENTRIES", 4)
    write_log(tmp_path, *history(5))
    following = ProjectionFollower(tmp_path)
    following.close(WAIT_S)
    assert following.applied_lsn == 16


def test_closing_again_does_nothing_more(tmp_path):
    write_log(tmp_path, *history(1))
    following = ProjectionFollower(tmp_path)
    assert following.close(WAIT_S)
    following.wake()
    assert following.close(WAIT_S)


def test_a_follower_rests_after_each_record_and_statement_where_steps_are_taken_and_only_there(tmp_path, monkeypatch):
    rests = []
    monkeypatch.setattr(follower, "Restful", lambda: lambda: rests.append(None))
    with open_log(tmp_path) as log:
        append(log, *history(3))
        last_lsn = log.durable_lsn
        ProjectionFollower(tmp_path, log).close(WAIT_S)
    taken = len(rests)
    assert taken > last_lsn > 0
    (tmp_path / "projection.sqlite").unlink()
    ProjectionFollower(tmp_path).close(WAIT_S)
    assert len(rests) == taken
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == last_lsn
