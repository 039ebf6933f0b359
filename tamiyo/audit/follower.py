"""Who follows a replay beside the auditor."""

from typing import Protocol

from tamiyo.audit.agreement import Reinference
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.events import Event
from tamiyo.core.state import State

__all__ = ["Asked", "Follower"]


class Follower(Protocol):
    """What else looks at the events that were found to be in order."""

    def recall(self, lsn: int, event: Event, state: State) -> None:
        """A record up to that of the state it begins with."""

    def take(self, lsn: int, event: Event, standing: Standing) -> None:
        """The next event, and where the controller stands before it."""


class Asked(Follower, Protocol):
    """Level 3, as the rest of the audit knows it."""

    @property
    def found(self) -> Reinference:
        """What was found so far; some of it is not asked yet."""

    def begin(self, base: journal.StateBase | None) -> None:
        """Begin, from the base of what was before; what was seen so far counts for nothing."""

    def finish(self) -> Reinference:
        """What was found."""
