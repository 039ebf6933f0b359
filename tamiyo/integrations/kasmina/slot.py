"""One seed: its stage, its module's optimizer, its blend; and what a step of time does to it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import nn

from tamiyo.integrations.gradients import total_norm
from tamiyo.integrations.kasmina.alpha import Blend
from tamiyo.integrations.kasmina.blueprints import BlueprintFactory
from tamiyo.integrations.kasmina.graft import GraftPoint
from tamiyo.integrations.kasmina.lifecycle import Pace, tick_target
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["LEARNING", "SeedSlot", "gradient_norm"]

LEARNING = (pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_PROBATIONARY)
"""The stages in which the seed's own optimizer moves it: not while it is shadowed, and a fossil is the host's."""

_ENDS_LEARNING = (pb.SEED_STAGE_FOSSILIZED, pb.SEED_STAGE_CULLED)


@dataclass(slots=True)
class SeedSlot:
    """What the manager keeps of one graft point; `point` carries the stage and alpha."""

    seed_id: str
    point: GraftPoint
    device: torch.device
    age_steps: int = 0
    blueprint_id: str = ""
    germinations: int = 0
    blend: Blend | None = None
    optimizer: torch.optim.Optimizer | None = field(default=None, repr=False)

    def enter(self, stage: int) -> None:
        """Begin a stage; gradients of the last one are dropped."""
        self.point.stage = stage
        self.age_steps = 0
        self.drop_gradients()
        if stage in _ENDS_LEARNING:
            self.optimizer = None
        if stage == pb.SEED_STAGE_RESETTING:
            self._forget()

    def build(self, blueprint_id: str, factory: BlueprintFactory, entropy: int) -> nn.Module:
        """The module of the next germination, from a random state of its own: the host's stream is not touched."""
        return self._made(factory, _init_seed(entropy, self.seed_id, blueprint_id, self.germinations + 1))

    def germinate(self, blueprint_id: str, branch: nn.Module, learning_rate: float) -> None:
        """Take in a module that was built for this."""
        self.germinations += 1
        self._plant(blueprint_id, branch, learning_rate)
        self.enter(pb.SEED_STAGE_GERMINATED)

    def replant(self, blueprint_id: str, factory: BlueprintFactory, learning_rate: float) -> None:
        """Put a fresh module in place whatever the stage; its weights are loaded next."""
        self._plant(blueprint_id, self._made(factory, seed=0), learning_rate)

    def _made(self, factory: BlueprintFactory, seed: int) -> nn.Module:
        with _random_from(seed):
            return factory(self.point.channels).to(self.device)

    def _plant(self, blueprint_id: str, branch: nn.Module, learning_rate: float) -> None:
        self.point.plant(branch.train(self.point.training))
        self.blueprint_id = blueprint_id
        self.blend = None
        self.optimizer = torch.optim.Adam(branch.parameters(), lr=learning_rate)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the seed's module, if it has one."""
        return iter(()) if self.point.branch is None else self.point.branch.parameters()

    def drop_gradients(self) -> None:
        """Forget gradients that nobody is going to use; a fossil's belong to the host's optimizer."""
        if self.point.stage != pb.SEED_STAGE_FOSSILIZED:
            for parameter in self.parameters():
                parameter.grad = None

    def take_up(self, blend: Blend | None) -> None:
        """Blend as ordered from here on, or, with None, not any more."""
        self.blend = blend
        if blend is None:
            self.point.silence()
        else:
            self.point.mode = blend.mode

    def tick(self, pace: Pace) -> None:
        """Let one step pass: learn, age, move alpha, move on from CULLED."""
        self._learn()
        self.drop_gradients()
        self.age_steps += 1
        if self.point.stage == pb.SEED_STAGE_BLENDING and self.blend is not None:
            self.point.alpha = self.blend.alpha(self.age_steps)
        following = tick_target(self.point.stage, self.age_steps, pace)
        if following != self.point.stage:
            self.enter(following)

    @property
    def blended(self) -> bool:
        """Whether the blend's schedule has run out."""
        return self.blend is not None and self.blend.completed(self.age_steps)

    def _learn(self) -> None:
        if self.optimizer is None or self.point.stage not in LEARNING:
            return
        if math.isfinite(gradient_norm(self.parameters())):  # a broken gradient costs the seed a step, not its weights
            self.optimizer.step()

    def _forget(self) -> None:
        self.point.clear()
        self.blueprint_id = ""
        self.blend = None
        self.optimizer = None


@contextmanager
def _random_from(seed: int) -> Iterator[None]:
    """Random numbers from a seed inside, and as if nothing had been drawn afterwards, on every device.

    Not `torch.manual_seed`: it seeds the devices as well, also those that begin only later, and a host's dropout would
    begin anew there with each graft.
    """
    has_begun = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if has_begun else ()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield


def gradient_norm(parameters: Iterator[nn.Parameter]) -> float:
    """The L2 norm over all gradients there are; 0 when there are none."""
    return total_norm(parameters) or 0.0


def _init_seed(entropy: int, seed_id: str, blueprint_id: str, germination: int) -> int:
    text = f"{entropy}\0{seed_id}\0{blueprint_id}\0{germination}"
    return int.from_bytes(sha256(text.encode()).digest()[:7], "big")
