"""The command line of the log, `python -m wal COMMAND`: one file for each command, loaded when it is called.

Exit status, of every command:

    0    sound: nothing that was acknowledged is missing or changed
    1    damage was found, or a proof does not hold; the output names the place
    2    the command was used wrongly
    3    the log cannot be read: no log there, no permission, an unknown format, a failing disk
    130  interrupted by ctrl-C
    141  whoever read the output went away

`--json` prints JSON on standard output and nothing else there: one object, or one a line where there are many.
Progress and errors go to standard error, progress only when that is a terminal.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import click

from wal.errors import LogCorrupt, LogError
from wal.segment import BASE_NAME

__all__ = ["main"]

DAMAGED, UNREADABLE, INTERRUPTED, UNHEARD = 1, 3, 130, 141

COMMANDS = MappingProxyType(
    {
        "verify": "read a whole log and say what it is worth",
        "dump": "show records or frames, also of a damaged log",
        "tail": "show the last records, and follow those to come",
        "head": "print the head to keep elsewhere",
        "proof": "prove that a record is in a log, or check such a proof",
        "salvage": "save what is sound from a damaged log, and name what is lost",
        "scrub": "verify finished segments, a little at a time",
        "copy": "copy a log, also a live one",
        "bench": "measure this disk with the log and without it",
    }
)
"""Name and one line of help; `wal.tools.<name>.command` is the command itself."""


class Damaged(click.ClickException):
    """Damage ended the command."""

    exit_code = DAMAGED


class Unreadable(click.ClickException):
    """The log could not be read, or is none."""

    exit_code = UNREADABLE


def nothing_there(directory: Path) -> Unreadable:
    """Return the error for a directory without a log."""
    return Unreadable(f"there is no log in {directory}: no segment is there. Look at the path.")


def require_log(directory: Path) -> None:
    """Refuse a directory that no log was in: that nothing is damaged there says nothing of the log that was meant.

    Raises:
        Unreadable: there is neither a segment nor a BASE.
        OSError: it cannot be looked into.
    """
    if not any(place.name == BASE_NAME or place.suffix == ".wal" for place in directory.iterdir()):
        raise nothing_there(directory)


class _Commands(click.Group):
    """Loads a command when it is asked for, and gives every error its exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"wal.tools.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, so that `--help` loads none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Take the options; `--help` is answered here."""
        with _each_error_has_its_status():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        with _each_error_has_its_status():
            result: object = super().invoke(ctx)
            flush()
        return result


@contextmanager
def _each_error_has_its_status() -> Iterator[None]:
    try:
        yield
    except LogCorrupt as error:
        raise Damaged(str(error)) from error
    except LogError as error:
        raise Unreadable(str(error)) from error
    except BrokenPipeError:
        stop_unheard()
    except OSError as error:
        raise Unreadable(_sentence(error)) from error
    except KeyboardInterrupt:
        click.echo(err=True)  # the terminal shows ^C, and goes on in the same line
        raise SystemExit(INTERRUPTED) from None


def flush() -> None:
    """Hand on what was printed, so that a reader who went away is met here; no output at all is nobody's fault."""
    if sys.stdout is not None:  # as it is where the shell closed it, whatever its type says
        sys.stdout.flush()


def stop_unheard() -> NoReturn:
    """End quietly when the reader of standard output is gone, as `| head` makes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(UNHEARD)


def _sentence(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}. Look at the path, its permissions and its disk."


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Look at, check, follow, copy and rescue write-ahead logs. A log is a directory.

    No command but `bench` and `copy` writes beside a log, and none changes one; all take no lock, so a
    writer may be at work. Exit status: 0 sound, 1 damage found, 2 wrong usage, 3 cannot be read.
    """
