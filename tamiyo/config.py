"""The one settings object: frozen, validated, with its environment names.

Every field can be given in code, or in the environment under `TAMIYO_` and the field's name in capitals, for
example `TAMIYO_STEP_TIMEOUT_MS`. What is in force is journaled when a service opens.
"""

from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tamiyo.core.limits import Limits
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import SettingsInvalid

__all__ = ["Settings", "load_settings"]

Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


class Settings(BaseSettings):
    """Budgets in milliseconds, sizes in bytes; thresholds and limits are objects of the core."""

    model_config = SettingsConfigDict(env_prefix="TAMIYO_", frozen=True, extra="forbid")

    step_timeout_ms: Milliseconds = 5
    """What the policy may take in one step, from graph to proposal."""
    epoch_timeout_ms: Milliseconds = 5_000
    """The same for `evaluate_epoch`."""
    metadata_timeout_ms: Annotated[int, Field(ge=10, le=20)] = 10
    """How long a step may wait for a blueprint that is not known yet."""
    commit_timeout_ms: Milliseconds = 5
    """How long a step may wait for its records to be durable, staging of the packet included."""
    segment_bytes: Annotated[int, Field(ge=2**16, multiple_of=512)] = 64 * 2**20
    """The length of one log segment, preallocated."""
    thresholds: Thresholds = Thresholds()
    limits: Limits = Limits()


def load_settings(**overrides: object) -> Settings:
    """The settings from the environment, with `overrides` on top.

    Raises:
        SettingsInvalid: a value is out of range, of the wrong type, or its name is unknown.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the caller gives
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']} (got {problem['input']!r})"
            for problem in error.errors()
        )
        raise SettingsInvalid(
            f"settings cannot be used: {problems}; correct the call or the TAMIYO_ variable"
        ) from error
