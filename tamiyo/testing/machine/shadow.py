"""A second controller, which knows nothing but what the log says is durable.

After every step it reads on and must come to the state of the first controller, and so must one that folds the whole
log from its first record; the auditor decides every step again; and two bookkeepers hold what they read
against the requirements.
"""

from dataclasses import dataclass, field, fields

import wal
from tamiyo.audit import Auditor
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.evolve import Fold
from tamiyo.core.inputs import Inputs, step_inputs
from tamiyo.core.state import State
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.service import TamiyoService
from tamiyo.stored import event_of
from tamiyo.testing.machine.bounds import check_bounds
from tamiyo.testing.machine.breakers import BreakerBook
from tamiyo.testing.machine.decisions import DecisionBook
from tamiyo.testing.machine.law import LawBroken, require
from tamiyo.testing.machine.world import World

__all__ = ["RecordedStep", "Shadow"]


@dataclass(slots=True)
class RecordedStep:
    """A step as the log has it: what `decide` was given, once it is decided."""

    received: journal.StepReceived
    observed: list[Event] = field(default_factory=list)
    state: State = field(default_factory=State)
    inputs: Inputs | None = None
    is_pause: bool = False


class Shadow:
    """Follows the log of one world; `state` is what it comes to, `last_step` the last step that was decided."""

    def __init__(self, world: World) -> None:
        self.events: list[Event] = []
        self.breakers = BreakerBook()
        self.decisions = DecisionBook(self.breakers)
        self.last_step: RecordedStep | None = None
        self._world = world
        self._auditor = Auditor()
        self._steps: dict[int, RecordedStep] = {}

    @property
    def state(self) -> State:
        """The state after everything read so far."""
        return self._auditor.found.state

    def follow(self, service: TamiyoService) -> None:
        """Read on to what is durable now."""
        durable_lsn = service.log.durable_lsn
        for entry in self._entries(durable_lsn):
            self._take(entry.lsn, event_of(entry))

    def compare(self, service: TamiyoService) -> None:
        """The laws that hold between batches; with the same records, both controllers are in the same state."""
        state = service.state
        self.decisions.check()
        self.breakers.check(self.state)
        check_bounds(state)
        if state.last_lsn != self.state.last_lsn:
            return  # something is not durable yet
        self._require_same(state, self.state)

    def rebuild(self, service: TamiyoService) -> None:
        """Fold the log from its first record: a third controller, in the same state too."""
        state = service.state
        if state.last_lsn == len(self.events):
            fold = Fold()
            for lsn, event in enumerate(self.events, start=1):
                fold.take(lsn, event)
            self._require_same(state, fold.state())

    def _require_same(self, state: State, other: State) -> None:
        if not _same(state, other):
            raise LawBroken("a controller rebuilt from the log is the live one", _parted(state, other))

    def finish(self) -> None:
        """The log must not end in the middle of what followed from a decision."""
        self._auditor.finish()
        self._require_audit()

    def _entries(self, durable_lsn: int) -> list[wal.Entry]:
        if durable_lsn <= len(self.events):
            return []
        after, path = len(self.events), self._world.log_path
        return wal.Reader(path, after, durable_lsn=lambda: durable_lsn, disk=self._world.memory).poll()

    def _take(self, lsn: int, event: Event) -> None:
        law = "the log's numbers are dense and never given twice"
        require(lsn == len(self.events) + 1, law, f"{lsn} follows {len(self.events)}")
        self.events.append(event)
        before = self.state
        self._auditor.take(lsn, event)
        self._require_audit()
        self._gather(lsn, event, before)
        self.breakers.take(event)
        self.decisions.take(lsn, event)

    def _gather(self, lsn: int, event: Event, before: State) -> None:
        """Keep what the next decision is made from: its state is the one after the last observation."""
        if isinstance(event, journal.StepReceived):
            self._steps[lsn] = RecordedStep(event)
            return
        step = self._steps.get(getattr(event, "step_lsn", 0))
        if step is None:
            return
        if isinstance(event, journal.DecisionMade):
            step.state = step.state if step.state.last_lsn else before
            step.inputs = step_inputs(
                event.step_lsn, step.received, step.observed, event_time_ns=event.event_time_ns, timings=event.timings
            )
            step.is_pause = pb.AdaptationCommand.FromString(event.command).command_type == pb.COMMAND_PAUSE
            self.last_step = step
            del self._steps[event.step_lsn]
        elif isinstance(event, journal.BreakerMoved):
            step.state = step.state if step.state.last_lsn else before
        else:
            step.observed.append(event)

    def _require_audit(self) -> None:
        divergence = self._auditor.found.divergence
        require(divergence is None, "every decision follows from its record", divergence)


def _same(one: State, other: State) -> bool:
    """Equal, or the same by digest: a NaN in a blueprint's risk equals nothing, and has its bits all the same."""
    return one == other or one.digest() == other.digest()


def _parted(one: State, other: State) -> str:
    names = [part.name for part in fields(State) if getattr(one, part.name) != getattr(other, part.name)]
    return "; ".join(f"{name}: {getattr(one, name)!r:.300} or {getattr(other, name)!r:.300}" for name in names)
