"""The contract, held by each database that is supported. Another one is another class here."""

import pytest
from contract import ProjectionContract, SharedProjectionContract

from tamiyo.projections import Projection
from tamiyo.projections.database import memory_engine, sqlite_engine


class Store:
    """Opens one database again and again; `engines` makes an engine for it."""

    def __init__(self, engines):
        self.engines = engines

    def open(self):
        return Projection.over(self.engines())


class TestSqliteFile(SharedProjectionContract):
    @pytest.fixture
    def store(self, tmp_path):
        return Store(lambda: sqlite_engine(tmp_path / "projection.sqlite"))


class TestSqliteMemory(ProjectionContract):
    @pytest.fixture
    def store(self, monkeypatch):
        """One connection is the database, so it is kept when a projection lets go of it."""
        engine = memory_engine()
        dispose = engine.dispose
        monkeypatch.setattr(engine, "dispose", lambda: None)
        yield Store(lambda: engine)
        dispose()
