"""`python -m wal copy SOURCE TARGET`: a copy of a log, also a live one, that opens clean."""

from dataclasses import asdict
from pathlib import Path

import click

from wal.copy import copy
from wal.tools.show import GOOD, console, facts, number, paragraph, progress, say_json

__all__ = ["command"]


@click.command(name="copy")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was copied as one JSON object.")
def command(*, source: Path, target: Path, as_json: bool) -> None:
    """Copy the log in SOURCE to TARGET, which must be empty or absent. A writer may be at work.

    Everything is checked on the way: a damaged log has no copy (`salvage` is for those). Beside a live writer the
    newest batch may be missing. A copy that is opened for writing is a fork, with other records under the same LSNs.
    """
    with progress("copying") as tell:
        copied = copy(source, target, progress=tell)
    if as_json:
        say_json(asdict(copied) | {"head": str(copied.head)})
        return
    out = console()
    lsns = f", LSN {copied.first_lsn}..{copied.last_lsn}" if copied.records else ""
    facts(
        out,
        {
            "copy": target,
            "records": f"{number(copied.records)}{lsns}",
            "segments": number(copied.segments),
            "head": copied.head,
        },
    )
    out.print()
    paragraph(out, "Copied, checked, and durable.", GOOD)
