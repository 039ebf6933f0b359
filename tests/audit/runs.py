"""Runs for an audit of level 3, and policies of a host's own that answered in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig import SECRET

from tamiyo import Settings, TamiyoService
from tamiyo.audit.inference import Inferences, past_policies
from tamiyo.bench.samples import OneHost, small_host
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import Library
from tamiyo.policy import Policy
from tamiyo.testing import FixedPolicy, ManualClock

PATIENT_MS = 60_000


def training_packet(step: int) -> pb.SystemStatePacket:
    """Three seeds that move on, one after the other; every fourth step has none that may be selected."""
    stages = (pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_GERMINATED)
    made = pb.SystemStatePacket(
        training_run_id="run-1", packet_id=f"packet-{step}", training_loss=0.9, global_step=step
    )
    made.training_metrics.update({"loss": 0.9 - 0.01 * step, "gradient_norm": 1.0 + step % 3, "samples_per_s": 4_000.0})
    for place in range(3):
        stage = pb.SEED_STAGE_FOSSILIZED if step % 4 == 3 else stages[(place + step // 8) % 3]
        made.seed_states.add(seed_id=f"seed-{place}-{step // 8}", stage=stage, learning_rate=0.01, gradient_norm=0.5)
    return made


class PatientClock(ManualClock):
    """By which every call is in time, a lookup too."""

    def patience_s(self, call: str, budget_s: float) -> float:
        return PATIENT_MS / 1e3


def opened(directory: Path, policy: Policy | None, urza: Library | None = None, **changed: Any) -> TamiyoService:
    patient = {"step_timeout_ms": PATIENT_MS, "commit_timeout_ms": PATIENT_MS}
    return TamiyoService.open(
        directory, policy=policy, urza=urza or OneHost(small_host()), secret=SECRET,
        settings=Settings(**patient | changed), clock=PatientClock(),
    )  # fmt: skip


def asking(
    checkpoints: Iterable[Path] = (), policies: Iterable[Policy] = (), directory: Path = Path("nowhere")
) -> Inferences:
    return Inferences(past_policies(directory, checkpoints, policies))


@dataclass
class Moody:
    """A host's own policy, which may have changed since."""

    action: int = 1
    error: Exception | None = None
    identity: PolicyIdentity = field(default=PolicyIdentity("moody-v1", "own", "python"))

    def propose(self, graph: Graph) -> Proposal:
        if self.error is not None:
            raise self.error
        return FixedPolicy(self.action).propose(graph)


@dataclass
class Together(Moody):
    """A host's own policy that answers many graphs, or fails to."""

    key: object = b"all"
    answers: object = None
    one: object = None

    def propose(self, graph: Graph) -> Any:
        return super().propose(graph) if self.one is None else self.one

    def propose_all(self, graphs: Sequence[Graph]) -> Any:
        return [self.propose(graph) for graph in graphs] if self.answers is None else self.answers

    def batch_key(self, graph: Graph) -> Any:
        if self.key is None:
            raise RuntimeError("no key today")
        return self.key

    def selection_scores(self, graph: Graph) -> tuple[Sequence[float], Sequence[float]]:
        return (1.0,) * len(graph.seed_ids), ()
