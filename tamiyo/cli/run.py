"""`tamiyo run`: train a small network on handwritten digits under Tamiyo, end to end.

Exit status 0 when the run is complete and its audit passed, 1 when not, 130 after Ctrl-C. The directory holds
all of it: `wal/` the log, `training.pt` the checkpoint, `urza.sqlite` the blueprints, `secret` the signing key
where the environment has none, `summary.json` the figures. The same command again goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from tamiyo.cli.desk import cannot_go_on
from tamiyo.demo import STEPS

if TYPE_CHECKING:
    from rich.console import Console

    from tamiyo.config import Settings
    from tamiyo.demo.summary import Latency
    from tamiyo.integrations.tolaria import StepResult, Trainer
    from tamiyo.integrations.urza import UrzaLibrary
    from tamiyo.policy import Policy
    from tamiyo.service import TamiyoService

__all__ = ["command"]

DEMO_COMMIT_TIMEOUT_MS = 25
SETTLE_TIMEOUT_S = 20.0
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was asked for on the command line."""

    steps: int
    seed: int
    out: Path
    policy: Path | None
    profile: Path | None = None

    @property
    def again(self) -> str:
        """The command that goes on with this run."""
        seed = f" --seed {self.seed}" if self.seed else ""
        policy = f" --policy {shlex.quote(str(self.policy))}" if self.policy else ""
        return f"tamiyo run --out {shlex.quote(str(self.out))} --steps {self.steps}{seed}{policy}"


@dataclass(slots=True)
class _Session:
    """What this process added to the run."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: tuple[Latency, ...] = ()
    elapsed_s: float = 0.0
    interrupted_at: int | None = None


@click.command(name="run")
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True, help="Train up to this step.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of weights and data order."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/run"),
    show_default=True,
    help="The directory of the run: its log, checkpoint and summary. Made when missing.",
)
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A policy checkpoint that decides in place of the baseline.",
)
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a trace of the first steps there, for https://ui.perfetto.dev or chrome://tracing.",
)
def command(steps: int, seed: int, out: Path, policy: Path | None, profile: Path | None) -> None:
    """Train a small network on handwritten digits under Tamiyo; run it again to continue."""
    from rich.console import Console

    import wal
    from tamiyo.errors import TamiyoError

    console, plan = Console(highlight=False), _Plan(steps, seed, out, policy, profile)
    try:
        status = _run(console, plan)
    except KeyboardInterrupt:
        console.print(f"stopped; to continue: {plan.again}", soft_wrap=True)
        status = INTERRUPTED
    except wal.LogLocked as error:
        raise click.ClickException(
            f"another process is training in {out}; `tamiyo status {out}` and `tamiyo audit {out}` can look on"
        ) from error
    except wal.LogCorrupt as error:
        raise click.ClickException(f"{error}\n`tamiyo audit {out}` says what is sound; keep the directory") from error
    except OSError as error:
        raise click.ClickException(cannot_go_on(f"the run in {out}", error)) from error
    except (TamiyoError, wal.LogError) as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(status)


def _run(console: Console, plan: _Plan) -> int:
    from tamiyo.demo.session import last_checkpoint

    stored = last_checkpoint(plan.out)
    if stored is not None and not (plan.out / "wal").is_dir():
        raise click.ClickException(f"{plan.out} was trained, but its log is gone; begin anew with another --out")
    if stored is not None and _is_complete(plan, stored["step"], stored["run_id"]):
        console.print(f"{plan.out} is trained to step {stored['step']} already: nothing more to train.", soft_wrap=True)
        console.print(f"To go on: {replace(plan, steps=stored['step'] + STEPS).again}", soft_wrap=True)
        return _conclude(console, plan, _Session())
    session = _train(console, plan)
    if session.interrupted_at is not None:
        console.print(f"\nstopped after step {session.interrupted_at}; to continue: {plan.again}", soft_wrap=True)
        return INTERRUPTED
    return _conclude(console, plan, session)


def _is_complete(plan: _Plan, step: int, run_id: str) -> bool:
    from tamiyo.demo.session import run_of

    return step >= plan.steps and run_id == run_of(plan.seed).run_id


def _train(console: Console, plan: _Plan) -> _Session:
    from tamiyo import signing
    from tamiyo.demo.session import fill, new_trainer, spare_a_core
    from tamiyo.integrations.urza import UrzaLibrary
    from tamiyo.service import TamiyoService

    spare_a_core(os.cpu_count() or 1)
    _settle_the_disk()
    plan.out.mkdir(parents=True, exist_ok=True)
    secret = signing.secret_for(plan.out, create=True)
    with UrzaLibrary.open(plan.out / "urza.sqlite") as library:
        fill(library, plan.seed)
        policy, settings = _policy(console, plan, library)
        with TamiyoService.open(plan.out, policy=policy, urza=library, secret=secret, settings=settings) as tamiyo:
            trainer = new_trainer(plan.seed, tamiyo, signing.Verifier(secret), plan.out)
            _announce(console, plan, trainer.resume(), tamiyo)
            return _train_on(console, plan, trainer, tamiyo)


def _settle_the_disk() -> None:
    """Let what an installation has just written reach the disk first: the log would stand in line behind it."""
    flushing = threading.Thread(target=os.sync, daemon=True)
    flushing.start()
    flushing.join(SETTLE_TIMEOUT_S)


def _train_on(console: Console, plan: _Plan, trainer: Trainer, tamiyo: TamiyoService) -> _Session:
    from tamiyo.demo.display import watching
    from tamiyo.demo.summary import latencies

    session, started_s = _Session(), time.monotonic()
    with watching(console, trainer, plan.steps) as show, _stopping_between_steps() as should_stop:

        def on_step(result: StepResult) -> None:
            session.outcomes[_outcome(result)] += 1
            show(result)
            if should_stop():
                raise KeyboardInterrupt

        try:
            if plan.profile is not None:
                _profile(plan, trainer, tamiyo, on_step)
            trainer.train(plan.steps, on_step)
        except KeyboardInterrupt:
            session.interrupted_at = trainer.step
            trainer.save()
    session.elapsed_s = time.monotonic() - started_s
    session.latencies = latencies(tamiyo.timings)
    return session


def _profile(plan: _Plan, trainer: Trainer, tamiyo: TamiyoService, on_step: Callable[[StepResult], None]) -> None:
    """Train the first steps of this process under a profiler."""
    from tamiyo.bench.profile import STEPS as PROFILED_STEPS
    from tamiyo.bench.profile import profiled

    assert plan.profile is not None  # noqa: S101  asked for on the command line
    with profiled(plan.profile) as watch:
        tamiyo.watch(watch)
        trainer.train(min(plan.steps, trainer.step + PROFILED_STEPS), on_step)
    tamiyo.watch(None)


def _policy(console: Console, plan: _Plan, library: UrzaLibrary) -> tuple[Policy | None, Settings]:
    """The baseline under the configured budget, or a checkpoint under what it needs here, if that is more."""
    from tamiyo.config import load_settings
    from tamiyo.demo.sizing import example_graph

    settings = _with_room_to_commit(console, load_settings())
    if plan.policy is None:
        return None, settings
    from tamiyo.policy.checkpoint import load_policy
    from tamiyo.policy.gnn import measured_budget_ms

    policy = load_policy(plan.policy, device=settings.policy_device)
    needed_ms = measured_budget_ms(policy, example_graph(library, plan.seed))
    budget_ms = max(settings.step_timeout_ms, needed_ms)
    console.print(
        f"{policy.identity.version} decides; its step budget is {budget_ms} ms: {settings.step_timeout_ms} ms is "
        f"configured, and twice what it takes on this machine (p95) is {needed_ms} ms",
        soft_wrap=True,
    )
    return policy, settings.model_copy(update={"step_timeout_ms": budget_ms})


def _with_room_to_commit(console: Console, settings: Settings) -> Settings:
    """Here the trainer's threads fill every core that the log's writer needs; a budget that was set is kept."""
    if "commit_timeout_ms" in settings.model_fields_set:
        return settings
    console.print(
        f"commits may take {DEMO_COMMIT_TIMEOUT_MS} ms instead of {settings.commit_timeout_ms}: the log shares these "
        "cores with the training; TAMIYO_COMMIT_TIMEOUT_MS sets another budget",
        soft_wrap=True,
    )
    return settings.model_copy(update={"commit_timeout_ms": DEMO_COMMIT_TIMEOUT_MS})


def _announce(console: Console, plan: _Plan, step: int, tamiyo: TamiyoService) -> None:
    decided = tamiyo.state.steps_received
    if step or decided:
        console.print(
            f"continuing {plan.out} from step {step} of {plan.steps}; its log has {decided:,} steps", soft_wrap=True
        )
        if decided < step:  # an audit cannot know: what is there follows from itself
            console.print(
                "that is fewer than were trained: the log is another one now, or some steps went without a record",
                soft_wrap=True,
            )
    else:
        console.print(
            f"training {plan.steps} steps into {plan.out}; Ctrl-C stops, the same command continues", soft_wrap=True
        )


def _outcome(result: StepResult) -> str:
    applied = result.applied
    return f"{applied.outcome} ({applied.reason})" if applied.reason else applied.outcome


@contextmanager
def _stopping_between_steps() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C end the step it meets, so that a checkpoint can be saved; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, previous)


def _conclude(console: Console, plan: _Plan, session: _Session) -> int:
    """Read the run back from its directory, audit it, and say what it came to."""
    from tamiyo.audit import audit
    from tamiyo.demo.display import print_summary
    from tamiyo.demo.session import last_checkpoint
    from tamiyo.demo.summary import Summary, read_log, seeds_of

    stored = last_checkpoint(plan.out)
    assert stored is not None  # noqa: S101  a run that got here has saved its last step
    loss, accuracy = stored["validated"] or (None, None)
    report = audit(plan.out, level=2)
    if not report.passed:  # before the log is read once more: that may be what it cannot be
        console.print(report.text, markup=False, soft_wrap=True)
    summary = Summary(
        run_id=stored["run_id"],
        steps=stored["step"],
        validation_loss=loss,
        validation_accuracy=accuracy,
        seeds=seeds_of(stored),
        log=read_log(plan.out),
        audit=report.verdict_line,
        latencies=session.latencies,
        outcomes=dict(session.outcomes.most_common()),
        elapsed_s=session.elapsed_s,
    )
    if session.outcomes:  # a run that was complete already keeps the latencies of the process that trained it
        (plan.out / "summary.json").write_text(json.dumps(summary.as_dict(), indent=2) + "\n", encoding="utf-8")
    print_summary(console, summary)
    return 0 if report.passed else 1
