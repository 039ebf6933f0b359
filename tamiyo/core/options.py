"""The settings, besides the thresholds, that decisions, observation windows and the outbox follow.

They are journaled in `ServiceOpened`, so that a replay uses those of its time. Units are in the names.
"""

from dataclasses import dataclass

from tamiyo.core import journal_pb2 as journal

__all__ = ["BLEND_MODES", "Options"]

BLEND_MODES = ("CONVEX", "RESIDUAL", "CHANNEL", "CONFIDENCE")
"""How a seed's branch is blended with its host's, as the seed manager (Kasmina) knows it."""


@dataclass(frozen=True, slots=True)
class Options:
    """Defaults as in the requirements."""

    observation_window: int = 1  # decisions after a command until its effect is reported; 1 means no windows
    report_retries_max: int = 3
    retry_backoff_ms: float = 1_000.0
    retry_backoff_mult: float = 2.0
    reminder_steps: int = 100  # between two reminders that a condition lasts
    reminder_steps_critical: int = 10
    blend_mode_annotations: bool = False
    blend_mode_default: str = "CONVEX"

    def __post_init__(self) -> None:
        """Refuse what no schedule could follow.

        Raises:
            ValueError: a number is not finite or below what makes sense, or the blend mode is unknown.
        """
        if min(self.observation_window, self.reminder_steps, self.reminder_steps_critical) < 1:
            raise ValueError("an observation window and the steps between reminders are at least 1")
        if self.report_retries_max < 0:
            raise ValueError(f"{self.report_retries_max} retries of a field report make no sense; 0 is the least")
        if not (0.0 <= self.retry_backoff_ms <= 1e9 and 1.0 <= self.retry_backoff_mult <= 1e3):
            raise ValueError("a backoff is 0 to 1e9 ms, and its multiplier 1 to 1000")
        if self.blend_mode_default not in BLEND_MODES:
            raise ValueError(f"there is no blend mode {self.blend_mode_default!r}; known are {', '.join(BLEND_MODES)}")

    def message(self) -> journal.Options:
        """As `ServiceOpened` stores it."""
        return journal.Options(**{name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def of(cls, opened: journal.ServiceOpened) -> "Options":
        """Those in force from an opening on; a log from before they were journaled had the defaults.

        Raises:
            ValueError: as above.
        """
        if not opened.HasField("options"):
            return cls()
        return cls(**{name: getattr(opened.options, name) for name in cls.__slots__})
