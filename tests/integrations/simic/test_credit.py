"""What came of a decision, as the decisions after it say."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.intent import POLICY_ACTIONS
from tamiyo.core.risk import RISK_ROWS
from tamiyo.core.signals import SIGNALS
from tamiyo.integrations.simic.credit import (
    PAUSED,
    RETURN_MAX,
    SMOOTHING,
    TRAINING_SIGNALS,
    Moment,
    action_of,
    blames_training,
    hazard_of,
    outcomes,
)
from tamiyo.leyline import leyline_pb2 as pb

OPEN = pb.CIRCUIT_STATE_OPEN


def moment(validation: float | None = None, training: float | None = None, **fields: object) -> Moment:
    given = {"run_id": "run-1", "step_lsn": 1, "action": 2, "losses": (validation, training), "hazard": 0}
    return Moment(**given | fields)


def command(kind: int, detail: int = 0) -> pb.AdaptationCommand:
    made = pb.AdaptationCommand(command_type=kind)
    if kind == pb.COMMAND_SEED:
        made.seed_operation.operation = detail or pb.SEED_OP_START_TRAINING
    if kind == pb.COMMAND_CIRCUIT_BREAKER:
        made.circuit_breaker.desired_state = detail
    return made


def row(reason: str) -> journal.TriggeredRow:
    """A row of the table as a decision records it, with every signal that it reads."""
    found = next(one for one in RISK_ROWS if one.reason == reason)
    made = journal.TriggeredRow(reason=reason, level=found.level, priority=found.priority, effect=found.asks)
    for tests in found.when:
        for test in tests:
            made.readings.add(signal=test.signal)
    return made


def test_every_action_comes_back_from_its_command() -> None:
    assert {action: action_of(command(*asked)) for action, asked in POLICY_ACTIONS.items()} == {
        action: action for action in POLICY_ACTIONS
    }


@pytest.mark.parametrize("kind", [pb.COMMAND_UNKNOWN, pb.COMMAND_ROLLBACK, pb.COMMAND_EMERGENCY])
def test_what_no_action_asks_for_counts_as_a_pause(kind: int) -> None:
    assert action_of(command(kind)) == PAUSED


def test_the_signals_of_training_are_signals() -> None:
    assert set(SIGNALS) >= TRAINING_SIGNALS


ABOUT_TRAINING = {
    "nonfinite_metric": 4, "rollback_deadline": 4, "loss_spike": 3, "isolation_violation": 3, "hook_budget": 3,
    "step_latency_high": 3, "device_pressure_high": 3, "loss_warning": 2, "loss_volatility_high": 2,
    "kasmina_apply_slow": 2, "kasmina_finalize_slow": 2, "grad_variance_high": 2, "grad_conflict_high": 2,
    "optimizer_hint": 2, "cpu_pressure_high": 2,
}  # fmt: skip


@pytest.mark.parametrize("reason", sorted({one.reason for one in RISK_ROWS}))
def test_a_row_is_a_hazard_as_bad_as_what_it_asks_for(reason: str) -> None:
    """What the controller says of itself, above all of its own risk head, is none."""
    assert hazard_of([row(reason)]) == ABOUT_TRAINING.get(reason, 0)


@pytest.mark.parametrize("reason", sorted({one.reason for one in RISK_ROWS}))
def test_training_is_blamed_by_its_own_rows_alone(reason: str) -> None:
    """Nobody's progress is less for a disk that failed, or for what the risk head says next."""
    rows = [row("loss_warning"), row(reason), row("log_failed")]
    assert blames_training(reason, rows) is (reason in ABOUT_TRAINING)
    assert not blames_training("policy", rows)


def test_of_several_rows_the_worst_counts() -> None:
    assert hazard_of([row("loss_warning"), row("nonfinite_metric"), row("loss_spike")]) == 4
    assert hazard_of([]) == 0


def test_a_row_of_training_that_asks_for_nothing_is_the_least_hazard() -> None:
    asks_nothing = row("loss_warning")
    asks_nothing.effect = "none"
    assert hazard_of([asks_nothing]) == 1


def values(moments: list[Moment], horizon: int) -> list[float | None]:
    return [None if one is None else one.value for one in outcomes(moments, horizon)]


def test_the_return_is_the_fall_of_the_validation_loss_in_usual_falls() -> None:
    # falls of 50 %, 20 % and -25 %: the median of their sizes is 25 %
    losses = [1.0, 0.5, 0.4, 0.5]
    assert values([moment(loss) for loss in losses], 1) == [pytest.approx(2.0), pytest.approx(0.8), -1.0, None]


def test_a_loss_is_known_until_the_next_one() -> None:
    run = [moment(1.0), moment(), moment(), moment(0.5), moment(), moment()]
    assert values(run, 3) == [1.0, 1.0, 1.0, None, None, None]


def test_without_a_newer_loss_nothing_is_known() -> None:
    run = [moment(1.0), moment(), moment(), moment(0.5)]
    assert values(run, 1) == [None, None, 1.0, None]


def test_before_the_first_loss_nothing_is_known() -> None:
    assert values([moment(), moment(1.0), moment(0.5)], 1) == [None, 1.0, None]


def test_a_run_without_validation_is_judged_by_its_smoothed_training_loss() -> None:
    run = [moment(training=1.0), moment(training=0.0), moment(training=0.0)]
    # 1, then 0.9, then 0.81: each falls by the smoothing's share
    assert values(run, 1) == [pytest.approx(1.0), pytest.approx(1.0), None]
    assert 1.0 - SMOOTHING == 0.9


def test_the_training_loss_says_nothing_where_there_is_validation() -> None:
    run = [moment(1.0, 1.0), moment(None, 0.1), moment(0.5, 0.1), moment(None, 0.1)]
    assert values(run, 1) == [None, 1.0, None, None]


def test_runs_are_judged_apart() -> None:
    one = [moment(1.0), moment(0.5), moment(0.25)]
    other = [replace(m, run_id="run-2", losses=(loss, None)) for m, loss in zip(one, (4.0, 6.0, 9.0), strict=True)]
    mixed = [m for pair in zip(one, other, strict=True) for m in pair]
    assert values(mixed, 1) == [1.0, -1.0, 1.0, -1.0, None, None]


def test_each_regression_within_the_horizon_costs_as_much_as_a_usual_fall_gives() -> None:
    losses = (1.0, 0.5, 0.25, 0.125, 0.0625)
    run = [moment(loss, regressed=place in (1, 2)) for place, loss in enumerate(losses)]
    assert values(run, 1) == [0.0, 0.0, 1.0, 1.0, None]
    one, another = outcomes([replace(m, regressed=True) for m in run], 4), outcomes(run, 4)
    assert one[0] is not None
    assert another[0] is not None
    assert one[0].value == another[0].value == 1.0 - 2.0  # four regressions cost no more than two


def test_returns_are_bounded() -> None:
    losses = [1.0, 0.99, 0.98, 0.97, 0.001, 5.0, 4.9]
    found = [value for value in values([moment(loss) for loss in losses], 1) if value is not None]
    assert max(found) == RETURN_MAX
    assert min(found) == -RETURN_MAX


def test_the_hazard_is_the_worst_of_what_came_after() -> None:
    run = [moment(loss, hazard=hazard) for loss, hazard in ((1.0, 4), (0.9, 0), (0.8, 3), (0.7, 1))]
    assert [None if one is None else one.hazard for one in outcomes(run, 2)] == [3, 3, None, None]
    assert [None if one is None else one.hazard for one in outcomes(run, 1)] == [0, 3, 1, None]


def test_an_outcome_names_the_last_step_that_it_was_judged_by() -> None:
    """Of its own run: others may come in between."""
    run_ids = ("run-1", "run-2", "run-2", "run-1", "run-1", "run-2")
    mixed = [moment(0.9**place, run_id=run_id, step_lsn=10 + place) for place, run_id in enumerate(run_ids)]
    found = [None if one is None else one.judged_lsn for one in outcomes(mixed, 2)]
    assert found == [14, 15, None, None, None, None]


@pytest.mark.parametrize(
    ("given", "was"),
    [
        ({}, True), ({"delivery": "applied"}, True), ({"delivery": "refused"}, False),
        ({"delivery": "rejected"}, False), ({"delivery": "timed_out"}, False), ({"superseded": True}, False),
        ({"superseded": True, "delivery": "applied"}, False),
    ],
)  # fmt: skip
def test_what_was_not_carried_out_is_known(given: dict[str, object], was: bool) -> None:
    assert moment(**given).was_applied is was


LOSSES = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308])
MOMENTS = st.builds(
    moment, LOSSES, LOSSES, hazard=st.integers(0, 4), regressed=st.booleans(), run_id=st.sampled_from(["a", "b"])
)


@given(st.lists(MOMENTS, max_size=30), st.integers(1, 8))
def test_any_history_gives_finite_outcomes_within_their_bounds(moments: list[Moment], horizon: int) -> None:
    found = outcomes(moments, horizon)
    assert len(found) == len(moments)
    for one in found:
        assert one is None or (math.isfinite(one.value) and -2 * RETURN_MAX <= one.value <= RETURN_MAX)
        assert one is None or 0 <= one.hazard <= 4


@given(st.lists(MOMENTS, max_size=20), st.lists(MOMENTS, max_size=5), st.integers(1, 8))
def test_what_is_known_of_a_decision_stays_known(moments: list[Moment], later: list[Moment], horizon: int) -> None:
    """A longer log says more, and its hazards of before are the same."""
    before, after = outcomes(moments, horizon), outcomes([*moments, *later], horizon)
    judged_alike = all(
        any(m.losses[0] is not None for m in moments if m.run_id == run)
        == any(m.losses[0] is not None for m in [*moments, *later] if m.run_id == run)
        for run in ("a", "b")
    )
    for one, other in zip(before, after, strict=False):
        if one is not None and judged_alike:
            assert other is not None
            assert other.hazard == one.hazard
