"""Real retention runs on a real directory, and the projection that followed it all along."""

import pyarrow.parquet
import pytest
from projection_rig import made_new
from rig import packet, proposal

import wal
from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import encode
from tamiyo.projections import Projection, diagnose
from tamiyo.projections import projection as module
from tamiyo.projections.parquet import export_parquet
from tamiyo.retention import Order, prune_unrecorded, retain_directory
from tamiyo.testing import History, ManualClock

SEGMENT_BYTES = 2**14
STEPS = 24
SETTINGS = Settings(log_retention_hours=2, field_report_retention_hours=1, packet_retention_hours=1.5)


@pytest.fixture
def aged(tmp_path):
    """A log of steps ten minutes apart, all of it published, with a base now and then; its history."""
    made = History()
    for number in range(1, STEPS + 1):
        made.pass_time(600)
        made.step(packet(validation_loss=0.5), proposal())
        if number % 6 == 0:
            made.publish(succeeded=True)
            made.drain()
            made.base()
    with wal.Log.open(tmp_path / "wal", segment_bytes=SEGMENT_BYTES) as log:
        for event in made.events:
            log.append([encode(event)])
    return made


def clock(made):
    return ManualClock(wall=made.state.event_time_ns)


def test_a_retention_run_leaves_the_projection_what_a_new_one_is(aged, tmp_path):
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal")
        before = projection.summary()
        report = retain_directory(tmp_path, Order("run-1"), SETTINGS, clock=clock(aged))
        projection.catch_up(tmp_path / "wal")
        assert projection.rebuilt_because == ""
        found = projection.contents()
        after = projection.summary()
    assert report.outcomes
    completed = report.outcomes[0].completed
    assert completed.first_lsn > 1
    assert completed.payloads_redacted > 0
    assert found == made_new(tmp_path)
    assert after.decisions == before.decisions == STEPS
    assert dict(after.breakers) == dict(before.breakers)
    assert len(found["retention_runs"]) == len(report.outcomes)
    assert found["retention_runs"][0][1] == "run-1"
    assert completed.first_lsn in found["retention_runs"][0]
    pruned = [segment.segment for outcome in report.outcomes for segment in outcome.completed.segments]
    assert [row[1] for row in found["pruned_segments"]] == pruned
    assert 0 < len(found["field_reports"]) < len(found["decisions"]) < STEPS
    assert diagnose(tmp_path).sound


def test_a_projection_that_nobody_brought_up_to_date_meanwhile_is_made_from_what_is_left(aged, tmp_path):
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal", limit=5)
    retain_directory(tmp_path, Order("run-1"), SETTINGS, clock=clock(aged))
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal")
        assert "pruned" in projection.rebuilt_because
        assert projection.contents() == made_new(tmp_path)


def test_what_a_full_disk_had_no_room_to_plan_is_forgotten_too(aged, tmp_path):
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal")
        _, pruned = prune_unrecorded(tmp_path, SETTINGS, clock=clock(aged))
        assert pruned.first_lsn > 1
        projection.catch_up(tmp_path / "wal")
        assert projection.rebuilt_because == ""
        assert projection.contents() == made_new(tmp_path)
        assert projection.contents()["retention_runs"] == []


def test_an_export_goes_on_with_what_is_left_where_the_log_is_pruned_meanwhile(aged, tmp_path, monkeypatch):
    poll = wal.Reader.poll
    monkeypatch.setattr(wal.Reader, "poll", lambda reader, limit=4: poll(reader, limit))  # as of a log that is long
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal")
        begins = []

        def prune_once(name, rows, about):
            if not begins:
                _, pruned = prune_unrecorded(tmp_path, SETTINGS, clock=clock(aged))
                begins.append(pruned.first_lsn)

        folder = tmp_path / "exports"
        export_parquet(projection, tmp_path / "wal", folder, files=["steps"], progress=prune_once, rows_per_group=1)
    found = [row["lsn"] for row in pyarrow.parquet.read_table(folder / "steps.parquet").to_pylist()]
    steps = [lsn for lsn, event in enumerate(aged.events, 1) if isinstance(event, journal.StepReceived)]
    assert begins[0] > 1
    assert set(found) >= {lsn for lsn in steps if lsn >= begins[0]}
    assert found == sorted(set(found) & set(steps))


def test_a_base_that_is_pruned_while_it_is_looked_for_is_looked_for_again(aged, tmp_path, monkeypatch):
    retain_directory(tmp_path, Order("run-1"), SETTINGS, clock=clock(aged))
    look, pruned = module.base_past, [wal.Trimmed(1, 2)]

    def pruned_once(log, lsn):
        if pruned:
            raise pruned.pop()
        return look(log, lsn)

    monkeypatch.setattr(module, "base_past", pruned_once)
    with Projection.open(tmp_path) as projection:
        projection.catch_up(tmp_path / "wal")
        assert projection.contents() == made_new(tmp_path)
