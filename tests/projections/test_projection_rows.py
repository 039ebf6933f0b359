from hashlib import sha256

import pytest
from projection_rig import command, decided, history, made_new, observed, opened, projected, received, write_log

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import BREAKERS
from tamiyo.core.events import KINDS, encode
from tamiyo.core.norms import NORM_INDEX, PRIORS, updated
from tamiyo.core.registries import initial
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection
from tamiyo.projections.models import Base
from tamiyo.projections.projectors import NOT_PROJECTED, PROJECTORS
from tamiyo.projections.rows import operation, reports, steps, upkeep

OPEN, CLOSED = pb.CIRCUIT_STATE_OPEN, pb.CIRCUIT_STATE_CLOSED


POLICY_ID = sha256(b'["v3", "a", "e", ""]').hexdigest()[:16]


def rows(directory, *events):
    write_log(directory, list(events))
    return made_new(directory)


def test_every_event_of_the_journal_is_projected_or_said_not_to_be():
    assert set(PROJECTORS) | NOT_PROJECTED == set(KINDS)
    assert not set(PROJECTORS) & NOT_PROJECTED


def test_no_event_is_in_two_families_of_rows():
    assert len(PROJECTORS) == sum(len(family.PROJECTORS) for family in (steps, reports, operation, upkeep))


def test_an_empty_log_has_the_priors_and_the_preseeded_registries():
    with Projection.in_memory() as projection:
        assert projection.applied_lsn == 0
        assert projection.norms() == PRIORS
        assert projection.registries() == initial()


def test_an_opening_leaves_a_row(tmp_path):
    assert rows(tmp_path, opened("v2"))["openings"] == [(1, 7, "v2", "f")]


def test_a_decision_row_says_what_was_decided_on_which_step_and_how_long_it_took(tmp_path):
    made = command(pb.COMMAND_SEED, policy_version="v3", selected_seed="s-1", selected_blueprint="b-1")
    made.command_id = "c-9"
    made.issued_at.FromNanoseconds(1_005)
    made.seed_operation.operation = pb.SEED_OP_GERMINATE
    inferred = journal.InferenceObserved(
        step_lsn=2, elapsed_ns=9, identity=journal.PolicyIdentity(version="v3", architecture="a", engine="e")
    )
    found = rows(tmp_path, opened(), received(step_index=5), observed(2), inferred, decided(2, made, "loss_warning"))
    columns = [column.name for column in Base.metadata.tables["decisions"].columns]
    (row,) = found["decisions"]
    assert dict(zip(columns, row, strict=True)) == {
        "lsn": 5, "step_lsn": 2, "step_index": 5, "event_time_ns": 3, "issued_unix_ns": 1_005, "command_id": "c-9",
        "command_type": pb.COMMAND_SEED, "seed_operation": pb.SEED_OP_GERMINATE, "risk_reason": "loss_warning",
        "policy_version": "v3", "training_run_id": "run-1", "seed_id": "s-1", "blueprint_id": "b-1", "coverage": 0.75,
        "receive_ns": 1, "blueprints_ns": 2, "graph_ns": 3, "inference_ns": 4,
        "superseded_by": None, "superseded_cause": None, "superseded_lsn": None, "loss_delta": 0.25,
        "graph_lsn": 3, "inference": "observed", "inference_lsn": 4, "inference_elapsed_ns": 9, "policy_id": POLICY_ID,
    }  # fmt: skip
    assert found["undecided_steps"] == []
    assert found["policies"] == [(POLICY_ID, "v3", "a", "e", "")]


@pytest.mark.parametrize("counts", [(), ((0, 0),)])
def test_a_graph_without_features_has_no_coverage(tmp_path, counts):
    found = rows(tmp_path, opened(), received(), observed(2, counts=counts), decided(2))
    assert found["decisions"][0][13] is None


def test_a_decision_without_a_graph_has_no_coverage(tmp_path):
    assert rows(tmp_path, opened(), received(), decided(2))["decisions"][0][13] is None


def test_a_packet_without_a_decision_is_listed_with_what_is_known(tmp_path):
    found = rows(tmp_path, opened(), received(step_index=1), received(step_index=2), observed(3), decided(3))
    assert found["undecided_steps"] == [(2, 1, 1_001, *[None] * 6)]


def test_a_late_commit_supersedes_its_decision_and_no_other(tmp_path):
    late = journal.CommitLate(decision_lsn=4, step_lsn=2, released_command_id="safe", cause="timeout_wal")
    write_log(tmp_path, *history(2), [late])
    found = made_new(tmp_path)
    assert [row[18:21] for row in found["decisions"]] == [("safe", "timeout_wal", 8), (None, None, None)]
    assert found["released_pauses"] == [(8, 2, 4, "safe", "timeout_wal", 0)]


def test_norms_are_folded_as_the_core_folds_them(tmp_path):
    loss, momentum = NORM_INDEX["loss"], NORM_INDEX["momentum"]
    write_log(
        tmp_path,
        [opened(), received(1), observed(2, [(loss, 2.5), (momentum, 0.5)]), decided(2)],
        [received(2), observed(5, [(loss, -1.0)]), decided(5)],
    )
    expected = list(PRIORS)
    expected[loss] = updated(updated(PRIORS[loss], 2.5), -1.0)
    expected[momentum] = updated(PRIORS[momentum], 0.5)
    with projected(tmp_path) as projection:
        assert projection.norms() == tuple(expected)


def test_a_norm_that_overflowed_stays_what_the_core_says(tmp_path):
    write_log(tmp_path, [opened(), *(observed(0, [(0, 1e308), (1, -1e308)]) for _ in range(60))])
    expected = PRIORS[0]
    for _ in range(60):
        expected = updated(expected, 1e308)
    with projected(tmp_path) as projection:
        assert repr(projection.norms()[0]) == repr(expected)  # repr: NaN is not equal to itself


def test_a_norm_row_of_a_later_version_is_left_alone(tmp_path):
    write_log(tmp_path, [opened(), observed(0, [(len(PRIORS), 3.0)])])
    with projected(tmp_path) as projection:
        assert projection.norms() == PRIORS


def test_assignments_follow_the_preseeded_keys(tmp_path):
    write_log(
        tmp_path,
        [
            journal.RegistryAssigned(kind="seed_id", keys=["s-1", "s-2"], first_index=1),
            journal.RegistryAssigned(kind="optimizer_family", keys=["lion"], first_index=6),
            journal.RegistryAssigned(kind="later_kind", keys=["x"], first_index=1),
        ],
    )
    with projected(tmp_path) as projection:
        found = projection.registries()
    assert found["seed_id"] == {"s-1": 1, "s-2": 2}
    assert list(found["optimizer_family"]) == ["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion"]
    assert found["later_kind"] == {"x": 1}


def test_moves_of_breakers_and_changes_of_mode_are_kept_as_they_happened(tmp_path):
    move = journal.BreakerMoved(
        breaker="inference", from_state=CLOSED, to_state=OPEN, event_time_ns=9, cause="failures", step_lsn=4
    )
    change = journal.ConservativeModeChanged(active=True, reason="loss_spike", event_time_ns=9, step_lsn=4)
    found = rows(tmp_path, opened(), move, change)
    assert found["breaker_moves"] == [(2, "inference", CLOSED, OPEN, "failures", 9, 4)]
    assert found["conservative_changes"] == [(3, True, "loss_spike", 9, 4)]


def test_the_summary_counts_what_the_tables_hold(tmp_path):
    events = [
        opened("v1"),
        received(1), observed(2), decided(2, command(pb.COMMAND_PAUSE, policy_version="v2"), "loss_spike"),
        received(2), observed(5), decided(5, command(pb.COMMAND_SEED, policy_version="v2")),
        received(3), decided(8, command(pb.COMMAND_PAUSE, policy_version="v2"), "conservative_mode"),
        received(4),
        journal.BreakerMoved(breaker="log", from_state=CLOSED, to_state=OPEN),
        journal.ConservativeModeChanged(active=True, reason="breaker_log"),
        journal.CommitLate(decision_lsn=4, released_command_id="safe", cause="timeout_wal"),
        opened("v1", event_time_ns=10),
    ]  # fmt: skip
    write_log(tmp_path, events)
    with projected(tmp_path) as projection:
        summary = projection.summary()
    assert summary.applied_lsn == len(events)
    assert (summary.policy_version, summary.openings, summary.decisions) == ("v2", 2, 3)
    assert (summary.last_step_index, summary.undecided, summary.superseded) == (3, 1, 1)
    assert dict(summary.by_type) == {pb.COMMAND_PAUSE: 2, pb.COMMAND_SEED: 1}
    assert dict(summary.by_reason) == {"conservative_mode": 1, "loss_spike": 1, "policy": 1}
    assert summary.coverage_mean == 0.75
    assert summary.registry_sizes["optimizer_family"] == 5
    assert summary.norms["loss"] == PRIORS[0]
    assert dict(summary.breakers) == {name: OPEN if name == "log" else CLOSED for name in BREAKERS}
    assert (summary.conservative, summary.conservative_reason) == (True, "breaker_log")


def test_a_mode_that_ended_has_no_reason_left(tmp_path):
    on = journal.ConservativeModeChanged(active=True, reason="loss_spike")
    off = journal.ConservativeModeChanged(active=False, reason="recovered")
    write_log(tmp_path, [on, off])
    with projected(tmp_path) as projection:
        summary = projection.summary()
    assert (summary.conservative, summary.conservative_reason) == (False, "")


def test_before_the_first_decision_the_policy_is_that_of_the_latest_opening(tmp_path):
    write_log(tmp_path, [opened("v1")], [opened("v2")])
    with projected(tmp_path) as projection:
        assert projection.summary().policy_version == "v2"


ODD = ["a\x00b", "\x00", "\\", "\\\\u0000", "\\u0000", "ünï 💥", "'; DROP TABLE decisions; --", " ", "[bold]x"]


def test_odd_ids_come_back_as_they_were(tmp_path):
    events = [opened()]
    for number, odd in enumerate(ODD, start=1):
        made = command(selected_seed=odd, selected_blueprint=odd, policy_version=odd)
        lsn = len(events) + 1
        events += [received(number), decided(lsn, made, reason=odd)]
        events.append(journal.RegistryAssigned(kind="seed_id", keys=[odd], first_index=number))
    write_log(tmp_path, events)
    with projected(tmp_path) as projection:
        assert list(projection.registries()["seed_id"]) == ODD
        assert set(projection.summary().by_reason) == set(ODD)
        assert [row[11] for row in projection.contents()["decisions"]] == ODD


BROKEN = {
    "an unknown kind": (999, b""),
    "bytes that are no message": (KINDS[journal.DecisionMade], b"\xff\xff"),
    "a command that is none": encode(journal.DecisionMade(step_lsn=2, command=b"\xff\xff")),
    "a report that is none": encode(journal.FieldReportIssued(step_lsn=2, report=b"\xff\xff")),
}


@pytest.mark.parametrize("record", BROKEN.values(), ids=BROKEN)
def test_a_record_that_cannot_be_read_leaves_rows_and_position_as_they_were(tmp_path, record):
    import wal

    write_log(tmp_path, [opened(), received()])
    with projected(tmp_path) as projection:
        before = projection.contents()
        with wal.Log.open(tmp_path / "wal") as log:
            log.append([encode(received(2)), record])
        with pytest.raises(JournalUnreadable):
            projection.catch_up(tmp_path / "wal")
        assert projection.contents() == before
