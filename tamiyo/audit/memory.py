"""What an audit remembers of the records it has passed: states that may yet be spoken of, reports not yet published."""

from collections.abc import Callable
from itertools import islice

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CHECKPOINT_STEPS
from tamiyo.core.events import Event
from tamiyo.core.state import State
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["STATES_KEPT", "States", "Unpublished"]

STATES_KEPT = 64


class States:
    """The states that a log may yet speak of: at the last packets received, at every checkpoint, where a run began."""

    def __init__(self, begun: State) -> None:
        self._recent: dict[int, State] = {}
        self._marked: dict[int, State] = {begun.last_lsn: begun} if begun.last_lsn else {}

    def take(self, event: Event, state_after: Callable[[], State]) -> None:
        """Keep the state after an event, as long as it may be spoken of."""
        if isinstance(event, journal.StepReceived):
            _keep(self._recent if event.step_index % CHECKPOINT_STEPS else self._marked, state_after())
        elif isinstance(event, journal.RetentionPlanned):
            _keep(self._marked, state_after())

    def at(self, lsn: int) -> State | None:
        """The state of an LSN, None where it was not kept."""
        return self._marked.get(lsn) or self._recent.get(lsn)


def _keep(states: dict[int, State], state: State) -> None:
    states[state.last_lsn] = state
    if len(states) > STATES_KEPT:
        del states[next(iter(states))]


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
        """Follow one event that was found to be in order."""
        if isinstance(event, journal.FieldReportIssued):
            report_id = pb.FieldReport.FromString(event.report).report_id
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
