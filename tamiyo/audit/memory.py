"""What an audit remembers of what it has passed: open steps, states yet to be spoken of, reports not yet published."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import cast

from google.protobuf.message import DecodeError

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS
from tamiyo.core.events import Event
from tamiyo.core.evolve import evolve_all
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import Observation, read_packet
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["REPORTS_OR_THEIR_END", "STATES_KEPT", "UNWRITTEN", "OpenStep", "States", "Unpublished", "observation_of"]

UNWRITTEN = (DecodeError, IndexError, ValueError)
"""What comes of recomputing from a record that parses and that no service writes: a packet, an id, too few numbers."""
STATES_KEPT = 64
"""States of checkpoints; and so many packets back at least, the state of each is known."""


@lru_cache(maxsize=4)
def observation_of(packet: bytes) -> Observation:
    """A packet, read: each level asks for that of the step at hand. Raises PacketRejected."""
    return read_packet(packet, UNLIMITED)


@dataclass(slots=True)
class OpenStep:
    """A step that waits for its decision."""

    received: journal.StepReceived
    policy_version: str  # that was in force when it arrived
    observed: list[Event] = field(default_factory=list)
    early: list[tuple[int, Event]] = field(default_factory=list)  # moves that stand before the decision
    state_before: State | None = None
    decision_lsn: int = 0


class States:
    """The states that a log may yet speak of: of the last packets received, at every checkpoint, where a run began.

    A state costs as much as folding some events, and hardly one is ever spoken of: of the last packets one in 64 is
    kept, with the events that follow it, and the state that is asked for is folded from there.
    """

    def __init__(self, begun: State) -> None:
        self._marked: dict[int, State] = {begun.last_lsn: begun} if begun.last_lsn else {}
        self._recent: list[tuple[State, list[Event]]] = [(begun, [])]
        self._following = self._recent[-1][1]

    def take(self, event: Event, state_after: Callable[[], State]) -> None:
        """Follow one event that was folded."""
        self._following.append(event)
        kind = type(event)
        if kind is journal.StepReceived:
            index = cast("journal.StepReceived", event).step_index
            if not index % CHECKPOINT_STEPS:
                self._mark(state_after())
            if not index % STATES_KEPT:
                self._recent = [self._recent[-1], (state_after(), [])]
                self._following = self._recent[-1][1]
        elif kind is journal.RetentionPlanned:
            self._mark(state_after())

    def at(self, lsn: int) -> State | None:
        """The state of an LSN, None where it is not known any more."""
        marked = self._marked.get(lsn)
        if marked is not None:
            return marked
        for state, events in self._recent:
            if state.last_lsn <= lsn <= state.last_lsn + len(events):
                return evolve_all(state, events[: lsn - state.last_lsn])
        return None

    def _mark(self, state: State) -> None:
        self._marked[state.last_lsn] = state
        if len(self._marked) > STATES_KEPT:
            del self._marked[next(iter(self._marked))]


REPORTS_OR_THEIR_END = frozenset({journal.FieldReportIssued, journal.CommitLate, journal.PublishAttempted})
"""The events that `Unpublished` follows."""


class Unpublished:
    """The reports that the log holds and that no attempt to publish has named yet.

    Of those before `known_from_lsn` nothing is known: an audit that begins with a base has not seen them.
    """

    def __init__(self, known_from_lsn: int) -> None:
        self.known_from_lsn = known_from_lsn
        self._waiting: dict[int, tuple[str, int]] = {}  # by LSN: id, and the step whose command it reports

    def forget_upto(self, lsn: int) -> None:
        """Of the reports up to an LSN nothing is known any more: the payload of the last one was taken out."""
        self.known_from_lsn = max(self.known_from_lsn, lsn + 1)
        self._waiting = {place: held for place, held in self._waiting.items() if place > lsn}

    def take(self, lsn: int, event: Event) -> None:
        """Follow one event that was found to be in order. Raises JournalUnreadable where it does not parse."""
        if isinstance(event, journal.FieldReportIssued):
            try:
                report_id = pb.FieldReport.FromString(event.report).report_id
            except DecodeError as error:
                raise JournalUnreadable(f"the field report of LSN {lsn} does not parse: {error}") from error
            self._waiting[lsn] = (report_id, 0 if event.synthesised else event.step_lsn)
        elif isinstance(event, journal.CommitLate):
            self._waiting = {place: held for place, held in self._waiting.items() if held[1] != event.step_lsn}
        elif isinstance(event, journal.PublishAttempted) and event.attempt == 1:
            for report_lsn in event.report_lsns:
                self._waiting.pop(report_lsn, None)

    def fault_of(self, event: journal.PublishAttempted) -> str | None:
        """First attempts go through the reports in order and leave none out."""
        if event.attempt != 1:
            return None
        named = zip(event.report_lsns, event.report_ids, strict=False)
        known = [(lsn, report_id) for lsn, report_id in named if lsn >= self.known_from_lsn]
        due = [(lsn, report_id) for lsn, (report_id, _) in islice(self._waiting.items(), len(known))]
        return None if known == due else f"reports {known[:3]} were published, and {due[:3]} came first"
