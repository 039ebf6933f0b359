"""Where a seed may go: one table for operations, one for gates, one for what time does.

    DORMANT ──GERMINATE──▶ GERMINATED ──START_TRAINING──▶ TRAINING ──START_GRAFTING──▶ BLENDING
       ▲                                                                                  │ STABILIZE
       │                                            FOSSILIZED ◀──FOSSILIZE── PROBATIONARY ◀──EVALUATE── SHADOWING
       └── RESETTING ◀── EMBARGOED ◀── CULLED ◀──CULL── any stage from GERMINATED to PROBATIONARY

An operation that is not in the table at a stage is refused and changes nothing. One that is in it may still
have to wait at a gate. FOSSILIZED and TERMINATED are left by nothing: a fossil is part of the host.
FINE_TUNE and CANCEL are Leyline operations that Tamiyo does not issue; they are legal nowhere here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "DEFAULT_PACE",
    "LIVE",
    "PLANTED",
    "RETURNING",
    "TRANSITIONS",
    "Pace",
    "gate",
    "name_of_operation",
    "name_of_stage",
    "tick_target",
]

LIVE = (
    pb.SEED_STAGE_GERMINATED,
    pb.SEED_STAGE_TRAINING,
    pb.SEED_STAGE_BLENDING,
    pb.SEED_STAGE_SHADOWING,
    pb.SEED_STAGE_PROBATIONARY,
)
"""The stages that can be culled."""

PLANTED = (*LIVE, pb.SEED_STAGE_FOSSILIZED, pb.SEED_STAGE_CULLED, pb.SEED_STAGE_EMBARGOED)
"""The stages in which the seed's module exists."""

RETURNING = (pb.SEED_STAGE_CULLED, pb.SEED_STAGE_EMBARGOED, pb.SEED_STAGE_RESETTING)
"""On the way back to DORMANT. Time passes for these even while seeds are held: Tamiyo pauses when it has no
candidate, and a held embargo would then never end."""

TRANSITIONS: Mapping[int, Mapping[int, int]] = MappingProxyType(
    {
        pb.SEED_OP_GERMINATE: {
            pb.SEED_STAGE_UNKNOWN: pb.SEED_STAGE_GERMINATED,
            pb.SEED_STAGE_DORMANT: pb.SEED_STAGE_GERMINATED,
        },
        pb.SEED_OP_START_TRAINING: {pb.SEED_STAGE_GERMINATED: pb.SEED_STAGE_TRAINING},
        pb.SEED_OP_START_GRAFTING: {pb.SEED_STAGE_TRAINING: pb.SEED_STAGE_BLENDING},
        pb.SEED_OP_STABILIZE: {pb.SEED_STAGE_BLENDING: pb.SEED_STAGE_SHADOWING},
        pb.SEED_OP_EVALUATE: {pb.SEED_STAGE_SHADOWING: pb.SEED_STAGE_PROBATIONARY},
        pb.SEED_OP_FOSSILIZE: {pb.SEED_STAGE_PROBATIONARY: pb.SEED_STAGE_FOSSILIZED},
        pb.SEED_OP_CULL: dict.fromkeys(LIVE, pb.SEED_STAGE_CULLED),
        pb.SEED_OP_FINE_TUNE: {},
        pb.SEED_OP_CANCEL: {},
        pb.SEED_OP_UNKNOWN: {},
    }
)
"""By operation and stage, the stage that follows."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many steps of a stage must pass; steps in which seeds are held do not count."""

    training_steps: int = 30
    blending_steps: int = 40
    shadowing_steps: int = 10
    probation_steps: int = 20
    embargo_steps: int = 50


DEFAULT_PACE = Pace()


def gate(operation: int, age_steps: int, *, blended: bool, pace: Pace) -> str:
    """What `operation` still has to wait for, in words, or "".

    Args:
        operation: a Leyline `SeedOperation` that is legal at the seed's stage.
        age_steps: steps since the seed entered that stage.
        blended: whether alpha has reached the target of its blend.
        pace: the steps that each stage must last.
    """
    if operation == pb.SEED_OP_STABILIZE and not blended:
        return "alpha has not reached the target of its blend"
    needed_steps = _steps_needed(operation, pace)
    return "" if age_steps >= needed_steps else f"{age_steps} of {needed_steps} steps have passed"


def _steps_needed(operation: int, pace: Pace) -> int:
    needed: Mapping[int, int] = {
        pb.SEED_OP_START_GRAFTING: pace.training_steps,
        pb.SEED_OP_EVALUATE: pace.shadowing_steps,
        pb.SEED_OP_FOSSILIZE: pace.probation_steps,
    }
    return needed.get(operation, 0)


def tick_target(stage: int, age_steps: int, pace: Pace) -> int:
    """The stage after `age_steps` steps in `stage`; only a culled seed moves by itself, one stage at a time."""
    moves: Mapping[int, tuple[int, int]] = {
        pb.SEED_STAGE_CULLED: (2, pb.SEED_STAGE_EMBARGOED),  # so that one packet says CULLED
        pb.SEED_STAGE_EMBARGOED: (pace.embargo_steps, pb.SEED_STAGE_RESETTING),
        pb.SEED_STAGE_RESETTING: (1, pb.SEED_STAGE_DORMANT),
    }
    after_steps, target = moves.get(stage, (0, stage))
    return target if age_steps >= after_steps else stage


def name_of_stage(stage: int) -> str:
    """`TRAINING` for SEED_STAGE_TRAINING; the number itself when Leyline has no such stage."""
    value = pb.SeedLifecycleStage.DESCRIPTOR.values_by_number.get(stage)
    return value.name.removeprefix("SEED_STAGE_") if value else str(stage)


def name_of_operation(operation: int) -> str:
    """`CULL` for SEED_OP_CULL; the number itself when Leyline has no such operation."""
    value = pb.SeedOperation.DESCRIPTOR.values_by_number.get(operation)
    return value.name.removeprefix("SEED_OP_") if value else str(operation)
