"""What `tamiyo run` shows: a progress bar on a terminal, a line now and then elsewhere, tables at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tamiyo.demo.summary import Summary
from tamiyo.integrations.kasmina import SeedManager, stage_counts
from tamiyo.integrations.tolaria import StepResult, Trainer
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Watcher", "print_summary", "watching"]

PLAIN_EVERY = 100
_COLUMNS = (
    "loss {task.fields[loss]}",
    "accuracy {task.fields[accuracy]}",
    "{task.fields[seeds]}",
    "{task.fields[last]}",
)


class Watcher(Protocol):
    """Is told of every step."""

    def __call__(self, result: StepResult) -> None:
        """Show one step."""


@contextmanager
def watching(console: Console, trainer: Trainer, steps: int) -> Iterator[Watcher]:
    """Show the steps of `trainer` up to `steps`."""
    if not console.is_terminal:
        yield lambda result: _print_line(console, trainer, result, steps)
        return
    columns = [TextColumn(column) for column in _COLUMNS]
    with Progress(BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), *columns, console=console) as progress:
        task = progress.add_task("", total=steps, completed=trainer.step, loss="", accuracy="", seeds="", last="")

        def show(result: StepResult) -> None:
            shown = _shown(trainer, result)
            progress.update(
                task,
                completed=result.step,
                loss=shown["loss"],
                accuracy=shown["accuracy"],
                seeds=shown["seeds"],
                last=shown["last"],
            )

        yield show


def print_summary(console: Console, summary: Summary) -> None:
    """The summary as tables; the audit's verdict is its last line, exactly as the audit words it."""
    console.print(f"\n{summary.run_id}: {summary.steps} steps, {_quality(summary)}")
    for table in (_decisions(summary), _latencies(summary), _seeds(summary)):
        if table.row_count:
            console.print(table)
    if summary.outcomes:
        console.print("commands: " + ", ".join(f"{count} {name}" for name, count in summary.outcomes.items()))
    log = summary.log
    console.print(
        f"log: {log.records:,} records, {log.record_bytes / 2**20:.1f} MiB, {log.bytes_per_step:,.0f} bytes a step"
    )
    console.print(summary.audit, highlight=False, markup=False, soft_wrap=True)


def _shown(trainer: Trainer, result: StepResult) -> dict[str, str]:
    validated = trainer.validated
    return {
        "loss": f"{result.loss:.3f}",
        "accuracy": "-" if validated is None else f"{validated.accuracy:.1%}",
        "seeds": _stages(trainer.seeds),
        "last": _command(result.command),
    }


def _print_line(console: Console, trainer: Trainer, result: StepResult, steps: int) -> None:
    if result.step % PLAIN_EVERY == 0 or result.step == steps:
        shown = _shown(trainer, result)
        line = f"step {result.step}/{steps}  loss {shown['loss']}  accuracy {shown['accuracy']}"
        console.print(f"{line}  {shown['seeds']}  {shown['last']}", highlight=False, soft_wrap=True)


def _stages(seeds: SeedManager) -> str:
    counts = stage_counts(list(seeds.stages().values()))
    return " ".join(f"{count} {stage.lower()}" for stage, count in counts.items())


def _command(command: pb.AdaptationCommand) -> str:
    name = pb.CommandType.Name(command.command_type).removeprefix("COMMAND_").lower()
    if command.WhichOneof("payload") == "seed_operation":
        operation = pb.SeedOperation.Name(command.seed_operation.operation).removeprefix("SEED_OP_").lower()
        name = f"{operation} {command.target_seed_id}"
    return f"{name} ({command.annotations.get('risk_reason', '')})"


def _quality(summary: Summary) -> str:
    if summary.validation_accuracy is None:
        return "not validated yet"
    return f"validation accuracy {summary.validation_accuracy:.1%}, loss {summary.validation_loss:.4f}"


def _decisions(summary: Summary) -> Table:
    table = Table("decision", "reason", "steps", title="commands released")
    for (kind, reason), count in summary.log.decisions.items():
        table.add_row(kind, reason, str(count))
    return table


def _latencies(summary: Summary) -> Table:
    table = Table("stage", "p50", "p95", "p99", "max", title="evaluate_step, ms")
    for row in summary.latencies:
        table.add_row(row.stage, *(f"{value:.3f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)))
    return table


def _seeds(summary: Summary) -> Table:
    table = Table("seed", "stage", "blueprint", "alpha", title="seeds")
    for seed_id, facts in summary.seeds.items():
        table.add_row(seed_id, str(facts["stage"]), str(facts["blueprint"] or "-"), f"{facts['alpha']:.3f}")
    return table
