"""A second controller, which knows nothing but what the log says is durable.

After every step it reads on and must come to the state of the first controller, and so must one that folds the whole
log from its first record; the auditor decides every step again; and bookkeepers hold what they read against the
requirements: of breakers, decisions, policies, requests and publishing.
"""

from dataclasses import dataclass, field, fields

import wal
from tamiyo.audit import Auditor
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.evolve import Fold
from tamiyo.core.inputs import Inputs, step_inputs
from tamiyo.core.state import State, canonical
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.service import TamiyoService
from tamiyo.stored import event_of
from tamiyo.testing.machine.bounds import check_bounds
from tamiyo.testing.machine.breakers import BreakerBook
from tamiyo.testing.machine.decisions import DecisionBook
from tamiyo.testing.machine.law import LawBroken, require
from tamiyo.testing.machine.policies import PolicyBook
from tamiyo.testing.machine.publishing import BusBook
from tamiyo.testing.machine.requests import RequestBook
from tamiyo.testing.machine.retention import RetentionBook, replayed
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
        self._entries: list[wal.Entry] = []  # the same, as the log has them
        self.breakers = BreakerBook()
        self.decisions = DecisionBook(self.breakers)
        self.policies = PolicyBook()
        self.requests = RequestBook(world.requests)
        self.bus = BusBook(world.bus, world.published_at)
        self.retention = RetentionBook(self.bus)
        self.last_step: RecordedStep | None = None
        self._world = world
        self._auditor = Auditor()
        self._steps: dict[int, RecordedStep] = {}
        self._bounded: State | None = None

    @property
    def state(self) -> State:
        """The state after everything read so far."""
        return self._auditor.found.state

    def follow(self, service: TamiyoService) -> None:
        """Read on to what is durable now."""
        for entry in self._read(service.log.durable_lsn, len(self.events)):
            self._entries.append(entry)
            self._take(entry.lsn, event_of(entry))

    def require_kept(self, service: TamiyoService, law: str) -> None:
        """The log has everything read so far, bit for bit, but what retention took: then what was made of it stands."""
        self.retention.require_left(self._left(service), self._entries, law)

    def refold(self, service: TamiyoService) -> None:
        """Audit what is left of the log, from its first record or a base on: it comes to the state that there is."""
        state = service.state
        found = replayed(self._left(service))
        require(found.divergence is None, "what is left can be recomputed", found.divergence)
        if found.state.last_lsn == state.last_lsn:
            self._require_same(state, found.state)

    def compare(self, service: TamiyoService) -> None:
        """The laws that hold between batches; with the same records, both controllers are in the same state."""
        state = service.state
        self.decisions.check()
        self.breakers.check(self.state)
        check_bounds(state, self._bounded)
        self._bounded = state
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
        names = _differing(state, other)
        if names:
            raise LawBroken("a controller rebuilt from the log is the live one", _parted(state, other, names))

    def finish(self) -> None:
        """The log must not end in the middle of what followed from a decision."""
        self._auditor.finish()
        self._require_audit()

    def _read(self, durable_lsn: int, after: int) -> list[wal.Entry]:
        found: list[wal.Entry] = []
        reader = wal.Reader(self._world.log_path, after, durable_lsn=lambda: durable_lsn, disk=self._world.memory)
        while durable_lsn > after + len(found) and (more := reader.poll()):
            found += more
        return found

    def _left(self, service: TamiyoService) -> list[wal.Entry]:
        """All that the log has of its records, read from its files."""
        segments = wal.segments(self._world.log_path, disk=self._world.memory)
        return self._read(service.log.durable_lsn, segments[0].first_lsn - 1)

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
        self.policies.take(lsn, event)
        self.requests.take(event)
        self.bus.take(lsn, event)
        self.retention.take(lsn, event, self.decisions.kept_back)

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


def _differing(one: State, other: State) -> list[str]:
    """The fields that differ in value and in bits: a NaN in a blueprint's risk equals nothing, and has its bits."""
    if one == other:
        return []
    pairs = {part.name: (getattr(one, part.name), getattr(other, part.name)) for part in fields(State)}
    return [name for name, (a, b) in pairs.items() if a != b and canonical(a) != canonical(b)]


def _parted(one: State, other: State, names: list[str]) -> str:
    return "; ".join(f"{name}: {getattr(one, name)!r:.300} or {getattr(other, name)!r:.300}" for name in names)
