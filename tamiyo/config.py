"""The one settings object: frozen, validated, with its environment names.

Every field can be given in code, or in the environment under `TAMIYO_` and the field's name in capitals, for
example `TAMIYO_STEP_TIMEOUT_MS`; a threshold or limit under its group's name too, for example
`TAMIYO_THRESHOLDS__MAX_LOSS_SPIKE`. Budgets and thresholds in force are journaled when a service opens.
"""

import difflib
import logging
import os
from dataclasses import fields
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from tamiyo.core.limits import Limits
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import SettingsInvalid

__all__ = ["Settings", "environment_names", "load_settings"]

logger = logging.getLogger(__name__)

Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


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
    segment_bytes: Annotated[int, Field(ge=2**16, multiple_of=512)] = 64 * 2**20
    """The length of one log segment, preallocated."""
    thresholds: Thresholds = Thresholds()
    limits: Limits = Limits()


def load_settings(**overrides: object) -> Settings:
    """The settings from the environment, with `overrides` on top. A `TAMIYO_` name that means nothing is warned of.

    Raises:
        SettingsInvalid: a value is out of range or of the wrong type, or an override's name is unknown.
    """
    for name in sorted(set(filter(_is_ours, os.environ)) - set(environment_names())):
        close = difflib.get_close_matches(name, environment_names(), 1)
        logger.warning("%s is no setting of this version%s", name, f"; did you mean {close[0]}?" if close else "")
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what the caller gives
    except SettingsError as error:
        raise SettingsInvalid(f"settings cannot be read: {error}; a group is a JSON object") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']} (got {problem['input']!r})"
            for problem in error.errors()
        )
        raise SettingsInvalid(
            f"settings cannot be used: {problems}; correct the call or the TAMIYO_ variable"
        ) from error


def environment_names() -> tuple[str, ...]:
    """Every variable that is read, groups and their members included."""
    groups = {"thresholds": Thresholds, "limits": Limits}
    members = (f"{group}__{field.name}" for group, kind in groups.items() for field in fields(kind))
    return tuple(f"TAMIYO_{name}".upper() for name in (*Settings.model_fields, *members))


def _is_ours(name: str) -> bool:
    return name.startswith("TAMIYO_")
