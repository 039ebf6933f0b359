import subprocess
import sys

import pytest
from projection_rig import (
    append,
    decided,
    history,
    made_new,
    observed,
    open_log,
    opened,
    projected,
    received,
    step,
    write_log,
)
from sqlalchemy import event

import wal
from tamiyo.projections import Projection
from tamiyo.projections import projection as module
from tamiyo.projections.tail import AHEAD, FOLLOW, FOREIGN, GONE, WAIT, Position, Tail, record_digest, verdict

HERE, STUB = wal.Entry(5, 2, b"here"), wal.Redacted(5, 2, b"")
STARTED, AT_5 = Position(), Position(5, "log", record_digest(HERE))
AT_STUB = Position(5, "log", record_digest(STUB))

# position, log id, record at the applied LSN, whether it was pruned, whether all is visible: verdict
CASES = [
    (STARTED, "", None, False, True, FOLLOW),
    (STARTED, "log", None, False, False, FOLLOW),
    (AT_5, "other", HERE, False, True, FOREIGN),
    (AT_5, "other", None, False, False, FOREIGN),
    (AT_5, "other", None, True, True, FOREIGN),
    (AT_5, "", None, False, True, FOREIGN),
    (AT_5, "", None, False, False, WAIT),
    (AT_5, "log", HERE, False, True, FOLLOW),
    (AT_5, "log", HERE, False, False, FOLLOW),
    (AT_5, "log", HERE._replace(payload=b"there"), False, True, FOREIGN),
    (AT_5, "log", HERE._replace(kind=3), False, False, FOREIGN),
    (AT_5, "log", STUB, False, True, GONE),
    (AT_STUB, "log", STUB, False, True, FOLLOW),
    (AT_5, "log", None, True, True, GONE),
    (AT_5, "log", None, True, False, GONE),
    (AT_5, "log", None, False, True, AHEAD),
    (AT_5, "log", None, False, False, WAIT),
]


@pytest.mark.parametrize(("position", "log_id", "here", "pruned", "all_visible", "expected"), CASES)
def test_what_the_log_shows_decides_how_to_go_on(position, log_id, here, pruned, all_visible, expected):
    assert verdict(position, log_id, here, pruned=pruned, all_visible=all_visible) == expected


def test_catching_up_applies_what_is_new_and_nothing_twice(tmp_path):
    write_log(tmp_path, *history(2))
    with Projection.open(tmp_path) as projection:
        assert projection.catch_up(tmp_path / "wal") == 7
        assert projection.catch_up(tmp_path / "wal") == 0
        write_log(tmp_path, step(8, 3))
        assert projection.catch_up(tmp_path / "wal") == 3
        assert projection.applied_lsn == 10
        assert projection.rebuilt_because == ""
        assert projection.contents() == made_new(tmp_path)


def test_a_log_of_one_record_is_known_again(tmp_path):
    write_log(tmp_path, [opened()])
    for expected in (1, 0):
        with Projection.open(tmp_path) as projection:
            assert projection.catch_up(tmp_path / "wal") == expected
            assert projection.rebuilt_because == ""


def test_a_projection_goes_on_where_another_process_left_it(tmp_path):
    write_log(tmp_path, *history(3))
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal", limit=4)
    with Projection.open(tmp_path) as projection:
        assert projection.applied_lsn == 4
        assert projection.catch_up(tmp_path / "wal") == 6
        assert projection.contents() == made_new(tmp_path)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 9, 10])
def test_a_limit_is_kept_to_wherever_it_cuts_a_batch(tmp_path, limit):
    write_log(tmp_path, *history(3))
    with Projection.open(tmp_path) as projection:
        assert projection.catch_up(tmp_path / "wal", limit=limit) == limit
        assert projection.applied_lsn == limit
        while projection.catch_up(tmp_path / "wal", limit=limit):
            pass
        assert projection.contents() == made_new(tmp_path)


def test_a_limit_of_nothing_applies_nothing(tmp_path):
    write_log(tmp_path, *history(1))
    with Projection.open(tmp_path) as projection:
        assert projection.catch_up(tmp_path / "wal", limit=0) == 0
        assert projection.applied_lsn == 0


def test_rows_do_not_depend_on_the_size_of_transactions(tmp_path, monkeypatch):
    write_log(tmp_path, *history(4))
    expected = made_new(tmp_path)
    for entries in (1, 2, 5):
        monkeypatch.setattr(module, "BATCH_ENTRIES", entries)
        assert made_new(tmp_path) == expected


def test_a_projection_ahead_of_its_log_is_made_anew_and_says_so(tmp_path, caplog):
    shorter, longer = tmp_path / "shorter", tmp_path / "longer"
    write_log(shorter, *history(1))
    subprocess.run(["cp", "-r", shorter, longer], check=True)
    write_log(longer, step(5, 2))
    with projected(longer):
        pass
    (longer / "projection.sqlite").rename(shorter / "projection.sqlite")
    with Projection.open(shorter) as projection:
        assert projection.catch_up(shorter / "wal") == 4
        assert "ahead of the log" in projection.rebuilt_because
        assert projection.contents() == made_new(shorter)
    assert "ahead of the log" in caplog.text


def test_a_projection_of_another_log_is_made_anew(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    write_log(one, *history(2, policy_version="v1"))
    write_log(other, *history(3, policy_version="v2"))
    with projected(one):
        pass
    (one / "projection.sqlite").rename(other / "projection.sqlite")
    with projected(other) as projection:
        assert "another log" in projection.rebuilt_because
        assert projection.contents() == made_new(other)


def test_a_log_that_was_cut_and_written_anew_past_the_applied_lsn_is_noticed(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_log(first, *history(1))
    subprocess.run(["cp", "-r", first, second], check=True)
    write_log(first, [received(2)])
    write_log(second, [received(77)], [observed(5), decided(5)])
    with projected(first):
        pass
    (first / "projection.sqlite").rename(second / "projection.sqlite")
    with projected(second) as projection:
        assert projection.rebuilt_because
        assert projection.contents() == made_new(second)


def test_an_empty_log_in_place_of_a_full_one_empties_the_projection(tmp_path):
    write_log(tmp_path, *history(1))
    with projected(tmp_path):
        pass
    (tmp_path / "wal").rename(tmp_path / "elsewhere")
    open_log(tmp_path).close()
    with projected(tmp_path) as projection:
        assert projection.applied_lsn == 0
        assert projection.contents() == made_new(tmp_path)


def test_a_missing_log_is_an_error_and_costs_no_rows(tmp_path):
    write_log(tmp_path, *history(1))
    with projected(tmp_path) as projection:
        before = projection.contents()
        with pytest.raises(FileNotFoundError):
            projection.catch_up(tmp_path / "nowhere")
        assert projection.contents() == before


def test_the_open_log_shows_every_batch_at_once(tmp_path):
    with open_log(tmp_path) as log, Projection.open(tmp_path) as projection:
        for number, batch in enumerate(history(3)):
            append(log, batch)
            assert projection.catch_up(log) == len(batch), number
        assert projection.applied_lsn == log.durable_lsn


def test_beside_a_writer_the_last_batch_may_be_hidden_and_that_is_no_reason_to_begin_again(tmp_path):
    with open_log(tmp_path) as log, Projection.open(tmp_path) as projection, Projection.open(tmp_path) as other:
        append(log, *history(2))
        projection.catch_up(log)
        assert projection.applied_lsn == 7
        other.catch_up(tmp_path / "wal")
        assert other.applied_lsn == 7
        assert other.rebuilt_because == ""
        append(log, step(8, 3))
        projection.catch_up(log)
        assert projection.rebuilt_because == ""
        assert projection.applied_lsn == 10


def test_two_that_catch_up_at_once_share_the_work(tmp_path, monkeypatch):
    """The second has read its batch when the first commits: it must apply none of it again."""
    write_log(tmp_path, *history(3))
    monkeypatch.setattr(module, "BATCH_ENTRIES", 4)
    with Projection.open(tmp_path) as slow, Projection.open(tmp_path) as fast:
        apply = slow._apply

        def overtaken(*given):
            fast.catch_up(tmp_path / "wal")
            return apply(*given)

        monkeypatch.setattr(slow, "_apply", overtaken)
        assert slow.catch_up(tmp_path / "wal") == 0
        assert slow.applied_lsn == 10
        assert slow.contents() == made_new(tmp_path)


def test_another_that_begins_again_meanwhile_leaves_no_gap(tmp_path, monkeypatch):
    write_log(tmp_path, *history(3))
    with Projection.open(tmp_path) as slow, Projection.open(tmp_path) as other:
        slow.catch_up(tmp_path / "wal", limit=4)
        apply, begun = slow._apply, []

        def interrupted(*given):
            if not begun:
                begun.append(other._begin_again("for the test"))
            return apply(*given)

        monkeypatch.setattr(slow, "_apply", interrupted)
        slow.catch_up(tmp_path / "wal")
        assert slow.contents() == made_new(tmp_path)


def test_an_interrupted_transaction_leaves_rows_and_position_together(tmp_path, monkeypatch):
    write_log(tmp_path, *history(2))
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal", limit=1)
        before = projection.contents()

        def fail(connection, position):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(module, "_move", fail)
            with pytest.raises(KeyboardInterrupt):
                projection.catch_up(tmp_path / "wal")
        assert projection.contents() == before
        assert projection.catch_up(tmp_path / "wal") == 6
        assert projection.contents() == made_new(tmp_path)


KILLED = """
import os, sys
from pathlib import Path
from tamiyo.projections import Projection, projection as module
directory = Path(sys.argv[1])
move = module._move
module._move = lambda *given: (move(*given), os._exit(9))     # dies between the rows and the commit
with Projection.open(directory) as projection:
    projection.catch_up(directory / "wal")
"""


def test_a_process_that_dies_in_a_transaction_leaves_none_of_it(tmp_path):
    write_log(tmp_path, *history(2))
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal", limit=1)
        before = projection.contents()
    died = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert died.returncode == 9
    with Projection.open(tmp_path) as projection:
        assert projection.contents() == before
        projection.catch_up(tmp_path / "wal")
        assert projection.contents() == made_new(tmp_path)


def test_a_rebuild_gives_the_rows_that_following_gave(tmp_path):
    write_log(tmp_path, *history(2))
    with projected(tmp_path) as projection:
        before = projection.contents()
        assert projection.rebuild(tmp_path / "wal") == 7
        assert projection.contents() == before
        assert projection.rebuilt_because == "a rebuild was asked for"


def test_a_log_is_read_once_however_its_batches_and_the_transactions_meet(tmp_path, monkeypatch):
    """To look for its place anew a tail reads a segment from its start: once a batch would be quadratic."""
    write_log(tmp_path, *history(4))
    looked = []

    def counted(*given):
        looked.append(given)
        return Tail(*given)

    monkeypatch.setattr(module, "BATCH_ENTRIES", 2)
    monkeypatch.setattr(module, "Tail", counted)
    with Projection.open(tmp_path) as projection:
        assert projection.catch_up(tmp_path / "wal") == 13
        write_log(tmp_path, step(14, 5))
        assert projection.catch_up(tmp_path / "wal") == 3
    assert len(looked) == 1


def test_nor_is_it_read_again_where_a_limit_falls_into_the_middle_of_a_batch(tmp_path, monkeypatch):
    write_log(tmp_path, *history(4))
    looked = []
    monkeypatch.setattr(module, "Tail", lambda *given: looked.append(given) or Tail(*given))
    with Projection.open(tmp_path) as projection:
        for _ in range(6):
            assert projection.catch_up(tmp_path / "wal", 2) == 2
        assert projection.catch_up(tmp_path / "wal", 2) == 1
        assert projection.contents() == made_new(tmp_path)
        assert projection.catch_up(tmp_path / "wal", 2) == 0
    assert len(looked) == 2  # that of `made_new` too


def test_what_a_tail_has_read_ahead_is_left_where_another_process_has_written_its_rows(tmp_path):
    write_log(tmp_path, *history(4))
    with Projection.open(tmp_path) as one, Projection.open(tmp_path) as other:
        assert one.catch_up(tmp_path / "wal", 3) == 3
        assert other.catch_up(tmp_path / "wal", 4) == 4
        assert one.catch_up(tmp_path / "wal", 2) == 2
        assert other.catch_up(tmp_path / "wal") == 4
        assert one.catch_up(tmp_path / "wal") == 0
        assert one.contents() == made_new(tmp_path)


def test_one_that_rests_has_the_same_rows_made_in_smaller_transactions(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PACED_ENTRIES", 4)
    write_log(tmp_path, *history(9))
    rests, statements, made = [], [], []
    apply = Projection._apply
    monkeypatch.setattr(Projection, "_apply", lambda *given: made.append(apply(*given)) or made[-1])
    with Projection.open(tmp_path, pace=lambda: rests.append(len(made))) as projection:
        event.listen(projection.engine, "after_cursor_execute", lambda *_: statements.append(None))
        rests.clear()
        done = projection.catch_up(tmp_path / "wal")
        assert (len(rests), sum(made)) == (done + len(statements), done)
        rows = projection.contents()
    assert rests[0] == 0 < len(made) - 1 <= rests[-1]  # all along, not once all is written
    assert rows == made_new(tmp_path)
