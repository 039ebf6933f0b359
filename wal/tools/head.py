"""`python -m wal head DIR`: print the line to keep elsewhere."""

from pathlib import Path

import click

from wal.head import head
from wal.tools.show import count, say_json

__all__ = ["command"]


@click.command(name="head")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the head as one JSON object.")
def command(*, directory: Path, as_json: bool) -> None:
    """Print the head of the log in DIRECTORY: one line, to keep where whoever can write the log cannot.

    Later `verify --head` tells whether the log still says what it said now, and `proof --check --head`
    whether a record was in it. The last batch of a live log may not be covered yet.
    """
    found = head(directory)
    if as_json:
        say_json({
            "head": str(found), "log_id": found.log_id.hex(), "size": found.size, "root": found.root.hex(),
            "chain": found.chain.hex(),
        })  # fmt: skip
        return
    click.echo(str(found))
    click.echo(
        f"the head of {count(found.size, 'record')}; keep it out of reach of whoever can write the log", err=True
    )
