"""Tells the host's log that steps go without a record, why, and when that is over: once each, however long it lasts."""

import logging

import wal
from tamiyo.errors import PacketRejected
from tamiyo.records import JournalUnavailable
from tamiyo.words import counted

__all__ = ["Outage"]

logger = logging.getLogger(__name__)

_TOO_LARGE = (PacketRejected, wal.BatchTooLarge)
_TRIED_AGAIN = "it failed, or was late three times running, and is tried again beside the steps"


class Outage:
    """A time in which the log takes no record. That it is late now and then is none, nor is a step too large for it."""

    def __init__(self) -> None:
        self._paused_steps = 0

    def meet(self, unavailable: JournalUnavailable) -> None:
        """One more step is answered with a safe PAUSE."""
        if unavailable.cause == "timeout_wal" or isinstance(unavailable.__cause__, _TOO_LARGE):
            return
        if not self._paused_steps:
            why = unavailable.__cause__ or _TRIED_AGAIN
            logger.warning("the log takes no records, steps are answered with a safe PAUSE: %s", str(why))
        self._paused_steps += 1

    def end(self) -> None:
        """A step was recorded."""
        if self._paused_steps:
            steps = counted(self._paused_steps, "step was", "steps were")
            logger.warning("the log takes records again: %s answered with a safe PAUSE meanwhile", steps)
            self._paused_steps = 0
