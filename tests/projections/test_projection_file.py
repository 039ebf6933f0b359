import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from projection_rig import history, made_new, projected, write_log

from tamiyo.errors import ProjectionUnusable
from tamiyo.projections import Projection, database

GARBAGE = b"this is not a database, and it is long enough to be looked at " * 100


@pytest.fixture
def directory(tmp_path):
    write_log(tmp_path, *history(2))
    return tmp_path


@pytest.fixture
def path(directory):
    return directory / "projection.sqlite"


def run_sql(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_database_is_in_wal_mode_and_waits_for_locks(directory, path):
    with projected(directory) as projection, database.reading(projection._engine) as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": database.BUSY_TIMEOUT_MS}


def test_a_reader_sees_one_state_while_a_writer_moves_on(directory):
    from tamiyo.projections import queries

    with Projection.open(directory) as reader, Projection.open(directory) as writer:
        with database.reading(reader._engine) as connection:
            before = queries.contents(connection)
            writer.catch_up(directory / "wal")
            assert queries.contents(connection) == before
        assert reader.applied_lsn == 7


def test_a_file_that_is_no_database_is_set_aside_and_made_anew(directory, path, caplog):
    path.write_bytes(GARBAGE)
    with projected(directory) as projection:
        assert projection.contents() == made_new(directory)
        assert "projection.sqlite.damaged" in projection.rebuilt_because
    assert (directory / "projection.sqlite.damaged").read_bytes() == GARBAGE
    assert "projection.sqlite.damaged" in caplog.text


def test_an_empty_file_is_a_new_projection(directory, path):
    path.touch()
    with projected(directory) as projection:
        assert projection.contents() == made_new(directory)
        assert projection.rebuilt_because == ""


def test_a_second_damaged_file_takes_the_place_of_the_first(directory, path):
    for content in (GARBAGE, b"again " + GARBAGE):
        path.write_bytes(content)
        with projected(directory):
            pass
        assert (directory / "projection.sqlite.damaged").read_bytes() == content


@pytest.mark.parametrize("page", range(1, 12))
def test_a_page_of_garbage_never_goes_unnoticed_or_unhealed(directory, path, page):
    """Catching up reads and writes only some pages; what it meets it heals, and reading the rest says so."""
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal", limit=4)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(min(page * 4096, size - 4096))
        file.write(b"\xa5" * 4096)
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal")
        try:
            found = projection.contents()
        except ProjectionUnusable:
            projection.rebuild(directory / "wal")
            found = projection.contents()
        assert found == made_new(directory)


def test_damage_met_while_catching_up_is_healed_at_once(directory, path):
    with Projection.open(directory) as projection:
        run_sql(path, "DROP TABLE decisions")
        assert projection.catch_up(directory / "wal") == 7
        assert projection.contents() == made_new(directory)
        assert "no such table" in projection.rebuilt_because


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE alembic_version SET version_num = '9999'"],
        ["UPDATE alembic_version SET version_num = '9999'", "CREATE TABLE of_the_future (id INTEGER)"],
        ["DELETE FROM alembic_version"],
        ["DROP TABLE alembic_version"],
    ],
)
def test_a_database_of_an_unknown_revision_is_dropped_and_made_anew(directory, path, statements, caplog):
    with projected(directory):
        pass
    run_sql(path, *statements)
    with projected(directory) as projection:
        assert "revision" in projection.rebuilt_because
        assert projection.contents() == made_new(directory)
    assert "revision" in caplog.text
    connection = sqlite3.connect(path)
    assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'of_the_future'").fetchall()
    connection.close()


def test_rows_made_by_other_projectors_are_made_anew(directory, path):
    with projected(directory):
        pass
    run_sql(path, "UPDATE applied SET projectors = 0", "UPDATE decisions SET risk_reason = 'stale'")
    with projected(directory) as projection:
        assert projection.contents() == made_new(directory)
        assert "projectors" in projection.rebuilt_because


def test_a_lock_that_stays_is_a_typed_error_and_costs_no_rows(directory, path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    with projected(directory) as projection:
        write_log(directory, *history(1)[1:2])
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(ProjectionUnusable, match="locked"):
            projection.catch_up(directory / "wal")
        assert projection.applied_lsn == 7
        holder.execute("ROLLBACK")
        holder.close()
        assert not (directory / "projection.sqlite.damaged").exists()


def test_a_projection_can_be_read_while_another_holds_the_write_lock(directory, path):
    with projected(directory):
        pass
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Projection.open(directory) as projection:
        assert projection.summary().decisions == 2
    holder.close()


def test_a_directory_in_the_place_of_the_file_is_a_typed_error(directory, path):
    path.mkdir()
    with pytest.raises(ProjectionUnusable, match="unable to open"):
        Projection.open(directory)


def test_a_missing_directory_is_a_typed_error(tmp_path):
    with pytest.raises(ProjectionUnusable, match="unable to open"):
        Projection.open(tmp_path / "nowhere")


def test_a_damaged_file_that_cannot_be_moved_away_is_a_typed_error(directory, path, monkeypatch):
    path.write_bytes(GARBAGE)
    monkeypatch.setattr(database, "set_aside", lambda engine: directory.rmdir())
    with pytest.raises(ProjectionUnusable, match="delete it"):
        Projection.open(directory)


def test_an_odd_directory_name_is_no_obstacle(tmp_path):
    directory = tmp_path / "100% ünï ?x=1#y"
    directory.mkdir()
    write_log(directory, *history(1))
    with projected(directory) as projection:
        assert projection.contents() == made_new(directory)
    assert (directory / "projection.sqlite").is_file()


def test_threads_that_open_a_new_projection_at_once_all_get_it(directory):
    found, failures = [], []

    def work():
        try:
            with projected(directory) as projection:
                found.append(projection.contents())
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert found == [made_new(directory)] * 4


class Refusing(sqlite3.Connection):
    """A connection whose first so many switches to WAL mode SQLite refuses."""

    refusals, code, switches = 0, sqlite3.SQLITE_BUSY, 0

    def execute(self, statement, *parameters):
        if "journal_mode" in statement:
            self.switches += 1
            if self.switches <= self.refusals:
                error = sqlite3.OperationalError("refused")
                error.sqlite_errorcode = self.code
                raise error
        return super().execute(statement, *parameters)


def test_a_switch_to_wal_that_others_are_in_the_way_of_is_asked_for_again(tmp_path):
    with closing(sqlite3.connect(tmp_path / "new.sqlite", factory=Refusing)) as connection:
        connection.refusals = 3
        database._on_connect(connection, None)
        assert connection.switches == 4
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
        with closing(sqlite3.connect(tmp_path / "new.sqlite")) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(("code", "timeout_ms"), [(sqlite3.SQLITE_BUSY, 0), (sqlite3.SQLITE_IOERR, 5_000)])
def test_a_switch_is_given_up_when_its_time_is_over_or_the_trouble_is_another(tmp_path, monkeypatch, code, timeout_ms):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", timeout_ms)
    with closing(sqlite3.connect(tmp_path / "new.sqlite", factory=Refusing)) as connection:
        connection.refusals, connection.code = 10**9, code
        with pytest.raises(sqlite3.OperationalError, match="refused"):
            database._on_connect(connection, None)
        assert connection.switches == 1


OPENS = """
import sys
from pathlib import Path
from tamiyo.projections import Projection
directory = Path(sys.argv[1])
with Projection.open(directory) as projection:
    projection.catch_up(directory / "wal")
    print(projection.applied_lsn, projection.summary().decisions, projection.rebuilt_because)
"""


def test_processes_that_open_a_new_projection_at_once_all_get_it(directory):
    processes = [
        subprocess.Popen([sys.executable, "-c", OPENS, directory], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["7 2 \n"] * 3
