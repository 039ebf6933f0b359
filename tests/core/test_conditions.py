"""Lasting conditions: what starts, lasts and ends, on any history."""

from hypothesis import given
from hypothesis import strategies as st
from rig import Bench, packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.conditions import ENDED, LASTING, STARTED
from tamiyo.core.decide import Decision
from tamiyo.core.risk import RISK_ROWS
from tamiyo.leyline import leyline_pb2 as pb


def edges(decision: Decision) -> list[tuple[str, str]]:
    made = next(event for event in decision.events if isinstance(event, journal.DecisionMade))
    return [(edge.reason, edge.edge) for edge in made.edges]


def made(decision: Decision) -> journal.DecisionMade:
    return next(event for event in decision.events if isinstance(event, journal.DecisionMade))


def test_a_condition_starts_is_reminded_of_and_ends() -> None:
    bench = Bench(reminder_steps=3)
    slow = packet(training_metrics={"grad_var": 2.0})
    told = [edges(bench.step(slow)) for _ in range(5)] + [edges(bench.step(packet())) for _ in range(2)]
    row = "grad_variance_high"
    assert told == [[(row, STARTED)], [], [], [(row, LASTING)], [], [(row, ENDED)], []]
    assert dict(bench.state.conditions) == {}


def test_reminders_come_every_hundred_steps_and_every_ten_where_it_is_critical() -> None:
    bench = Bench()
    bad = packet(training_loss=float("inf"), training_metrics={"grad_var": 2.0})
    told = [edges(bench.step(bad)) for _ in range(101)]
    reminded = {
        reason: [index for index, pairs in enumerate(told) if (reason, LASTING) in pairs]
        for reason in ("nonfinite_metric", "grad_variance_high")
    }
    assert reminded == {"nonfinite_metric": list(range(10, 101, 10)), "grad_variance_high": [100]}


def test_an_edge_has_its_row_s_priority_and_says_since_when() -> None:
    bench = Bench(reminder_steps=1)
    bench.step(packet())
    bench.step(packet(training_metrics={"hook_latency_ms": 60.0}))
    last = made(bench.step(packet(training_metrics={"hook_latency_ms": 60.0}))).edges[0]
    assert (last.edge, last.priority, last.since_step_index, last.step_index) == (
        LASTING, pb.MESSAGE_PRIORITY_HIGH, 2, 3,
    )  # fmt: skip


def test_a_restart_neither_ends_nor_repeats_a_condition() -> None:
    bench = Bench()
    slow = packet(training_metrics={"grad_var": 2.0})
    bench.step(slow)
    bench.fold(
        journal.ServiceOpened(event_time_ns=bench.state.event_time_ns + 1, behaviour_flags=bench.state.behaviour_flags)
    )
    assert edges(bench.step(slow)) == []
    assert edges(bench.step(packet())) == [("grad_variance_high", ENDED)]


SIGNALS = ("grad_var", "hook_latency_ms", "cpu_util_percent", "kasmina.apply_ms", "loss_volatility")


@given(st.lists(st.sets(st.sampled_from(SIGNALS)), max_size=30))
def test_on_any_history_starts_and_ends_take_turns_and_the_state_holds_what_is_true(history: list[set[str]]) -> None:
    bench = Bench(reminder_steps=4)
    active: set[tuple[str, int]] = set()
    for names in history:
        decision = bench.step(packet(training_metrics=dict.fromkeys(names, 1_000.0)))
        for edge in made(decision).edges:
            key = (edge.reason, edge.level)
            if edge.edge == STARTED:
                assert key not in active
                active.add(key)
            else:
                assert key in active
            if edge.edge == ENDED:
                active.remove(key)
        assert active == {(t.row.reason, t.row.level) for t in decision.rows}
        assert set(bench.state.conditions) == active


def test_each_row_is_a_condition_of_its_own() -> None:
    assert len({(row.reason, row.level) for row in RISK_ROWS}) == len(RISK_ROWS)
