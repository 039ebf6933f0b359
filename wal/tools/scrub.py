"""`python -m wal scrub DIR`: verify finished segments, a little at a time."""

from pathlib import Path

import click
from rich.console import Console

from wal.scrub import Scrubbed, scrub
from wal.tools import DAMAGED, require_log
from wal.tools.show import BAD, GOOD, QUIET, console, count, facts, number, paragraph, progress, say_json, size, table

__all__ = ["command"]

_MB = 1_000_000


@click.command(name="scrub")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--from", "first_segment", type=click.IntRange(1), default=1, help="The segment to begin with.")
@click.option("--budget-mb", type=click.FloatRange(0, min_open=True), help="Stop after about so many megabytes.")
@click.option("--rate-mb-s", type=click.FloatRange(0, min_open=True), help="Read at most so many a second.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
def command(
    *, directory: Path, first_segment: int, budget_mb: float | None, rate_mb_s: float | None, as_json: bool
) -> None:
    """Verify the finished segments in DIRECTORY again, so that damage is found before the data is needed.

    Opening a log does not read them. With --budget-mb a call ends after the segment in which the budget is reached,
    and says where the next call should begin. A megabyte is 1,000,000 bytes. Exit status: 0 sound, 1 damaged.
    """
    require_log(directory)
    with progress("scrubbing") as tell:
        found = scrub(
            directory, first_segment=first_segment, progress=tell,
            budget_bytes=None if budget_mb is None else max(int(budget_mb * _MB), 1),
            bytes_per_s=None if rate_mb_s is None else rate_mb_s * _MB,
        )  # fmt: skip
    if as_json:
        say_json({
            "sound": not found.problems, "first_segment": found.first_segment, "last_segment": found.last_segment,
            "segments": found.segments, "records": found.records, "read_bytes": found.read_bytes,
            "next_segment": found.next_segment, "went_round": found.went_round,
            "problems": [
                {"segment": one.segment, "offset_bytes": one.offset_bytes, "lsn": one.lsn, "problem": one.problem}
                for one in found.problems
            ],
        })  # fmt: skip
    else:
        _show(console(), directory, found)
    if found.problems:
        raise SystemExit(DAMAGED)


def _show(out: Console, directory: Path, found: Scrubbed) -> None:
    numbers = f", {found.first_segment} to {found.last_segment}" if found.segments else ""
    facts(
        out,
        {
            "log": directory,
            "segments": f"{number(found.segments)} read{numbers}",
            "records": number(found.records),
            "read": size(found.read_bytes),
        },
    )
    if found.problems:
        out.print("\nDamaged:")
        columns = [("segment", True), ("offset", True), ("LSN", True), ("what is wrong", False)]
        rows = [(one.segment, one.offset_bytes, one.lsn or "", one.problem) for one in found.problems]
        table(out, columns, rows)
    out.print()
    if found.problems:
        many = count(len(found.problems), "place")
        paragraph(out, f"{many} damaged. Copy the directory, and restore the segments from a backup.", BAD)
    elif found.segments:
        paragraph(out, "All that was read is sound.", GOOD)
    else:
        paragraph(out, "Nothing was read: no segment of it is finished yet.", QUIET)
    if not found.went_round:
        paragraph(out, f"Go on with --from {found.next_segment}.", QUIET)
