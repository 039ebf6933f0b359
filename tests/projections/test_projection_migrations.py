import shutil
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from projection_rig import history, made_new, projected, write_log
from sqlalchemy import inspect

from tamiyo.errors import ProjectionUnusable
from tamiyo.projections import Projection
from tamiyo.projections import migrate as migrate_module
from tamiyo.projections import projection as projection_module
from tamiyo.projections.database import memory_engine, reading, sqlite_engine, writing
from tamiyo.projections.migrate import REVISION, migrate, migrations_folder, revision_of
from tamiyo.projections.models import Base

OF_0001 = {
    "applied", "openings", "decisions", "undecided_steps", "registries", "norms", "breaker_moves",
    "conservative_changes",
}  # fmt: skip


@pytest.fixture
def engine():
    made = memory_engine()
    yield made
    made.dispose()


def alembic(connection=None):
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def revisions():
    return [script.revision for script in ScriptDirectory.from_config(alembic()).walk_revisions()]


def differences(connection):
    return compare_metadata(MigrationContext.configure(connection), Base.metadata)


def test_there_is_one_head_and_the_code_names_it():
    assert ScriptDirectory.from_config(alembic()).get_heads() == [REVISION]


def from_nothing(connection, revision="head"):
    """Every revision in its turn, as a database of the first release came here."""
    command.upgrade(alembic(connection), revision)


def test_a_new_database_gets_the_tables_of_the_models_at_once(engine):
    with writing(engine) as connection:
        assert revision_of(connection) is None
        assert migrate(connection) == ""
        assert revision_of(connection) == REVISION
        assert differences(connection) == []


@pytest.mark.parametrize("revision", [None, *revisions()])
def test_an_upgrade_from_nothing_and_from_every_revision_makes_the_tables_of_the_models(engine, revision):
    with writing(engine) as connection:
        if revision is not None:
            from_nothing(connection, revision)
            migrate(connection)
        else:
            from_nothing(connection)
        assert revision_of(connection) == REVISION
        assert differences(connection) == []


def test_models_and_revisions_agree_in_every_column_default_and_constraint(engine):
    """What Alembic does not compare on SQLite: keys, nullability, generated columns and the order of the columns."""
    with writing(engine) as connection:
        from_nothing(connection)
        migrated = schema(connection)
    other = memory_engine()
    with writing(other) as connection:
        migrate(connection)
        assert schema(connection) == migrated
    other.dispose()


def schema(connection):
    seen = inspect(connection)
    return {
        table: (
            [
                (c["name"], str(c["type"]), c["nullable"], c["default"], c["primary_key"], c.get("computed"))
                for c in seen.get_columns(table)
            ],
            seen.get_pk_constraint(table)["constrained_columns"],
            sorted((u["name"], u["column_names"]) for u in seen.get_unique_constraints(table)),
            seen.get_indexes(table),
        )
        for table in seen.get_table_names()
    }


@pytest.mark.parametrize("revision", ["base", *revisions()[1:]])
def test_a_downgrade_and_an_upgrade_lead_back(engine, revision):
    with writing(engine) as connection:
        migrate(connection)
        command.downgrade(alembic(connection), revision)
        assert {table for table in inspect(connection).get_table_names() if table != "alembic_version"} == (
            {"0001": OF_0001, "0002": set(Base.metadata.tables) - {"policy_updates"}}.get(revision, set())
        )
        assert revision_of(connection) != REVISION
        migrate(connection)
        assert differences(connection) == []


def test_a_downgrade_to_nothing_leaves_no_table(engine):
    with writing(engine) as connection:
        migrate(connection)
        command.downgrade(alembic(connection), "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]


def test_a_migration_that_is_rolled_back_leaves_no_trace(engine):
    def interrupted():
        with writing(engine) as connection:
            migrate(connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with reading(engine) as connection:
        assert inspect(connection).get_table_names() == []


def test_tables_without_a_revision_are_dropped(engine):
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE foreign_to_us (id INTEGER)")
        assert revision_of(connection) == ""
        assert "unknown" in migrate(connection)
        assert "foreign_to_us" not in inspect(connection).get_table_names()
        assert differences(connection) == []


def test_threads_migrate_databases_of_their_own_at_once():
    failures = []

    def work():
        engine = memory_engine()
        try:
            with writing(engine) as connection:
                migrate(connection)
                assert revision_of(connection) == REVISION
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            engine.dispose()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_packaged_migrations_come_before_the_repositorys(tmp_path):
    room = tmp_path / "tamiyo" / "projections"
    for folder in (tmp_path / "migrations", room / "migrations"):
        folder.mkdir(parents=True)
        (folder / "env.py").touch()
        assert migrations_folder(room) == folder


def test_missing_migrations_are_a_typed_error(tmp_path):
    with pytest.raises(ProjectionUnusable, match="install"):
        migrations_folder(tmp_path / "tamiyo" / "projections")


def test_the_wheel_carries_the_migrations_where_the_package_looks_for_them():
    import tomllib

    root = Path(__file__).parents[2]
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["force-include"]["migrations"] == "tamiyo/projections/migrations"


ROWS_OF_0001 = """
INSERT INTO applied VALUES (1, 5, 'the digest of its first record', 'of its last', 1);
INSERT INTO openings VALUES (1, 7, 'v1', 'f');
INSERT INTO decisions VALUES (5, 2, 1, 3, 4, 'c-1', 3, 0, 'policy', 'v1', 'r', 's', 'b', 0.5, 1, 2, 3, 4, NULL, NULL);
INSERT INTO undecided_steps VALUES (4, 2, 9, NULL);
INSERT INTO norms VALUES ('loss', 1.0, 2.0);
INSERT INTO registries VALUES ('seed_id', 's', 1);
"""


@pytest.fixture
def old(tmp_path):
    """The directory of a service whose projection is of the first revision, with rows of that time."""
    write_log(tmp_path, *history(2))
    engine = sqlite_engine(tmp_path / "projection.sqlite")
    with writing(engine) as connection:
        from_nothing(connection, "0001")
        for statement in filter(None, map(str.strip, ROWS_OF_0001.split(";"))):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return tmp_path


def test_a_database_of_the_first_revision_is_migrated_and_its_rows_are_made_anew(old):
    with projected(old) as projection:
        assert projection.contents() == made_new(old)
        with reading(projection._engine) as connection:
            assert revision_of(connection) == REVISION
            assert differences(connection) == []


def test_a_downgrade_with_rows_and_an_upgrade_again_lead_back(old):
    with projected(old):
        pass
    engine = sqlite_engine(old / "projection.sqlite")
    with writing(engine) as connection:
        command.downgrade(alembic(connection), "0001")
    engine.dispose()
    with projected(old) as projection:
        assert projection.contents() == made_new(old)


FOURTH = """
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade():
    op.add_column("openings", sa.Column("of_the_future", sa.Integer()))


def downgrade():
    with op.batch_alter_table("openings") as table:
        table.drop_column("of_the_future")
"""


def test_a_database_of_an_older_revision_is_migrated_and_keeps_its_rows(tmp_path, monkeypatch):
    write_log(tmp_path, *history(2))
    with projected(tmp_path) as projection:
        before = projection.contents()
    shutil.copytree(migrations_folder(), tmp_path / "migrations")
    (tmp_path / "migrations" / "versions" / "0004_fourth.py").write_text(FOURTH)
    monkeypatch.setattr(migrate_module, "migrations_folder", lambda: tmp_path / "migrations")
    monkeypatch.setattr(migrate_module, "REVISION", "0004")
    monkeypatch.setattr(projection_module, "REVISION", "0004")
    with Projection.open(tmp_path) as projection:
        assert projection.contents() == before
        assert projection.rebuilt_because == ""
        with reading(projection._engine) as connection:
            assert revision_of(connection) == "0004"
            assert "of_the_future" in {column["name"] for column in inspect(connection).get_columns("openings")}
