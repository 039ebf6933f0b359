"""The command line: one file for each command, loaded when it is called.

Each command says in its own file what its exit status means. Of every one:

    2    it was used wrongly
    3    its output could not be written
    130  interrupted by ctrl-C
    141  whoever read the output went away
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any

import click

from tamiyo import __version__
from tamiyo.cli.desk import CannotSay
from wal.tools import INTERRUPTED, flush, stop_unheard

__all__ = ["main"]

COMMANDS = MappingProxyType(
    {
        "run": "train a small network on handwritten digits under Tamiyo",
        "audit": "check a log and recompute every decision in it",
        "status": "what a directory's log and projection say",
        "doctor": "whether the projection says what the log says, and make it anew where it does not",
        "export": "decisions, steps and field reports as Parquet files",
        "conservative": "switch conservative mode on or off, beside a live service or without one",
        "retain": "take from a log what is older than its window, or say what would go",
        "policy": "make and inspect policy checkpoints, install one, go back to the last",
        "learn": "learn a policy from what a log tells, as a checkpoint",
        "bench": "how fast it is on this machine: graphs, the network, whole steps",
        "registries": "take over the names that a learner numbered first",
    }
)
"""Name and one line of help; `tamiyo.cli.<name>.command` is the command itself."""


class _LazyGroup(click.Group):
    """Loads a command when it is asked for: `tamiyo audit` should not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"tamiyo.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, so that `--help` loads none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Take the options; `--help` and `--version` are answered here."""
        with _cut_short_is_no_verdict():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Call the command."""
        with _cut_short_is_no_verdict():
            result: object = super().invoke(ctx)
        return result


@contextmanager
def _cut_short_is_no_verdict() -> Iterator[None]:
    """End what was cut short with a status of its own: left to click it is 1, as of an audit that failed."""
    try:
        try:
            yield
        finally:
            flush()
    except BrokenPipeError:
        stop_unheard()
    except OSError as error:  # a command answers for what it reads: that is its output
        raise CannotSay(f"cannot go on, and what was printed may be cut short: {error}") from error
    except KeyboardInterrupt:
        click.echo(err=True)  # the terminal shows ^C, and goes on in the same line
        raise SystemExit(INTERRUPTED) from None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tamiyo")
def main() -> None:
    """Tamiyo: an auditable controller for networks that grow while they train."""
