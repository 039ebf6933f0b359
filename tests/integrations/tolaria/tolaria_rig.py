"""A tiny run: a host with one graft point, data from the step number, a controller that follows a script."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.integrations.kasmina import GraftPoint, Pace, SeedManager, SeedSettings
from tamiyo.integrations.tolaria import HardwareReader, Run, Trainer, TrainerSettings
from tamiyo.leyline import leyline_pb2 as pb

PACE = Pace(training_steps=2, blending_steps=3, shadowing_steps=1, probation_steps=2, embargo_steps=2)
CULLS_AT = (8,)


@dataclass(frozen=True)
class Belief:
    accepted: bool = True
    reason: str = ""


class Gullible:
    def verify(self, command: pb.AdaptationCommand) -> Belief:
        return Belief()


@dataclass
class Scripted:
    """Advances the first seed that can be, pauses every fifth step, culls where the script says so."""

    packets: list[pb.SystemStatePacket] = field(default_factory=list)
    delivered: list[tuple[str, str, str]] = field(default_factory=list)

    def record_delivery(self, command_id: str, outcome: str, detail: str = "") -> None:
        self.delivered.append((command_id, outcome, detail))

    def evaluate_step(self, packet: pb.SystemStatePacket) -> pb.AdaptationCommand:
        self.packets.append(packet)
        seed = next((s for s in packet.seed_states if s.stage in OPERATION_BY_STAGE), None)
        if packet.global_step % 5 == 0 or seed is None:
            return pb.AdaptationCommand(command_type=pb.COMMAND_PAUSE)
        operation = pb.SEED_OP_CULL if packet.global_step in CULLS_AT else OPERATION_BY_STAGE[seed.stage]
        order = pb.CommandSeedOperation(operation=operation, blueprint_id="conv-residual")
        for name, value in (("alpha", 0.5), ("blending_method_index", 1.0)):
            order.parameters[name] = value
        order.parameters["blending_schedule_start"], order.parameters["blending_schedule_end"] = 0.0, 1.0
        return pb.AdaptationCommand(command_type=pb.COMMAND_SEED, target_seed_id=seed.seed_id, seed_operation=order)


class Numbers:
    """Batches that the step number alone decides."""

    steps_per_epoch = 4

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        return torch.rand(8, 1, 4, 4, generator=generator), torch.randint(3, (8,), generator=generator)

    def validation(self) -> tuple[Tensor, Tensor]:
        return self.batch(10_000)


class Host(nn.Module):
    """With dropout, so that the process's random stream matters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.graft = GraftPoint(4, depth=1)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.graft(torch.relu(self.conv(images)))
        return self.head(self.dropout(features.mean(dim=(2, 3))))


def new_trainer(
    checkpoint: Path | None = None,
    *,
    run_id: str = "r",
    batches: object = None,
    controller: object = None,
    hardware: HardwareReader | None = None,
) -> Trainer:
    torch.manual_seed(0)
    host = Host()
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1, momentum=0.9)
    seeds = SeedManager({"a": host.graft}, Gullible(), optimizer=optimizer, settings=SeedSettings(pace=PACE))
    return Trainer(
        Run(run_id, "numbers", Numbers.steps_per_epoch),
        host,
        optimizer,
        nn.CrossEntropyLoss(),
        batches or Numbers(),
        controller or Scripted(),
        seeds,
        settings=TrainerSettings(validate_every=3, checkpoint_every=4),
        hardware=hardware,
        checkpoint=checkpoint,
    )
