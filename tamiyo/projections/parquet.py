"""Decisions, steps and field reports as Parquet files, for DuckDB, Polars, Spark and the rest.

Decisions and reports are the projection's rows, in one state of it; steps are read from the log, up to the same LSN,
because only there are the packets. One row group at a time is held in memory, and each file is replaced as a whole.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, func, select

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, decode
from tamiyo.errors import HostError, JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import database
from tamiyo.projections.models import Decision, FieldReport, Policy
from tamiyo.projections.parquet_schema import FILES, SCHEMA_VERSION, Column, enum_name
from tamiyo.projections.projection import Projection, position_of
from tamiyo.projections.tail import LogSource, Position, reader
from tamiyo.whole import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS_PER_GROUP", "ExportUnavailable", "Exported", "export_parquet"]

ROWS_PER_GROUP = 65_536
"""Long enough to compress and to skip well; held in Arrow's own form until it is written: some 60 MB."""

_ROWS_PER_BATCH = 2_048
"""Rows that are Python objects at a time, which take ten times as much."""

INSTALL = "pip install 'tamiyo[export]'"

Progress = Callable[[str, int, int], None]
"""Called with the file's name, the rows written and about how many there are."""

_STEP_KIND = KINDS[journal.StepReceived]


class ExportUnavailable(HostError, RuntimeError):
    """The library that writes Parquet is not installed. The message says how to install it."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written: where, and how many rows it has."""

    path: Path
    rows: int


def export_parquet(
    projection: Projection,
    log: LogSource,
    folder: Path | str,
    *,
    files: Iterable[str] = tuple(FILES),
    progress: Progress | None = None,
    rows_per_group: int = ROWS_PER_GROUP,
) -> tuple[Exported, ...]:
    """Write `<file>.parquet` for each of `files` into a folder, made when missing.

    All of them are of one LSN, which stands in their metadata (`tamiyo.applied_lsn`). The projection is not brought up
    to date: catch up first. Each file is written beside and renamed, so a reader sees the old one or the new one.

    Args:
        projection: of the log.
        log: its directory, or the log where it is open in this process.
        folder: where the files go.
        files: names of FILES.
        progress: told after each row group.
        rows_per_group: rows of one row group, all of which are in memory at a time.

    Raises:
        ExportUnavailable: pyarrow is not installed.
        KeyError: there is no such file.
        ProjectionUnusable: the projection cannot be read.
        JournalUnreadable: a packet in the log does not parse.
        wal.LogError: the log is damaged.
        OSError: the log cannot be read, or a file cannot be written; the ones before it are there, whole.
    """
    wanted = {name: FILES[name] for name in files}
    _require_pyarrow()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with database.reading(projection.engine) as connection:
        position = position_of(connection)
        written = []
        for name, columns in wanted.items():
            with nullcontext() if name == "steps" else database.sensible(connection):  # steps come from the log
                source = _source(name, connection, log, position)
                path = target / f"{name}.parquet"
                written.append(_write(path, columns, source, position, progress, rows_per_group))
        return tuple(written)


def _require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415  large, and only this needs it
    except ImportError as error:
        raise ExportUnavailable(
            f"Parquet is written by pyarrow, which is not installed ({error}): {INSTALL}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Source:
    """The rows of a file, as tuples in the order of its columns, and about how many there are."""

    rows: Iterator[tuple[Any, ...]]
    about: int


def _source(name: str, connection: Connection, log: LogSource, position: Position) -> _Source:
    if name == "steps":
        return _Source(_steps(log, position.lsn), _steps_about(connection))
    rows, table = (_decisions, Decision) if name == "decisions" else (_field_reports, FieldReport)
    return _Source(rows(connection), connection.execute(select(func.count()).select_from(table)).scalar_one())


def _write(
    path: Path,
    columns: Sequence[Column],
    source: _Source,
    position: Position,
    progress: Progress | None,
    rows_per_group: int,
) -> Exported:
    import pyarrow.parquet  # noqa: PLC0415

    schema = _schema(columns, position)
    written = 0
    with whole_file(path) as file, pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := _group(schema, source.rows, rows_per_group):
            writer.write_table(rows, row_group_size=rows_per_group)
            written += rows.num_rows
            if progress is not None:
                progress(path.name, written, max(written, source.about))
    return Exported(path, written)


def _schema(columns: Sequence[Column], position: Position) -> "pa.Schema":
    import pyarrow as pa  # noqa: PLC0415

    types = {
        "uint64": pa.uint64(),
        "int64": pa.int64(),
        "string": pa.string(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp[ns, UTC]": pa.timestamp("ns", "UTC"),
        "map<string, double>": pa.map_(pa.string(), pa.float64()),
    }
    fields = [
        pa.field(
            column.name,
            types[column.type],
            nullable=not column.required,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in columns
    ]
    metadata = {
        "tamiyo.schema": SCHEMA_VERSION,
        "tamiyo.log_id": position.log_id,
        "tamiyo.applied_lsn": str(position.lsn),
    }
    return pa.schema(fields, metadata)


def _group(schema: "pa.Schema", rows: Iterator[tuple[Any, ...]], most: int) -> "pa.Table | None":
    """The rows of one row group, None where there are no more."""
    import pyarrow as pa  # noqa: PLC0415

    batches = []
    left = most
    while left and (some := list(islice(rows, min(left, _ROWS_PER_BATCH)))):
        batches.append(_batch(schema, some))
        left -= len(some)
    return pa.Table.from_batches(batches, schema) if batches else None


def _batch(schema: "pa.Schema", rows: Sequence[tuple[Any, ...]]) -> "pa.RecordBatch":
    import pyarrow as pa  # noqa: PLC0415

    cells = zip(*rows, strict=True)
    arrays = [pa.array(list(values), field.type) for field, values in zip(schema, cells, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _decisions(connection: Connection) -> Iterator[tuple[Any, ...]]:
    d = Decision
    columns = (
        d.lsn, d.step_lsn, d.step_index, d.event_time_ns, d.issued_unix_ns, d.command_id, d.command_type,
        d.seed_operation, d.risk_reason, d.policy_version, Policy.architecture, Policy.engine,
        Policy.checkpoint_digest, d.training_run_id, d.seed_id, d.blueprint_id, d.coverage, d.loss_delta, d.inference,
        d.inference_elapsed_ns, d.receive_ns, d.blueprints_ns, d.graph_ns, d.inference_ns, d.superseded_by,
        d.superseded_cause,
    )  # fmt: skip
    question = select(*columns).join(Policy, Policy.id == d.policy_id, isouter=True).order_by(d.lsn)
    for row in _streamed(connection, question):
        command_type, operation = row[6], row[7]
        named = enum_name(pb.CommandType, command_type), enum_name(pb.SeedOperation, operation) if operation else None
        yield (*row[:6], *named, *row[8:17], _number(row[17]), *row[18:])


def _field_reports(connection: Connection) -> Iterator[tuple[Any, ...]]:
    r = FieldReport
    columns = (
        r.lsn, r.step_lsn, r.report_id, r.command_id, r.training_run_id, r.seed_id, r.blueprint_id, r.policy_version,
        r.outcome, r.observation_window, r.synthesised, r.issued_unix_ns, r.metrics, r.notes, r.status, r.attempts,
        r.cause, r.attempted_at_ns,
    )  # fmt: skip
    for row in _streamed(connection, select(*columns).order_by(r.lsn)):
        outcome, metrics = enum_name(pb.FieldReportOutcome, row[8]), list(json.loads(row[12]).items())
        yield (*row[:8], outcome, *row[9:12], metrics, *row[13:])


def _streamed(connection: Connection, question: Any) -> Iterable[Any]:
    return connection.execution_options(yield_per=1_000).execute(question)


def _number(value: float | None) -> float | None:
    """NaN is null, as the projection stores it."""
    return None if value is None or value != value else value  # noqa: PLR0124  only NaN differs from itself


def _steps_about(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(Decision)).scalar_one()


def _steps(log: LogSource, upto_lsn: int) -> Iterator[tuple[Any, ...]]:
    """A row for each packet that the log still holds, up to an LSN."""
    for entry in _entries(log):
        if entry.lsn > upto_lsn:
            return
        if entry.kind == _STEP_KIND and not isinstance(entry, wal.Redacted):
            yield _step(entry.lsn, decode(entry.kind, entry.payload))


def _entries(log: LogSource) -> Iterator[wal.Entry]:
    """The entries that the log holds; where it is pruned meanwhile, it goes on with what is left."""
    reading, last_lsn = reader(log, None), 0
    while True:
        try:
            entries = reading.poll()
        except wal.Trimmed:
            reading = reader(log, None)
            continue
        if not entries:
            return
        for entry in entries:
            if entry.lsn > last_lsn:
                yield entry
        last_lsn = max(last_lsn, entries[-1].lsn)


def _step(lsn: int, event: Any) -> tuple[Any, ...]:
    try:
        packet = pb.SystemStatePacket.FromString(event.packet)
    except DecodeError as error:
        raise JournalUnreadable(f"the packet at LSN {lsn} does not parse: {error}; run tamiyo audit") from error
    return (
        lsn, event.step_index, event.event_time_ns, event.received_unix_ns, event.decision_id, event.call,
        event.budget_ms, packet.training_run_id, packet.packet_id, packet.experiment_name, packet.source_subsystem,
        packet.current_epoch, packet.global_step, packet.training_loss, packet.validation_loss,
        packet.validation_accuracy, len(packet.seed_states), sorted(packet.training_metrics.items()),
    )  # fmt: skip
