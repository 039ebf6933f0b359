"""A small host with two graft points, and commands signed by nobody but believed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tamiyo.integrations.kasmina import GraftPoint, Pace, SeedManager, SeedSettings
from tamiyo.leyline import leyline_pb2 as pb

PACE = Pace(training_steps=2, blending_steps=4, shadowing_steps=2, probation_steps=2, embargo_steps=3)
ON_THE_WAY = (
    pb.SEED_OP_GERMINATE,
    pb.SEED_OP_START_TRAINING,
    pb.SEED_OP_START_GRAFTING,
    pb.SEED_OP_STABILIZE,
    pb.SEED_OP_EVALUATE,
    pb.SEED_OP_FOSSILIZE,
)
BLEND = {
    "alpha": 0.5,
    "blending_method_index": 0.0,
    "blending_schedule_start": 0.0,
    "blending_schedule_end": 1.0,
}
NOTES: Mapping[str, Mapping[str, str]] = {
    "CONVEX": {"blend_mode": "CONVEX"},
    "RESIDUAL": {"blend_mode": "RESIDUAL"},
    "CHANNEL": {"blend_mode": "CHANNEL", "alpha_vec": "[0.5,0.25,0.0,1]", "alpha_vec_len": "4"},
    "CONFIDENCE": {
        "blend_mode": "CONFIDENCE", "gate_k": "4.0", "gate_tau": "0.2", "alpha_lo": "0.25", "alpha_hi": "0.75",
    },
}  # fmt: skip
"""What a command says of each blend mode, for the host's four channels."""


@dataclass(frozen=True)
class Belief:
    accepted: bool = True
    reason: str = ""


@dataclass
class Gullible:
    """A verifier that believes everything, until it is told to reject with a reason."""

    reason: str = ""

    def verify(self, command: pb.AdaptationCommand) -> Belief:
        return Belief(accepted=not self.reason, reason=self.reason)


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.graft1 = GraftPoint(4, depth=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.graft2 = GraftPoint(4, depth=2)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.graft1(torch.relu(self.first(images)))
        features = self.graft2(torch.relu(self.second(features)))
        return self.head(features.mean(dim=(2, 3)))


@dataclass
class Rig:
    verifier: Gullible = field(default_factory=Gullible)
    pace: Pace = PACE
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of every SEED command to come."""

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.host = Host()
        self.optimizer = torch.optim.SGD(self.host.parameters(), lr=0.1, momentum=0.9)
        self.manager = SeedManager(
            {"a": self.host.graft1, "b": self.host.graft2},
            self.verifier,
            optimizer=self.optimizer,
            settings=SeedSettings(pace=self.pace),
        )
        self.images = torch.rand(6, 1, 5, 5)
        self.labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def backward(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.host(self.images), self.labels)
        loss.backward()
        return loss.detach()

    def step(self, *, train_host: bool = True) -> Tensor:
        loss = self.backward()
        if train_host:
            self.optimizer.step()
        self.manager.finalize_step()
        return loss

    def order(self, operation: int, seed_id: str = "a", blueprint_id: str = "conv-residual", **parameters: float):
        operation_message = pb.CommandSeedOperation(
            operation=operation, blueprint_id=blueprint_id, parameters=BLEND | parameters
        )
        return self.manager.apply(
            pb.AdaptationCommand(
                command_type=pb.COMMAND_SEED,
                target_seed_id=seed_id,
                seed_operation=operation_message,
                annotations=self.annotations,
            )
        )

    def adjust(self, **hyperparameters: float):
        adjustment = pb.CommandOptimizerAdjustment(hyperparameters=hyperparameters)
        return self.manager.apply(
            pb.AdaptationCommand(command_type=pb.COMMAND_OPTIMIZER, optimizer_adjustment=adjustment)
        )

    def pause(self):
        return self.manager.apply(pb.AdaptationCommand(command_type=pb.COMMAND_PAUSE))

    def breaker(self, state: int):
        return self.manager.apply(
            pb.AdaptationCommand(
                command_type=pb.COMMAND_CIRCUIT_BREAKER,
                circuit_breaker=pb.CommandCircuitBreaker(desired_state=state),
            )
        )

    def bring(self, stage: int, seed_id: str = "a", **parameters: float) -> None:
        """Lead a dormant seed to a stage by the legal way, letting the steps pass that each gate asks for."""
        slot = self.manager.slots[seed_id]
        for operation in ON_THE_WAY:
            if slot.point.stage == stage:
                return
            assert self.order(operation, seed_id, **parameters).outcome == "applied"
            self._wait(seed_id, stage)
        assert slot.point.stage == stage

    def bring_down(self, stage: int, seed_id: str = "a") -> None:
        """Lead a dormant seed to one of the stages after a CULL."""
        self.bring(pb.SEED_STAGE_GERMINATED, seed_id)
        assert self.order(pb.SEED_OP_CULL, seed_id).outcome == "applied"
        for _ in range(10):
            if self.manager.slots[seed_id].point.stage == stage:
                return
            self.step()
        raise AssertionError(stage)

    def _wait(self, seed_id: str, stage: int) -> None:
        if self.manager.slots[seed_id].point.stage == stage:
            return
        for _ in range(4):
            self.step()
