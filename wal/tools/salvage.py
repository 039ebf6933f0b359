"""`python -m wal salvage DIR --to FILE`: save what is sound, and name what is lost."""

import base64
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from wal.entries import Entry, Redacted
from wal.salvage import Loss, SalvageReport, salvage
from wal.tools import DAMAGED, Damaged, require_log
from wal.tools.show import BAD, GOOD, console, count, facts, number, progress, say_json, table

__all__ = ["command"]

_PROGRESS_RECORDS = 1000


@click.command(name="salvage")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="The file to write records to.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(*, directory: Path, target: Path | None, force: bool, as_json: bool) -> None:
    """Find every sound record in DIRECTORY, whatever the state of its files, and report exactly what is lost.

    The log is not changed. With --to the records go to FILE, one JSON object a line: lsn, kind, and payload in base64.
    Without it there is only the report. Exit status: 0 nothing acknowledged is lost, 1 something is.
    """
    if target is not None and target.exists() and not force:
        raise click.UsageError(f"{target} exists already: choose another file, or replace it with --force.")
    require_log(directory)
    with progress("looking for sound records") as tell:
        found = salvage(directory, progress=tell)
    report = found.report
    if not report.files:
        raise Damaged(f"no segment is left in {directory}: all records of its log are lost; look for them in a backup.")
    if target is not None:
        _write(target, found, report.records)
    if as_json:
        say_json(as_dict(report, target))
    else:
        _show(console(), report, target)
    if not report.complete:
        raise SystemExit(DAMAGED)


def _write(target: Path, records: Iterable[Entry], total: int) -> None:
    """Write the records to a file that has its name only once it is whole and on the disk."""
    partial = target.with_name(target.name + ".partial")
    with progress("saving them", in_bytes=False) as tell, partial.open("w", encoding="ascii") as file:
        for done, entry in enumerate(records, 1):
            file.write(json.dumps(_as_line(entry)) + "\n")
            if done % _PROGRESS_RECORDS == 0:
                tell(done, total)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def _as_line(entry: Entry) -> dict[str, Any]:
    payload = base64.b64encode(entry.payload).decode("ascii")
    line: dict[str, Any] = {"lsn": entry.lsn, "kind": entry.kind, "payload": payload}
    return line | {"redacted": True} if isinstance(entry, Redacted) else line


def as_dict(report: SalvageReport, target: Path | None) -> dict[str, Any]:
    """Return the report for JSON. An unknown end is null."""
    return {
        "complete": report.complete,
        "log_id": None if report.log_id is None else report.log_id.hex(),
        "files": report.files,
        "records": report.records,
        "first_lsn": report.first_lsn,
        "last_lsn": report.last_lsn,
        "lost_records": report.lost_records,
        "lost": [loss._asdict() for loss in report.lost],
        "damage": [damage._asdict() for damage in report.damage],
        "torn": None if report.torn is None else report.torn._asdict(),
        "stale_records": report.stale_records,
        "breaks": list(report.breaks),
        "written_to": None if target is None else str(target),
    }


def _show(out: Console, report: SalvageReport, target: Path | None) -> None:
    saved = f"{number(report.records)} sound"
    facts(
        out,
        {
            "log": None if report.log_id is None else report.log_id.hex(),
            "files": report.files,
            "records": saved + (f", LSN {report.first_lsn}..{report.last_lsn}" if report.records else ""),
            "written to": target,
            "stale": f"{count(report.stale_records, 'record')} left out: an earlier recovery had cut them"
            if report.stale_records
            else None,
            "torn": None if report.torn is None else f"{report.torn.problem} ({report.torn.file})",
        },
    )
    if report.lost:
        out.print("\nLost:")
        columns = [("LSN", False), ("records", True), ("segment", True), ("offset", True)]
        table(out, columns, [(_lsns(loss), _number(loss), loss.segment, loss.offset_bytes) for loss in report.lost])
    if report.damage:
        out.print("\nDamaged:")
        columns = [("file", False), ("from", True), ("to", True), ("what stands there", False)]
        table(out, columns, report.damage)
    out.print()
    out.print(_verdict(report), style=GOOD if report.complete else BAD)


def _lsns(loss: Loss) -> str:
    return f"{loss.first_lsn}.." + ("?" if loss.last_lsn is None else str(loss.last_lsn))


def _number(loss: Loss) -> str:
    return "unknown" if loss.last_lsn is None else number(loss.last_lsn - loss.first_lsn + 1)


def _verdict(report: SalvageReport) -> str:
    if report.lost:
        lost = report.lost_records
        many = "An unknown number of records is" if lost is None else f"{count(lost, 'record')} {_is(lost)}"
        return f"{many} lost; look for them in a backup, with the LSNs above."
    if report.breaks:
        places = ", ".join(str(lsn) for lsn in report.breaks)
        return f"Nothing is missing, but two histories are mixed: see LSN {places}, which does not follow."
    return "Nothing that was acknowledged is lost."


def _is(many: int) -> str:
    return "is" if many == 1 else "are"
