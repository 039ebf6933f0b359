"""`tamiyo retain DIR`: a retention run, beside a live service or without one; with `--dry-run`, what it would take.

Exit status:

    0   done, or there was nothing to take
    1   it failed; what was begun is finished by the next run, and the message says what to do
    2   the command was used wrongly, or there is no log
    3   what was done could not be printed, as of every command
    4   left with the live service, which was not done within --wait; it goes on
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
from rich.console import Console
from rich.progress import Progress

from tamiyo.cli.desk import cannot_go_on

__all__ = ["command"]

LEFT = 4
WAIT_S = 600.0
LOOK_EVERY_S = 0.05
GONE_S = 2.0
"""A service whose log failed lets go of it, and tries once a second to have it back: nobody is to be faster."""


@click.command(name="retain")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder to keep pruned segments in, compressed with zstd.",
)
@click.option(
    "--keep-head", "heads", multiple=True, help="A head of this log, kept elsewhere, that is to stay provable."
)
@click.option(
    "--unrecorded",
    is_flag=True,
    help="Prune without opening the log, for a disk too full for one more record. Takes no payloads, keeps no archive.",
)
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=WAIT_S, show_default=True, help="Seconds for a live service."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    directory: Path,
    dry_run: bool,  # noqa: FBT001  click's flags
    archive: Path | None,
    heads: tuple[str, ...],
    unrecorded: bool,  # noqa: FBT001
    wait_s: float,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Take from the log in DIRECTORY what is older than its window: TAMIYO_FIELD_REPORT_RETENTION_HOURS and the like.

    Whole segments are pruned, and payloads of younger ones replaced by stubs; every proof holds as before. While a
    service has the log open the request is left in DIRECTORY/requests, and the service does it, by its own settings.
    """
    import wal
    from tamiyo.errors import TamiyoError

    if unrecorded and (dry_run or archive is not None):
        raise click.UsageError("--unrecorded writes nothing anywhere: it goes with neither --dry-run nor --archive")
    try:
        kept = tuple(wal.Head.parse(head) for head in heads)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--keep-head") from error
    try:
        if dry_run:
            found = _previewed(directory)
        elif unrecorded:
            found = _pruned(directory, kept)
        else:
            found = _retained(directory, archive, kept, wait_s)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    except wal.LogFull as error:
        raise click.ClickException(
            f"{error} `tamiyo retain {directory} --unrecorded` prunes without opening the log."
        ) from error
    except OSError as error:
        raise click.ClickException(cannot_go_on(f"retention in {directory}", error)) from error
    except (TamiyoError, wal.LogError) as error:
        raise click.ClickException(str(error)) from error
    text = found.pop("text")
    print(json.dumps(found, indent=2) if as_json else text)


def _previewed(directory: Path) -> dict[str, Any]:
    from tamiyo.retention import preview

    with _progress() as tell:
        tell("survey", f"reading {directory / 'wal'}")
        found = preview(directory)
    return found.as_dict() | {"text": found.text}


def _pruned(directory: Path, heads: tuple[Any, ...]) -> dict[str, Any]:
    from tamiyo.retention import prune_unrecorded

    found, pruned = prune_unrecorded(directory, keep_heads=heads)
    text = (
        f"pruned without a record: {pruned.segments} segments, {pruned.records} records, {pruned.freed_bytes} bytes; "
        f"the log begins with LSN {pruned.first_lsn}. Keep this line: the log does not say it"
    )
    done = {"segments": pruned.segments, "freed_bytes": pruned.freed_bytes, "first_lsn": pruned.first_lsn}
    return {"pruned_unrecorded": done, "plan": found.as_dict(), "text": text}


def _retained(directory: Path, archive: Path | None, heads: tuple[Any, ...], wait_s: float) -> dict[str, Any]:
    """Do it here, or leave it to whoever has the log open; where they go without having done it, do it here."""
    import wal
    from tamiyo.retention import Order, retain_directory

    order = Order(uuid4().hex, None if archive is None else archive.absolute(), heads)
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            with _progress() as tell:
                report = retain_directory(directory, order, tell=tell)
        except wal.LogLocked as locked:
            holder = "a live service" if locked.holder_pid is None else f"process {locked.holder_pid}"
            answer = _asked_for(directory, order, deadline_s, holder)
            if answer is not None:
                return answer
        else:
            return report.as_dict() | {"text": report.text}


def _asked_for(directory: Path, order: Any, deadline_s: float, holder: str) -> dict[str, Any] | None:
    """Leave it to the live service, and wait for its answer. None where the request was taken back: nobody is there."""
    import wal
    from tamiyo.cli.conservative import operator_name
    from tamiyo.requests import RETAIN, Request, RequestBox
    from wal.lock import is_locked

    box = RequestBox(directory)
    archive = "" if order.archive is None else str(order.archive)
    heads = tuple(str(head) for head in order.keep_heads)
    path = box.leave(Request(order.run_id, RETAIN, operator_name(), "", archive, heads))
    with _progress() as tell:
        tell("waiting", "the live service has the log open and does it")
        locked_s = time.monotonic()
        while path.exists():
            now_s = time.monotonic()
            if is_locked(wal.OsDisk(), directory / "wal"):
                locked_s = now_s
            elif now_s - locked_s >= GONE_S:  # it died, or it was a run like this one
                box.done(path)
                return None
            if now_s >= deadline_s:
                click.echo(f"left in {path}: {holder} has the log open and is not done yet", err=True)
                raise SystemExit(LEFT)
            time.sleep(LOOK_EVERY_S)
    answer = box.take_answer(path)
    if answer is None:
        reason = path.parent / "aside" / f"{path.name}.reason"
        words = reason.read_text(encoding="utf-8").strip() if reason.exists() else "the request was taken back"
        raise click.ClickException(f"the live service could not do it: {words}")
    return dict(json.loads(answer))


@contextmanager
def _progress() -> Iterator[Callable[[str, str], None]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def tell(stage: str, detail: str) -> None:
            progress.update(task, description=f"{stage}: {detail}")

        yield tell
