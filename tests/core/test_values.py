"""The small pure parts: packets at the door, proposals, registries, norms, coverage, records."""

import hashlib
import json
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import packet, proposal

from tamiyo.core import coverage, registries
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import Blueprint, SafetySheet, content_digest, read_blueprint
from tamiyo.core.events import KINDS, MESSAGES, decode, encode
from tamiyo.core.limits import ALLOWED_PARAMETERS_MAX, TEXT_CHARS_MAX, Limits
from tamiyo.core.norms import EPSILON, NORM_INPUTS, PRIORS, Norm, scaled, updated
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import _WIDTHS, argmax, malformation
from tamiyo.core.risk import RISK_ROWS
from tamiyo.core.signals import METRIC_SIGNALS
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import JournalUnreadable, PacketRejected
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import checked_id
from tamiyo.testing.strategies import hostile_bytes, packets

COUNTS = st.lists(
    st.tuples(st.sampled_from(["node.seed", "edges.x", "node.layer"]), st.text(max_size=30), st.integers(0, 5)).map(
        lambda c: (c[0], c[1], c[2], 5)
    ),
    max_size=80,
    unique_by=lambda c: (c[0], c[1]),
)


def test_zero_is_absent_for_losses_and_a_value_for_ages() -> None:
    made = packet(training_loss=0.0, validation_loss=0.25)
    made.hardware_context.device_type = "cpu"
    observation = read_packet(made.SerializeToString(), Limits())
    assert observation.training_loss is None
    assert observation.validation_loss == 0.25
    assert observation.validation_accuracy is None
    assert observation.seeds[0].gradient_norm is None
    assert observation.seeds[0].learning_rate is None
    assert (observation.seeds[0].age_epochs, observation.seeds[0].risk_score) == (0, 0.0)
    assert observation.hardware == ("cpu", "", None, None, None, None, None)


def test_values_that_are_not_finite_are_kept_as_they_came() -> None:
    observation = read_packet(packet(training_loss=math.nan).SerializeToString(), Limits())
    assert observation.training_loss is not None
    assert math.isnan(observation.training_loss)


@given(hostile_bytes())
def test_any_bytes_are_a_packet_or_rejected(data: bytes) -> None:
    try:
        read_packet(data, Limits())
    except PacketRejected as error:
        assert "SystemStatePacket" in str(error) or "over the limit" in str(error)  # noqa: PT017  either outcome is right


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(packet_bytes_max=10), "bytes"),
        (Limits(seeds_max=1), "2 seeds"),
        (Limits(metrics_max=1), "2 training metrics"),
        (Limits(id_chars_max=3), "characters of an id"),
    ],
)
def test_a_packet_over_a_limit_is_rejected_by_name(limits: Limits, what: str) -> None:
    made = packet(seeds=2, training_metrics={"a": 1.0, "b": 2.0})
    with pytest.raises(PacketRejected, match=what):
        read_packet(made.SerializeToString(), limits)


def test_seeds_over_the_limit_are_counted_and_not_touched() -> None:
    """Two million empty ones are 4 MiB on the wire; as objects they are a gigabyte, and seconds."""
    data = b"\x42\x00" * (2**21 - 1)
    tracemalloc.start()
    try:
        with pytest.raises(PacketRejected, match="2097151 seeds"):
            read_packet(data, Limits())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_ties_go_to_the_lowest_index() -> None:
    assert argmax((0.1, 0.4, 0.4, 0.1)) == 1


BAD_PROPOSALS = {
    "is no Proposal": "hello",
    "action is no tuple of 32": {"action": (1.0,)},
    "risk holds a value": {"risk": (math.nan, 0.0, 0.0, 0.0, 0.0)},
    "risk is no probability": {"risk": (2.0, 0.0, 0.0, 0.0, 0.0)},
    "value is no finite number": {"value": math.inf},
    "value is no finite": {"value": 10**400},
    "param_deltas holds a value outside": {"param_deltas": (0.0, 1e308, 0.0, 0.0)},
    "schedule holds a value outside": {"schedule": (0.0, 1.5)},
    "risk sums to 0": {"risk": (0.0,) * 5},
    "seed_index False is no candidate": {"seed_index": False},
    "blueprint_index True is outside": {"blueprint_index": True},
    "seed_score is no finite number": {"seed_score": "high"},
    "seed_index 7 is no candidate": {"seed_index": 7},
    "seed_index -1 is no candidate": {"seed_index": -1},
    "blueprint_index 1 is outside": {"blueprint_index": 1},
    "blueprint_index -2 is outside": {"blueprint_index": -2},
    "schedule holds a value": {"schedule": (-1.5, 0.0)},
    "value is no": {"value": True},
    "value is": {"value": 2**53},
    "seed_score is": {"seed_score": -(2**53)},
}


@pytest.mark.parametrize(("fault", "change"), BAD_PROPOSALS.items())
def test_a_malformed_proposal_is_named(fault: str, change: object) -> None:
    observation = read_packet(packet().SerializeToString(), Limits())
    made = proposal()._replace(**change) if isinstance(change, dict) else change
    assert fault in str(malformation(made, observation, 1))
    assert malformation(proposal(), observation, 1) is None


def test_a_whole_number_is_a_score_while_a_double_holds_it() -> None:
    observation = read_packet(packet().SerializeToString(), Limits())
    for number in (2**53 - 1, 1 - 2**53, 0):
        assert malformation(proposal()._replace(value=number, seed_score=number), observation, 1) is None


NUMBERS = (0.0, -0.0, 1.0, 1.0 + 1e-9, -1.0, -1.0 - 1e-9, -1e-9, 0.25, 1e308, math.nan, -math.inf, 0, 1, True, "1")
PLACES = (-2, -1, 0, 1, 2, True, 0.0, None, 2**70)


def vectors(width: int) -> list[object]:
    """Any number beside a one and beside a zero, distributions that miss 1 by a little, and other forms."""
    rest = (0.0,) * (width - 2)
    beside = [(first, number, *rest) for number in NUMBERS for first in (0.0, 1.0)]
    near = [(total / width,) * width for total in (1.0 - 2e-3, 1.0 - 1e-4, 1.0, 1.0 + 1e-4, 1.0 + 2e-3)]
    return [*beside, *near, list(near[2]), (1.0, *rest), (1.0, *rest, 0.0, 0.0)]


CHANGES = [
    *((name, vector) for name, width in _WIDTHS.items() for vector in vectors(width)),
    *((name, number) for name in ("value", "seed_score") for number in NUMBERS),
    *((name, place) for name in ("seed_index", "blueprint_index") for place in PLACES),
]


def test_the_quick_look_at_a_proposal_says_what_the_long_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = packet(seeds=2)
    made.seed_states[1].stage = pb.SEED_STAGE_FOSSILIZED  # no candidate
    observation = read_packet(made.SerializeToString(), Limits())
    changed = [proposal()._replace(**{name: value}) for name, value in CHANGES]
    quick = [malformation(one, observation, 1) for one in changed]
    monkeypatch.setattr("tamiyo.core.proposal._is_surely_sound", lambda *_: False)
    assert quick == [malformation(one, observation, 1) for one in changed]
    assert None in quick
    assert sum(fault is not None for fault in quick) > len(quick) / 2


def test_a_blueprint_s_risk_is_the_larger_of_the_two_and_nan_wins() -> None:
    def blueprint(own: float, sheet: float) -> Blueprint:
        return Blueprint("b", "d", 0, 0, own, False, False, (), SafetySheet(sheet, 0, 0, 0, 0, ""))

    assert blueprint(0.2, 0.7).risk == 0.7
    assert blueprint(0.7, 0.2).risk == 0.7
    assert math.isnan(blueprint(math.nan, 0.2).risk)
    assert math.isnan(blueprint(0.2, math.nan).risk)


def test_registry_indices_start_at_one_in_order_of_first_sight() -> None:
    keys = [("seed_id", "b"), ("seed_id", "a"), ("seed_id", "b"), ("seed_id", ""), ("layer_type", "conv")]
    added, overflow = registries.assignments(registries.initial(), keys)
    assert added == {"seed_id": ["b", "a"], "layer_type": ["conv"]}
    assert registries.extended(registries.initial(), added)["seed_id"] == {"b": 1, "a": 2}
    assert overflow == 0


def test_optimizer_families_are_known_from_the_start() -> None:
    assert registries.lookup(registries.initial(), "optimizer_family", "adamw") == 3
    assert registries.lookup(registries.initial(), "optimizer_family", "lion") == 0


@pytest.mark.parametrize("kind", registries.CAPACITIES)
def test_a_full_registry_answers_zero(kind: str) -> None:
    keys = [(kind, f"key-{index}") for index in range(registries.CAPACITIES[kind] + 3)]
    added, overflow = registries.assignments(registries.initial(), keys)
    assert overflow == 3 + len(registries.PRESEEDED.get(kind, ()))
    full = registries.extended(registries.initial(), added)
    assert max(full[kind].values()) == registries.CAPACITIES[kind] == len(full[kind])
    assert registries.assignments(full, keys) == ({}, overflow)
    assert registries.lookup(full, kind, keys[-1][1]) == 0


def test_the_registry_digest_is_sha256_over_compact_sorted_pairs() -> None:
    by_hand = hashlib.sha256(b'[["a",2],["b",1]]').hexdigest()
    assert registries.digest({"b": 1, "a": 2}) == by_hand


def test_the_priors_are_what_they_were_promised_to_be() -> None:
    assert {row.name: (row.mean, row.sd, row.log1p) for row in NORM_INPUTS} == {
        "loss": (0.8, 0.3, False),
        "gradient_norm": (1.0, 0.5, False),
        "samples_per_s": (4500.0, 500.0, False),
        "hook_latency_ms": (12.0, 6.0, False),
        "parameter_count": (1.0, 0.4, True),
        "learning_rate": (0.01, 0.005, True),
        "gradient_variance": (0.001, 0.0005, True),
        "momentum": (0.9, 0.05, False),
    }
    assert [(norm.mean, norm.variance) for norm in PRIORS] == [(row.mean, row.sd**2) for row in NORM_INPUTS]


@pytest.mark.parametrize("row", NORM_INPUTS, ids=lambda row: row.name)
def test_a_norm_moves_a_tenth_of_the_way(row: object) -> None:
    norm = Norm(row.mean, row.sd**2)
    after = updated(norm, row.mean + 1.0)
    assert after.mean == pytest.approx(row.mean + 0.1)
    assert after.variance == pytest.approx(0.9 * (row.sd**2 + 0.1))
    assert scaled(norm, row.mean + row.sd) == pytest.approx(row.sd / math.sqrt(row.sd**2 + EPSILON))


@given(COUNTS)
def test_the_coverage_map_fits_and_loses_nothing(counts: list[tuple[str, str, int, int]]) -> None:
    text = coverage.Coverage.of(counts).annotations["coverage_map"]
    shown = json.loads(text)
    omitted = shown.pop("_omitted", 0)
    assert len(text.encode()) <= 1024
    assert len(shown) + omitted == sum(present < total for _, _, present, total in counts)
    assert list(shown.values()) == sorted(shown.values())


def test_coverage_is_present_over_total() -> None:
    counts = [("node.seed", "a", 1, 2), ("node.seed", "b", 0, 2), ("edges.x", "c", 4, 4)]
    assert coverage.average(counts) == 5 / 8
    assert coverage.by_family(counts) == {"node.seed": 0.25, "edges.x": 1.0}
    assert coverage.average([]) == 0.0


def test_thresholds_survive_their_map_and_ignore_what_they_do_not_know() -> None:
    changed = Thresholds(max_loss_spike=0.5)
    assert Thresholds.from_map({**changed.as_map(), "of_tomorrow": 1.0}) == changed


def test_every_threshold_of_what_travels_in_single_precision_is_in_single_precision() -> None:
    travels = {*METRIC_SIGNALS.values(), "loss_delta", "blueprint_risk"}
    tests = [test for row in RISK_ROWS for group in row.when for test in group if test.signal in travels]
    named = {test.threshold for test in tests if isinstance(test.threshold, str)}
    rounded = Thresholds(**dict.fromkeys(Thresholds().as_map(), 1.7)).of_the_wire().as_map()
    assert {name for name, value in rounded.items() if value != 1.7} == named
    assert {rounded[name] for name in named} == {1.7000000476837158}


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-60, 1e300, 95.0])
def test_a_threshold_that_single_precision_cannot_hold_stays_as_it_is(value: float) -> None:
    assert Thresholds(grad_variance_max=value).of_the_wire().grad_variance_max == value


@pytest.mark.parametrize("kind", MESSAGES)
def test_each_record_kind_round_trips(kind: int) -> None:
    event = MESSAGES[kind]()
    assert encode(event) == (kind, b"")
    assert decode(kind, b"") == event
    assert KINDS[MESSAGES[kind]] == kind


def test_an_unknown_kind_is_refused_with_advice() -> None:
    with pytest.raises(JournalUnreadable, match="newer Tamiyo"):
        decode(999, b"")


def test_a_record_that_does_not_parse_is_refused_by_name() -> None:
    with pytest.raises(JournalUnreadable, match="StepReceived"):
        decode(2, b"\xff\xff")


@given(packets())
def test_what_the_strategy_builds_is_accepted(made: pb.SystemStatePacket) -> None:
    assert len(read_packet(made.SerializeToString(), Limits()).seeds) == len(made.seed_states)


def test_a_state_keeps_so_much_of_a_blueprint_and_no_more() -> None:
    described = pb.BlueprintDescriptor(blueprint_id="bp-1")
    for name in ["x" * (TEXT_CHARS_MAX + 1), *(f"p-{index:04}" for index in range(ALLOWED_PARAMETERS_MAX + 5))]:
        described.allowed_parameters[name].max_value = 1.0
    content = journal.BlueprintContent(
        descriptor=described.SerializeToString(), safety_sheet=pb.BSDS(recommendation="r" * 2_000).SerializeToString()
    )
    blueprint = read_blueprint("bp-1", content_digest(content), content)
    names = [name for name, _, _ in blueprint.allowed_parameters]
    assert names == [f"p-{index:04}" for index in range(ALLOWED_PARAMETERS_MAX)]
    assert len(blueprint.sheet.recommendation) == TEXT_CHARS_MAX


def test_an_id_of_the_library_is_as_long_as_a_packet_s_at_most() -> None:
    assert [checked_id(text) for text in ("", "bp-1", "x" * 512, "x" * 513)] == [False, True, True, False]
