"""What a command asks for, read once: typed orders, or a refusal in words.

The reasons of a refusal:

    unknown_seed             no graft point has this id
    illegal_transition       the operation has no place at the seed's stage
    gate_closed              legal, but the stage has not lasted long enough or the blend is under way
    unknown_blueprint        nothing can build it
    invalid_parameters       missing, not a number, not finite or out of range, annotations of the blend mode included
    breaker_open             the trainer's breaker is open: nothing but CULL, PAUSE and its closing is taken
    unsupported_command      a command type that seeds do not execute
    no_optimizer             the manager was given no host optimizer to adjust
    too_late                 whoever asked has given up waiting
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tamiyo.integrations.kasmina.alpha import Blend
from tamiyo.integrations.kasmina.modes import CONVEX, BlendMode, Channel, Confidence, Residual

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
    "read_mode",
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


def read_mode(annotations: Mapping[str, str], target: float, channels: int) -> BlendMode | Refusal:
    """The blend mode that a START_GRAFTING names by its annotations; CONVEX where it names none.

    Args:
        annotations: of the command; those of other modes, or of none, say nothing here.
        target: the command's alpha.
        channels: of the graft point.
    """
    name = annotations.get("blend_mode", CONVEX.name)
    reader = _MODE_READERS.get(name)
    if reader is None:
        known = ", ".join(_MODE_READERS)
        return Refusal("invalid_parameters", f"there is no blend mode {name!r}; known are {known}")
    mode = reader(annotations, target, channels)
    if isinstance(mode, Refusal):
        return mode
    fault = mode.fault(channels)
    return Refusal("invalid_parameters", f"{name}: {fault}") if fault else mode


def _plain(mode: BlendMode) -> Callable[[Mapping[str, str], float, int], BlendMode | Refusal]:
    return lambda _annotations, _target, _channels: mode


def _confidence(annotations: Mapping[str, str], _target: float, _channels: int) -> BlendMode | Refusal:
    numbers: dict[str, float] = {}
    for name in ("gate_k", "gate_tau", "alpha_lo", "alpha_hi"):
        if name not in annotations:
            return Refusal("invalid_parameters", f"CONFIDENCE needs {name}")
        try:
            numbers[name] = float(annotations[name])
        except ValueError:
            return Refusal("invalid_parameters", f"{name} {annotations[name]!r} is no number")
    return Confidence(**numbers)


def _channel(annotations: Mapping[str, str], target: float, channels: int) -> BlendMode | Refusal:
    """Neither a vector nor its length is how Tamiyo says that it could not write one: its alpha is every channel's."""
    given = [name for name in ("alpha_vec", "alpha_vec_len") if name in annotations]
    if not given:
        return Channel((1.0,) * channels)
    if len(given) == 1:
        return Refusal("invalid_parameters", f"CHANNEL needs alpha_vec and alpha_vec_len; there is only {given[0]}")
    alphas = _alphas(annotations["alpha_vec"])
    if isinstance(alphas, Refusal):
        return alphas
    if annotations["alpha_vec_len"] != str(len(alphas)):
        told = annotations["alpha_vec_len"]
        return Refusal("invalid_parameters", f"alpha_vec has {len(alphas)} alphas, and alpha_vec_len says {told!r}")
    return Channel(tuple(_gain(alpha, target) for alpha in alphas))


def _alphas(text: str) -> list[float] | Refusal:
    try:
        alphas = json.loads(text)
    except (ValueError, RecursionError):  # the latter for thousands of brackets
        return Refusal("invalid_parameters", "alpha_vec is no JSON")
    if not isinstance(alphas, list) or any(type(alpha) not in {int, float} for alpha in alphas):
        return Refusal("invalid_parameters", "alpha_vec is no list of numbers")
    beyond = [alpha for alpha in alphas if not 0.0 <= alpha <= 1.0]
    if beyond:
        return Refusal("invalid_parameters", f"an alpha of alpha_vec is outside 0..1: {beyond[0]}")
    return [float(alpha) for alpha in alphas]


def _gain(alpha: float, target: float) -> float:
    if target > 0.0:
        return alpha / target
    return math.inf if alpha else 1.0  # no multiple of 0 is more than 0; and a silent seed is silent by any


_MODE_READERS: Mapping[str, Callable[[Mapping[str, str], float, int], BlendMode | Refusal]] = MappingProxyType(
    {
        CONVEX.name: _plain(CONVEX),
        Residual.name: _plain(Residual()),
        Channel.name: _channel,
        Confidence.name: _confidence,
    }
)


def read_lr_delta(hyperparameters: Mapping[str, float]) -> float | Refusal:
    """The relative change of the learning rate that an optimizer adjustment orders."""
    if "lr_delta" not in hyperparameters:
        return Refusal("invalid_parameters", "COMMAND_OPTIMIZER needs lr_delta")
    delta = hyperparameters["lr_delta"]
    return delta if math.isfinite(delta) else Refusal("invalid_parameters", f"lr_delta {delta} is not finite")
