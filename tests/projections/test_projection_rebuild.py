"""A rebuild is made beside the rows in use and takes their place at once, or not at all."""

import sqlite3
import subprocess
import sys

import pytest
from projection_rig import append, history, made_new, open_log, projected, step, write_log

from tamiyo.errors import ProjectionUnusable
from tamiyo.projections import Projection, database, queries, shadow


@pytest.fixture
def directory(tmp_path):
    """A log, and a projection of it in which a row is wrong."""
    write_log(tmp_path, *history(3))
    with projected(tmp_path):
        pass
    spoil(tmp_path)
    return tmp_path


def spoil(directory):
    connection = sqlite3.connect(directory / "projection.sqlite")
    connection.execute("UPDATE decisions SET risk_reason = 'spoiled'")
    connection.commit()
    connection.close()


def reasons(projection):
    return set(projection.summary().by_reason)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_rebuild_makes_every_row_anew_and_leaves_nothing_beside(directory):
    with Projection.open(directory) as projection:
        assert reasons(projection) == {"spoiled"}
        assert projection.rebuild(directory / "wal") == 10
        assert projection.contents() == made_new(directory)
    assert names(directory) == ["projection.sqlite", "wal"]


def test_a_reader_keeps_the_old_rows_until_it_is_done_and_sees_the_new_ones_then(directory):
    with Projection.open(directory) as reader, Projection.open(directory) as writer:
        with database.reading(reader.engine) as connection:
            before = queries.contents(connection)
            writer.rebuild(directory / "wal")
            assert queries.contents(connection) == before
        assert reasons(reader) == {"policy"}


def test_while_it_is_made_everybody_sees_the_old_rows(directory, monkeypatch):
    seen = []
    copy_over = shadow.copy_over

    def looked(source, target):
        with Projection.open(directory) as other:
            seen.append((other.applied_lsn, reasons(other)))
        copy_over(source, target)

    monkeypatch.setattr(shadow, "copy_over", looked)
    with Projection.open(directory) as projection:
        projection.rebuild(directory / "wal")
    assert seen == [(10, {"spoiled"})]


def test_an_interrupted_rebuild_leaves_the_old_rows_and_nothing_beside(directory, monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(shadow, "copy_over", interrupt)
    with Projection.open(directory) as projection:
        with pytest.raises(KeyboardInterrupt):
            projection.rebuild(directory / "wal")
        assert reasons(projection) == {"spoiled"}
    assert names(directory) == ["projection.sqlite", "wal"]


def test_a_rebuild_of_a_log_that_cannot_be_read_leaves_the_old_rows(directory):
    with Projection.open(directory) as projection:
        with pytest.raises(FileNotFoundError):
            projection.rebuild(directory / "nowhere")
        assert reasons(projection) == {"spoiled"}


DIES = """
import os, sys
from pathlib import Path
from tamiyo.projections import Projection, shadow
driver = shadow._driver
class Dying:
    def __init__(self, connection): self.connection = connection
    def backup(self, target, **options):
        def die(status, remaining, total):
            if remaining < total // 2:
                os._exit(9)                       # half of the pages are in the write-ahead log of the target
        self.connection.backup(target.connection, pages=1, progress=die)
shadow._driver = lambda connection: Dying(driver(connection))
directory = Path(sys.argv[1])
with Projection.open(directory) as projection:
    projection.rebuild(directory / "wal")
"""


def test_a_process_that_dies_in_the_swap_leaves_the_old_rows_and_the_next_rebuild_clears_up(directory):
    died = subprocess.run([sys.executable, "-c", DIES, directory], check=False)
    assert died.returncode == 9
    assert any(name.startswith("projection.rebuild-") for name in names(directory))
    with Projection.open(directory) as projection:
        assert reasons(projection) == {"spoiled"}
        projection.rebuild(directory / "wal")
        assert projection.contents() == made_new(directory)
    assert names(directory) == ["projection.sqlite", "wal"]


def test_the_folder_of_a_rebuild_under_way_is_left_alone(directory):
    with Projection.open(directory) as projection, shadow.beside(projection.engine) as other:
        with database.writing(other) as connection:
            connection.exec_driver_sql("CREATE TABLE its_own (id INTEGER)")
        projection.rebuild(directory / "wal")
        with database.reading(other) as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM its_own").scalar_one() == 0


def test_a_lock_that_stays_is_a_typed_error_and_leaves_the_old_rows(directory, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    with Projection.open(directory) as projection:
        holder = sqlite3.connect(directory / "projection.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(ProjectionUnusable, match="locked"):
            projection.rebuild(directory / "wal")
        holder.close()
        assert reasons(projection) == {"spoiled"}


def test_another_that_follows_meanwhile_goes_on_from_the_new_rows(directory):
    with open_log(directory) as log, Projection.open(directory) as follower, Projection.open(directory) as other:
        follower.catch_up(log)
        other.rebuild(log)
        append(log, step(11, 4))
        assert follower.catch_up(log) == 3
        assert follower.rebuilt_because == ""
    with Projection.open(directory) as projection:
        assert projection.contents() == made_new(directory)


def test_a_projection_in_memory_is_rebuilt_the_same_way(directory):
    with Projection.in_memory() as projection:
        projection.catch_up(directory / "wal", limit=4)
        projection.rebuild(directory / "wal")
        assert projection.contents() == made_new(directory)


def test_only_sqlite_is_swapped_by_its_own_backup():
    class Foreign:
        class connection:  # noqa: N801
            driver_connection = None

        class engine:  # noqa: N801
            url = "postgresql://"

    with pytest.raises(TypeError, match="postgresql"):
        shadow._driver(Foreign)


DELETED = {
    "the file alone": ["projection.sqlite"],
    "the file and its side files": ["projection.sqlite", "projection.sqlite-wal", "projection.sqlite-shm"],
}


@pytest.mark.parametrize("gone", DELETED.values(), ids=DELETED)
def test_a_file_that_is_deleted_while_it_is_in_use_is_noticed_and_made_anew(tmp_path, gone):
    with open_log(tmp_path) as log, Projection.open(tmp_path) as projection:
        append(log, *history(2))
        projection.catch_up(log)
        for name in gone:
            (tmp_path / name).unlink(missing_ok=True)
        append(log, step(8, 3))
        assert projection.catch_up(log) == 10
        assert "deleted" in projection.rebuilt_because
        with Projection.open(tmp_path) as other:
            assert other.applied_lsn == 10
            assert other.contents() == projection.contents()


def test_a_question_to_a_deleted_file_is_answered_by_the_new_one(directory):
    with Projection.open(directory) as projection:
        assert reasons(projection) == {"spoiled"}
        (directory / "projection.sqlite").unlink()
        assert projection.applied_lsn == 0
        assert (directory / "projection.sqlite").is_file()


def test_a_file_that_another_took_the_place_of_is_noticed(directory):
    with Projection.open(directory) as projection:
        (directory / "projection.sqlite").rename(directory / "old.sqlite")
        with projected(directory):
            pass
        assert reasons(projection) == {"policy"}
        assert "replaced" in projection.rebuilt_because


def test_a_directory_that_is_gone_is_a_typed_error(directory):
    with Projection.open(directory) as projection:
        (directory / "projection.sqlite").unlink()
        directory.rename(directory.with_name("moved"))
        with pytest.raises(ProjectionUnusable, match="unable to open"):
            projection.summary()


# version, whether it has the bug
VERSIONS = [
    ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False),
    ((3, 45, 0), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 0), True), ((3, 51, 2), True),
    ((3, 51, 3), False), ((3, 52, 0), False), ((4, 0, 0), False),
]  # fmt: skip


@pytest.mark.parametrize(("version", "bug"), VERSIONS)
def test_versions_of_sqlite_with_the_wal_reset_bug_are_known(version, bug):
    assert database.has_wal_reset_bug(version) is bug


def test_a_linked_sqlite_with_the_bug_is_warned_of_once_in_a_process(directory, monkeypatch, caplog):
    monkeypatch.setattr(database, "_warned", [])
    monkeypatch.setattr(database.sqlite3, "sqlite_version_info", (3, 51, 2))
    monkeypatch.setattr(database.sqlite3, "sqlite_version", "3.51.2")
    for _ in range(2):
        Projection.open(directory).close()
    (record,) = [record for record in caplog.records if "SQLite" in record.getMessage()]
    assert "3.51.2" in record.getMessage()
    assert "3.51.3 are cured" in record.getMessage()


def test_a_sound_sqlite_is_not_warned_of(directory, monkeypatch, caplog):
    monkeypatch.setattr(database, "_warned", [])
    monkeypatch.setattr(database.sqlite3, "sqlite_version_info", (3, 51, 3))
    Projection.open(directory).close()
    assert not [record for record in caplog.records if "SQLite" in record.getMessage()]
