"""The collaborators that go wrong: each word does what it says, and a service answers through all of them."""

import threading
from collections.abc import Callable

import pytest
from live import PATIENT, SECRET, Live
from rig import packet, proposal

from tamiyo.config import Settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import decode
from tamiyo.core.proposal import Proposal
from tamiyo.errors import InvariantViolation
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.service import TamiyoService
from tamiyo.testing import FaultClock, FaultLibrary, FaultPolicy, Faults, FixedPolicy, MemoryLibrary, ScriptedPolicy
from tamiyo.testing.policies import fitted
from wal.testing import MemoryDisk


class Adder(Faults):
    def __init__(self) -> None:
        super().__init__("add", "negate")

    def add(self, one: int, other: int) -> int:
        return self._perform("add", lambda: one + other)

    def negate(self, one: int) -> int:
        return self._perform("negate", lambda: -one)


def in_background(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    return thread, found


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except OSError as error:
        return error


def test_it_answers_until_told_otherwise_and_counts_its_calls() -> None:
    adder = Adder()
    assert (adder.add(1, 2), adder.negate(3)) == (3, -3)
    assert adder.calls == {"add": 1, "negate": 1}


def test_fail_raises_the_error_for_the_method_and_the_times_named() -> None:
    adder = Adder()
    adder.fail(KeyError("gone"), op="add", times=2)
    for _ in range(2):
        with pytest.raises(KeyError):
            adder.add(1, 2)
        assert adder.negate(1) == -1
    assert adder.add(1, 2) == 3
    adder.fail()
    with pytest.raises(OSError, match="told to fail"):
        adder.negate(1)


def test_garble_returns_what_is_no_answer_until_healed() -> None:
    adder = Adder()
    adder.garble("seven")
    assert adder.add(3, 4) == "seven"
    adder.heal("add")
    assert adder.add(3, 4) == 7
    assert adder.negate(3) == "seven"


def test_a_call_that_hangs_waits_for_its_release_even_when_healed() -> None:
    adder = Adder()
    adder.hang(op="add", times=1)
    assert adder.is_stuck("add")
    assert not adder.is_stuck("negate")
    thread, found = in_background(lambda: adder.add(1, 2))
    assert adder.wait_until_hung("add")
    assert not adder.is_stuck(), "only one call was to hang"
    adder.heal()
    assert (adder.waiting, found) == ((thread,), [])
    adder.release("negate")
    assert adder.waiting == (thread,)
    adder.release()
    thread.join()
    assert (adder.waiting, found) == ((), [3])


def test_calls_that_wait_are_let_go_one_by_one_and_may_fail_in_the_end() -> None:
    adder = Adder()
    assert adder.release_one() is None
    adder.hang(op="add")
    first, found = in_background(lambda: adder.add(1, 2))
    assert adder.wait_until_hung()
    second, failed = in_background(lambda: outcome(lambda: adder.add(3, 4)))
    while len(adder.waiting) < 2:
        pass
    assert adder.release_one() is first
    first.join()
    assert found == [3]
    assert adder.is_stuck("add"), "the door is still shut"
    adder.fail(op="add")
    assert adder.release_one() is second
    second.join()
    assert [type(error) for error in failed] == [OSError]


def test_a_late_call_answers_when_the_next_one_begins() -> None:
    adder = Adder()
    adder.late(op="add", times=1)
    thread, found = in_background(lambda: adder.add(1, 2))
    assert adder.wait_until_hung()
    assert found == []
    assert adder.negate(5) == -5
    thread.join()
    assert found == [3]


def test_a_method_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no method 'divide'"):
        Adder().hang(op="divide")


def test_nothing_hung_within_no_time() -> None:
    assert not Adder().wait_until_hung(timeout_s=0)


def test_a_scripted_policy_selects_what_is_there() -> None:
    script = FixedPolicy(5).propose
    assert script
    made = ScriptedPolicy(_proposal(seed_index=4, blueprint_index=5)).script
    assert fitted(made, (1, 3, 6), 2).seed_index == 3
    assert [fitted(_proposal(blueprint_index=place), (0,), 2).blueprint_index for place in (-1, 0, 1, 2, 3)] == [
        -1, 0, 1, -1, 0,
    ]  # fmt: skip
    assert fitted(made, (0,), 0).blueprint_index == -1


def _proposal(**changed: object) -> Proposal:
    return proposal()._replace(**changed)


class Turned:
    """A service whose deadlines pass when the clock says so."""

    def __init__(self) -> None:
        self.clock, self.policy = FaultClock(), FaultPolicy(FixedPolicy(1))
        self.library = FaultLibrary(MemoryLibrary())
        self.library.inner.save(pb.BlueprintDescriptor(blueprint_id="run-1"))
        self.service = TamiyoService.open(
            "/controller", policy=self.policy, urza=self.library, secret=SECRET, clock=self.clock, disk=MemoryDisk(),
            settings=Settings(thresholds=PATIENT["thresholds"]),
        )  # fmt: skip

    def reason(self) -> str:
        return self.service.evaluate_step(packet()).annotations["risk_reason"]


@pytest.fixture
def turned() -> Turned:
    made = Turned()
    yield made
    made.clock.heal()
    for each in (made.policy, made.library):
        each.heal()
        each.release()
    made.service.close()


def test_a_deadline_passes_when_the_clock_says_so_and_never_else(turned: Turned) -> None:
    assert turned.reason() == "policy", "with the default budgets, however slow this machine is"
    turned.policy.hang()
    turned.clock.expire("policy")
    assert turned.reason() == "timeout_inference"
    turned.policy.release()
    turned.clock.expire()
    assert turned.reason() == "policy"


def test_a_late_proposal_comes_with_the_next_step_and_changes_nothing(turned: Turned) -> None:
    turned.policy.late(times=1)
    turned.clock.expire("policy")
    assert turned.reason() == "timeout_inference"
    turned.clock.expire()
    assert turned.reason() == "policy"
    assert turned.policy.calls["propose"] == 2
    assert turned.service.state.breakers["inference"].failures == 0


def test_a_garbled_proposal_counts_as_failed(turned: Turned) -> None:
    turned.policy.garble({"action": 3})
    assert turned.reason() == "inference_failed"


def test_a_hanging_library_costs_one_fault_a_step(turned: Turned) -> None:
    turned.library.hang()
    turned.clock.expire("library")
    assert turned.reason() == "timeout_urza"
    turned.library.release()


def test_a_garbled_library_fails_its_lookups(turned: Turned) -> None:
    turned.library.garble([5], op="list")
    turned.library.garble(object(), op="get")
    turned.reason()
    assert "metadata_failed" in {turned.reason() for _ in range(3)}
    found = [decode(entry.kind, entry.payload) for entry in turned.service.log.read()]
    errors = [event.error for event in found if isinstance(event, journal.MetadataFailed)]
    assert errors
    assert "TypeError: the library lists 5" in errors[0]


def test_a_wall_clock_that_jumps_back_stops_nothing(turned: Turned) -> None:
    turned.clock.jump(-1e6)
    before = turned.service.state.event_time_ns
    assert turned.reason() == "policy"
    assert turned.service.state.event_time_ns > before


def test_a_clock_that_fails_stops_the_service_with_one_error(turned: Turned) -> None:
    turned.clock.fail(OSError("no clock"), op="wall_ns")
    with pytest.raises(InvariantViolation, match="no clock"):
        turned.reason()
    turned.clock.heal()
    with pytest.raises(InvariantViolation):
        turned.reason()


def test_a_clock_knows_what_there_is_to_wait_for() -> None:
    with pytest.raises(ValueError, match="nothing waits for lunch"):
        FaultClock().expire("lunch")


def test_live_still_waits_in_the_machine_s_time() -> None:
    live = Live(policy=FaultPolicy(), step_timeout_ms=1)
    live.policy.hang()
    assert live.step(packet()).annotations["risk_reason"] == "timeout_inference"
    live.policy.release()
    live.close()
