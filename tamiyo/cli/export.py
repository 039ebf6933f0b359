"""`tamiyo export DIR --to FOLDER`: decisions, steps and field reports as Parquet files.

Exit status 0 when every file was written, 1 when one was not, 2 for a directory without a log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import wal
from tamiyo.cli.desk import require_log
from tamiyo.errors import JournalError, ProjectionUnusable

if TYPE_CHECKING:
    from tamiyo.projections import Projection
    from tamiyo.projections.parquet import Exported

__all__ = ["command"]

FILES = ("decisions", "steps", "field_reports")


@click.command(name="export")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--to", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="Made when missing."
)
@click.option("--only", "files", type=click.Choice(FILES), multiple=True, help="May be repeated.  [default: all]")
def command(directory: Path, folder: Path, files: tuple[str, ...]) -> None:
    """Write what was decided in DIRECTORY as Parquet files into a folder; docs/exports.md has their columns.

    The log is only read, and a service may be at work. The projection is brought up to date; where it cannot be
    written, one is made in memory. Needs the extra `export`.
    """
    log = directory / "wal"
    require_log(directory)
    from tamiyo.projections.parquet import ExportUnavailable

    try:
        with _current(directory, log) as projection:
            try:
                written = _exported(projection, log, folder, files or FILES)
            except ProjectionUnusable:  # damage that catching up did not touch
                projection.rebuild(log)
                written = _exported(projection, log, folder, files or FILES)
    except ExportUnavailable as error:
        raise click.ClickException(str(error)) from error
    except (JournalError, wal.LogError, OSError) as error:
        raise click.ClickException(f"{directory} cannot be exported to {folder}: {error}") from error
    for file in written:
        print(f"{file.path}: {file.rows:,} rows")


@contextmanager
def _current(directory: Path, log: Path) -> "Iterator[Projection]":
    """The projection with all that the log holds."""
    from tamiyo.projections import Projection

    try:
        projection = Projection.open(directory)
        projection.catch_up(log)
    except ProjectionUnusable as error:
        click.echo(f"read into a temporary file instead: {error}", err=True)
        projection = Projection.temporary()
        projection.catch_up(log)
    with projection:
        yield projection


def _exported(projection: "Projection", log: Path, folder: Path, files: tuple[str, ...]) -> "tuple[Exported, ...]":
    from tamiyo.projections.parquet import export_parquet

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        tasks = {f"{name}.parquet": shown.add_task(f"{name}.parquet", total=None) for name in files}

        def tell(name: str, rows: int, about: int) -> None:
            shown.update(tasks[name], completed=rows, total=about)

        return export_parquet(projection, log, folder, files=files, progress=tell)
