"""What a projection promises in any database. An engine that is to be supported passes this, and nothing else is asked.

A store is made by `make(directory)` and gives engines of one and the same database, one for each `open()`.
"""

import threading

import pytest
from projection_rig import append, decided, history, observed, open_log, opened, received, step, write_log

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS
from tamiyo.projections import Projection, database
from tamiyo.projections.doctor import Diagnosis, differences
from tamiyo.projections.models import Base

ODD = ["a\x00b", "\\", "\\u0000", "ünï 💥", "'; DROP TABLE decisions; --", "", "x" * 4_000]
MOST = 2**63 - 1


class ProjectionContract:
    """Subclass it with a fixture `store`, an object with `open()` that returns a Projection of the one database."""

    def test_rows_and_position_are_those_of_the_log(self, store, tmp_path):
        write_log(tmp_path, *history(3))
        with store.open() as projection:
            assert projection.catch_up(tmp_path / "wal") == 10
            assert projection.applied_lsn == 10
            assert [row[2] for row in projection.contents()["decisions"]] == [1, 2, 3]

    def test_following_in_pieces_through_several_connections_gives_what_one_go_gives(self, store, tmp_path):
        write_log(tmp_path, *history(5))
        for limit in (1, 2, 3, 5, None):
            with store.open() as projection:
                projection.catch_up(tmp_path / "wal", limit=limit)
        with store.open() as projection, Projection.in_memory() as other:
            other.catch_up(tmp_path / "wal")
            assert projection.canonical() == other.canonical()

    def test_a_transaction_that_fails_leaves_nothing(self, store, tmp_path, monkeypatch):
        from tamiyo.projections import projection as module

        write_log(tmp_path, *history(2))
        with store.open() as projection:
            projection.catch_up(tmp_path / "wal", limit=1)
            before = projection.canonical()
            with monkeypatch.context() as patched:
                patched.setattr(module, "_move", lambda *given: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    projection.catch_up(tmp_path / "wal")
            assert projection.canonical() == before

    def test_every_text_and_number_of_the_journal_comes_back_as_it_was(self, store, tmp_path):
        events = [opened()]
        for number, odd in enumerate(ODD, start=1):
            events += [received(number), decided(len(events) + 1, reason=odd)]
        events.append(journal.CommandDelivered(command_id="c", outcome="applied", event_time_ns=MOST))
        events.append(observed(0, [(0, 1e308)] * 3))
        write_log(tmp_path, events)
        with store.open() as projection, Projection.in_memory() as other:
            projection.catch_up(tmp_path / "wal")
            other.catch_up(tmp_path / "wal")
            assert {row[8] for row in projection.contents()["decisions"]} == set(ODD)
            assert projection.contents()["deliveries"][0][-1] == MOST
            assert repr(projection.norms()) == repr(other.norms())

    def test_rows_are_ordered_by_key_whatever_the_database_thinks_of_letters(self, store, tmp_path):
        keys = ["b", "B", "a", "ä", "Z", "_"]
        write_log(tmp_path, [journal.RegistryAssigned(kind="seed_id", keys=keys, first_index=1)])
        with store.open() as projection:
            projection.catch_up(tmp_path / "wal")
            found = [row[1] for row in projection.contents()["registries"] if row[0] == "seed_id"]
        assert found == sorted(keys)

    def test_what_retention_takes_is_forgotten(self, store, tmp_path):
        plan = journal.RetentionPlanned(run_id="r", prune_before_lsn=5)
        plan.payloads.add(kind=KINDS[journal.GraphObserved], upto_lsn=6)
        write_log(tmp_path, *history(2), [plan])
        with store.open() as projection:
            projection.catch_up(tmp_path / "wal")
            (row,) = projection.contents()["decisions"]
            assert (row[0], row[2], row[13]) == (7, 2, None)
            assert projection.summary().decisions == 2

    def test_the_status_of_a_report_follows_its_records(self, store, tmp_path):
        issued = journal.FieldReportIssued(step_lsn=0)
        tried = journal.PublishAttempted(report_lsns=[2], report_ids=["r"], attempt=1, succeeded=True)
        write_log(tmp_path, [opened(), issued, issued, tried])
        with store.open() as projection:
            projection.catch_up(tmp_path / "wal")
            assert dict(projection.summary().reports) == {"pending": 1, "published": 1}

    def test_a_rebuild_makes_every_row_anew(self, store, tmp_path):
        write_log(tmp_path, *history(3))
        with store.open() as projection:
            projection.catch_up(tmp_path / "wal")
            right = projection.canonical()
            with database.writing(projection.engine) as connection:
                connection.execute(Base.metadata.tables["decisions"].delete())
            assert projection.canonical() != right
            projection.rebuild(tmp_path / "wal")
            assert projection.canonical() == right

    def test_a_difference_is_named(self, store, tmp_path):
        write_log(tmp_path, *history(2))
        decisions = Base.metadata.tables["decisions"]
        with store.open() as projection, Projection.in_memory() as other:
            for one in (projection, other):
                one.catch_up(tmp_path / "wal")
            with database.writing(projection.engine) as connection:
                connection.execute(decisions.update().where(decisions.c.lsn == 7).values(coverage=0.5))
            (found,) = differences(projection.engine, other.engine, Diagnosis())
        assert (found.table, found.key, found.column) == ("decisions", {"lsn": 7}, "coverage")
        assert (found.found, found.expected) == (0.5, 0.75)

    def test_another_log_takes_the_place_of_the_first(self, store, tmp_path):
        write_log(tmp_path / "one", *history(3))
        write_log(tmp_path / "other", *history(2))
        with store.open() as projection:
            projection.catch_up(tmp_path / "one" / "wal")
            projection.catch_up(tmp_path / "other" / "wal")
            assert projection.applied_lsn == 7
            assert "another log" in projection.rebuilt_because

    def test_rows_follow_a_log_that_is_being_written(self, store, tmp_path):
        with open_log(tmp_path) as log, store.open() as projection:
            for number in range(3):
                append(log, [opened(event_time_ns=number + 1)] if number == 0 else step(3 * number - 1, number))
                projection.catch_up(log)
                assert projection.applied_lsn == log.durable_lsn


class SharedProjectionContract(ProjectionContract):
    """The same, and what only a database promises that several may have open at once."""

    def test_a_question_is_answered_from_one_state(self, store, tmp_path):
        from tamiyo.projections import queries

        write_log(tmp_path, *history(2))
        with store.open() as reader, store.open() as writer:
            with database.reading(reader.engine) as connection:
                before = queries.contents(connection)
                writer.catch_up(tmp_path / "wal")
                assert queries.contents(connection) == before
            assert reader.applied_lsn == 7

    def test_two_that_write_at_once_share_the_work(self, store, tmp_path):
        write_log(tmp_path, *history(30))
        failures = []

        def work():
            try:
                with store.open() as projection:
                    while projection.catch_up(tmp_path / "wal", limit=7):
                        pass
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with store.open() as projection, Projection.in_memory() as other:
            projection.catch_up(tmp_path / "wal")
            other.catch_up(tmp_path / "wal")
            assert projection.canonical() == other.canonical()
