import json
import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from projection_rig import append, decided, history, open_log, opened, received, write_log
from rig import packet, proposal

import wal
from tamiyo.cli import main
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.events import encode
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection, database
from tamiyo.projections.parquet import ExportUnavailable, export_parquet
from tamiyo.projections.parquet_schema import FILES, enum_name, markdown
from tamiyo.testing import History

PAGE = Path(__file__).resolve().parents[2] / "docs/exports.md"
STEPS = 5


def lived():
    """A history of steps with everything that the files show: a timeout, a late commit, reports published and not."""
    story = History()
    for index in range(STEPS):
        made = packet(validation_loss=0.5, training_loss=0.25, current_epoch=index, global_step=10 + index)
        made.training_metrics.update({"loss": 0.5, "hook_latency_ms": 3.0})
        story.step(made, "timeout" if index == 1 else proposal())
    story.publish(succeeded=True)
    story.step(packet(), proposal())
    story.commit_is_late()
    story.step(packet(), proposal())
    return story


@pytest.fixture
def directory(tmp_path):
    story = lived()
    with open_log(tmp_path) as log:
        log.append([(entry.kind, entry.payload) for entry in story.entries()])
    return tmp_path


def exported(directory, **options):
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal")
        return export_parquet(projection, directory / "wal", directory / "out", **options)


def read(directory, name):
    return pq.read_table(directory / "out" / f"{name}.parquet")


def rows_of(directory, name):
    """The rows of a file, times as nanoseconds since 1970: Python's own stop at microseconds."""
    table = read(directory, name)
    plain = [f.with_type(pa.int64()) if pa.types.is_timestamp(f.type) else f for f in table.schema]
    return table.cast(pa.schema(plain)).to_pylist()


def type_name(kind):
    """As Arrow writes it, but for the names of a map's fields."""
    if pa.types.is_map(kind):
        return f"map<{kind.key_type}, {kind.item_type}>"
    return str(kind).replace("tz=", "")


@pytest.mark.parametrize("name", FILES)
def test_every_column_has_the_type_the_unit_and_the_presence_that_the_table_says(directory, name):
    exported(directory)
    schema = read(directory, name).schema
    assert [(f.name, type_name(f.type), not f.nullable) for f in schema] == [
        (c.name, c.type, c.required) for c in FILES[name]
    ]
    assert [(f.metadata[b"unit"].decode(), f.metadata[b"meaning"].decode()) for f in schema] == [
        (c.unit, c.meaning) for c in FILES[name]
    ]


def test_the_page_shows_the_table():
    text = PAGE.read_text(encoding="utf-8")
    _, shown = text.split("<!-- columns -->\n\n")
    assert shown == markdown(), "run `python -m tamiyo.projections.parquet_schema` and put its output at the page's end"


def test_decisions_are_the_rows_of_the_projection_in_words_and_times(directory):
    exported(directory)
    found = rows_of(directory, "decisions")
    with Projection.open(directory) as projection:
        rows = projection.contents()["decisions"]
    assert [row["lsn"] for row in found] == [row[0] for row in rows]
    first, second = found[0], found[1]
    assert first["event_time"] == rows[0][3]
    assert (first["command_type"], first["seed_operation"]) == ("SEED", "START_GRAFTING")
    assert (first["inference"], first["policy_version"], first["policy_engine"]) == ("observed", "history-v1", "python")
    assert (second["command_type"], second["seed_operation"]) == ("PAUSE", None)
    assert (second["inference"], second["risk_reason"]) == ("timed_out", "timeout_inference")
    assert [row["superseded_cause"] for row in found] == [None] * STEPS + ["timeout_wal", None]


def test_steps_are_what_the_packets_said(directory):
    exported(directory)
    found = rows_of(directory, "steps")
    assert [row["step_index"] for row in found] == list(range(1, STEPS + 3))
    first = found[0]
    assert (first["training_run_id"], first["packet_id"], first["global_step"]) == ("run-1", "packet-1", 10)
    assert (first["validation_loss"], first["training_loss"], first["seeds"]) == (0.5, 0.25, 1)
    assert dict(first["training_metrics"]) == {"loss": 0.5, "hook_latency_ms": 3.0}
    assert found[-1]["training_metrics"] == []


def test_steps_and_decisions_join(directory):
    exported(directory)
    steps = {row["lsn"] for row in rows_of(directory, "steps")}
    assert {row["step_lsn"] for row in rows_of(directory, "decisions")} == steps


def test_reports_have_their_status_and_their_metrics(directory):
    exported(directory)
    found = rows_of(directory, "field_reports")
    certain = STEPS - 1  # the last decision before the bus was asked might still have been late
    assert [row["status"] for row in found][: STEPS + 1] == ["published"] * certain + ["pending", "superseded"]
    assert {row["outcome"] for row in found} <= {"SUCCESS", "NEUTRAL", "REGRESSION"}
    assert dict(found[0]["metrics"]).keys() >= {"loss_delta", "value_estimate"}
    assert found[0]["attempts"] == 1
    assert found[0]["attempted_at"] > found[0]["issued_at"]


def test_all_files_are_of_one_lsn_and_say_which(directory):
    exported(directory)
    said = {name: read(directory, name).schema.metadata for name in FILES}
    assert {meta[b"tamiyo.applied_lsn"] for meta in said.values()} == {str(len(lived().events)).encode()}
    assert {meta[b"tamiyo.log_id"].decode() for meta in said.values()} == {wal.head(directory / "wal").log_id.hex()}
    assert {meta[b"tamiyo.schema"] for meta in said.values()} == {b"1"}


def test_steps_past_the_projection_are_left_out(directory):
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal", limit=10)
        export_parquet(projection, directory / "wal", directory / "out")
    decisions, steps = (rows_of(directory, name) for name in ("decisions", "steps"))
    assert max(row["lsn"] for row in steps) <= 10
    assert 0 < len(decisions) <= len(steps) < STEPS


@pytest.mark.parametrize("rows_per_group", [1, 2, 3, 100])
def test_rows_are_written_in_groups_and_no_more_are_held_at_a_time(directory, rows_per_group, monkeypatch):
    from tamiyo.projections import parquet

    held = []
    monkeypatch.setattr(parquet, "_ROWS_PER_BATCH", 2)
    batch = parquet._batch
    monkeypatch.setattr(parquet, "_batch", lambda schema, rows: held.append(len(rows)) or batch(schema, rows))
    exported(directory, rows_per_group=rows_per_group)
    assert max(held) <= min(rows_per_group, 2)
    file = pq.ParquetFile(directory / "out" / "steps.parquet")
    groups = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
    assert sum(groups) == STEPS + 2
    assert groups[:-1] == [rows_per_group] * (len(groups) - 1)


def test_an_empty_log_gives_files_without_rows(tmp_path):
    write_log(tmp_path, [opened()])
    assert [file.rows for file in exported(tmp_path)] == [0, 0, 0]
    assert read(tmp_path, "decisions").num_rows == 0


def test_only_what_is_asked_for_is_written(directory):
    (file,) = exported(directory, files=["field_reports"])
    assert [path.name for path in (directory / "out").iterdir()] == ["field_reports.parquet"] == [file.path.name]
    with pytest.raises(KeyError):
        exported(directory, files=["nothing"])


def test_progress_is_told_to_the_end(directory):
    told = []
    exported(directory, rows_per_group=4, progress=lambda *one: told.append(one))
    assert told[:2] == [("decisions.parquet", 4, 7), ("decisions.parquet", 7, 7)]
    assert [one[0] for one in told][-1] == "field_reports.parquet"


def test_a_file_that_cannot_be_finished_leaves_the_one_before_it(directory):
    exported(directory)
    before = {path.name: path.read_bytes() for path in (directory / "out").iterdir()}
    with open_log(directory) as log:
        append(log, [journal.StepReceived(step_index=99, event_time_ns=1, packet=b"\xff\xff")])
    with pytest.raises(JournalUnreadable, match="packet"):
        exported(directory, files=["steps"])
    assert {path.name: path.read_bytes() for path in (directory / "out").iterdir()} == before


def test_what_retention_took_is_missing_or_null(tmp_path):
    with wal.Log.open(tmp_path / "wal", segment_bytes=8192) as log:
        for batch in history(60):
            log.append([encode(event) for event in batch])
        plan = journal.RetentionPlanned(run_id="r", prune_before_lsn=100, base_lsn=182)
        log.append([encode(base_of(State(last_lsn=181, decisions=60), {}, 5)), encode(plan)])
        first_lsn = log.prune(100).first_lsn
    exported(tmp_path)
    decisions, steps = (rows_of(tmp_path, name) for name in ("decisions", "steps"))
    assert [row["lsn"] for row in decisions] == [number for number in range(100, 182) if number % 3 == 1]
    assert decisions[0]["step_index"] is None
    assert steps[0]["lsn"] >= first_lsn > 1


def test_odd_texts_and_unheard_of_numbers_come_through(tmp_path):
    made = pb.AdaptationCommand(command_id="a\x00b", command_type=99)
    write_log(tmp_path, [opened(), received(), decided(2, made, reason="ünï 💥 \\u0000")])
    exported(tmp_path)
    (row,) = rows_of(tmp_path, "decisions")
    assert (row["command_id"], row["command_type"], row["risk_reason"]) == ("a\x00b", "99", "ünï 💥 \\u0000")


def test_a_number_that_is_none_is_null(tmp_path):
    odd = decided(2)
    odd.loss_delta = float("nan")
    write_log(tmp_path, [opened(), received(), odd])
    exported(tmp_path)
    assert rows_of(tmp_path, "decisions")[0]["loss_delta"] is None


def test_names_of_leyline_lose_their_family():
    assert enum_name(pb.CommandType, pb.COMMAND_PAUSE) == "PAUSE"
    assert enum_name(pb.FieldReportOutcome, 77) == "77"


def without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)


def test_without_pyarrow_the_error_says_how_to_install_it(directory, monkeypatch):
    without_pyarrow(monkeypatch)
    with pytest.raises(ExportUnavailable, match=r"pip install 'tamiyo\[export\]'"):
        exported(directory)
    assert not (directory / "out").exists()


def command(directory, *options):
    return CliRunner().invoke(main, ["export", str(directory), "--to", str(directory / "out"), *options])


def test_the_command_writes_every_file_and_says_where(directory):
    result = command(directory)
    assert result.exit_code == 0, result.output
    assert f"{directory / 'out' / 'steps.parquet'}: 7 rows" in result.stdout
    assert sorted(path.name for path in (directory / "out").iterdir()) == sorted(f"{name}.parquet" for name in FILES)
    assert [column.name for column in FILES["steps"]] == read(directory, "steps").column_names


def test_the_command_writes_what_is_asked_for(directory):
    assert command(directory, "--only", "steps", "--only", "decisions").exit_code == 0
    assert sorted(path.name for path in (directory / "out").iterdir()) == ["decisions.parquet", "steps.parquet"]


def test_the_command_without_pyarrow_says_how_to_install_it(directory, monkeypatch):
    without_pyarrow(monkeypatch)
    result = command(directory)
    assert result.exit_code == 1
    assert "pip install" in result.output


def test_the_command_works_beside_a_writer_and_where_the_projection_cannot_be_written(directory, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    (directory / "projection.sqlite").mkdir()
    with open_log(directory) as log:
        result = command(directory)
        assert result.exit_code == 0, result.output
        assert "into a temporary file instead" in result.stderr
        assert log.failure is None


def test_a_directory_without_a_log_is_a_clear_error(tmp_path):
    result = command(tmp_path)
    assert result.exit_code == 2
    assert "has no log" in result.output


def test_a_folder_that_cannot_be_made_is_a_clear_error(directory):
    (directory / "out").write_text("a file")
    result = CliRunner().invoke(main, ["export", str(directory), "--to", str(directory / "out" / "deeper")])
    assert result.exit_code == 1
    assert "cannot be exported" in result.output


def test_times_are_readable_as_times(directory):
    exported(directory)
    table = read(directory, "decisions")
    assert table.schema.field("event_time").type == pa.timestamp("ns", "UTC")
    shown = table.column("event_time").cast(pa.timestamp("us", "UTC"))[0].as_py()
    assert isinstance(shown, datetime)
    assert shown.year == 2023
    assert json.dumps(shown.isoformat()).endswith('+00:00"')
