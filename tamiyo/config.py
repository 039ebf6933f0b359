"""The one settings object: frozen, validated, with its environment names.

Every field can be given in code, or in the environment under `TAMIYO_` and the field's name in capitals, for
example `TAMIYO_STEP_TIMEOUT_MS`; a threshold or limit under its group's name too, for example
`TAMIYO_THRESHOLDS__MAX_LOSS_SPIKE`. Budgets and thresholds in force are journaled when a service opens.
"""

import difflib
import logging
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tamiyo.core.limits import Limits
from tamiyo.core.options import Options
from tamiyo.core.retention import Windows
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import SettingsInvalid

__all__ = ["Settings", "environment_names", "given_or_loaded", "load_settings"]

logger = logging.getLogger(__name__)

Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


Hours = Annotated[
    Annotated[float, Field(ge=0, le=1e6)] | None,
    BeforeValidator(lambda value: None if value == "never" else value),
]
"""Of event time; None, in the environment `never`, for no end."""


class Settings(BaseSettings):
    """Budgets in milliseconds, sizes in bytes; thresholds and limits are objects of the core."""

    model_config = SettingsConfigDict(env_prefix="TAMIYO_", env_nested_delimiter="__", frozen=True, extra="forbid")

    step_timeout_ms: Milliseconds = 5
    """What the policy may take in one step, from graph to proposal."""
    epoch_timeout_ms: Milliseconds = 5_000
    """The same for `evaluate_epoch`."""
    metadata_timeout_ms: Annotated[int, Field(ge=10, le=20)] = 10
    """How long a step may wait for a blueprint that is not known yet."""
    commit_timeout_ms: Milliseconds = 5
    """How long a step may wait for its records to be durable, staging of the packet included."""
    publish_timeout_ms: Milliseconds = 1_000
    """How long `publish_history` waits for the bus to take one message."""
    upkeep_period_ms: Milliseconds = 100
    """How long requests, and riders that no step takes along, wait for the upkeep's next turn at most."""
    update_freshness_sec: Annotated[float, Field(gt=0, le=1e9)] = 3_600.0
    """How old a policy update may be when it arrives."""
    policy_device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = "auto"
    """Where installed networks compute: `cpu`, `cuda`, `cuda:N`, or `auto`, which is the processor."""
    segment_bytes: Annotated[int, Field(ge=2**16, multiple_of=512)] = 64 * 2**20
    """The length of one log segment, preallocated."""
    fr_obs_window_epochs: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    """Decisions after a command until its effect is reported; 1 means no windows. The name is historical."""
    field_report_max_retries: Annotated[int, Field(ge=0, le=1_000)] = 3
    """How often a field report that the bus refused is tried again."""
    fr_retry_backoff_ms: Annotated[float, Field(ge=0, le=1e9)] = 1_000.0
    """How long after its first attempt a refused report is due again."""
    fr_retry_backoff_mult: Annotated[float, Field(ge=1, le=1e3)] = 2.0
    """What that grows by with each attempt."""
    enable_blend_mode_ann: bool = False
    """Whether SEED commands carry the `blend_mode` annotations."""
    blend_mode_default: Literal["CONVEX", "RESIDUAL", "CHANNEL", "CONFIDENCE"] = "CONVEX"
    """The blend mode that those annotations name."""
    field_report_retention_hours: Hours = 24.0
    """Field reports older than that lose their payload in a retention run; `never`: they stay."""
    packet_retention_hours: Hours = None
    """The same for the packets of steps. Their decisions can then no longer be recomputed."""
    observation_retention_hours: Hours = None
    """The same for what a step saw and what the policy answered. Their decisions can then no longer be recomputed."""
    log_retention_hours: Hours = None
    """Whole segments older than that are pruned in a retention run; `never`: they stay."""
    thresholds: Thresholds = Thresholds()
    limits: Limits = Limits()

    if not TYPE_CHECKING:  # type checkers go on to see the fields

        def __init__(self, **values: object) -> None:
            """Take what is given, the rest from the environment.

            Raises:
                SettingsInvalid: a value is out of range or of the wrong type, or a name is unknown.
            """
            try:
                super().__init__(**values)
            except SettingsError as error:
                raise SettingsInvalid(f"settings cannot be read: {error}; a group is a JSON object") from error
            except ValidationError as error:
                raise SettingsInvalid(
                    f"settings cannot be used: {_problems(error)}; correct the call or the TAMIYO_ variable"
                ) from error

    def windows(self) -> Windows:
        """How long a retention run keeps what."""
        return Windows.of_hours(
            log=self.log_retention_hours,
            field_reports=self.field_report_retention_hours,
            packets=self.packet_retention_hours,
            observations=self.observation_retention_hours,
        )

    def options(self) -> Options:
        """What decisions, windows and the outbox follow besides the thresholds, as it is journaled."""
        return Options(
            observation_window=self.fr_obs_window_epochs,
            report_retries_max=self.field_report_max_retries,
            retry_backoff_ms=self.fr_retry_backoff_ms,
            retry_backoff_mult=self.fr_retry_backoff_mult,
            blend_mode_annotations=self.enable_blend_mode_ann,
            blend_mode_default=self.blend_mode_default,
        )


def load_settings(**overrides: object) -> Settings:
    """The settings from the environment, with `overrides` on top. A `TAMIYO_` name that means nothing is warned of.

    Raises:
        SettingsInvalid: a value is out of range or of the wrong type, or an override's name is unknown.
    """
    for name in sorted(set(filter(_is_ours, os.environ)) - set(environment_names())):
        close = difflib.get_close_matches(name, environment_names(), 1)
        logger.warning("%s is no setting of this version%s", name, f"; did you mean {close[0]}?" if close else "")
    return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the caller gives


def given_or_loaded(settings: object) -> Settings:
    """The settings that a caller gave, or those of the environment.

    Raises:
        SettingsInvalid: what was given are none; else as `load_settings`.
    """
    if settings is None:
        return load_settings()
    if not isinstance(settings, Settings):
        kind = type(settings).__name__
        raise SettingsInvalid(f"settings={settings!r:.80} is a {kind}: give Settings(name=value, ...)")
    return settings


def environment_names() -> tuple[str, ...]:
    """Every variable that is read, groups and their members included."""
    groups = {"thresholds": Thresholds, "limits": Limits}
    members = (f"{group}__{field.name}" for group, kind in groups.items() for field in fields(kind))
    return tuple(f"TAMIYO_{name}".upper() for name in (*Settings.model_fields, *members))


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']} (got {problem['input']!r})"
        for problem in error.errors()
    )


def _is_ours(name: str) -> bool:
    return name.startswith("TAMIYO_")
