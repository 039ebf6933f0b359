"""Which operation a seed's stage calls for.

A stage that is not in the table has no legal operation, and its seed is no candidate: FOSSILIZED,
CULLED, EMBARGOED, RESETTING and TERMINATED are left out on purpose, and so is any unknown number.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tamiyo.core.observation import Observation, Seed
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["OPERATION_BY_STAGE", "candidates", "is_candidate"]

OPERATION_BY_STAGE: Mapping[int, int] = MappingProxyType(
    {
        pb.SEED_STAGE_UNKNOWN: pb.SEED_OP_GERMINATE,
        pb.SEED_STAGE_DORMANT: pb.SEED_OP_GERMINATE,
        pb.SEED_STAGE_GERMINATED: pb.SEED_OP_START_TRAINING,
        pb.SEED_STAGE_TRAINING: pb.SEED_OP_START_GRAFTING,
        pb.SEED_STAGE_BLENDING: pb.SEED_OP_STABILIZE,
        pb.SEED_STAGE_SHADOWING: pb.SEED_OP_EVALUATE,
        pb.SEED_STAGE_PROBATIONARY: pb.SEED_OP_FOSSILIZE,
    }
)


def is_candidate(seed: Seed) -> bool:
    """Whether a policy may select this seed; one without a name could not be addressed."""
    return bool(seed.seed_id) and seed.stage in OPERATION_BY_STAGE


def candidates(observation: Observation) -> tuple[int, ...]:
    """The places of the seeds that a policy may select, in packet order."""
    return tuple([place for place, seed in enumerate(observation.seeds) if is_candidate(seed)])
