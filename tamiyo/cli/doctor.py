"""`tamiyo doctor DIR`: whether the projection says what the log says.

Exit status 0 when it does (after a repair too), 1 when it does not, 2 for a directory without a log.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wal
from tamiyo.cli.desk import require_log
from tamiyo.errors import JournalError

if TYPE_CHECKING:
    from tamiyo.projections import Diagnosis

__all__ = ["command"]

SHOWN = 20


@click.command(name="doctor")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Make the projection anew from the log where they differ.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of sentences.")
def command(directory: Path, repair: bool, as_json: bool) -> None:  # noqa: FBT001  click passes flags as arguments
    """Compare the projection in DIRECTORY with one made from its log alone, and name every difference.

    The log is only read. Without --repair nothing is written; a service may be at work beside it. Both sides lie in
    temporary files while they are compared.
    """
    require_log(directory)
    try:
        diagnosis, repaired = _examined(directory, repair=repair)
    except (JournalError, wal.LogError, OSError) as error:
        raise click.ClickException(f"the projection in {directory} cannot be held against its log: {error}") from error
    if as_json:
        print(json.dumps(_as_object(diagnosis, repaired=repaired), indent=2))
    else:
        for line in _sentences(directory, diagnosis, repaired=repaired):
            print(line)
    raise SystemExit(0 if diagnosis.sound else 1)


def _examined(directory: Path, *, repair: bool) -> "tuple[Diagnosis, bool]":
    from tamiyo.projections import Projection, diagnose

    diagnosis = diagnose(directory)
    if diagnosis.sound or not repair:
        return diagnosis, False
    with Projection.open(directory) as projection:
        projection.rebuild(directory / "wal")
    return diagnose(directory), True


def _as_object(diagnosis: "Diagnosis", *, repaired: bool) -> dict[str, Any]:
    """The names are for scripts: they are added to, and never change their meaning."""
    return {
        "sound": diagnosis.sound,
        "repaired": repaired,
        "problem": diagnosis.problem,
        "applied_lsn": diagnosis.applied_lsn,
        "compared_at_lsn": diagnosis.compared_at_lsn,
        "rows": diagnosis.rows,
        "differences_total": diagnosis.differences_total,
        "differences": [
            {"table": one.table, "key": one.key, "column": one.column, "says": str(one)}
            for one in diagnosis.differences[:SHOWN]
        ],
        "notes": diagnosis.notes,
    }


def _sentences(directory: Path, diagnosis: "Diagnosis", *, repaired: bool) -> list[str]:
    lines = [f"note: {note}" for note in diagnosis.notes]
    if repaired:
        lines.append("repaired: the projection was made anew from the log")
    if diagnosis.problem:
        lines.append(f"{directory / 'projection.sqlite'}: {diagnosis.problem}")
    elif diagnosis.differences_total:
        lines += [str(one) for one in diagnosis.differences[:SHOWN]]
        if diagnosis.differences_total > SHOWN:
            lines.append(f"and {diagnosis.differences_total - SHOWN:,} more")
    else:
        lines.append(
            f"the projection is what the log says: {diagnosis.rows:,} rows up to LSN {diagnosis.compared_at_lsn:,}"
            f" (it stood at {diagnosis.applied_lsn:,})"
        )
    if not diagnosis.sound:
        lines.append(f"the log decides; to make the projection anew: tamiyo doctor {directory} --repair")
    return lines
