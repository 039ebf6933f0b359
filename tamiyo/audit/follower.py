"""Who follows a replay beside the auditor."""

from typing import Protocol

from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.state import State

__all__ = ["Follower"]


class Follower(Protocol):
    """What else looks at the events that were found to be in order."""

    def recall(self, lsn: int, event: Event, state: State) -> None:
        """A record up to that of the state it begins with."""

    def take(self, lsn: int, event: Event, standing: Standing) -> None:
        """The next event, and where the controller stands before it."""
