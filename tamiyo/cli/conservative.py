"""`tamiyo conservative on|off DIR`: an operator's conservative mode, beside a live service or without one.

Exit status 0 when the directive is in the log, or left for the live service; 1 when neither could be done.
"""

import getpass
import os
import time
from pathlib import Path
from uuid import uuid4

import click

import wal
from tamiyo.cli.desk import journal_of, require_log
from tamiyo.errors import RequestRejected, TamiyoError

__all__ = ["command", "operator_name"]

WAIT_S = 5.0
LOOK_EVERY_S = 0.05


@click.command(name="conservative")
@click.argument("mode", type=click.Choice(["on", "off"]))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--reason", default="", help="Why; it stands in the log.")
@click.option("--operator", default=None, help="Who asks.  [default: the user this runs as]")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=WAIT_S, show_default=True, help="Seconds for a live service."
)
def command(mode: str, directory: Path, reason: str, operator: str | None, wait_s: float) -> None:
    """Switch conservative mode on or off for the controller in DIRECTORY.

    While a service has the log open the request is left in DIRECTORY/requests, and the service takes it up; else it
    is written to the log here. What an operator switched on ends only when an operator switches it off.
    """
    from tamiyo.requests import Request, RequestBox

    require_log(directory)
    try:
        request = Request(uuid4().hex, f"conservative_{mode}", operator or operator_name(), reason)
        path = RequestBox(directory).leave(request)
    except RequestRejected as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"a request cannot be left in {directory / 'requests'}: {error}") from error
    print(_outcome(directory, path, wait_s))


def _outcome(directory: Path, path: Path, wait_s: float) -> str:
    """Wait for a live service to take the request up; where there is none, do it here."""
    deadline_s = time.monotonic() + wait_s
    while path.exists():
        try:
            lsn = _take_up_here(directory)
        except wal.LogLocked:
            if time.monotonic() >= deadline_s:
                return f"left in {path}: the service takes it up as soon as its log takes records"
            time.sleep(LOOK_EVERY_S)
        except (wal.LogError, TamiyoError, OSError, ValueError) as error:
            path.unlink(missing_ok=True)
            raise click.ClickException(f"the log in {directory / 'wal'} does not take it: {error}") from error
        else:
            if path.exists():
                return f"left in {path}: it could not be recorded"
            _require_taken_up(path)
            return f"recorded at LSN {lsn}"
    _require_taken_up(path)
    return "taken up by the live service"


def _take_up_here(directory: Path) -> int:
    """Open the log, take up what waits, close it. Raises what opening raises; `wal.LogLocked` beside a live service."""
    from tamiyo.directives import Directives
    from tamiyo.requests import RequestBox

    with journal_of(directory) as journal:
        Directives(journal, RequestBox(directory)).take_up()
        return journal.state.last_lsn


def _require_taken_up(path: Path) -> None:
    """Refuse to call a request taken up that was set aside."""
    aside = path.parent / "aside" / path.name
    if aside.exists():
        raise click.ClickException(f"it was refused: see {aside}.reason")


def operator_name() -> str:
    """Who this runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a process without a user name
        return f"uid {os.getuid()}"
