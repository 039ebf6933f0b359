"""The seed manager: verifies a command, executes it on real modules, lets time pass, reports.

Rule 1: a command that is not authentic changes nothing, and what it might have said (a PAUSE, say) is unknown:
        the seeds hold for that step. So they do for a PAUSE, for a command they do not execute, and while the
        trainer's breaker is open.
Rule 2: an authentic command is executed whole or refused with a reason.
Rule 3: only `finalize_step` lets time pass: learning, ages, alpha, the way from CULLED to DORMANT. The last of
        these goes on while seeds are held.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from tamiyo.integrations.kasmina.blueprints import BLUEPRINTS, BlueprintFactory
from tamiyo.integrations.kasmina.executor import execute
from tamiyo.integrations.kasmina.export import exported
from tamiyo.integrations.kasmina.graft import GraftPoint
from tamiyo.integrations.kasmina.lifecycle import DEFAULT_PACE, RETURNING, Pace, name_of_stage
from tamiyo.integrations.kasmina.orders import APPLIED, REFUSED, REJECTED, Applied
from tamiyo.integrations.kasmina.slot import SeedSlot
from tamiyo.integrations.kasmina.snapshot import restore, snapshot
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["CommandVerifier", "SeedManager", "SeedSettings", "Verdict"]


class Verdict(Protocol):
    """What a verifier says; `tamiyo.signing.Verdict` is one."""

    @property
    def accepted(self) -> bool:
        """Whether the command may be executed."""

    @property
    def reason(self) -> str:
        """Why not: "invalid_signature", "stale_command", ...; "" when accepted."""


class CommandVerifier(Protocol):
    """Tells whether a command is authentic, fresh and new; `tamiyo.signing.Verifier` is one."""

    def verify(self, command: pb.AdaptationCommand) -> Verdict:
        """Check one command; each is accepted at most once."""


@dataclass(frozen=True, slots=True)
class SeedSettings:
    """Bounds and defaults of the manager; fractions and rates are plain numbers."""

    pace: Pace = DEFAULT_PACE
    learning_rate: float = 1e-3  # of a seed's own optimizer (Adam)
    alpha_temperature: float = 1.0  # of the sigmoid schedule
    risk_tolerance: float = 0.5  # reported: the disturbance that the host bears
    lr_delta_max: float = 0.1  # one command changes a learning rate by at most this share
    lr_scale_min: float = 0.1  # all commands together leave it within this share of where it started ...
    lr_scale_max: float = 2.0  # ... and this one
    entropy: int = 0  # of the modules' initial weights


class SeedManager:
    """Seeds at the graft points of one host network.

    Args:
        host_points: the graft points, by the seed id that each is to have; their order is that of the reports.
        verifier: says which commands are authentic.
        optimizer: the host's, made over the host's parameters alone. It takes in the parameters of fossils, and
            OPTIMIZER commands adjust it. Without one both are refused.
        blueprints: what can be germinated.
        settings: bounds and defaults.
        device: where modules are built.
    """

    def __init__(
        self,
        host_points: Mapping[str, GraftPoint],
        verifier: CommandVerifier,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        blueprints: Mapping[str, BlueprintFactory] = BLUEPRINTS,
        settings: SeedSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or SeedSettings()
        self.blueprints = blueprints
        self.optimizer = optimizer
        here = torch.empty(0, device=device).device  # "cuda" is this thread's; modules are built on others as well
        self.slots = {key: SeedSlot(key, point, here) for key, point in host_points.items()}
        self.fossils: list[str] = []
        self.breaker_open = False
        self.lr_scale = 1.0
        self.rejections: Counter[str] = Counter()
        self._verifier = verifier
        self._held = False

    def apply(self, command: pb.AdaptationCommand, *, may_change: Callable[[], bool] = lambda: True) -> Applied:
        """Verify a command and execute it, or say why not. `apply_ms` is the time that took.

        `may_change` is asked once, when everything slow is done and before the first change; where it is False
        nothing is changed. So a trainer may stop waiting, even for a blueprint that hangs.
        """
        started_ns = time.perf_counter_ns()
        applied = self._judge(command, may_change)
        return replace(applied, apply_ms=(time.perf_counter_ns() - started_ns) / 1e6)

    def finalize_step(self) -> float:
        """End a training step: seeds learn and move on, unless they are held. Returns the milliseconds it took."""
        started_ns = time.perf_counter_ns()
        held, self._held = self._held or self.breaker_open, False
        for slot in self.slots.values():
            if held and slot.point.stage not in RETURNING:
                slot.drop_gradients()
            else:
                slot.tick(self.settings.pace)
        return (time.perf_counter_ns() - started_ns) / 1e6

    def hold(self) -> None:
        """Let no time pass for seeds in the `finalize_step` to come."""
        self._held = True

    def export_seed_states(self) -> list[pb.SeedState]:
        """One report a seed; see `tamiyo.integrations.kasmina.export`."""
        return [exported(self, slot) for slot in self.slots.values()]

    def stages(self) -> dict[str, str]:
        """The stage of every seed, by name: `{"seed-1": "TRAINING"}`."""
        return {slot.seed_id: name_of_stage(slot.point.stage) for slot in self.slots.values()}

    def host_learning_rate(self) -> float:
        """The learning rate of the host's first parameter group; 0 without an optimizer."""
        return float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else 0.0

    def adopt(self, slot: SeedSlot) -> None:
        """Hand a fossil's parameters to the host's optimizer, at the host's learning rate."""
        if self.optimizer is not None:
            group = {"params": list(slot.parameters()), "lr": self.host_learning_rate()}
            self.optimizer.add_param_group(group)
        self.fossils.append(slot.seed_id)

    def state_dict(self) -> dict[str, object]:
        """All that the modules' weights do not hold, in types that `torch.load(weights_only=True)` takes."""
        return snapshot(self)

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Rebuild seeds from their blueprint ids and take up their stages, blends and optimizers.

        Call it on a manager that has executed nothing yet, before the network's and the optimizer's own
        `load_state_dict`: those then find the modules and parameter groups that they hold the values of.

        Raises:
            SeedStateRejected: the state is of another version, of other seeds or of unknown blueprints;
                nothing has been changed.
        """
        restore(self, state)

    def _judge(self, command: pb.AdaptationCommand, may_change: Callable[[], bool]) -> Applied:
        verdict = self._verifier.verify(command)
        if not verdict.accepted:
            if may_change():
                self.rejections[verdict.reason] += 1
                self.hold()
            return Applied(REJECTED, verdict.reason, f"the command is not authentic: {verdict.reason}")
        refusal = execute(self, command, may_change)
        if refusal is not None:
            return Applied(REFUSED, refusal.reason, refusal.detail)
        return Applied(APPLIED, "", pb.CommandType.Name(command.command_type))


def stage_counts(stages: Sequence[str]) -> dict[str, int]:
    """How many seeds are at each stage, by name."""
    return dict(sorted(Counter(stages).items()))
