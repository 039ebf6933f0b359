"""`tamiyo status DIR`: what a directory's log and projection say; safe beside a live writer."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from rich.console import Console
from rich.table import Table
from rich.text import Text

import wal
from tamiyo.cli.desk import require_log
from tamiyo.errors import JournalUnreadable, ProjectionUnusable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.words import counted

if TYPE_CHECKING:
    from tamiyo.projections import Projection, Summary

__all__ = ["command"]


@click.command(name="status")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(directory: Path, as_json: bool) -> None:  # noqa: FBT001  click passes flags as arguments
    """Show what was decided in DIRECTORY, and how its controller stands.

    The log is only read. The projection is brought up to date; where it cannot be written, one is made in memory.
    """
    log = directory / "wal"
    require_log(directory)
    try:
        summary, note = _summary(directory, log)
    except (ProjectionUnusable, JournalUnreadable, wal.LogError, OSError) as error:
        raise click.ClickException(f"the log in {log} cannot be read: {error}") from error
    if note:
        click.echo(note, err=True)
    if as_json:
        click.echo(json.dumps(_as_object(summary), indent=2))
    else:
        console = Console()
        with console.capture() as shown:  # rich itself ends with status 1 where a reader went away
            console.print(_table(directory, summary))
        click.echo(shown.get(), nl=False)


def _summary(directory: Path, log: Path) -> "tuple[Summary, str]":
    """The summary, and what the user should know of how it was made."""
    from tamiyo.projections import Projection

    try:
        with Projection.open(directory) as projection:
            projection.catch_up(log)
            summary = _asked(projection, log)
            note = f"the projection was made anew: {projection.rebuilt_because}" if projection.rebuilt_because else ""
            return summary, note
    except ProjectionUnusable as error:
        note = f"read into a temporary file instead: {error}"
    with Projection.temporary() as projection:
        projection.catch_up(log)
        return projection.summary(), note


def _asked(projection: "Projection", log: Path) -> "Summary":
    """Ask; where rows turn out to be damaged that catching up did not touch, make them anew and ask again."""
    try:
        return projection.summary()
    except ProjectionUnusable:
        projection.rebuild(log)
    return projection.summary()


def _as_object(summary: "Summary") -> dict[str, Any]:
    """The names are for scripts: they are added to, and never change their meaning."""
    return {
        "applied_lsn": summary.applied_lsn,
        "policy_version": summary.policy_version,
        "openings": summary.openings,
        "decisions": summary.decisions,
        "last_step_index": summary.last_step_index,
        "undecided": summary.undecided,
        "superseded": summary.superseded,
        "unrecorded": summary.unrecorded,
        "by_type": _named(summary.by_type, pb.CommandType),
        "by_reason": dict(summary.by_reason),
        "coverage_mean": summary.coverage_mean,
        "registries": dict(summary.registry_sizes),
        "norms": {
            name: {"mean": _finite(norm.mean), "variance": _finite(norm.variance)}
            for name, norm in summary.norms.items()
        },
        "breakers": {name: _name(state, pb.CircuitBreakerState) for name, state in summary.breakers.items()},
        "conservative": summary.conservative,
        "conservative_reason": summary.conservative_reason,
        "reports": dict(summary.reports),
    }


def _table(directory: Path, summary: "Summary") -> Table:
    table = Table(title=Text(str(directory)), show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _lines(summary):
        table.add_row(label, Text(value))  # Text: an id may hold what rich would take for markup
    return table


def _lines(summary: "Summary") -> Iterator[tuple[str, str]]:
    yield "policy", summary.policy_version or "none yet"
    yield (
        "decided",
        f"{summary.decisions:,} (last step {summary.last_step_index:,}, opened {counted(summary.openings, 'time')})",
    )
    yield "last LSN", f"{summary.applied_lsn:,}"
    yield "by type", _counts(_named(summary.by_type, pb.CommandType))
    yield "by reason", _counts(summary.by_reason)
    if summary.superseded:
        yield "late commits", f"{counted(summary.superseded, 'decision')}, each answered with a safe PAUSE"
    if summary.unrecorded:
        yield (
            "unrecorded",
            f"{counted(summary.unrecorded, 'step')}, each answered with a safe PAUSE while the log took none",
        )
    if summary.undecided:
        yield "undecided", f"{counted(summary.undecided, 'packet')} received, without a decision"
    if summary.coverage_mean is not None:
        yield "coverage", f"{summary.coverage_mean:.3f} on average"
    yield "mode", f"conservative ({summary.conservative_reason})" if summary.conservative else "normal"
    yield "breakers", ", ".join(f"{name} {_name(s, pb.CircuitBreakerState)}" for name, s in summary.breakers.items())
    yield "reports", _counts(summary.reports)
    yield "registries", _counts({kind: size for kind, size in summary.registry_sizes.items() if size})
    yield "norms", "\n".join(_norm_lines(summary))


def _norm_lines(summary: "Summary") -> Iterator[str]:
    for name, norm in summary.norms.items():
        yield f"{name} {norm.mean:.6g} ± {math.sqrt(max(norm.variance, 0.0)):.3g}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none yet"


def _named(counts: Mapping[int, int], names: EnumTypeWrapper) -> dict[str, int]:
    return {_name(number, names): count for number, count in counts.items()}


def _name(number: int, names: EnumTypeWrapper) -> str:
    """Leyline's name without its family: COMMAND_PAUSE is PAUSE. A number that has none stays a number."""
    descriptor = names.DESCRIPTOR.values_by_number.get(number)
    if descriptor is None:
        return str(number)
    prefix = {"CommandType": "COMMAND_", "CircuitBreakerState": "CIRCUIT_STATE_"}[names.DESCRIPTOR.name]
    return str(descriptor.name).removeprefix(prefix)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
