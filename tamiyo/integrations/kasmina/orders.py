"""What a command asks for, read once: typed orders, or a refusal in words.

The reasons of a refusal:

    unknown_seed             no graft point has this id
    illegal_transition       the operation has no place at the seed's stage
    gate_closed              legal, but the stage has not lasted long enough or the blend is under way
    unknown_blueprint        nothing can build it
    invalid_parameters       missing, not finite or out of range
    breaker_open             the trainer's breaker is open: nothing but CULL, PAUSE and its closing is taken
    unsupported_command      a command type that seeds do not execute
    no_optimizer             the manager was given no host optimizer to adjust
    too_late                 whoever asked has given up waiting
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tamiyo.integrations.kasmina.alpha import Blend

__all__ = [
    "APPLIED",
    "NOT_ATTEMPTED",
    "REFUSED",
    "REJECTED",
    "TIMED_OUT",
    "TOO_LATE",
    "Applied",
    "Refusal",
    "read_blend",
    "read_lr_delta",
]

APPLIED, REFUSED, REJECTED = "applied", "refused", "rejected"
TIMED_OUT, NOT_ATTEMPTED = "timed_out", "not_attempted"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one command.

    `outcome` is "applied", "refused" (authentic, but not to be executed here and now), "rejected" (not authentic: the
    verifier's reason), "timed_out" (not executed within the budget) or "not_attempted" (too many earlier ones are
    still out). `reason` is "" when applied; `detail` says it in words.
    """

    outcome: str
    reason: str
    detail: str
    apply_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an order is not executed; nothing has been changed."""

    reason: str
    detail: str


TOO_LATE = Refusal("too_late", "whoever asked has given up waiting")


def read_blend(parameters: Mapping[str, float], total_steps: int, temperature: float) -> Blend | Refusal:
    """The blend that a START_GRAFTING orders."""
    names = ("blending_method_index", "alpha", "blending_schedule_start", "blending_schedule_end")
    missing = [name for name in names if name not in parameters]
    if missing:
        return Refusal("invalid_parameters", f"START_GRAFTING needs {', '.join(missing)}")
    method, target, start, end = (parameters[name] for name in names)
    if not float(method).is_integer():
        return Refusal("invalid_parameters", f"blending_method_index {method} is no index")
    blend = Blend(int(method), target, start, end, total_steps, temperature)
    fault = blend.fault()
    return Refusal("invalid_parameters", fault) if fault else blend


def read_lr_delta(hyperparameters: Mapping[str, float]) -> float | Refusal:
    """The relative change of the learning rate that an optimizer adjustment orders."""
    if "lr_delta" not in hyperparameters:
        return Refusal("invalid_parameters", "COMMAND_OPTIMIZER needs lr_delta")
    delta = hyperparameters["lr_delta"]
    return delta if math.isfinite(delta) else Refusal("invalid_parameters", f"lr_delta {delta} is not finite")
