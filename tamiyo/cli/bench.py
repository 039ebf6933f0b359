"""`tamiyo bench`: how fast it is on this machine.

Exit status 0 when it was measured, 1 when a checkpoint, a folder or a file cannot be used.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import click

import wal
from tamiyo.cli.desk import cannot_go_on
from tamiyo.errors import TamiyoError
from tamiyo.whole import written_to

__all__ = ["command"]


@click.command(name="bench")
@click.option("--only", type=click.Choice(["builder", "network", "step"]), multiple=True, help="Leave out the others.")
@click.option("--quick", is_flag=True, help="A few of each: some 20 s on a quiet machine, and a p99 that says little.")
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
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a trace of a few steps there, for https://ui.perfetto.dev or chrome://tracing, instead of measuring.",
)
def command(
    *,
    only: tuple[str, ...],
    quick: bool,
    policy: Path | None,
    folder: Path | None,
    to: str | None,
    profile: Path | None,
) -> None:
    """Measure the graph builder, the network and whole steps with a real sync on this machine.

    The network's engine is measured beside PyTorch Geometric on the same weights, steps beside a bare write and sync
    of the same size, in turns. It takes a minute or two; let nothing else run meanwhile.
    """
    if profile is not None and to is not None:
        raise click.UsageError("--profile writes a trace instead of measuring: there are no figures for --json")
    from tamiyo.bench.profile import trace
    from tamiyo.bench.run import FULL, PARTS, QUICK, measure, subject_of
    from tamiyo.bench.table import table

    parts = only or PARTS
    try:
        if profile is not None:
            trace(subject_of(policy, _say), profile, parts, _say, folder)
            click.echo(f"{profile} is a trace; open it in https://ui.perfetto.dev or chrome://tracing")
            return
        with nullcontext() if to in {None, "-"} else written_to(Path(str(to))) as file:
            figures = measure(parts, QUICK if quick else FULL, _say, checkpoint=policy, folder=folder)
            text = json.dumps(figures, indent=2) + "\n"
            sys.stdout.write(text if to == "-" else table(figures))
            if file is not None:
                file.write(text.encode())
    except OSError as error:
        raise click.ClickException(cannot_go_on("measuring", error)) from error
    except (TamiyoError, wal.LogError) as error:
        raise click.ClickException(str(error)) from error


def _say(what: str) -> None:
    click.echo(f"measuring: {what}", err=True)
