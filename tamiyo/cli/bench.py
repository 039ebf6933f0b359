"""`tamiyo bench`: how fast it is on this machine.

Exit status 0 when it was measured, 1 when a checkpoint or a folder cannot be used.
"""

import json
import sys
from pathlib import Path

import click

import wal
from tamiyo.errors import TamiyoError

__all__ = ["command"]


@click.command(name="bench")
@click.option("--only", type=click.Choice(["builder", "network", "step"]), multiple=True, help="Leave out the others.")
@click.option("--quick", is_flag=True, help="A few of each: some seconds, and a p99 that says little.")
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The checkpoint whose network is measured.  [default: one that nothing has trained]",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where steps are logged, on the disk in question.  [default: the temporary directory]",
)
@click.option("--json", "to", metavar="FILE", help="Write the figures there too; - prints them in place of the table.")
def command(only: tuple[str, ...], quick: bool, policy: Path | None, folder: Path | None, to: str | None) -> None:  # noqa: FBT001  click passes flags as arguments
    """Measure the graph builder, the network and whole steps with a real sync on this machine.

    The network's engine is measured beside PyTorch Geometric on the same weights, steps beside a bare write and sync
    of the same size, in turns. It takes a minute or two; let nothing else run meanwhile.
    """
    from tamiyo.bench.run import FULL, PARTS, QUICK, measure
    from tamiyo.bench.table import table

    try:
        figures = measure(only or PARTS, QUICK if quick else FULL, _say, checkpoint=policy, folder=folder)
        text = json.dumps(figures, indent=2) + "\n"
        if to is not None and to != "-":
            Path(to).write_text(text, encoding="utf-8")
    except (TamiyoError, wal.LogError, OSError) as error:
        raise click.ClickException(str(error)) from error
    sys.stdout.write(text if to == "-" else table(figures))


def _say(what: str) -> None:
    click.echo(f"measuring: {what}", err=True)
