"""The library itself: save, get and list, from any thread."""

import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import DecodeError
from sqlalchemy import URL, Engine, LargeBinary, cast, create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from tamiyo.integrations.urza.errors import ExtrasRejected, LibraryUnusable
from tamiyo.integrations.urza.extras import EMPTY, read_extras, write_extras
from tamiyo.integrations.urza.models import Base, BlueprintRow
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["UrzaLibrary", "UrzaRecord"]

logger = logging.getLogger(__name__)

_STORED = select(
    *(cast(column, LargeBinary) for column in (BlueprintRow.descriptor, BlueprintRow.artifact, BlueprintRow.extras))
)
"""Cast, because SQLite keeps whatever type an editor of the file has written, and only bytes are read here."""


@dataclass(frozen=True, slots=True)
class UrzaRecord:
    """One blueprint. `extras_problem` says why extras are empty though they should not be, "" where all is well."""

    descriptor: pb.BlueprintDescriptor
    artifact: bytes = field(repr=False)
    extras: Mapping[str, Any] = field(repr=False)
    extras_problem: str = ""


class UrzaLibrary:
    """A blueprint library in a database. Every call is a transaction of its own and may come from any thread."""

    def __init__(self, engine: Engine) -> None:
        """Made by `open`."""
        self._engine = engine
        self._where = engine.url.render_as_string(hide_password=True)
        self._closed = False
        self._counting = threading.Lock()
        self._extras_problems = 0

    @classmethod
    def open(cls, path_or_url: Path | str) -> Self:
        """Open a library, made when missing.

        Args:
            path_or_url: a file for SQLite, or an SQLAlchemy URL (anything with "://").

        Raises:
            LibraryUnusable: the database cannot be opened, or is one in memory, which threads could not share.
        """
        library = cls(_engine(path_or_url))
        with library._reaching("open"):
            library._make_tables()
        return library

    @property
    def extras_problems(self) -> int:
        """How many times `get` found extras that it could not read."""
        return self._extras_problems

    def save(self, descriptor: pb.BlueprintDescriptor, artifact: bytes, extras: Mapping[str, Any] = EMPTY) -> None:
        """Store a blueprint, over an earlier one of the same id; durable on return.

        Raises:
            ExtrasRejected: the descriptor has no id, the artifact is no bytes, or JSON cannot hold the extras; nothing
                was written.
            LibraryUnusable: the database cannot be written; what was there before still is.
        """
        if not descriptor.blueprint_id:
            raise ExtrasRejected("a blueprint without an id cannot be saved: set descriptor.blueprint_id")
        row = BlueprintRow(
            blueprint_id=descriptor.blueprint_id,
            tier=descriptor.tier,
            risk=None if math.isnan(descriptor.risk) else descriptor.risk,
            descriptor=descriptor.SerializeToString(deterministic=True),
            artifact=_artifact_bytes(descriptor.blueprint_id, artifact),
            extras=write_extras(descriptor.blueprint_id, extras),
        )
        with self._reaching(f"save {row.blueprint_id!r} in"), Session(self._engine) as session, session.begin():
            session.merge(row)

    def get(self, blueprint_id: str) -> UrzaRecord | None:
        """One blueprint, None for an unknown id. Extras that cannot be read are empty, and reported.

        Raises:
            LibraryUnusable: the database cannot be read, or the stored descriptor is damaged.
        """
        if not _is_text(blueprint_id):
            return None  # a lone surrogate is in no Leyline id
        with self._reaching(f"get {blueprint_id!r} from"), Session(self._engine) as session:
            row = session.execute(_STORED.where(BlueprintRow.blueprint_id == blueprint_id)).one_or_none()
        return None if row is None else self._record(blueprint_id, row[0], row[1], row[2])

    def list(self, tier: int | None = None) -> tuple[str, ...]:
        """Every id, or those of one tier: the safest tier first (unspecified last), then the least risk, then by id.

        Raises:
            LibraryUnusable: the database cannot be read.
        """
        wanted = select(BlueprintRow.blueprint_id, BlueprintRow.tier, BlueprintRow.risk)
        if tier is not None:
            wanted = wanted.where(BlueprintRow.tier == tier)
        with self._reaching("list"), Session(self._engine) as session:
            rows = [(found[0], found[1], found[2]) for found in session.execute(wanted)]
        return tuple(row[0] for row in sorted(rows, key=_rank))

    def close(self) -> None:
        """Let go of the database; calls after it raise LibraryUnusable."""
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Return the library itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _make_tables(self) -> None:
        with self._engine.begin() as connection:
            for table in Base.metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))  # another process may open it too

    def _record(self, blueprint_id: str, stored: bytes, artifact: bytes, extras_json: bytes | None) -> UrzaRecord:
        try:
            descriptor = pb.BlueprintDescriptor.FromString(stored)
        except DecodeError as error:
            raise LibraryUnusable(
                f"the descriptor of {blueprint_id!r} in {self._where} does not parse: {error}; save it again"
            ) from error
        extras, problem = read_extras(extras_json)
        if problem:
            self._report(blueprint_id, problem)
        return UrzaRecord(descriptor, artifact, extras, problem)

    def _report(self, blueprint_id: str, problem: str) -> None:
        with self._counting:
            self._extras_problems += 1
        logger.warning("the extras of %r in %s are taken as empty: %s", blueprint_id, self._where, problem)

    @contextmanager
    def _reaching(self, doing: str) -> Iterator[None]:
        if self._closed:
            raise LibraryUnusable(f"cannot {doing} the library {self._where}: it was closed; open it again")
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise LibraryUnusable(f"cannot {doing} the library {self._where}: {cause}") from error


def _engine(path_or_url: Path | str) -> Engine:
    address = str(path_or_url)
    try:
        url = make_url(address) if "://" in address else URL.create("sqlite", database=address)
        engine = create_engine(url, pool_pre_ping="://" in address)
    except (ArgumentError, ImportError) as error:
        raise LibraryUnusable(
            f"{address!r} is no place for a library: {error}; give a file or an SQLAlchemy URL"
        ) from error
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise LibraryUnusable("a library in memory cannot be shared by threads: give a file")
    return engine


def _artifact_bytes(blueprint_id: str, artifact: object) -> bytes:
    if not isinstance(artifact, bytes | bytearray | memoryview):  # of a number `bytes` makes so many zeros
        kind = type(artifact).__name__
        raise ExtrasRejected(f"the artifact of blueprint {blueprint_id!r} is a {kind}: give its bytes")
    return bytes(artifact)


def _is_text(blueprint_id: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in blueprint_id)


def _rank(row: tuple[str, int, float | None]) -> tuple[bool, int, float, str]:
    blueprint_id, tier, risk = row
    unknown_risk = math.inf if risk is None else risk
    return (tier == pb.BLUEPRINT_TIER_UNSPECIFIED, tier, unknown_risk, blueprint_id)
