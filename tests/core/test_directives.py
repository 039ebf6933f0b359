"""Operators and deliveries: what a word from outside brings about."""

import pytest
from rig import Bench, failed, packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.directives import CONSERVATIVE_OFF, CONSERVATIVE_ON, command_delivered, operator_directed
from tamiyo.core.evolve import evolve_all
from tamiyo.core.state import UNDELIVERED_MAX
from tamiyo.errors import InvariantViolation
from tamiyo.leyline import leyline_pb2 as pb


def direct(bench: Bench, directive: str, **how: str) -> list[str]:
    now_ns = bench.state.event_time_ns + 1
    events = operator_directed(bench.state, directive, operator="ada", reason="a hunch", now_ns=now_ns, **how)
    bench.state = evolve_all(bench.state, events)
    return [event.DESCRIPTOR.name for event in events]


def test_an_operator_sets_conservative_mode_and_only_an_operator_ends_it() -> None:
    bench = Bench()
    assert direct(bench, CONSERVATIVE_ON) == ["OperatorDirected", "ConservativeModeChanged"]
    for _ in range(10):
        assert bench.step(packet(), elapsed_s=5.0).reason == "conservative_mode"
    assert bench.state.conservative.operator == "ada"
    assert direct(bench, CONSERVATIVE_OFF) == ["OperatorDirected", "ConservativeModeChanged"]
    assert bench.step(packet()).reason == "policy"


def test_a_mode_that_a_row_brought_on_is_held_by_an_operator_who_sets_it_too() -> None:
    bench = Bench()
    bench.step(packet(training_metrics={"loss": float("nan")}))
    assert direct(bench, CONSERVATIVE_ON) == ["OperatorDirected"]
    for _ in range(6):
        bench.step(packet(), elapsed_s=5.0)
    assert bench.state.conservative.active
    assert direct(bench, CONSERVATIVE_OFF) == ["OperatorDirected", "ConservativeModeChanged"]


def test_an_operator_cannot_end_what_an_open_breaker_holds() -> None:
    bench = Bench()
    direct(bench, CONSERVATIVE_ON)
    for _ in range(3):
        bench.step(packet(), failed())
    assert direct(bench, CONSERVATIVE_OFF) == ["OperatorDirected"]
    assert bench.state.conservative.active
    for _ in range(4):
        bench.step(packet(), elapsed_s=2.0)
    assert not bench.state.conservative.active, "the hold is gone, so it ends by itself"


def test_clearing_a_mode_that_is_off_changes_nothing() -> None:
    assert direct(Bench(), CONSERVATIVE_OFF) == ["OperatorDirected"]


def test_the_mode_and_its_holder_outlive_a_restart() -> None:
    bench = Bench()
    direct(bench, CONSERVATIVE_ON)
    bench.fold(journal.ServiceOpened(event_time_ns=bench.state.event_time_ns + 1))
    assert (bench.state.conservative.active, bench.state.conservative.operator) == (True, "ada")


@pytest.mark.parametrize(
    "event",
    [
        journal.OperatorDirected(directive="reboot", operator="ada"),
        journal.OperatorDirected(directive=CONSERVATIVE_ON),
        journal.OperatorDirected(directive=CONSERVATIVE_ON, operator="ada", request_id="r-1"),
        journal.CommandDelivered(command_id="c"),
        journal.CommandDelivered(outcome="applied"),
    ],
)
def test_a_word_that_means_nothing_or_came_before_is_refused(event: object) -> None:
    bench = Bench()
    direct(bench, CONSERVATIVE_ON, request_id="r-1")
    with pytest.raises(InvariantViolation):
        bench.fold(event)


def deliver(bench: Bench, command_id: str) -> None:
    now_ns = bench.state.event_time_ns + 1
    bench.state = evolve_all(bench.state, command_delivered(command_id, "applied", "", now_ns=now_ns))


def test_a_decision_is_undelivered_until_somebody_says_what_became_of_it() -> None:
    bench = Bench()
    command = bench.step(packet()).command
    assert list(bench.state.undelivered) == [command.command_id]
    deliver(bench, command.command_id)
    deliveries = bench.state.deliveries
    assert (bench.state.undelivered_total, deliveries.delivered, deliveries.unmatched) == (0, 1, 0)
    deliver(bench, command.command_id)
    assert bench.state.deliveries.unmatched == 1


def test_the_list_of_undelivered_commands_is_bounded_and_the_forgotten_are_counted() -> None:
    bench = Bench()
    for index in range(UNDELIVERED_MAX + 3):
        bench.fold(journal.StepReceived(step_index=index + 1, event_time_ns=bench.state.event_time_ns + 1))
        bench.fold(journal.DecisionMade(step_lsn=bench.state.last_lsn, command_id=f"c-{index}"))
    deliveries = bench.state.deliveries
    assert len(bench.state.undelivered) == UNDELIVERED_MAX
    assert (deliveries.forgotten, bench.state.undelivered_total) == (3, UNDELIVERED_MAX + 3)
    assert "c-2" not in bench.state.undelivered


def test_a_late_commit_leaves_the_released_pause_to_be_delivered() -> None:
    bench = Bench()
    decision = bench.step(packet())
    step_lsn = next(iter(e for e in decision.events if isinstance(e, journal.DecisionMade))).step_lsn
    bench.fold(journal.CommitLate(step_lsn=step_lsn, decision_lsn=5, released_command_id="pause", cause="timeout_wal"))
    assert list(bench.state.undelivered) == ["pause"]
    assert bench.state.reports_pending == 0, "the report of a command that was never released"
    assert decision.command.command_type == pb.COMMAND_SEED
