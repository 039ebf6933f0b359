"""`tamiyo learn DIR --out FILE`: a network from what a controller's log tells.

Exit status 0 when a checkpoint was written, 1 when not: nothing to learn from, nothing learned that held for what was
not seen, a checkpoint that does not fit, a place that cannot be written.
"""

import json
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tamiyo.cli.desk import require_log

if TYPE_CHECKING:
    from tamiyo.integrations.simic import Learned

__all__ = ["command"]

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="learn")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--out", type=FILE, required=True, help="The checkpoint to write.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option(
    "--from", "begin_with", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A checkpoint to go on from.  [default: new weights]",
)  # fmt: skip
@click.option("--horizon", type=click.IntRange(1), default=20, show_default=True, help="Decisions that judge one.")
@click.option("--last", type=click.IntRange(1), default=4_096, show_default=True, help="Decisions to learn from.")
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True, help="Times through all of them.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Fewer where graphs are large.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of weights and order.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="More only on idle cores.")
@click.option("--label", default="learned", show_default=True, help="Its name, in every command that it proposes.")
@click.option("--json", "json_path", type=FILE, help="Write what was found there, too.")
def command(
    directory: Path,
    out: Path,
    force: bool,  # noqa: FBT001  click passes flags as arguments
    begin_with: Path | None,
    horizon: int,
    last: int,
    epochs: int,
    batch: int,
    seed: int,
    threads: int,
    label: str,
    json_path: Path | None,
) -> None:
    """Learn a policy from the decisions in the log of DIRECTORY and what came of them, and write it as a checkpoint.

    It only reads, also beside a live service, and learns from nothing that does not pass an audit. The same log,
    options and threads give the same weights on one machine. `tamiyo policy install` lets the checkpoint decide.
    """
    import wal
    from tamiyo.errors import TamiyoError
    from tamiyo.integrations.simic import LearnerSettings, learn, read_dataset
    from tamiyo.policy.checkpoint import parse_checkpoint
    from tamiyo.policy.manifest import LABEL
    from tamiyo.whole import whole_file

    require_log(directory)
    if not LABEL.fullmatch(label):
        raise click.BadParameter(f"{label!r} is no label: up to 32 of a-z, 0-9, '.', '_' and '-'", param_hint="--label")
    if out.exists() and not force:
        raise click.ClickException(f"{out} exists already; --force replaces it")
    try:
        for place in (out, json_path or out):
            _require_place(place.parent)
        with _progress() as (reads, learns):
            dataset = read_dataset(directory, horizon=horizon, last=last, progress=reads)
            settings = LearnerSettings(epochs=epochs, batch=batch, seed=seed)
            learned = learn(dataset, settings, begin_with=begin_with, threads=threads, progress=learns)
        if json_path is not None:
            with whole_file(json_path) as file:
                file.write(json.dumps(_found(learned), indent=2, allow_nan=False).encode() + b"\n")
        _tell(learned)
        if learned.best_epoch == 0:
            raise click.ClickException(
                "nothing that it learned held for what it had not seen: no checkpoint is written. Let the run go on, "
                "or choose another --horizon"
            )
        data = learned.checkpoint(label)
        with whole_file(out) as file:
            file.write(data)
    except (TamiyoError, wal.LogError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        what = f"{error.filename or out} cannot be used: {error.strerror or error}; look at it"
        raise click.ClickException(what) from error
    print(f"wrote {out}: {parse_checkpoint(data, out).version}, {len(data) / 2**20:.1f} MiB")
    print(f"Let it decide, on probation: {shlex.join(['tamiyo', 'policy', 'install', str(directory), str(out)])}")


def _require_place(folder: Path) -> None:
    """What cannot be written is better known before it is learned. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def _found(learned: "Learned") -> dict[str, object]:
    return {
        **learned.origin,
        "held_out": learned.held_out,
        "skipped": dict(learned.dataset.skipped),
        "held_out_losses": [_number(loss) for loss in learned.losses],
        "quality": {name: _number(value) for name, value in asdict(learned.quality).items()},
    }


def _number(value: float) -> float | None:
    """JSON has no others."""
    return value if math.isfinite(value) else None


def _tell(learned: "Learned") -> None:
    quality, dataset = learned.quality, learned.dataset
    between = len(dataset.examples) - learned.learned_from - learned.held_out
    print(f"examples   {learned.learned_from:,} learned from, {learned.held_out:,} held out")
    if between:
        print(f"           {between:,} left out: what came of them meets what is held out")
    for reason, count in sorted(dataset.skipped.items()):
        print(f"           {count:,} left out: {reason}")
    print(f"epochs     {learned.settings.epochs}, the best was {learned.best_epoch}; losses on what was held out:")
    print(f"           {' '.join(f'{loss:.3f}' for loss in learned.losses)}")
    if math.isnan(quality.agreement):
        print("actions    none of those held out was the policy's own")
    else:
        print(f"actions    {quality.agreement:.1%} chosen as they were; always the commonest: {quality.commonest:.1%}")
    if quality.agreement <= quality.commonest:
        print("           it has not learned when to do anything but the commonest: longer or more runs may teach that")
    if math.isnan(quality.value_r2):
        print("value      the returns held out do not vary")
    else:
        print(f"value      explains {quality.value_r2:.1%} of how returns vary")
    print(f"risk       {quality.risk_nats:.3f} nats; by the classes' frequencies alone: "
          f"{quality.risk_nats_of_frequencies:.3f}")  # fmt: skip


@contextmanager
def _progress() -> Iterator[tuple[Callable[[int], None], Callable[[int, int], None]]]:
    """Told of LSNs that are read, then of batches that are learned."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task: TaskID = progress.add_task("reading", total=None)

        def reads(lsn: int) -> None:
            progress.update(task, completed=lsn)

        def learns(done: int, of: int) -> None:
            progress.update(task, description="learning", completed=done, total=of)

        yield reads, learns
