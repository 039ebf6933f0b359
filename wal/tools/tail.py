"""`python -m wal tail DIR [-f]`: the last records, and those to come."""

import time
from collections.abc import Iterator
from pathlib import Path

import click

from wal.disk import OsDisk
from wal.entries import Entry
from wal.errors import Trimmed
from wal.reader import Reader
from wal.segment import first_lsn_of
from wal.shelf import segment_paths
from wal.tools import nothing_there
from wal.tools.records import entry_as_dict, heading, payload_option, record_line
from wal.tools.show import QUIET, console, line, say_json

__all__ = ["command"]

# How long to wait before asking again for records that were not there. A heartbeat proves a last batch after half a
# second, so a shorter wait would show nothing sooner.
_POLL_S = 0.1


@click.command(name="tail")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-n", "last", type=click.IntRange(0), default=10, show_default=True, help="Begin so many records back.")
@click.option("--after", type=click.IntRange(0), help="Begin after this LSN, instead of -n.")
@click.option("-f", "--follow", is_flag=True, help="Go on as records are added, until ctrl-C.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many records.")
@click.option("--max-idle-s", type=click.FloatRange(0), help="With -f: stop once nothing came for so long.")
@payload_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def command(
    *, directory: Path, last: int, after: int | None, follow: bool, count: int | None, max_idle_s: float | None,
    payload: str, as_json: bool,
) -> None:  # fmt: skip
    """Show the last records in DIRECTORY, and with -f those to come, also while a writer is at work.

    A record appears once it is durable: at most about a second after it was acknowledged. Damage ends the
    command with status 1; `dump` shows what stands behind it.
    """
    begin = _before_last(directory, last) if after is None else after
    out = console()
    if not as_json:
        line(out, heading(payload), QUIET)
    for shown, entry in enumerate(_entries(directory, begin, follow=follow, max_idle_s=max_idle_s), 1):
        if as_json:
            say_json(entry_as_dict(entry, payload))
        else:
            line(out, record_line(entry, payload))
        if shown == count:
            return


def _before_last(directory: Path, last: int) -> int:
    """Return the LSN before the last so many records. Reads the last segment only."""
    places = segment_paths(directory, OsDisk())
    if not places:
        raise nothing_there(directory)
    reader = Reader(directory, first_lsn_of(places[-1]) - 1)
    while reader.poll():
        pass
    return max(reader.last_lsn - last, first_lsn_of(places[0]) - 1)


def _entries(directory: Path, begin: int, *, follow: bool, max_idle_s: float | None) -> Iterator[Entry]:
    """Yield the records that follow, up to the end, or for as long as some come."""
    reader = Reader(directory, begin)
    quiet_since = time.monotonic()
    while True:
        try:
            batch = reader.poll()
        except Trimmed as trimmed:
            click.echo(f"LSN {trimmed.wanted_lsn}..{trimmed.first_lsn - 1} were pruned; going on after them", err=True)
            reader = Reader(directory, trimmed.first_lsn - 1)
            continue
        yield from batch
        if batch:
            quiet_since = time.monotonic()
        elif not follow or (max_idle_s is not None and time.monotonic() - quiet_since >= max_idle_s):
            return
        else:
            time.sleep(_POLL_S)
