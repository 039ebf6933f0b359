"""How the commands show things: sentences and tables for people, JSON for scripts, progress on a terminal only."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from wal.progress import Progress as Tell
from wal.tools import stop_unheard

GOOD, BAD, QUIET = "green", "bold red", "dim"
# In a pipe nothing is cut or folded: a line is a record, for `grep` and `awk`.
_PIPE_WIDTH = 100_000


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave as every command leaves, instead of with rich's own status."""
        stop_unheard()


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes text as it is: a log's content is no markup, and nothing is coloured by guess."""
    made = _Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = _PIPE_WIDTH
    return made


def line(out: Console, text: str, style: str = "") -> None:
    """Print one line: cut at the terminal's edge, whole in a pipe."""
    if out.is_terminal:
        out.print(text, style=style, overflow="ellipsis", no_wrap=True)
    else:
        click.echo(text)  # a hundred times as fast


def paragraph(out: Console, text: str, style: str = "") -> None:
    """Print a sentence or more: folded between words at the terminal's edge, one line in a pipe."""
    out.print(text, style=style)


def say_json(value: object) -> None:
    """Print one JSON value on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def facts(out: Console, rows: Mapping[str, object]) -> None:
    """Print names and values, aligned; values that are None are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=QUIET, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            grid.add_row(name, str(value))
    _print(out, grid)


def table(out: Console, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a column is its title and whether it holds numbers."""
    made = Table(box=box.SIMPLE_HEAD if out.is_terminal else None, show_edge=False, pad_edge=False, header_style="bold")
    for title, numeric in columns:
        last = title == columns[-1][0]
        made.add_column(title, justify="right" if numeric else "left", overflow="fold", no_wrap=not last)
    for row in rows:
        made.add_row(*[Text(str(cell)) for cell in row])
    _print(out, made)


def _print(out: Console, grid: Table) -> None:
    if out.is_terminal:
        out.print(grid)
        return
    with out.capture() as printed:
        out.print(grid)
    click.echo("\n".join([row.rstrip() for row in printed.get().splitlines()]))


@contextmanager
def progress(doing: str, *, in_bytes: bool = True) -> Iterator[Tell]:
    """Show a bar on standard error while work goes on, if that is a terminal. Counts bytes, or else records."""
    shown = console(stderr=True)
    amount = (DownloadColumn(binary_units=True), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn(), console=shown, transient=True,
        disable=not shown.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(doing, total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield tell


def printable(data: bytes) -> str:
    """Return bytes as text that is safe to show: what is no printable UTF-8 is escaped."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join([part if part.isprintable() else part.encode("unicode_escape").decode() for part in text])


def number(value: int) -> str:
    """Return a number as people read it."""
    return f"{value:,}"


def size(length_bytes: float) -> str:
    """Return a length as people read it: 512 bytes, 64.0 MiB."""
    if length_bytes < 1024:
        return f"{length_bytes:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        length_bytes /= 1024
        if length_bytes < 1024:
            return f"{length_bytes:.1f} {unit}"
    return f"{length_bytes / 1024:.1f} TiB"


def count(value: int, name: str) -> str:
    """Return "1 record", "2 records"."""
    return f"{value:,} {name}" + ("" if value == 1 else "s")
