import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner
from projection_rig import append, decided, history, made_new, open_log, projected, received, step, write_log

from tamiyo.cli import main
from tamiyo.projections import Projection, database, diagnose


def doctor(directory, *options):
    return CliRunner().invoke(main, ["doctor", str(directory), *options])


def as_json(directory, *options):
    result = doctor(directory, "--json", *options)
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def directory(tmp_path):
    write_log(tmp_path, *history(3))
    with projected(tmp_path):
        pass
    return tmp_path


def run_sql(directory, *statements):
    with closing(sqlite3.connect(directory / "projection.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_sound_projection_is_said_to_be_sound(directory):
    result = doctor(directory)
    assert result.exit_code == 0, result.output
    assert "the projection is what the log says" in result.stdout
    code, found = as_json(directory)
    assert (code, found["sound"], found["applied_lsn"], found["differences"]) == (0, True, 10, [])
    assert found["rows"] == sum(map(len, made_new(directory).values()))


def test_a_projection_that_is_behind_is_no_difference_and_stays_where_it_is(directory):
    write_log(directory, step(11, 4))
    code, found = as_json(directory)
    assert (code, found["applied_lsn"], found["compared_at_lsn"]) == (0, 10, 13)
    with Projection.open(directory) as projection:
        assert projection.applied_lsn == 10


@pytest.mark.parametrize(("behind_s", "noted"), [(0, False), (59, False), (61, True), (5 * 365 * 86_400, True)])
def test_a_log_whose_time_is_ahead_of_the_clock_is_noted_and_no_difference(directory, behind_s, noted):
    with projected(directory) as projection, projection.engine.connect() as connection:
        last_ns = connection.exec_driver_sql("SELECT max(event_time_ns) FROM decisions").scalar_one()
    found = diagnose(directory, wall_ns=lambda: last_ns - behind_s * 10**9)
    assert found.sound
    told = [note for note in found.notes if "this machine's clock" in note]
    assert [f"{behind_s:,} s ahead" in note for note in told] == [True] * noted


# what is done to it, what is said of it
SPOILED = {
    "a value": (
        "UPDATE decisions SET risk_reason = 'x' WHERE lsn = 7",
        ["decisions lsn 7: risk_reason is 'x', and the log says 'policy'"],
    ),
    "a value of a float": (
        "UPDATE norms SET mean = 9 WHERE name = 'loss'",
        ["norms name 'loss': mean is 9.0, and the log says 0.8"],
    ),
    "a row too few": ("DELETE FROM decisions WHERE lsn = 10", ["decisions lsn 10: the row is missing"]),
    "a row too many": (
        "INSERT INTO deliveries VALUES (4, 'c', 'applied', '', 5)",
        ["deliveries lsn 4: the log has no such row"],
    ),
    "a key": (
        "UPDATE registries SET key = 'ADAM' WHERE key = 'adam'",
        [
            "registries kind 'optimizer_family', key 'ADAM': the log has no such row",
            "registries kind 'optimizer_family', key 'adam': the row is missing",
        ],
    ),
    "two columns": (
        "UPDATE openings SET policy_version = 'v', code_fingerprint = 'g'",
        [
            "openings lsn 1: policy_version is 'v', and the log says 'baseline-1'",
            "openings lsn 1: code_fingerprint is 'g', and the log says 'f'",
        ],
    ),
}


@pytest.mark.parametrize(("statement", "sentences"), SPOILED.values(), ids=SPOILED)
def test_every_difference_is_named_by_table_key_and_column(directory, statement, sentences):
    run_sql(directory, statement)
    result = doctor(directory)
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if not line.startswith("note:")][:-1] == sentences
    assert "--repair" in result.stdout


def test_many_differences_are_counted_and_the_first_are_shown(directory):
    write_log(directory, *[step(11 + 3 * number, 4 + number) for number in range(60)])
    with projected(directory):
        pass
    run_sql(directory, "UPDATE decisions SET graph_ns = 0")
    result = doctor(directory)
    assert "and 43 more" in result.stdout
    assert as_json(directory)[1]["differences_total"] == 63


@pytest.mark.parametrize("statement", [entry[0] for entry in SPOILED.values()], ids=SPOILED)
def test_a_repair_makes_it_what_the_log_says(directory, statement):
    run_sql(directory, statement)
    code, found = as_json(directory, "--repair")
    assert (code, found["sound"], found["repaired"]) == (0, True, True)
    with Projection.open(directory) as projection:
        assert projection.contents() == made_new(directory)


def test_a_repair_of_what_is_sound_does_nothing(directory):
    assert as_json(directory, "--repair")[1]["repaired"] is False


def garbage(directory):
    (directory / "projection.sqlite").write_bytes(b"this is no database " * 1000)


def page_of_garbage(directory):
    """In the middle of a table, where only an integrity check looks."""
    with closing(sqlite3.connect(directory / "projection.sqlite")) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decisions'").fetchone()[0]
    with (directory / "projection.sqlite").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)


def ahead(directory):
    """The log was put back from a backup: the same one, and two records shorter than the projection has seen."""
    shutil.copytree(directory / "wal", directory / "backup")
    with open_log(directory) as log:
        append(log, [received(4)], [received(5)])
    with projected(directory):
        pass
    shutil.rmtree(directory / "wal")
    (directory / "backup").rename(directory / "wal")


def of_another_log(directory):
    (directory / "wal").rename(directory / "elsewhere")
    write_log(directory, *history(4))


# what is done to it, what is said of it
TROUBLES = {
    "missing": (lambda directory: (directory / "projection.sqlite").unlink(), "there is none"),
    "empty": (
        lambda directory: ((directory / "projection.sqlite").unlink(), (directory / "projection.sqlite").touch()),
        "it is empty",
    ),
    "no database": (garbage, "the file is damaged"),
    "a damaged page": (page_of_garbage, "the file is damaged"),
    "of an unknown revision": (
        lambda directory: run_sql(directory, "UPDATE alembic_version SET version_num = '9999'"),
        "revision '9999'",
    ),
    "without a revision": (lambda directory: run_sql(directory, "DROP TABLE alembic_version"), "no revision"),
    "without a table": (lambda directory: run_sql(directory, "DROP TABLE applied"), "damaged"),
    "without a table of rows": (lambda directory: run_sql(directory, "DROP TABLE deliveries"), "damaged"),
    "without a column": (lambda directory: run_sql(directory, "ALTER TABLE directives DROP COLUMN reason"), "damaged"),
    "of other projectors": (
        lambda directory: run_sql(directory, "UPDATE applied SET projectors = 1"),
        "version 1 of the projectors",
    ),
    "of nobody's": (lambda directory: run_sql(directory, "DELETE FROM applied"), "made by nobody"),
    "ahead of the log": (ahead, "ahead of the log"),
    "of another log": (of_another_log, "another log"),
}


@pytest.mark.parametrize(("spoil", "words"), TROUBLES.values(), ids=TROUBLES)
def test_a_projection_that_cannot_be_compared_is_said_to_be_why_and_a_repair_heals_it(directory, spoil, words):
    spoil(directory)
    result = doctor(directory)
    assert result.exit_code == 1
    assert words in result.stdout
    code, found = as_json(directory, "--repair")
    assert (code, found["sound"]) == (0, True), found
    with Projection.open(directory) as projection:
        assert projection.contents() == made_new(directory)


def test_a_file_that_another_process_has_for_itself_is_said_to_be_locked(directory, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    run_sql(directory, "PRAGMA journal_mode = DELETE")
    with closing(sqlite3.connect(directory / "projection.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        result = doctor(directory)
        assert result.exit_code == 1
        assert "locked" in result.stdout
        assert doctor(directory, "--repair").exit_code == 1


HEAP_BYTES = 8_000_000
WITH_LITTLE_MEMORY = """
import sqlite3
import sys

sqlite3.connect("").execute("PRAGMA hard_heap_limit = {heap}")
from tamiyo.errors import ProjectionUnusable
from tamiyo.projections import Projection, diagnose

found = diagnose(sys.argv[1])
print(found.sound, found.applied_lsn, found.differences_total)
try:
    Projection.in_memory().catch_up(sys.argv[1] + "/wal")
except (ProjectionUnusable, MemoryError):
    print("it is longer than memory")
"""


def test_a_projection_longer_than_memory_is_compared(directory):
    """SQLite is held to 8 MB in a process of its own, and each of the two copies has 16."""
    batches = [
        [received(4 + number), decided(11 + 2 * number, reason=f"{number:064,}" * 1_000)] for number in range(250)
    ]
    write_log(directory, *batches)
    with projected(directory):
        pass
    assert (directory / "projection.sqlite").stat().st_size > 2 * HEAP_BYTES
    run_sql(directory, "UPDATE decisions SET graph_ns = 1 WHERE lsn = 12")
    script = WITH_LITTLE_MEMORY.format(heap=HEAP_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["False 510 1", "it is longer than memory"]


def test_no_room_for_the_copies_is_a_clear_error_and_no_fault_of_the_projection(directory, monkeypatch):
    pages = counted_pages(directory)
    write_log(directory, *[step(11 + 3 * number, 4 + number) for number in range(200)])
    made = database.temporary_engine

    def small(*, most):
        engine = made()
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {most}")
        return engine

    for most in (pages // 2, pages + 2):  # no room for the copy; or none for what the log says
        monkeypatch.setattr(database, "temporary_engine", lambda most=most: small(most=most))
        result = doctor(directory)
        assert result.exit_code == 1
        assert "SQLITE_TMPDIR" in result.output
        assert "--repair" not in result.output
    monkeypatch.setattr(database, "temporary_engine", made)
    assert doctor(directory).exit_code == 0


def counted_pages(directory):
    with closing(sqlite3.connect(directory / "projection.sqlite")) as connection:
        return connection.execute("PRAGMA page_count").fetchone()[0]


def deny_side_files(directory):
    """Nobody can make the side files, root or not: as for an auditor who may read the directory and write nothing."""
    (directory / "projection.sqlite-shm").mkdir()


def test_who_may_only_read_is_told_the_same(directory):
    deny_side_files(directory)
    code, found = as_json(directory)
    assert (code, found["sound"], found["problem"]) == (0, True, "")
    (directory / "projection.sqlite-shm").rmdir()
    run_sql(directory, "UPDATE decisions SET risk_reason = 'x' WHERE lsn = 7")
    deny_side_files(directory)
    code, found = as_json(directory)
    assert (code, found["differences_total"]) == (1, 1)


def test_rows_that_are_not_in_the_file_yet_are_left_out_by_nobody(directory):
    path = directory / "projection.sqlite"
    assert database.is_alone(path)
    with projected(directory) as projection, projection.engine.connect() as writer:
        writer.exec_driver_sql("UPDATE decisions SET risk_reason = 'x' WHERE lsn = 7")
        writer.commit()
        assert not database.is_alone(path)
    assert database.is_alone(path)


def test_a_directory_in_its_place_is_said_to_be_one(directory):
    (directory / "projection.sqlite").unlink()
    (directory / "projection.sqlite").mkdir()
    assert "is no file" in doctor(directory).stdout


def test_a_writer_goes_on_undisturbed_beside_it(directory):
    with open_log(directory) as log:
        append(log, step(11, 4), step(14, 5))
        with Projection.open(directory) as projection:
            projection.catch_up(log)  # past what others see yet
        found = diagnose(directory)
        assert found.sound
        append(log, step(17, 6))
        assert log.failure is None
    assert diagnose(directory).compared_at_lsn == 19


def test_looking_changes_nothing(directory):
    run_sql(directory, "UPDATE decisions SET risk_reason = 'x'")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert doctor(directory).exit_code == 1
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_a_directory_without_a_log_is_a_clear_error(tmp_path):
    result = doctor(tmp_path)
    assert result.exit_code == 2
    assert "has no log" in result.output


def test_a_damaged_log_is_a_clear_error(directory):
    (segment,) = (directory / "wal").glob("*.wal")
    with segment.open("r+b") as file:
        file.seek(600)
        file.write(b"\xa5" * 64)
    result = doctor(directory)
    assert result.exit_code == 1
    assert "cannot be held against its log" in result.output


def test_a_linked_sqlite_with_the_wal_reset_bug_is_noted_once_and_no_difference(directory, monkeypatch, caplog):
    monkeypatch.setattr(database, "_warned", [])
    monkeypatch.setattr(database.sqlite3, "sqlite_version_info", (3, 50, 6))
    result = doctor(directory)
    assert result.exit_code == 0
    assert "note: SQLite" in result.stdout
    assert not [record for record in caplog.records if "SQLite" in record.getMessage()], "and not logged as well"
    monkeypatch.setattr(database.sqlite3, "sqlite_version_info", (3, 50, 7))
    assert "note:" not in doctor(directory).stdout
