"""Alembic, run on open: a projection is brought to this version's tables, or made new where that cannot be.

    the database says          what happens
    no tables at all           this version's tables are made, and said to be of its revision
    this version's revision    nothing
    an older, known revision   upgrade
    anything else              every table is dropped, then made; reported

A test holds the tables of the models against those that all revisions make from nothing.

All of it happens inside the caller's transaction, so an interrupted migration leaves no trace.
"""

import threading
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from tamiyo.errors import ProjectionUnusable
from tamiyo.projections.models import Base

__all__ = ["REVISION", "migrate", "migrations_folder", "revision_of"]

REVISION = "0003"
"""The head of `migrations/versions`; written here so that a current database opens without loading Alembic."""

_VERSIONS = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Alembic's own table, as it makes it."""

_lock = threading.Lock()
"""Alembic keeps the migration under way in a module, so two threads take turns."""


def revision_of(connection: Connection) -> str | None:
    """The revision the database says it is of, "" for one that does not say, None where there are no tables."""
    tables = inspect(connection).get_table_names()
    if _VERSIONS.name not in tables:
        return "" if tables else None
    return str(connection.execute(select(_VERSIONS.c.version_num)).scalar_one_or_none() or "")


def migrate(connection: Connection) -> str:
    """Bring the database to `REVISION`, inside the connection's transaction.

    Returns:
        Why its tables had to be dropped, or "" where they were kept.

    Raises:
        ProjectionUnusable: the migrations are not installed.
    """
    revision = revision_of(connection)
    if revision is None:
        _create(connection)
        return ""
    from alembic import command  # noqa: PLC0415  a sixth of a second that only an old database needs to pay
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in known:
        dropped = _drop_all(connection, revision)
        _create(connection)
        return dropped
    with _lock:
        command.upgrade(config, "head")
    return ""


def _create(connection: Connection) -> None:
    Base.metadata.create_all(connection)
    _VERSIONS.create(connection)
    connection.execute(insert(_VERSIONS), {"version_num": REVISION})


def migrations_folder(room: Path = Path(__file__).parent) -> Path:
    """Where the migrations lie: beside this module in an installed package, else at the top of the repository.

    Raises:
        ProjectionUnusable: neither place has them.
    """
    places = (room / "migrations", room.parents[1] / "migrations")
    for place in places:
        if (place / "env.py").is_file():
            return place
    raise ProjectionUnusable(
        f"the migrations of the projection are neither in {places[0]} nor in {places[1]}; "
        "the installation is incomplete: install the package again"
    )


def _drop_all(connection: Connection, revision: str) -> str:
    tables = MetaData()
    tables.reflect(connection, resolve_fks=False)
    tables.drop_all(connection)
    return f"its revision {revision!r} is unknown to this version, which is at {REVISION!r}"
