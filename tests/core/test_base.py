"""The state as a record: every field of every part survives, whatever history led there, and a wrong one is refused."""

import struct
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import CONTENTS_MAX_BYTES, base_of, contents_of, needs_lsn, read_base, state_message, state_of
from tamiyo.core.blueprint import Blueprint, SafetySheet
from tamiyo.core.breakers import BREAKERS, Breaker
from tamiyo.core.evolve import evolve
from tamiyo.core.layout import GraphLayout
from tamiyo.core.norms import PRIORS, Norm
from tamiyo.core.options import Options
from tamiyo.core.registries import extended, initial
from tamiyo.core.signals import LossMemory
from tamiyo.core.state import (
    Condition,
    Conservative,
    Deliveries,
    InstalledPolicy,
    ObservedBlueprint,
    Outbox,
    Policies,
    Retry,
    Sample,
    State,
    Unsettled,
    Window,
    Windows,
)
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import InvariantViolation, JournalUnreadable
from tamiyo.testing.history import History
from tamiyo.testing.strategies import histories

SHEET = SafetySheet(0.7, -3, 99, 1, 2, "wait")
GROWN = Blueprint("b-1", "d1", 3, 4, 0.25, True, True, (("alpha", -1.0, 1.0), ("beta", 0.0, 2.0)), SHEET)
FULL = State(
    last_lsn=901,
    event_time_ns=-5,
    thresholds=Thresholds(max_loss_spike=0.5),
    options=Options(observation_window=3, blend_mode_annotations=True, blend_mode_default="CHANNEL"),
    log_id="ab" * 16,
    metadata_budget_ms=11,
    behaviour_flags=("1-explained-decisions",),
    policy_version="p-1",
    steps_received=70,
    steps_unrecorded=2,
    decisions=60,
    commits_late=3,
    unsettled=Unsettled(880, "seed-9", "b-1", "c-9"),
    unsettled_report_lsn=879,
    undecided=(700, 901),
    loss=LossMemory("run", 0.5, float("nan")),
    norms=tuple(Norm(norm.mean + 1.0, norm.variance * 2.0) for norm in PRIORS),
    breakers=MappingProxyType({name: Breaker(1, 2, 3, 4 + place) for place, name in enumerate(BREAKERS)}),
    conservative=Conservative(True, "loss_spike", 12, 2, "ada"),
    conditions=MappingProxyType({("loss_spike", 3): Condition(5, 6), ("hook_budget", 2): Condition(7, 8)}),
    windows=Windows(
        (Window("c-1", 50, 20, 7, "run", "seed-1", "b-1", "p-1"),),
        (Sample(59, -0.0, None, True), Sample(60, 0.25, 1.5, False)),
        4,
    ),
    reports_issued=66,
    outbox=Outbox(800, 850, MappingProxyType({"z": Retry(810, 2, 99), "a": Retry(820, 1, 98)}), 5, 6, 7, 8, 9),
    undelivered=MappingProxyType({"c-2": 890, "c-1": 880}),
    deliveries=Deliveries(1, 2, 3),
    directives=("r-1", "r-2"),
    registries=extended(initial(), {"seed_id": ["seed-9", "seed-1"], "optimizer_family": ["lion"]}),
    layouts=MappingProxyType({3: GraphLayout((("node.global", "loss"),), ("global",), ("seed-peer-seed",))}),
    blueprints=MappingProxyType(
        {
            "b-2": ObservedBlueprint(None, 0, 5, withdrawn=True),
            "b-1": ObservedBlueprint(GROWN, 420, 6),
            "b-0": ObservedBlueprint(replace(GROWN, blueprint_id="b-0", digest="d0", sheet=None), 430, 7, True),
        }
    ),
    seed_blueprints=MappingProxyType({"seed-9": "b-1", "seed-1": "b-0"}),
    policies=Policies(InstalledPolicy("p-1", "cd", "u-1", 77), InstalledPolicy("p-0", "ab", "u-0", 66), 8, 2, 1),
)
"""A state in which nothing has the value that it has in the state of an empty log."""


def same(one: object, other: object) -> bool:
    """Equal to the bit, the order of every mapping included: which entry is the oldest is part of the state."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one) and type(one) is type(other):
        return all(same(getattr(one, part.name), getattr(other, part.name)) for part in fields(one))
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    return one == other


def test_the_digest_of_a_state_stays_what_it_was_for_as_long_as_its_version_does() -> None:
    """Logs hold digests: a release that computes others under the same number finds every one of them wrong."""
    assert State().digest() == "3:0fc259e5786c8bece7c09aef5cdbfb50ff84f8f82aec0bab8d4b06ceaacb6834"
    before_drops = replace(FULL, outbox=replace(FULL.outbox, telemetry_dropped=0))
    assert before_drops.digest() == "3:84e9f702561c98678703e5e1b3e31b15e4beae937c61183b3abd66ddf6230e64"
    assert FULL.digest() == "3:4fbc480df3a63e120ed1ec220d6ed949d3f0dd73aebb36416474fd35f73eb888"


def test_the_full_state_differs_from_an_empty_one_in_every_field() -> None:
    alike = [part.name for part in fields(State) if same(getattr(FULL, part.name), getattr(State(), part.name))]
    assert alike == []


def test_every_field_of_a_full_state_survives() -> None:
    again = state_of(journal.BaseState.FromString(state_message(FULL).SerializeToString()))
    assert same(again, FULL)
    assert again.digest() == FULL.digest()


def test_a_base_without_a_field_reads_as_the_state_of_an_empty_log() -> None:
    assert same(state_of(journal.BaseState()), State())


@given(history=histories())
@settings(deadline=None)
def test_the_state_of_any_history_survives_and_goes_on_as_if_nothing_had_been(history: History) -> None:
    state = State()
    for lsn, event in enumerate(history.events, start=1):
        state = evolve(state, lsn, event)
        if lsn % 7 == 0 or lsn == len(history.events):
            state = read_base(journal.StateBase.FromString(base_of(state, {}, state.event_time_ns).SerializeToString()))
    assert same(state, history.state)


def test_a_base_that_is_not_the_state_of_its_digest_is_refused() -> None:
    base = base_of(FULL, {}, 1)
    base.state.decisions += 1
    with pytest.raises(JournalUnreadable, match="open the log with the version that did"):
        read_base(base)


def test_a_base_of_another_lsn_than_its_state_is_refused() -> None:
    base = base_of(FULL, {}, 1)
    base.at_lsn += 1
    with pytest.raises(JournalUnreadable, match="state of LSN 901"):
        read_base(base)


def test_a_base_of_a_release_with_another_digest_is_read_all_the_same() -> None:
    base = base_of(FULL, {}, 1)
    base.digest = f"1:{'0' * 64}"
    assert same(read_base(base), FULL)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: message.registries.add(kind="no_such_registry", keys=["x"]),
        lambda message: message.registries.add(kind="optimizer_family", keys=["adam", "sgd"]),
        lambda message: message.thresholds.update(max_loss_spike=float("nan")),
        lambda message: message.options.CopyFrom(journal.Options(observation_window=0)),
    ],
)
def test_what_is_no_state_of_this_version_is_refused_in_words(spoil: object) -> None:
    message = state_message(FULL)
    spoil(message)  # type: ignore[operator]
    with pytest.raises(JournalUnreadable, match="no state of this version"):
        state_of(message)


def test_contents_are_kept_with_the_base_and_those_without_room_keep_their_record() -> None:
    large = b"x" * (CONTENTS_MAX_BYTES - 10)
    base = base_of(FULL, {"d1": large, "d0": b"y" * 11, "stranger": b"z"}, 1)
    assert contents_of(base) == {"d0": b"y" * 11}  # the newest first, and d1 has no room left
    assert base.needs_lsn == 420
    base = base_of(FULL, {"d1": large, "d0": b"y" * 10}, 1)
    assert set(contents_of(base)) == {"d0", "d1"}
    assert base.needs_lsn == 880  # the step whose commit may still turn out to have been late


@given(lsn=st.integers(1, 10**6))
def test_a_state_with_nothing_open_needs_its_own_record_alone(lsn: int) -> None:
    assert needs_lsn(State(last_lsn=lsn)) == lsn


def test_words_about_a_state_to_come_are_illegal() -> None:
    for event in (journal.StateBase(at_lsn=902), journal.SnapshotTaken(at_lsn=902), journal.StateBase()):
        with pytest.raises(InvariantViolation, match="not before it"):
            evolve(FULL, 902, event)
    assert evolve(FULL, 902, journal.SnapshotTaken(at_lsn=901)).last_lsn == 902
