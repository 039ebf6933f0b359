"""What the log has yet to be told: the safe PAUSEs that were released, and the steps that no record was taken of.

It lives in memory alone, and is told with the next batch that the log takes; what was told is remembered until it is
durable, and told again where a reopened log does not have it. The limit, stated: what is owed when the process dies
stays untold.
"""

from collections import deque
from dataclasses import dataclass, field

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.decide import pause_released
from tamiyo.core.events import Event
from tamiyo.core.observation import Observation
from tamiyo.core.state import State

__all__ = ["Owed", "ReleasedPause"]

PAUSES_MAX = 16  # three late commits in a row open the log's breaker, so more than a few mean a log that is full


@dataclass(slots=True)
class ReleasedPause:
    """A received step that was answered with a safe PAUSE; `decision_lsn` is 0 where no decision was recorded.

    `told_lsn` is the end of the batch that said so, 0 before.
    """

    observation: Observation
    received: journal.StepReceived
    step_lsn: int
    decision_lsn: int
    cause: str
    told_lsn: int = 0


@dataclass(slots=True)
class Owed:
    """Not for several threads: the journal keeps it under its lock."""

    steps_seen: int
    """The number of the last step that was answered, recorded or not."""
    cause: str = ""
    """Why the last unrecorded step was not recorded."""
    timed_out: deque[int] = field(default_factory=lambda: deque(maxlen=PAUSES_MAX))
    """The numbers of the last unrecorded steps that the log was too busy for."""
    pauses: deque[ReleasedPause] = field(default_factory=lambda: deque(maxlen=PAUSES_MAX))

    def count_step(self, cause: str) -> None:
        """One more step is answered without a record of it."""
        self.steps_seen += 1
        self.cause = cause
        if cause == "timeout_wal":
            self.timed_out.append(self.steps_seen)

    def is_owing(self, state: State) -> bool:
        """Whether there is something that the log was not told."""
        return self.steps_seen > state.steps_received or any(not pause.told_lsn for pause in self.pauses)

    def pause_events(self, state: State, now_ns: int) -> tuple[Event, ...]:
        """What the log says of the PAUSE that it was not told of; nothing where there is none.

        Of several, one at most: of a step that came after one that the log lost, the log has nothing either.
        """
        untold = (pause for pause in self.pauses if not pause.told_lsn)
        return next((events for pause in untold if (events := _events(pause, state, now_ns))), ())

    def steps(self, state: State) -> int:
        """How many steps were answered with a PAUSE that the log was not told of: it lacks the step, or the PAUSE."""
        untold = sum(not pause.told_lsn and bool(_events(pause, state, 0)) for pause in self.pauses)
        return self.steps_seen - state.steps_received + untold

    def told(self, last_lsn: int, durable_lsn: int) -> None:
        """The log was told, up to `last_lsn`; what is durable need not be remembered."""
        for pause in self.pauses:
            pause.told_lsn = pause.told_lsn or last_lsn
        while self.pauses and self.pauses[0].told_lsn <= durable_lsn:
            self.pauses.popleft()

    def untold(self, durable_lsn: int) -> list[int]:
        """The steps that the log does not durably say to be paused, by LSN."""
        return [pause.step_lsn for pause in self.pauses if not 0 < pause.told_lsn <= durable_lsn]

    def reopened(self, last_lsn: int) -> None:
        """The log came back and ends at `last_lsn`: what it was told past that, it was not told."""
        for pause in self.pauses:
            if pause.told_lsn > last_lsn:
                pause.told_lsn = 0

    def unrecorded(self, state: State, now_ns: int) -> journal.StepsUnrecorded:
        """The steps that are missing from the log after `state`; a count of 0 where none is."""
        first = state.steps_received + 1
        return journal.StepsUnrecorded(
            first_step_index=first,
            last_step_index=self.steps_seen,
            count=self.steps_seen - first + 1,
            event_time_ns=now_ns,
            cause=self.cause,
            timed_out=sum(step >= first for step in self.timed_out),
        )


def _events(pause: ReleasedPause, state: State, now_ns: int) -> tuple[Event, ...]:
    """Nothing where the step did not survive a reopen: it is among those that no record was taken of."""
    unsettled = state.unsettled
    superseded = pause.decision_lsn > 0 and unsettled is not None and unsettled.step_lsn == pause.step_lsn
    if not superseded and pause.step_lsn not in state.undecided:
        return ()
    return pause_released(
        state,
        pause.observation,
        pause.received,
        step_lsn=pause.step_lsn,
        decision_lsn=pause.decision_lsn if superseded else 0,
        cause=pause.cause,
        event_time_ns=now_ns,
    )
