"""Every number that the risk table, the breakers and conservative mode compare with.

A change of a threshold is a change of one line here, or of one setting. What is in force is journaled in
`ServiceOpened`, so a replay uses the thresholds of its time. Units are in the names.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

__all__ = ["Thresholds", "single"]

LEAST: Mapping[str, float] = {
    "max_loss_spike": 0.0,
    "breaker_failures": 1.0,
    "breaker_trials": 1.0,
    "breaker_cool_down_s": 0.0,
    "conservative_cool_down_s": 0.0,
    "conservative_clean_steps": 0.0,
}
"""Lower bounds, where one makes sense; a threshold that is never or always met is a way to switch a row."""

OF_SINGLES = (
    "max_loss_spike",
    "blueprint_quarantine_risk",
    "blueprint_risk",
    "hook_latency_max_ms",
    "step_latency_max_ms",
    "gpu_util_max_percent",
    "gpu_mem_free_min_gb",
    "cpu_util_max_percent",
    "kasmina_apply_max_ms",
    "kasmina_finalize_max_ms",
    "grad_variance_max",
    "grad_conflict_rate_max",
)
"""Those compared with what travels in Leyline's `float` fields."""


@dataclass(frozen=True)
class Thresholds:
    """Defaults as in the requirements' risk table. Its hash is kept: it is the key of the table made for it."""

    max_loss_spike: float = 0.15  # loss units from one validation to the next
    loss_warning_fraction: float = 0.5  # of max_loss_spike
    loss_volatility_fraction: float = 0.75  # of max_loss_spike
    blueprint_quarantine_risk: float = 0.8
    blueprint_risk: float = 0.5
    policy_risk_critical: float = 0.98
    policy_risk_elevated: float = 0.85
    feature_coverage_critical: float = 0.10
    feature_coverage_low: float = 0.30
    hook_latency_max_ms: float = 50.0
    step_latency_max_ms: float = 120.0
    gpu_util_max_percent: float = 95.0
    gpu_mem_free_min_gb: float = 0.2
    cpu_util_max_percent: float = 95.0
    kasmina_apply_max_ms: float = 30.0
    kasmina_finalize_max_ms: float = 30.0
    grad_variance_max: float = 1.0
    grad_conflict_rate_max: float = 0.5
    breaker_failures: float = 3.0  # in a row, to open
    breaker_trials: float = 2.0  # successes, to close again
    breaker_cool_down_s: float = 1.0
    conservative_cool_down_s: float = 1.0
    conservative_clean_steps: float = 3.0

    def __post_init__(self) -> None:
        """Refuse numbers that nothing could be compared with.

        Raises:
            ValueError: a threshold is not finite, or a count or time is below what makes sense.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value - value != 0.0:
                raise ValueError(f"threshold {field.name} is {value}, not a finite number")
            if value < LEAST.get(field.name, value):
                raise ValueError(f"threshold {field.name} is {value}, below {LEAST[field.name]}")

    def __hash__(self) -> int:
        """Of the numbers, computed once."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self.as_map().values()))

    def as_map(self) -> dict[str, float]:
        """By field name, as `ServiceOpened` stores it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def of_the_wire(self) -> "Thresholds":
        """These, with those that are compared with single-precision numbers in single precision themselves.

        0.2 comes over the wire as 0.20000000298: only so is it at most 0.2, and 0.15 not over 0.15.
        """
        return replace(self, **{name: single(getattr(self, name)) for name in OF_SINGLES})

    @classmethod
    def from_map(cls, stored: Mapping[str, float]) -> "Thresholds":
        """Back from `ServiceOpened`; a name that an older version did not store keeps its default."""
        names = {field.name for field in fields(cls)}
        return _interned(tuple(sorted((name, value) for name, value in stored.items() if name in names)))


def single(value: float) -> float:
    """The nearest single-precision number; a value that has none but 0 or infinity stays as it is."""
    try:
        nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return value
    return nearest or value


@lru_cache(maxsize=8)
def _interned(values: tuple[tuple[str, float], ...]) -> Thresholds:
    """One object for equal numbers, so that looking its table up compares none."""
    return Thresholds(**dict(values))
