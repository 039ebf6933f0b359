"""Breakers as the service lives by them: an OPEN one's call is not attempted, a HALF_OPEN one's is, one at a time."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from live import COVERAGE_ASIDE, DictLibrary, LateClock, Live, Record, reason, step_until
from rig import packet

from tamiyo.blueprints import REFRESH_S
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED, HALF_OPEN, OPEN
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FixedPolicy


@dataclass
class CountedPolicy:
    """Proposes to optimise, or raises while `failing`; counts how often it was asked."""

    failing: bool = False
    asked: int = 0
    identity: PolicyIdentity = field(default=PolicyIdentity("counted-v1", "fixed", "python"))

    def propose(self, graph: Graph) -> Proposal:
        self.asked += 1
        if self.failing:
            raise RuntimeError("the network fell over")
        return FixedPolicy(1).propose(graph)


@dataclass
class CountedLibrary(DictLibrary):
    """Knows its list of ids; `get` raises while `failing`, waits at `gate`, and counts."""

    failing: bool = False
    asked: list[str] = field(default_factory=list)
    answered: threading.Condition = field(default_factory=threading.Condition)

    def list(self) -> list[str]:
        return list(self.records)

    def get(self, blueprint_id: str) -> Record | None:
        with self.answered:
            self.asked.append(blueprint_id)
            self.answered.notify_all()
        if self.gate is not None:
            self.gate.wait()
        if self.failing:
            raise OSError("gone")
        return self.records.get(blueprint_id)


def shelf(count: int, **how: object) -> CountedLibrary:
    records = {f"bp-{i}": Record(pb.BlueprintDescriptor(blueprint_id=f"bp-{i}")) for i in range(count)}
    return CountedLibrary(records, **how)


def state_of(live: Live, breaker: str) -> int:
    return live.service.state.breakers[breaker].state


def moves(live: Live, breaker: str) -> list[tuple[int, str]]:
    return [(m.to_state, m.cause) for m in live.events(journal.BreakerMoved) if m.breaker == breaker]


def lookups_rest(live: Live) -> None:
    """Wait until no lookup thread is at work."""
    for thread in [t for t in threading.enumerate() if t.name == "tamiyo-lookups"]:
        thread.join()
    assert live.service._stages._blueprints._running is None


def test_an_open_inference_breaker_s_policy_is_not_asked() -> None:
    policy = CountedPolicy(failing=True)
    live = Live(policy=policy)
    reasons = [reason(live.step(packet())) for _ in range(10)]
    assert reasons == ["inference_failed"] * 3 + ["breaker_open"] * 7
    assert policy.asked == 3
    assert len(live.events(journal.InferenceSkipped)) == 7
    live.check()
    live.close()


def test_after_its_cool_down_one_trial_is_let_through_and_a_failure_opens_again() -> None:
    policy = CountedPolicy(failing=True)
    live = Live(policy=policy)
    for _ in range(4):
        live.step(packet())
    for trial in range(1, 4):
        live.clock.advance(1.0)
        reasons = [reason(live.step(packet())) for _ in range(5)]
        assert reasons == ["inference_failed"] + ["breaker_open"] * 4
        assert policy.asked == 3 + trial
    assert moves(live, "inference")[-2:] == [(HALF_OPEN, "cooled_down"), (OPEN, "trial_failed")]
    live.check()
    live.close()


def test_without_a_candidate_there_is_no_trial_and_the_breaker_is_open_on() -> None:
    policy = CountedPolicy(failing=True)
    live = Live(policy=policy)
    for _ in range(3):
        live.step(packet())
    policy.failing = False
    live.clock.advance(5.0)
    assert [reason(live.step(packet(seeds=0))) for _ in range(3)] == ["breaker_open"] * 3
    assert (policy.asked, state_of(live, "inference")) == (3, OPEN)
    told = [(edge.reason, edge.edge) for made in live.decisions() for edge in made.edges]
    assert ("breaker_open", "started") in told
    assert ("breaker_open", "ended") not in told
    assert live.service.state.conservative.clean_steps == 0
    assert reason(live.step(packet())) == "conservative_mode"
    assert (policy.asked, state_of(live, "inference")) == (4, HALF_OPEN)
    assert reason(live.step(packet(seeds=0))) == "conservative_mode", "no seed is a candidate, and it is not OPEN"
    live.check()
    live.close()


def test_two_successes_close_the_inference_breaker_and_not_one() -> None:
    policy = CountedPolicy(failing=True)
    live = Live(policy=policy)
    for _ in range(3):
        live.step(packet())
    policy.failing = False
    live.clock.advance(1.0)
    live.step(packet())
    assert state_of(live, "inference") == HALF_OPEN
    live.step(packet())
    assert state_of(live, "inference") == CLOSED
    assert moves(live, "inference") == [(OPEN, "failures"), (HALF_OPEN, "cooled_down"), (CLOSED, "trials_passed")]
    live.check()
    live.close()


def test_a_success_between_failures_keeps_the_breaker_closed() -> None:
    policy = CountedPolicy()
    live = Live(policy=policy)
    for turn in range(12):
        policy.failing = turn % 3 != 2
        live.step(packet())
    assert state_of(live, "inference") == CLOSED
    live.close()


def lists_told(live: Live) -> int:
    live.durable()
    return sum(not seen.blueprint_id for seen in live.events(journal.BlueprintObserved))


def test_the_library_s_list_is_a_success_that_a_breaker_with_failures_hears_of() -> None:
    live = Live(urza=shelf(1, failing=True), thresholds=replace(COVERAGE_ASIDE, breaker_failures=1_000.0))
    step_until(live, lambda: live.service.state.breakers["metadata"].failures >= 2)
    lookups_rest(live)
    assert lists_told(live) == 0, "nothing had failed before it"
    live.clock.advance(REFRESH_S + 1)
    step_until(live, lambda: lists_told(live) == 1)
    assert "" not in live.service.state.blueprints
    live.check()
    live.close()


def test_a_library_that_fails_is_asked_three_times_and_no_more() -> None:
    """Thirty blueprints wait in line, and no step journals a fault in between: the breaker is known to be due."""
    known = shelf(30, failing=True)
    live = Live(urza=known)
    step_until(live, lambda: len(known.asked) >= 3)
    lookups_rest(live)
    assert len(known.asked) == 3
    step_until(live, lambda: state_of(live, "metadata") == OPEN)
    for _ in range(20):
        assert reason(live.step(packet())) in ("policy", "metadata_failed", "timeout_urza")
    lookups_rest(live)
    assert len(known.asked) == 3
    assert not live.service.state.conservative.active
    live.check()
    live.close()


def test_an_open_metadata_breaker_lets_one_lookup_through_at_a_time() -> None:
    known = shelf(30, failing=True)
    live = Live(urza=known, clock=LateClock())
    step_until(live, lambda: state_of(live, "metadata") == OPEN)
    lookups_rest(live)
    for trial in range(1, 4):
        live.clock.advance(1.5)
        live.step(packet())
        lookups_rest(live)
        for _ in range(5):
            live.step(packet())
        lookups_rest(live)
        assert len(known.asked) == 3 + trial
    causes = [cause for _, cause in moves(live, "metadata")]
    assert causes[:1] == ["failures"]
    assert set(causes[1:]) == {"cooled_down", "trial_failed"}
    live.check()
    live.close()


def test_a_trial_that_hangs_is_the_only_lookup_until_it_counts_as_failed() -> None:
    known = shelf(30, failing=True)
    live = Live(urza=known, clock=LateClock())
    step_until(live, lambda: state_of(live, "metadata") == OPEN)
    lookups_rest(live)
    known.gate = threading.Event()
    asked = len(known.asked)
    live.clock.advance(1.5)
    live.step(packet())
    with known.answered:
        assert known.answered.wait_for(lambda: len(known.asked) == asked + 1, 30)
    live.clock.late.add("library")
    for _ in range(10):
        live.step(packet())
    assert len(known.asked) == asked + 1
    assert state_of(live, "metadata") == OPEN
    known.gate.set()
    live.check()
    live.close()


class LateOnce(DictLibrary):
    """Its first answer comes when the gate is opened, and is an error."""

    def get(self, blueprint_id: str) -> Record | None:
        gate, self.gate = self.gate, None
        if gate is None:
            return self.records.get(blueprint_id)
        gate.wait()
        raise OSError("gone")

    def list(self) -> list[str]:
        return []


def test_a_lookup_that_was_late_has_had_its_outcome_and_fails_no_second_time() -> None:
    gate = threading.Event()
    known = LateOnce({"run-1": Record(pb.BlueprintDescriptor(blueprint_id="run-1"))}, gate=gate)
    live = Live(urza=known, clock=LateClock())
    live.clock.late.add("library")
    step_until(live, lambda: "run-1" in {fault.blueprint_id for fault in live.events(journal.MetadataTimedOut)})
    live.clock.late.clear()
    gate.set()
    step_until(live, lambda: "run-1" in live.service.state.blueprints)
    assert live.events(journal.MetadataFailed) == []
    live.check()
    live.close()


def test_two_lookups_in_time_close_the_metadata_breaker() -> None:
    known = shelf(8, failing=True)
    live = Live(urza=known)
    step_until(live, lambda: state_of(live, "metadata") == OPEN)
    known.failing = False
    step_until(live, lambda: state_of(live, "metadata") == CLOSED, elapsed_s=1.5)
    found = moves(live, "metadata")
    assert found[-2:] == [(HALF_OPEN, "cooled_down"), (CLOSED, "trials_passed")]
    step_until(live, lambda: len(live.service.state.blueprints) == 9)
    live.check()
    live.close()


def test_faults_of_a_step_that_could_not_be_recorded_are_told_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamiyo.blueprints import Blueprints

    known = shelf(1, failing=True)
    live = Live(urza=known)
    step_until(live, lambda: bool(live.events(journal.MetadataFailed)))
    before = len(live.events(journal.MetadataFailed))
    seen: list[int] = []
    original: Callable[..., object] = Blueprints.candidates

    def watched(self: Blueprints, observation: object) -> object:
        ids, faults = original(self, observation)
        seen.append(len(faults))
        return ids, faults

    monkeypatch.setattr(Blueprints, "candidates", watched)
    submit = live.service.log.submit
    refused: list[int] = []

    def once(batch: object, **options: object) -> object:
        if seen and seen[-1] and not refused:
            refused.append(1)
            raise __import__("wal").LogFull("no room")
        return submit(batch, **options)

    monkeypatch.setattr(live.service.log, "submit", once)
    step_until(live, lambda: bool(refused), elapsed_s=1.5)
    assert len(live.events(journal.MetadataFailed)) == before
    live.step(packet())
    assert len(live.events(journal.MetadataFailed)) > before
    live.check()
    live.close()
