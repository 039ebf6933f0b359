"""Collaborators that hang, by the hundred and all at once: steps return, threads are bounded, nothing late counts."""

import random
import threading
from dataclasses import dataclass, field

import pytest
from live import DictLibrary, LateClock, Live, Record, reason, recover, step_until
from rig import packet

import tamiyo.graph.builder as builder_module
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import OPEN
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.errors import ServiceClosed
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FixedPolicy, ManualClock

THREADS_MAX = 4 + 4 + 3
"""Calls out to the policy, lookups out to the library, the log's writer and its trial, the upkeep."""


class Jam:
    """Calls that get stuck: each waits at a gate of its own until that is opened, or all are."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.stuck: list[tuple[threading.Thread, threading.Event]] = []
        self.calls = 0
        self._called = threading.Condition()

    def pass_through(self) -> None:
        gate = threading.Event()
        with self._called:
            self.calls += 1
            if not self.open.is_set():
                self.stuck.append((threading.current_thread(), gate))
            self._called.notify_all()
        if not self.open.is_set():
            gate.wait()

    def wait_for(self, calls: int) -> None:
        """Wait until there were so many: a thread that was started need not have begun."""
        with self._called:
            assert self._called.wait_for(lambda: self.calls >= calls, 30)

    def free(self, place: int) -> None:
        """Let one call go, and wait until its thread has ended, or is stuck in the next call."""
        thread, gate = self.stuck.pop(place)
        gate.set()
        while thread.is_alive() and not any(other is thread for other, _ in list(self.stuck)):
            thread.join(0.001)

    def free_all(self) -> None:
        with self._called:
            self.open.set()
            while self.stuck:
                self.stuck.pop()[1].set()


@dataclass
class JammedPolicy:
    jam: Jam
    identity: PolicyIdentity = field(default=PolicyIdentity("jammed-v1", "fixed", "python"))

    def propose(self, graph: Graph) -> Proposal:
        self.jam.pass_through()
        return FixedPolicy(1).propose(graph)


@dataclass
class JammedLibrary(DictLibrary):
    jam: Jam = field(default_factory=Jam)

    def list(self) -> list[str]:
        return list(self.records)

    def get(self, blueprint_id: str) -> Record | None:
        self.jam.pass_through()
        return self.records.get(blueprint_id)


def jammed_library(jam: Jam) -> JammedLibrary:
    records = {f"bp-{i}": Record(pb.BlueprintDescriptor(blueprint_id=f"bp-{i}", risk=0.1)) for i in range(40)}
    return JammedLibrary(records, jam=jam)


def threads() -> int:
    return sum(thread.name.startswith(("tamiyo", "wal")) for thread in threading.enumerate())


def test_hundreds_of_hung_calls_never_hold_more_than_four_threads_each() -> None:
    draw = random.Random(4)
    policy, library = Jam(), Jam()
    before = threads()
    live = Live(policy=JammedPolicy(policy), urza=jammed_library(library), clock=LateClock())
    live.clock.late |= {"policy", "library"}
    freed, most = 0, 0
    while freed < 300 or library.calls <= 50:
        live.clock.advance(1.5)
        assert live.step(packet()).command_type == pb.COMMAND_PAUSE
        most = max(most, threads() - before)
        for jam in (policy, library):
            if jam.stuck and draw.random() < 0.7:
                jam.free(draw.randrange(len(jam.stuck)))
                freed += 1
    assert policy.calls > 100
    assert library.calls > 50
    assert most <= THREADS_MAX
    policy.free_all()
    library.free_all()
    live.check()
    live.close()


def test_with_four_calls_out_the_outcome_is_failed_and_not_attempted_until_one_is_back() -> None:
    jam = Jam()
    live = Live(policy=JammedPolicy(jam), clock=LateClock())
    live.clock.late.add("policy")
    for _ in range(20):
        live.clock.advance(1.5)
        live.step(packet())
    jam.wait_for(4)
    assert jam.calls == 4
    refused = live.events(journal.InferenceFailed)
    assert refused
    assert not any(event.attempted for event in refused)
    jam.free(0)
    live.clock.advance(1.5)
    live.step(packet())
    jam.wait_for(5)
    assert jam.calls == 5
    jam.free_all()
    live.check()
    live.close()


def test_with_four_lookups_out_the_library_is_not_asked_until_one_is_back() -> None:
    jam = Jam()
    live = Live(urza=jammed_library(jam), clock=LateClock())
    live.clock.late.add("library")
    step_until(live, lambda: jam.calls == 4, elapsed_s=1.5)
    for _ in range(20):
        live.clock.advance(1.5)
        live.step(packet())
    assert jam.calls == 4
    assert any(not event.attempted for event in live.events(journal.MetadataFailed))
    jam.free(0)
    step_until(live, lambda: jam.calls == 5, elapsed_s=1.5)
    jam.free_all()
    live.check()
    live.close()


def test_everything_hangs_at_once_and_every_step_is_answered() -> None:
    policy, library = Jam(), Jam()
    live = Live(policy=JammedPolicy(policy), urza=jammed_library(library), clock=LateClock())
    live.clock.late |= {"policy", "library", "log"}
    for op in ("fdatasync", "pwrite", "pread", "open", "fallocate", "rename"):
        live.disk.hang(op)
    reasons = set()
    for _ in range(100):
        live.clock.advance(0.3)
        command = live.step(packet())
        assert command.command_type == pb.COMMAND_PAUSE
        assert command.annotations["signature"]
        reasons.add(reason(command))
    assert reasons == {"timeout_wal", "log_failed"}
    policy.free_all()
    library.free_all()
    live.disk.release()
    live.clock.late.clear()
    recover(live)
    step_until(live, lambda: reason(live.step(packet())) == "policy", elapsed_s=1.5)
    assert live.service.state.steps_received == live.service.journal.steps_seen
    live.check()
    live.close()


def test_each_collaborator_may_hang_alone_and_come_back() -> None:
    policy, library = Jam(), Jam()
    live = Live(policy=JammedPolicy(policy), urza=jammed_library(library), clock=LateClock())
    jams = {"policy": policy, "library": library}
    for jam in jams.values():
        jam.open.set()
    for name in ("policy", "library", "log", "library", "policy", "log"):
        live.clock.late.add(name)
        if name in jams:
            jams[name].open.clear()
        else:
            live.disk.hang("fdatasync")
        for _ in range(5):
            assert live.step(packet()).command_id
        if name in jams:
            jams[name].free_all()
        live.disk.release()
        live.clock.late.clear()
        step_until(live, lambda: reason(live.step(packet())) == "policy", elapsed_s=1.5)
    live.check()
    live.close()


def test_a_late_proposal_changes_neither_state_nor_log() -> None:
    jam = Jam()
    live = Live(policy=JammedPolicy(jam), clock=LateClock())
    live.clock.late.add("policy")
    live.step(packet())
    jam.wait_for(1)
    digest, last = live.service.state.digest(), live.service.log.next_lsn
    jam.free(0)
    assert (live.service.state.digest(), live.service.log.next_lsn) == (digest, last)
    live.check()
    live.close()


def test_a_late_lookup_counts_from_the_step_after_it_arrived() -> None:
    jam = Jam()
    known = JammedLibrary({"run-1": Record(pb.BlueprintDescriptor(blueprint_id="run-1"))}, jam=jam)
    live = Live(urza=known, clock=LateClock())
    step_until(live, lambda: jam.calls > 0)
    live.clock.late.add("library")
    live.step(packet())
    assert live.service.state.blueprints == {}
    live.clock.late.clear()
    jam.free_all()
    step_until(live, lambda: len(live.service.state.blueprints) > 0, elapsed_s=1.5)
    assert live.events(journal.BlueprintObserved)[0].late
    live.check()
    live.close()


def test_a_step_that_waits_while_the_service_closes_is_refused_and_waits_for_no_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = Live()
    live.step(packet())
    closing, may_close = threading.Event(), threading.Event()
    close = live.service.journal.close

    def slow_close() -> None:
        closing.set()
        may_close.wait()
        close()

    monkeypatch.setattr(live.service.journal, "close", slow_close)
    closer = threading.Thread(target=live.service.close)
    closer.start()
    closing.wait()
    with pytest.raises(ServiceClosed):
        live.step(packet())
    may_close.set()
    closer.join()


def test_a_breaker_left_open_by_a_hung_policy_survives_a_restart_and_its_cool_down_begins_again() -> None:
    jam = Jam()
    live = Live(policy=JammedPolicy(jam), clock=LateClock())
    live.clock.late.add("policy")
    for _ in range(3):
        live.step(packet())
    live.clock.advance(0.9)
    jam.free_all()
    live.clock.late.clear()
    live.reopen()
    assert live.service.state.breakers["inference"].state == OPEN
    live.clock.advance(0.9)
    assert reason(live.step(packet())) == "breaker_open"
    live.clock.advance(0.2)
    assert reason(live.step(packet())) != "breaker_open"
    live.check()
    live.close()


def test_the_plan_of_a_blueprint_is_made_off_the_step_s_path(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    plan = builder_module.make_plan

    def watched(given: object) -> object:
        made.append(threading.current_thread().name)
        return plan(given)

    monkeypatch.setattr(builder_module, "make_plan", watched)
    metadata = {"layers": [{"layer_id": "l0", "type": "conv", "depth": 0}]}
    known = DictLibrary({"run-1": Record(pb.BlueprintDescriptor(blueprint_id="run-1"), {"graph_metadata": metadata})})
    live = Live(urza=known)
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    live.step(packet())
    assert live.events(journal.GraphObserved)[-1].blueprints[0].digest
    assert made == ["tamiyo-lookups"]
    live.crash()
    assert made == ["tamiyo-lookups", "MainThread"], "while it opens"
    live.step(packet())
    assert len(made) == 2
    live.check()
    live.close()


@dataclass(slots=True)
class BudgetClock(ManualClock):
    """Waits for nothing that hangs, and keeps how long each wait of a step was meant to be at most."""

    asked: list[tuple[str, float]] = field(default_factory=list)

    def patience_s(self, call: str, budget_s: float) -> float:
        self.asked.append((call, budget_s))
        return 0.0


def test_no_step_asks_for_more_patience_than_its_budgets_whatever_hangs() -> None:
    """What a step waits in all is the sum of these waits; nothing else in it waits for anybody."""
    policy, library, clock = Jam(), Jam(), BudgetClock()
    live = Live(
        policy=JammedPolicy(policy), urza=jammed_library(library), clock=clock,
        step_timeout_ms=5, metadata_timeout_ms=10, commit_timeout_ms=5,
    )  # fmt: skip
    live.disk.hang("fdatasync")
    seen: set[str] = set()
    for _ in range(60):
        clock.asked.clear()
        live.clock.advance(0.3)
        live.step(packet())
        waits = {
            name: [budget_s for call, budget_s in clock.asked if call == name] for name in ("policy", "library", "log")
        }
        assert len(waits["policy"]) <= 1
        assert len(waits["log"]) <= 2, "for the packet, and for the batch out of what is left"
        assert max(waits["policy"], default=0.0) <= 0.005
        assert max(waits["library"], default=0.0) <= 0.010
        assert waits["log"] == sorted(waits["log"], reverse=True)
        assert max(waits["log"], default=0.0) <= 0.005
        seen |= {call for call, _ in clock.asked}
    assert seen == {"policy", "library", "log"}, "nobody else is waited for"
    policy.free_all()
    library.free_all()
    live.disk.release()
    live.durable()
    live.check()
    live.close()
