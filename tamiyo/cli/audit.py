"""`tamiyo audit DIR`.

Exit status 0 when everything passed, 1 when not, 2 when there is nothing to audit, 3 when the log or a checkpoint
cannot be read.
"""

import json
import os
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from tamiyo.cli.desk import CannotSay

__all__ = ["command"]


@click.command(name="audit")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--level",
    type=click.IntRange(1, 3),
    default=2,
    show_default=True,
    help="1: the log. 2: every decision. 3: every graph and inference.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="For level 3, a policy that DIRECTORY does not keep; may be given more than once.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes to share levels 2 and 3, a core each or more; not beside a trainer.",
)
@click.option(
    "--head", "head_text", help="A head of this log that you kept elsewhere; `python -m wal head` prints one."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    directory: Path,
    level: int,
    checkpoints: tuple[Path, ...],
    workers: int,
    head_text: str | None,
    as_json: bool,  # noqa: FBT001  click's flags
) -> None:
    """Check the log in DIRECTORY and recompute every decision from it, bit for bit; at level 3 what led to it, too.

    It only reads, also beside a live service. Exit status: 0 every level passed, 1 one did not, 2 there is nothing to
    audit, 3 something cannot be read.
    """
    import wal
    from tamiyo.audit import audit
    from tamiyo.audit.workers import rarely_collecting_all

    if checkpoints and level != 3:
        raise click.UsageError(f"--checkpoint is for level 3, and level {level} asks no policy: give --level 3 as well")
    if level == 3:
        _let_torch_s_threads_sleep()
    console = Console(stderr=True)
    try:
        head = None if head_text is None else wal.Head.parse(head_text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--head") from error
    try:
        with (
            Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
            rarely_collecting_all(),
        ):
            task = progress.add_task("replaying", total=None)

            def tell(lsn: int) -> None:
                progress.update(task, description=f"replaying LSN {lsn:,}")

            report = audit(directory, level, tell, head=head, checkpoints=checkpoints, workers=workers)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        what = "a checkpoint" if error.filename in map(str, checkpoints) else f"the log in {directory}"
        raise CannotSay(f"cannot read {what}: {error}") from error
    print(json.dumps(report.as_dict(), indent=2) if as_json else report.text)
    if not report.passed:
        raise SystemExit(1)


def _let_torch_s_threads_sleep() -> None:
    """Where they wait for each other: libgomp has them spin, which takes ten times as long where others want the cores.

    It is read when torch is loaded, and whoever runs this has the last word. For this process and its workers.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
