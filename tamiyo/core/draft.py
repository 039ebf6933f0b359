"""A state while events are folded into it: thawed once for a batch, changed in place, frozen once.

A mapping is copied when it is first written to, so that the state it came from stays as it was. What is inside
the mappings and everything else is immutable and only ever replaced. Only `evolve` holds a draft.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from tamiyo.core.breakers import Breaker, counted
from tamiyo.core.layout import GraphLayout
from tamiyo.core.norms import Norm
from tamiyo.core.options import Options
from tamiyo.core.registries import Registries
from tamiyo.core.signals import LossMemory
from tamiyo.core.state import (
    DIRECTIVES_MAX,
    Condition,
    Conservative,
    Deliveries,
    Derived,
    ObservedBlueprint,
    Outbox,
    Policies,
    State,
    Unsettled,
    Windows,
)
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import InvariantViolation

__all__ = ["Draft", "Standing"]


class Draft(Derived):
    """The fields of `State`, open to be written."""

    last_lsn: int
    event_time_ns: int
    thresholds: Thresholds
    options: Options
    log_id: str
    metadata_budget_ms: int
    behaviour_flags: tuple[str, ...]
    policy_version: str
    steps_received: int
    steps_unrecorded: int
    decisions: int
    commits_late: int
    unsettled: Unsettled | None
    unsettled_report_lsn: int
    undecided: tuple[int, ...]
    loss: LossMemory
    norms: tuple[Norm, ...]
    breakers: Mapping[str, Breaker]
    conservative: Conservative
    conditions: Mapping[tuple[str, int], Condition]
    windows: Windows
    reports_issued: int
    outbox: Outbox
    undelivered: Mapping[str, int]
    deliveries: Deliveries
    directives: tuple[str, ...]
    registries: Registries
    layouts: Mapping[int, GraphLayout]
    blueprints: Mapping[str, ObservedBlueprint]
    seed_blueprints: Mapping[str, str]
    policies: Policies
    _own: set[str]

    __slots__ = ("__dict__", "_own")

    def __init__(self, state: State) -> None:
        """Thaw a state."""
        self.__dict__.update(state.__dict__)
        self._own = set()

    def writable(self, name: str) -> dict[Any, Any]:
        """The mapping of that name, to be changed in place."""
        held: dict[Any, Any] = getattr(self, name)
        if name not in self._own:
            held = held.copy()  # of the mapping behind the proxy: ten times as fast as dict(proxy)
            setattr(self, name, held)
            self._own.add(name)
        return held

    def frozen(self) -> State:
        """The state as it is now; the draft may go on."""
        for name in self._own:
            setattr(self, name, MappingProxyType(getattr(self, name)))
        self._own.clear()
        state = State.__new__(State)
        state.__dict__.update(self.__dict__)
        return state

    def refusal(self, event: Message, rule: str) -> InvariantViolation:
        """What is raised where an event is illegal here."""
        name = event.DESCRIPTOR.name
        return InvariantViolation(f"{name} after LSN {self.last_lsn} is illegal: {rule}; nothing was written")

    def count(self, breaker: str, outcome: str) -> None:
        """Count an outcome on a breaker; its state stays."""
        record = self.breakers[breaker]
        counted_record = counted(record, outcome)
        if counted_record is not record and counted_record != record:
            self.writable("breakers")[breaker] = counted_record

    def advance(self, event_time_ns: int) -> None:
        """Event time never goes back."""
        self.event_time_ns = max(self.event_time_ns, event_time_ns)

    def note_request(self, request_id: str) -> None:
        """A request was taken up, and none with its id will be again; "" stands for none."""
        if request_id:
            self.directives = (*self.directives, request_id)[-DIRECTIVES_MAX:]

    def remember(self, name: str, key: object, value: object, most: int) -> None:
        """Put `key` into the mapping `name` as its newest; the oldest goes when there are more than `most`."""
        entries = self.writable(name)
        entries.pop(key, None)
        entries[key] = value
        while len(entries) > most:
            del entries[next(iter(entries))]


Standing = State | Draft
"""Where the controller stands, for those who only read it: both have the same fields."""
