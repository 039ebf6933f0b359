"""The numbers that the risk rows read, by name; an absent signal is not in the map.

This is the whole list: a row that names another one fails a test.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from tamiyo.core.blueprint import Blueprint
from tamiyo.core.observation import Observation
from tamiyo.core.proposal import Proposal
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "METRIC_SIGNALS",
    "SIGNALS",
    "LossMemory",
    "blueprint_signals",
    "loss_delta",
    "packet_signals",
    "policy_risk_score",
]

METRIC_SIGNALS: Mapping[str, str] = {
    "loss": "loss",
    "gradient_norm": "gradient_norm",
    "tolaria.rollback.deadline_exceeded": "rollback_deadline_exceeded",
    "kasmina.isolation.violations": "isolation_violations",
    "hook_latency_ms": "hook_latency_ms",
    "step_latency_ms": "step_latency_ms",
    "gpu_util_percent": "gpu_util_percent",
    "gpu_mem_free_gb": "gpu_mem_free_gb",
    "cpu_util_percent": "cpu_util_percent",
    "loss_volatility": "loss_volatility",
    "kasmina.apply_ms": "kasmina_apply_ms",
    "kasmina.finalize_ms": "kasmina_finalize_ms",
    "grad_var": "grad_var",
    "grad_conflict_rate": "grad_conflict_rate",
    "optimizer_lr": "optimizer_lr",
}
"""Signals read as they are from `training_metrics`: entry name to signal name."""

SIGNALS = (
    *METRIC_SIGNALS.values(),
    "training_loss",
    "validation_loss",
    "loss_delta",
    "feature_coverage",
    "policy_risk_score",
    "blueprint_quarantine",
    "blueprint_risk",
    "bsds_present",
    "bsds_hazard_band",
    "bsds_handling_class",
    "log_unavailable",
    "log_full",
    "commit_late",
    "inference_timed_out",
    "inference_failed",
    "inference_breaker_open",
    "conservative_mode",
    "metadata_timed_out",
    "metadata_failed",
)


BLUEPRINTS_REMEMBERED = 256


class LossMemory(NamedTuple):
    """The last two present, finite validation losses of one run; a new run id starts afresh."""

    training_run_id: str = ""
    previous: float | None = None
    last: float | None = None

    def after(self, training_run_id: str, loss: float) -> "LossMemory":
        """The memory with one more loss."""
        if training_run_id != self.training_run_id:
            return LossMemory(training_run_id, None, loss)
        return LossMemory(training_run_id, self.last, loss)


def loss_delta(memory: LossMemory, observation: Observation) -> float:
    """The difference of the run's last two validation losses, else the packet's own `loss_delta`, else 0."""
    previous, last = memory.previous, memory.last
    if memory.training_run_id != observation.training_run_id:
        previous = last = None
    loss = finite_validation_loss(observation)
    if loss is not None:
        previous, last = last, loss
    if previous is not None and last is not None:
        return last - previous
    return observation.metrics.get("loss_delta", 0.0)


def finite_validation_loss(observation: Observation) -> float | None:
    """The packet's validation loss where it is present and finite."""
    loss = observation.validation_loss
    return loss if loss is not None and loss - loss == 0.0 else None


def packet_signals(observation: Observation) -> dict[str, float]:
    """What the packet itself says."""
    signals = {METRIC_SIGNALS[name]: value for name, value in observation.metrics.items() if name in METRIC_SIGNALS}
    if observation.training_loss is not None:
        signals["training_loss"] = observation.training_loss
    if observation.validation_loss is not None:
        signals["validation_loss"] = observation.validation_loss
    return signals


@lru_cache(maxsize=BLUEPRINTS_REMEMBERED)
def blueprint_signals(blueprint: Blueprint) -> Mapping[str, float]:
    """What the blueprint that the command names brings with it: the same for every step with this version of it."""
    signals = {"blueprint_quarantine": float(blueprint.quarantine_only), "blueprint_risk": blueprint.risk}
    if blueprint.sheet is not None:
        signals["bsds_present"] = 1.0
        signals["bsds_hazard_band"] = float(blueprint.sheet.hazard_band)
        signals["bsds_handling_class"] = float(blueprint.sheet.handling_class)
    return signals


def policy_risk_score(proposal: Proposal) -> float:
    """The expected risk class, scaled so that 0 is safe and 1 is critical: sum(p_i * i) / 4."""
    total = 0.0
    for index, probability in enumerate(proposal.risk):
        total += probability * index
    return total / (len(proposal.risk) - 1)


HAZARD_HIGH, HAZARD_CRITICAL = float(pb.HAZARD_BAND_HIGH), float(pb.HAZARD_BAND_CRITICAL)
HANDLING_QUARANTINE = float(pb.HANDLING_CLASS_QUARANTINE)
