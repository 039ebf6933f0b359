"""What SQLite itself does not notice: values that nobody wrote, side files that are taken away, tables of others."""

import sqlite3
import threading
from contextlib import closing

import pytest
from click.testing import CliRunner
from projection_rig import append, history, made_new, open_log, projected, step, write_log

from tamiyo.cli import main
from tamiyo.errors import ProjectionUnusable
from tamiyo.projections import Projection, ProjectionFollower, diagnose
from tamiyo.projections.parquet import export_parquet

WAIT_S = 30  # no test takes as long unless it fails

NONSENSE = {
    "where it stands, text": "UPDATE applied SET lsn = 'abc'",
    "where it stands, below nothing": "UPDATE applied SET lsn = -5",
    "what it is folded to": "UPDATE applied SET folded_lsn = x'00ff'",
    "where the log began": "UPDATE applied SET first_lsn = 'abc'",
    "no place at all": "DELETE FROM applied",
    "a norm, text": "UPDATE norms SET mean = 'abc'",
    "a norm, bytes": "UPDATE norms SET variance = x'00ff'",
    "no norms": "DELETE FROM norms",
    "a breaker": "UPDATE breakers SET state = 'abc'",
    "a count": "UPDATE controller SET decisions = 'abc'",
    "a version": "UPDATE controller SET policy_version = x'00ff'",
    "no controller": "DELETE FROM controller",
    "text that is none": "UPDATE applied SET record_digest = CAST(x'ff' AS TEXT)",
    "rows past the applied LSN": "UPDATE applied SET lsn = 7, folded_lsn = 7, record_digest = (SELECT d FROM kept)",
}


@pytest.fixture
def directory(tmp_path):
    """A log of ten records, of which three are projected after the digest of the seventh was kept aside."""
    write_log(tmp_path, *history(3))
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal", upto_lsn=7)
        run_sql(tmp_path, "CREATE TABLE kept AS SELECT record_digest AS d FROM applied")
        projection.catch_up(tmp_path / "wal")
    return tmp_path


def run_sql(directory, statement):
    with closing(sqlite3.connect(directory / "projection.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("while_open", [False, True], ids=["when opened", "in use"])
def test_rows_that_make_no_sense_are_made_anew(directory, statement, while_open):
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal")
        run_sql(directory, statement)
        if while_open:
            write_log(directory, step(11, 4))
            projection.catch_up(directory / "wal")
            assert projection.rebuilt_because
    if not while_open:
        write_log(directory, step(11, 4))
    with projected(directory) as projection:
        assert projection.contents() == made_new(directory)


@pytest.mark.parametrize("statement", NONSENSE.values(), ids=NONSENSE)
def test_the_doctor_says_that_rows_make_no_sense(directory, statement):
    run_sql(directory, statement)
    assert not diagnose(directory).sound


def test_a_question_to_rows_that_make_no_sense_is_a_typed_error(directory):
    with Projection.open(directory) as projection:
        run_sql(directory, "UPDATE norms SET mean = 'abc'")
        with pytest.raises(ProjectionUnusable, match="nobody wrote"):
            projection.summary()


def test_an_export_of_rows_that_make_no_sense_is_a_typed_error(directory, tmp_path):
    with Projection.open(directory) as projection:
        run_sql(directory, "UPDATE decisions SET issued_unix_ns = 'abc'")
        with pytest.raises(ProjectionUnusable, match="nobody wrote"):
            export_parquet(projection, directory / "wal", tmp_path / "exports", files=["decisions"])
    assert list((tmp_path / "exports").iterdir()) == []


def test_the_command_makes_rows_that_make_no_sense_anew_and_exports_them(directory, tmp_path):
    run_sql(directory, "UPDATE decisions SET training_run_id = CAST(x'ff' AS TEXT)")
    said = CliRunner().invoke(main, ["export", str(directory), "--to", str(tmp_path / "exports")])
    assert said.exit_code == 0, said.output
    assert diagnose(directory).sound


def test_damage_that_sqlite_quotes_with_bytes_that_are_no_text_is_damage(directory):
    path = directory / "projection.sqlite"
    path.write_bytes(path.read_bytes().replace(b"NOT NULL", b"NOT N\xd5LL"))
    assert "damaged" in diagnose(directory).problem
    with projected(directory) as projection:
        assert "damaged" in projection.rebuilt_because
        assert projection.contents() == made_new(directory)


SIDE_FILES = {
    "both": ["projection.sqlite-wal", "projection.sqlite-shm"],
    "the write-ahead log": ["projection.sqlite-wal"],
    "its index": ["projection.sqlite-shm"],
}


@pytest.mark.parametrize("gone", SIDE_FILES.values(), ids=SIDE_FILES)
def test_side_files_that_are_taken_away_while_it_is_in_use_hide_its_rows_from_nobody(directory, gone):
    with open_log(directory) as log, Projection.open(directory) as projection:
        projection.catch_up(log)
        for name in gone:
            (directory / name).unlink()
        append(log, step(11, 4))
        projection.catch_up(log)
        assert "deleted" in projection.rebuilt_because
        with Projection.open(directory) as other:
            assert other.contents() == projection.contents()
            assert other.applied_lsn == log.durable_lsn
    assert diagnose(directory).sound


def test_side_files_that_the_last_one_takes_along_are_not_missed(directory):
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal")
        projection.close()
        assert not (directory / "projection.sqlite-wal").exists()
        assert projection.catch_up(directory / "wal") == 0
        assert projection.rebuilt_because == ""


def test_side_files_that_a_read_only_file_left_read_only_lock_nobody_out_once_it_is_not(directory):
    names = ["projection.sqlite", "projection.sqlite-wal", "projection.sqlite-shm"]
    with projected(directory):
        for name in names[1:]:
            (directory / name).chmod(0o444)
        with Projection.open(directory) as other:
            assert [(directory / name).stat().st_mode & 0o222 for name in names] == [0o200] * 3
            assert other.contents() == made_new(directory)


def test_tables_that_another_version_has_changed_meanwhile_are_made_anew(directory):
    with Projection.open(directory) as projection:
        run_sql(directory, "UPDATE alembic_version SET version_num = '9999'")
        write_log(directory, step(11, 4))
        projection.catch_up(directory / "wal")
        assert "'9999' is unknown" in projection.rebuilt_because
        assert projection.contents() == made_new(directory)


def test_a_follower_outlives_whatever_an_attempt_meets(tmp_path, monkeypatch, caplog):
    catch_up, faults = Projection.catch_up, [RuntimeError("of our own making")]

    def faulty(projection, log, limit=None):
        if faults:
            raise faults.pop()
        return catch_up(projection, log, limit)

    monkeypatch.setattr(Projection, "catch_up", faulty)
    with open_log(tmp_path) as log:
        append(log, *history(2))
        following = ProjectionFollower(tmp_path, log)
        while following.failure is None:
            assert any(thread.name == "tamiyo-projection" for thread in threading.enumerate()), "it has died"
        assert "RuntimeError('of our own making')" in caplog.text
    assert following.close(WAIT_S)
    assert (following.failure, following.applied_lsn) == (None, 7)
