"""What the state keeps is bounded, and one rebuilt from the log never differs from the live one, on any history."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rig import Bench, failed, packet, proposal, skipped, timed_out

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.decide import log_trial, pause_released
from tamiyo.core.directives import DIRECTIVES, command_delivered, operator_directed
from tamiyo.core.events import Event, decode, encode
from tamiyo.core.evolve import Fold
from tamiyo.core.layout import LAYOUTS_MAX
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import read_packet
from tamiyo.core.outbox import DueReport, fresh_reports_room, publish_attempted, retries_due, telemetry_drained
from tamiyo.core.registries import CAPACITIES
from tamiyo.core.state import (
    BLUEPRINTS_MAX,
    CONDITIONS_MAX,
    DIRECTIVES_MAX,
    RETRIES_MAX,
    SEED_BLUEPRINTS_MAX,
    UNDECIDED_MAX,
    UNDELIVERED_MAX,
    WINDOWS_MAX,
    State,
)
from tamiyo.leyline import leyline_pb2 as pb

BOUNDS = {
    "behaviour_flags": 64,
    "undecided": UNDECIDED_MAX,
    "norms": 8,
    "breakers": 4,
    "conditions": CONDITIONS_MAX,
    "windows.open": WINDOWS_MAX,
    "windows.samples": WINDOWS_MAX,
    "outbox.retries": RETRIES_MAX,
    "undelivered": UNDELIVERED_MAX,
    "directives": DIRECTIVES_MAX,
    "registries": len(CAPACITIES),
    "layouts": LAYOUTS_MAX,
    "blueprints": BLUEPRINTS_MAX,
    "seed_blueprints": SEED_BLUEPRINTS_MAX,
}
"""The most entries of each collection of the state. One that is not here fails the test below."""


def test_what_is_promised_by_number_is_bounded_by_that_number() -> None:
    assert (WINDOWS_MAX, UNDELIVERED_MAX) == (1_024, 1_024)


def collections(value: object, path: str = "") -> Iterator[tuple[str, int]]:
    """Every collection of the state's own, with its size; what is inside entries is bounded by what made them."""
    names = [part.name for part in fields(value)] if is_dataclass(value) else getattr(value, "_fields", ())
    for name in names:
        found, here = getattr(value, name), f"{path}{name}"
        if isinstance(found, Mapping) or (isinstance(found, tuple) and not hasattr(found, "_fields")):
            yield here, len(found)
        else:
            yield from collections(found, f"{here}.")


class Pair(Bench):
    """A live state, and one that is rebuilt from the encoded log: every event goes into both, as bytes into one."""

    def __init__(self, **options: object) -> None:
        self.log: list[tuple[int, bytes]] = []
        self.issued: list[DueReport] = []
        self.last_received = journal.StepReceived()
        self.settled = True
        super().__init__(**options)

    def fold(self, event: Event) -> None:
        if isinstance(event, journal.CommitLate):  # its report is superseded, and never due
            superseded = self.state.unsettled_report_lsn
            self.issued = [due for due in self.issued if due.report_lsn != superseded]
        super().fold(event)
        self.log.append(encode(event))
        if isinstance(event, journal.FieldReportIssued):
            report_id = pb.FieldReport.FromString(event.report).report_id
            self.issued.append(DueReport(self.state.last_lsn, report_id))
        if isinstance(event, journal.StepReceived):
            self.last_received = event

    def say(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self.fold(event)

    def rebuilt(self) -> State:
        fold = Fold()
        for lsn, (kind, payload) in enumerate(self.log, start=1):
            fold.take(lsn, decode(kind, payload))
        return fold.state()

    def act(self, what: str, chance: random.Random) -> None:
        """One thing that may happen to a controller."""
        now_ns = self.state.event_time_ns + chance.randrange(1, 2_000_000_000)
        if what == "direct":
            self.say(operator_directed(
                self.state, chance.choice(DIRECTIVES), operator="ada", reason="", now_ns=now_ns,
                request_id=f"r-{self.state.last_lsn}"))  # fmt: skip
        elif what == "deliver":
            known = list(self.state.undelivered) or ["nobody"]
            self.say(command_delivered(chance.choice(known), "applied", "", now_ns=now_ns))
        elif what == "publish":
            self.publish(now_ns, succeeded=chance.random() < 0.4)
        elif what == "drain":
            lsn = self.state.last_lsn
            self.say(telemetry_drained(self.state, through_lsn=lsn, packets=1, now_ns=now_ns))
        elif what == "late" and self.state.unsettled is not None:
            self.pause(self.state.unsettled.step_lsn, "timeout_wal", now_ns)
        elif what == "lost":
            first = self.state.steps_received + 1
            missing = journal.StepsUnrecorded(
                first_step_index=first, last_step_index=first + 1, count=2, event_time_ns=now_ns, cause="log_failed"
            )
            self.say(log_trial(self.state, missing))
        elif what == "open":
            self.fold(self.opened(now_ns, chance.choice([1, 3, 5_000])))
        elif what == "observe":
            self.observe(f"bp-{chance.randrange(5)}", risk=chance.random())
        else:
            self.decide_one(what, chance)

    def decide_one(self, what: str, chance: random.Random) -> None:
        answers = {"timeout": timed_out(), "failed": failed(), "skipped": skipped("breaker_open")}
        made = packet(chance.choice([pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_TRAINING]), validation_loss=chance.random())
        if what == "bad":
            made.training_metrics.update({"grad_var": 5.0, "loss": float("nan"), "hook_latency_ms": 99.0})
        self.step(made, answers.get(what, proposal(chance.randrange(7))), elapsed_s=chance.random() + 0.001)

    def publish(self, now_ns: int, *, succeeded: bool) -> None:
        again = retries_due(self.state, now_ns)[:1]
        self.issued = [due for due in self.issued if due.report_lsn > self.state.outbox.reports_lsn]
        fresh = tuple(self.issued[: fresh_reports_room(self.state)])
        self.say(publish_attempted(self.state, again or fresh, succeeded=succeeded, cause="no", now_ns=now_ns))

    def pause(self, step_lsn: int, cause: str, now_ns: int) -> None:
        received = self.last_received
        observation = read_packet(received.packet, UNLIMITED)
        self.say(pause_released(
            self.state, observation, received, step_lsn=step_lsn, decision_lsn=1, cause=cause, event_time_ns=now_ns,
        ))  # fmt: skip

    def opened(self, now_ns: int, window: int) -> journal.ServiceOpened:
        event = journal.ServiceOpened(
            event_time_ns=now_ns, behaviour_flags=self.state.behaviour_flags, policy_version=self.state.policy_version,
            thresholds=self.state.thresholds.as_map(), options=self.state.options.message(),
        )  # fmt: skip
        event.options.observation_window = window
        return event


ACTIONS = (
    "step", "step", "bad", "timeout", "failed", "skipped", "direct", "deliver", "publish", "drain", "late", "lost",
    "open", "observe",
)  # fmt: skip


def require_counted(pair: Pair) -> None:
    """What is pending is what was never tried and what waits for a retry; nothing is lost or counted twice."""
    fresh = [due for due in pair.issued if due.report_lsn > pair.state.outbox.reports_lsn]
    assert pair.state.reports_pending == len(fresh) + len(pair.state.outbox.retries)


def require_bounded(state: State) -> None:
    sizes = dict(collections(state))
    assert set(sizes) == set(BOUNDS), "a collection of the state has no stated bound, or a bound no collection"
    assert {name: size for name, size in sizes.items() if size > BOUNDS[name]} == {}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=25), st.randoms(use_true_random=False))
def test_the_state_rebuilt_from_the_log_after_every_step_is_the_live_one(
    history: list[str], chance: random.Random
) -> None:
    pair = Pair(observation_window=3, report_retries_max=1, reminder_steps=2)
    for what in history:
        pair.act(what, chance)
        rebuilt = pair.rebuilt()
        assert rebuilt == pair.state
        assert rebuilt.digest() == pair.state.digest()
        require_counted(pair)
    require_bounded(pair.state)


def test_after_a_long_history_everything_is_within_its_bound() -> None:
    chance = random.Random(7)
    pair = Pair(observation_window=5_000, reminder_steps=3)
    for _ in range(4_000):
        pair.act(chance.choice(ACTIONS), chance)
    require_bounded(pair.state)
    require_counted(pair)
    assert pair.state.windows.expired > 0 or pair.state.options.observation_window == 1
    assert pair.state.deliveries.forgotten + len(pair.state.undelivered) == pair.state.undelivered_total
    assert pair.rebuilt().digest() == pair.state.digest()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_after_very_long_histories_everything_is_within_its_bound(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(observation_window=chance.choice([1, 2, 50, 2_000, 100_000]))
    for _ in range(10_000):
        pair.act(chance.choice(ACTIONS), chance)
    require_bounded(pair.state)
    require_counted(pair)
    assert pair.rebuilt().digest() == pair.state.digest()
