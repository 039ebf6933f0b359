"""One run of what was asked for."""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from tamiyo.bench.agreement import measure_agreement
from tamiyo.bench.builder import measure_builder
from tamiyo.bench.machine import doubt, facts, load
from tamiyo.bench.network import Subject, from_checkpoint, from_seed, measure_network
from tamiyo.bench.step import PREFIX, measure_step
from tamiyo.bench.timing import Figures, Progress

__all__ = ["FULL", "PARTS", "QUICK", "Effort", "measure", "subject_of"]

PARTS = ("builder", "network", "step")
SEED = 1


@dataclass(frozen=True, slots=True)
class Effort:
    """How many rounds of each, and graphs to agree on."""

    builder: int
    network: int
    agreement: int
    step: int


FULL = Effort(builder=10, network=40, agreement=100, step=50)
"""A minute or two. 40 rounds of the small graph are 600 calls: six of them lie past the p99."""

QUICK = Effort(builder=2, network=4, agreement=10, step=3)
"""Some seconds; the p99 says little."""


def measure(
    parts: Collection[str],
    effort: Effort,
    say: Progress,
    *,
    checkpoint: Path | None = None,
    folder: Path | None = None,
) -> Figures:
    """Measure these parts.

    Args:
        parts: of `PARTS`.
        effort: how much of each.
        say: told what is measured next.
        checkpoint: whose network; one that nothing has trained where None.
        folder: where steps are logged; the temporary directory where None.

    Raises:
        CheckpointRejected: the checkpoint cannot be used.
        OSError, wal.LogError: the folder cannot be written.
    """
    before = load()
    figures: Figures = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": facts(folder or Path(gettempdir())),
    }
    if "step" in parts:
        with TemporaryDirectory(prefix=PREFIX, dir=folder):
            pass  # that logs cannot be written there is told before minutes are spent on the rest
    subject = subject_of(checkpoint, say) if "network" in parts or "step" in parts else None
    if "builder" in parts:
        figures["builder"] = measure_builder(effort.builder, say)
    if subject is not None and "network" in parts:
        agreement = measure_agreement(subject, effort.agreement, say)
        figures["network"] = measure_network(subject, effort.network, say) | {"agreement": agreement}
    if subject is not None and "step" in parts:
        figures["step"] = measure_step(subject, effort.step, say, folder)
    after = load()
    return figures | {"load_before": before, "load_after": after, "doubt": doubt(before, after)}


def subject_of(checkpoint: Path | None, say: Progress) -> Subject:
    """The network of a checkpoint, or one that nothing has trained. Raises as `measure`."""
    say("the network is loaded, folded and compiled")
    return from_seed(SEED) if checkpoint is None else from_checkpoint(checkpoint)
