import pytest

from tamiyo.projections import database


@pytest.fixture(autouse=True)
def sqlite_has_been_warned_of(monkeypatch):
    """Which SQLite the tests run on is no test's business but that of the warning itself."""
    monkeypatch.setattr(database, "_warned", [True])
