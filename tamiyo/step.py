"""One step: what it gathers on its way through the stages, and the events that say so."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

import wal
from tamiyo.blueprints import Fault
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.core.layout import GraphLayout
from tamiyo.core.observation import Observation
from tamiyo.core.state import State
from tamiyo.graph import BlueprintInput, Graph
from tamiyo.records import Recorded
from tamiyo.words import printable
from tamiyo.workers import NotAttempted, Raised

__all__ = [
    "Step",
    "StepTimings",
    "Watch",
    "fault_event",
    "inference_failed",
    "linked_graph",
    "stage_timings",
    "step_received",
    "timed",
]


Watch: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Told the name of a stage, it gives what is entered and left with it, on the thread that does it: for profilers."""

_NO_STATE = State()  # frozen, so one is enough: making it takes longer than looking up the blueprints


@dataclass(slots=True)
class StepTimings:
    """Where one step's time went, in nanoseconds; `total_ns` is the whole call."""

    receive_ns: int = 0
    blueprints_ns: int = 0
    graph_ns: int = 0
    inference_ns: int = 0
    decide_ns: int = 0
    commit_ns: int = 0
    sign_ns: int = 0
    total_ns: int = 0


@dataclass(slots=True)
class Step:
    """What one step gathers on its way; `observed` are its events so far, in the order they will be journaled."""

    observation: Observation
    packet: bytes
    call: str
    budget_ms: int
    decision_id: str
    received_unix_ns: int
    commit_left_ns: int
    lsn: int = 0
    log: wal.Log | None = None
    received: journal.StepReceived = field(default_factory=journal.StepReceived)
    state: State = _NO_STATE
    blueprints: list[BlueprintInput] = field(default_factory=list)
    graph: Graph | None = None
    layout: GraphLayout | None = None
    graph_event: journal.GraphObserved = field(default_factory=journal.GraphObserved)
    observed: list[Event] = field(default_factory=list)
    recorded: Recorded | None = None
    timings: StepTimings = field(default_factory=StepTimings)
    watch: Watch | None = None


def step_received(step: Step, state: State, now_ns: int) -> journal.StepReceived:
    """The packet has arrived; its number follows those of all steps before it."""
    return journal.StepReceived(
        step_index=state.steps_received + 1,
        event_time_ns=now_ns,
        received_unix_ns=step.received_unix_ns,
        decision_id=step.decision_id,
        call=step.call,
        budget_ms=step.budget_ms,
        packet=step.packet,
    )


def fault_event(step: Step, fault: Fault, budget_ms: int) -> Event:
    """A lookup that went wrong, told by this step."""
    if fault.error:
        return journal.MetadataFailed(
            step_lsn=step.lsn,
            blueprint_id=fault.blueprint_id,
            error=printable(fault.error),
            attempted=fault.attempted,
        )
    return journal.MetadataTimedOut(
        step_lsn=step.lsn, blueprint_id=fault.blueprint_id, budget_ms=budget_ms, elapsed_ns=fault.elapsed_ns
    )


def inference_failed(
    step: Step, identity: journal.PolicyIdentity, outcome: Raised | NotAttempted
) -> journal.InferenceFailed:
    """The policy raised, or could not be asked."""
    failed = journal.InferenceFailed(step_lsn=step.lsn, identity=identity)
    if isinstance(outcome, NotAttempted):
        failed.error = f"not attempted: no thread to be had, {outcome.abandoned} earlier calls have not returned"
        return failed
    failed.attempted, failed.elapsed_ns = True, outcome.elapsed_ns
    failed.error = printable(outcome.words)
    return failed


def linked_graph(step: Step, state: State) -> list[Event]:
    """The graph's event linked to its layout, with the layout before it where the log does not have it yet."""
    assert step.layout is not None  # noqa: S101  `build_graph` came before
    known = next((lsn for lsn, layout in state.layouts.items() if layout == step.layout), None)
    step.graph_event.layout_lsn = state.last_lsn + 1 if known is None else known
    return [step.graph_event] if known is not None else [step.layout.event(), step.graph_event]


def stage_timings(timings: StepTimings) -> journal.StageTimings:
    """What a decision records of where the time went."""
    return journal.StageTimings(
        receive_ns=timings.receive_ns,
        blueprints_ns=timings.blueprints_ns,
        graph_ns=timings.graph_ns,
        inference_ns=timings.inference_ns,
    )


class timed:  # noqa: N801  it reads as a word behind `with`
    """Put down what a stage took, however it ends; whoever watches sees it begin and end."""

    __slots__ = ("_span", "_stage", "_started_ns", "_step")

    def __init__(self, step: Step, stage: str) -> None:
        self._step, self._stage = step, stage

    def __enter__(self) -> None:
        """Begin."""
        watch = self._step.watch
        self._span = None if watch is None else watch(self._stage.removesuffix("_ns"))
        if self._span is not None:
            self._span.__enter__()
        self._started_ns = time.perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put it down."""
        setattr(self._step.timings, self._stage, time.perf_counter_ns() - self._started_ns)
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
