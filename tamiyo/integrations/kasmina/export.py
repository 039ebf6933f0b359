"""What the seed manager tells the controller about one seed.

    stage           the Leyline lifecycle stage
    gradient_norm   L2 over the module's gradients of this step; absent (0) where nothing flowed
    learning_rate   of the optimizer that moves it: its own, the host's for a fossil; absent (0) where none does
    layer_depth     of its graft point
    age_epochs      training steps since it entered its stage, held steps not counted (the name is historical)
    risk_score      how much it changed the host's features in the last training pass: d / (d + |h|) with d the
                    norm of what its blend mode adds to them (alpha |s - h| in CONVEX), 0.5 for a change as large
                    as the features themselves; 0 while it has no say, 1 when that or its gradient is not finite

And in `metrics`:

    alpha, channels     of its graft point
    activity            what its risk would be with alpha 1; absent where its module did not run in the last training
                        pass, or that is not finite
    success             of the germinations at its place that became a fossil or were culled, the share that became
                        one; absent before the first of these
    alpha_steps         of its blend so far; this and the next three once a blend was ordered
    alpha_total_steps, alpha_temperature, alpha_schedule_index
    risk_tolerance      of the manager's settings
    blend_allowed       1 when START_GRAFTING would pass the gate now or the seed is blended already, else 0; and
                        blend_allowed_<method>, for every method
    operation_allowed   1 when the operation that its stage calls for would be taken now, else 0; at a stage that calls
                        for one
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.integrations.kasmina.lifecycle import LIVE, gate
from tamiyo.integrations.kasmina.slot import SeedSlot, gradient_norm
from tamiyo.leyline import leyline_pb2 as pb

if TYPE_CHECKING:
    from tamiyo.integrations.kasmina.manager import SeedManager

__all__ = ["exported"]

_BLENDED = (
    pb.SEED_STAGE_BLENDING,
    pb.SEED_STAGE_SHADOWING,
    pb.SEED_STAGE_PROBATIONARY,
    pb.SEED_STAGE_FOSSILIZED,
)


def exported(manager: SeedManager, slot: SeedSlot) -> pb.SeedState:
    """The report of one seed; reads, changes nothing."""
    norm = gradient_norm(slot.parameters())
    return pb.SeedState(
        seed_id=slot.seed_id,
        stage=pb.SeedLifecycleStage.Name(slot.point.stage),
        gradient_norm=norm,
        learning_rate=_learning_rate(manager, slot),
        layer_depth=slot.point.depth,
        age_epochs=slot.age_steps,
        risk_score=_risk(slot, norm),
        metrics=_metrics(manager, slot),
    )


def _risk(slot: SeedSlot, gradient: float) -> float:
    disturbance = slot.point.disturbance
    return disturbance if math.isfinite(gradient) and math.isfinite(disturbance) else 1.0


def _learning_rate(manager: SeedManager, slot: SeedSlot) -> float:
    if slot.point.stage == pb.SEED_STAGE_FOSSILIZED:
        return manager.host_learning_rate()
    return float(slot.optimizer.param_groups[0]["lr"]) if slot.optimizer else 0.0


def _metrics(manager: SeedManager, slot: SeedSlot) -> dict[str, float]:
    allowed = float(_blend_allowed(manager, slot))
    metrics = {
        "alpha": slot.point.alpha,
        "channels": float(slot.point.channels),
        "risk_tolerance": manager.settings.risk_tolerance,
        "blend_allowed": allowed,
    }
    metrics.update({f"blend_allowed_{method}": allowed for method in BLENDING_METHODS})
    activity, success = slot.point.activity, _success(slot)
    if activity is not None and math.isfinite(activity):
        metrics["activity"] = activity
    if success is not None:
        metrics["success"] = success
    operation = OPERATION_BY_STAGE.get(slot.point.stage)
    if operation is not None:
        metrics["operation_allowed"] = float(_operation_allowed(manager, slot, operation))
    return metrics | _blend_metrics(slot)


def _success(slot: SeedSlot) -> float | None:
    ended = slot.germinations - (slot.point.stage in LIVE)
    if not ended:
        return None
    return 1.0 / ended if slot.point.stage == pb.SEED_STAGE_FOSSILIZED else 0.0


def _operation_allowed(manager: SeedManager, slot: SeedSlot, operation: int) -> bool:
    if manager.breaker_open or (operation == pb.SEED_OP_FOSSILIZE and manager.optimizer is None):
        return False
    if operation == pb.SEED_OP_GERMINATE:
        return bool(manager.blueprints)
    return not gate(operation, slot.age_steps, blended=slot.blended, pace=manager.settings.pace)


def _blend_metrics(slot: SeedSlot) -> dict[str, float]:
    blend = slot.blend
    if blend is None:
        return {}
    blending = slot.point.stage == pb.SEED_STAGE_BLENDING
    return {
        "alpha_steps": min(slot.age_steps, blend.total_steps) if blending else blend.total_steps,
        "alpha_total_steps": blend.total_steps,
        "alpha_temperature": blend.temperature,
        "alpha_schedule_index": blend.method_index,
    }


def _blend_allowed(manager: SeedManager, slot: SeedSlot) -> bool:
    if slot.point.stage in _BLENDED:
        return True
    if slot.point.stage != pb.SEED_STAGE_TRAINING or manager.breaker_open:
        return False
    return not gate(pb.SEED_OP_START_GRAFTING, slot.age_steps, blended=False, pace=manager.settings.pace)
