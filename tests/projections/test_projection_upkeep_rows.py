"""Rows of reports, deliveries, pauses and the log's own upkeep, and what a planned retention run takes of them."""

import json

import pytest
from projection_rig import command, decided, made_new, observed, open_log, opened, projected, received, step, write_log

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of
from tamiyo.core.events import KINDS, encode
from tamiyo.core.state import State
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection
from tamiyo.projections.forgetting import FORGOTTEN
from tamiyo.projections.models import Base
from tamiyo.projections.projectors import PROJECTORS


def issued(step_lsn, report_id="fr-c-1", *, synthesised=False, **metrics):
    report = pb.FieldReport(
        version=1, report_id=report_id, command_id="c-1", training_run_id="run-1", seed_id="s-1", blueprint_id="b-1",
        outcome=pb.FIELD_REPORT_OUTCOME_NEUTRAL, observation_window_epochs=1, tamiyo_policy_version="v1", notes="why",
    )  # fmt: skip
    report.issued_at.FromNanoseconds(77)
    report.metrics.update(metrics)
    return journal.FieldReportIssued(step_lsn=step_lsn, report=report.SerializeToString(), synthesised=synthesised)


def attempted(*lsns, attempt=1, succeeded=False):
    return journal.PublishAttempted(
        report_lsns=lsns,
        report_ids=["r"] * len(lsns),
        attempt=attempt,
        succeeded=succeeded,
        cause="no",
        event_time_ns=9,
    )


def table(directory, name, *events):
    write_log(directory, *[[event] for event in events])
    columns = [column.name for column in Base.metadata.tables[name].columns]
    return [dict(zip(columns, row, strict=True)) for row in made_new(directory)[name]]


def test_a_report_row_says_all_that_the_report_says(tmp_path):
    (row,) = table(tmp_path, "field_reports", opened(), issued(0, loss_delta=0.5, odd=float("nan"), most=float("inf")))
    assert json.loads(row.pop("metrics")) == {"loss_delta": 0.5, "most": None, "odd": None}
    assert row == {
        "lsn": 2, "step_lsn": 0, "report_id": "fr-c-1", "command_id": "c-1", "training_run_id": "run-1",
        "seed_id": "s-1", "blueprint_id": "b-1", "policy_version": "v1", "outcome": pb.FIELD_REPORT_OUTCOME_NEUTRAL,
        "observation_window": 1, "synthesised": False, "issued_unix_ns": 77, "notes": "why", "attempt_lsn": None,
        "attempts": None, "succeeded": None, "cause": None, "attempted_at_ns": None, "dropped_lsn": None,
        "superseded_lsn": None, "status": "pending",
    }  # fmt: skip


LATE = journal.CommitLate(decision_lsn=1, step_lsn=0, released_command_id="safe", cause="timeout_wal", event_time_ns=8)
DROPPED = journal.FieldReportsDropped(report_lsns=[2], report_ids=["r"], attempts=2)

# what followed a report at LSN 2, its status, its attempts
LIVES = [
    ((), "pending", None),
    ((attempted(2),), "retrying", 1),
    ((attempted(2, succeeded=True),), "published", 1),
    ((attempted(2), attempted(2, attempt=2, succeeded=True)), "published", 2),
    ((attempted(2), attempted(2, attempt=2), DROPPED), "dropped", 2),
    ((LATE,), "superseded", None),
]


@pytest.mark.parametrize(("events", "status", "attempts"), LIVES, ids=[f"{life[1]}-{len(life[0])}" for life in LIVES])
def test_a_report_has_the_status_that_its_last_record_gives_it(tmp_path, events, status, attempts):
    write_log(tmp_path, [opened()], [issued(0)])
    with projected(tmp_path):
        pass
    write_log(tmp_path, list(events) or [opened(event_time_ns=2)])
    with projected(tmp_path) as projection:
        (row,) = projection.contents()["field_reports"]
        assert (row[-1], row[15]) == (status, attempts)
        assert dict(projection.summary().reports) == {status: 1}
        assert projection.contents() == made_new(tmp_path)


def test_a_late_commit_supersedes_the_report_of_its_own_step_and_no_other(tmp_path):
    late = journal.CommitLate(decision_lsn=4, step_lsn=2, released_command_id="safe", cause="timeout_wal")
    found = table(
        tmp_path, "field_reports", opened(), received(), observed(2), decided(2), issued(2, "own"),
        issued(2, "window", synthesised=True), late, issued(2, "pause"),
    )  # fmt: skip
    assert {row["report_id"]: row["status"] for row in found} == {
        "own": "superseded", "window": "pending", "pause": "pending"
    }  # fmt: skip


def test_what_became_of_commands_and_who_asked_for_what_is_kept(tmp_path):
    delivered = journal.CommandDelivered(command_id="c-1", outcome="applied", detail="d", event_time_ns=5)
    directed = journal.OperatorDirected(
        directive="conservative_on", operator="ada", reason="why", request_id="q", event_time_ns=6
    )
    lost = journal.StepsUnrecorded(first_step_index=3, last_step_index=5, count=3, cause="log_failed", event_time_ns=7)
    write_log(tmp_path, [opened(), delivered, directed, lost])
    found = made_new(tmp_path)
    assert found["deliveries"] == [(2, "c-1", "applied", "d", 5)]
    assert found["directives"] == [(3, "conservative_on", "ada", "why", "q", 6)]
    assert found["unrecorded_steps"] == [(4, 3, 5, "log_failed", 7)]


def test_a_pause_that_was_released_without_a_decision_is_kept_and_its_step_waits_no_more(tmp_path):
    paused = journal.StepPaused(step_lsn=2, released_command_id="safe", cause="log_full", event_time_ns=5)
    write_log(tmp_path, [opened(), received(), paused])
    found = made_new(tmp_path)
    assert found["released_pauses"] == [(3, 2, None, "safe", "log_full", 5)]
    assert found["undecided_steps"] == []


def test_how_inference_ended_is_part_of_the_decision(tmp_path):
    identity = journal.PolicyIdentity(version="v1", architecture="a", engine="e", checkpoint_digest="d")
    outcomes = (
        journal.InferenceObserved(identity=identity, elapsed_ns=5),
        journal.InferenceTimedOut(identity=identity, elapsed_ns=6),
        journal.InferenceFailed(identity=identity, elapsed_ns=7),
        journal.InferenceSkipped(identity=identity, cause="breaker_open"),
    )
    events = [opened()]
    for index, outcome in enumerate(outcomes, start=1):
        outcome.step_lsn = len(events) + 1
        events += [received(index), outcome, decided(outcome.step_lsn)]
    found = table(tmp_path, "decisions", *events)
    assert [(row["inference"], row["inference_elapsed_ns"]) for row in found] == [
        ("observed", 5), ("timed_out", 6), ("failed", 7), ("skipped", None)
    ]  # fmt: skip
    assert len({row["policy_id"] for row in found}) == 1
    assert [row[1:] for row in made_new(tmp_path)["policies"]] == [("v1", "a", "e", "d")]


def test_a_retention_run_is_a_row_with_its_windows_and_its_end(tmp_path):
    plan = journal.RetentionPlanned(run_id="r-1", event_time_ns=4, prune_before_lsn=1, base_lsn=0, archive="/a")
    plan.payloads.add(kind=KINDS[journal.FieldReportIssued], window_ns=5, upto_lsn=1)
    plan.payloads.add(kind=999, window_ns=6, upto_lsn=1)
    done = journal.RetentionCompleted(
        run_id="r-1", event_time_ns=5, first_lsn=1, freed_bytes=6, payloads_redacted=7, digest_lsn=8, digest="3:d",
        resumed=True,
        segments=[journal.PrunedSegment(segment=4, first_lsn=1, last_lsn=2, size_bytes=3, archived_as="x.zst",
                                        archived_sha256="s")],
    )  # fmt: skip
    (row,) = table(tmp_path, "retention_runs", opened(), plan, done)
    assert json.loads(row.pop("payloads")) == [
        {"kind": "FieldReportIssued", "window_ns": 5, "upto_lsn": 1}, {"kind": 999, "window_ns": 6, "upto_lsn": 1}
    ]  # fmt: skip
    assert row == {
        "lsn": 2, "run_id": "r-1", "event_time_ns": 4, "prune_before_lsn": 1, "base_lsn": 0, "archive": "/a",
        "completed_lsn": 3, "completed_at_ns": 5, "first_lsn": 1, "freed_bytes": 6, "payloads_redacted": 7,
        "digest_lsn": 8, "digest": "3:d", "resumed": True,
    }  # fmt: skip
    assert made_new(tmp_path)["pruned_segments"] == [(3, 4, "r-1", 1, 2, 3, "x.zst", "s")]


def test_bases_and_snapshots_are_rows(tmp_path):
    base = journal.StateBase(at_lsn=1, needs_lsn=1, digest="3:d", event_time_ns=2)
    taken = journal.SnapshotTaken(at_lsn=1, digest="3:e", stored=True, event_time_ns=3)
    write_log(tmp_path, [opened(), base, taken])
    found = made_new(tmp_path)
    assert found["bases"] == [(2, 1, 1, "3:d", 2)]
    assert found["snapshots"] == [(3, 1, "3:e", True, 3)]


def test_every_record_that_leaves_rows_can_be_forgotten():
    assert set(FORGOTTEN) == set(PROJECTORS)


def forgetting(directory, kind, upto_lsn, prune_before_lsn=0):
    """The log of two steps, of which a run is planned to take a kind's payloads; the decisions' rows, by column."""
    identity = journal.PolicyIdentity(version="v1")
    write_log(
        directory,
        [opened(), received(1), observed(2), journal.InferenceObserved(step_lsn=2, identity=identity), decided(2)],
        [issued(2), attempted(6)],
        [received(2), observed(8), journal.InferenceTimedOut(step_lsn=8, identity=identity), decided(8)],
    )
    plan = journal.RetentionPlanned(run_id="r", prune_before_lsn=prune_before_lsn)
    if kind is not None:
        plan.payloads.add(kind=KINDS[kind], upto_lsn=upto_lsn)
    return table(directory, "decisions", plan), made_new(directory)


def test_a_step_that_is_taken_leaves_a_decision_without_its_number(tmp_path):
    found, _ = forgetting(tmp_path, journal.StepReceived, 2)
    assert [row["step_index"] for row in found] == [None, 2]


def test_a_graph_that_is_taken_leaves_a_decision_without_coverage(tmp_path):
    found, _ = forgetting(tmp_path, journal.GraphObserved, 3)
    assert [(row["coverage"], row["graph_lsn"]) for row in found] == [(None, None), (0.75, 9)]


def test_an_inference_that_is_taken_leaves_a_decision_without_it_and_others_alone(tmp_path):
    found, tables = forgetting(tmp_path, journal.InferenceObserved, 99)
    assert [row["inference"] for row in found] == [None, "timed_out"]
    assert len(tables["policies"]) == 1


def test_a_decision_that_is_taken_leaves_no_row(tmp_path):
    found, tables = forgetting(tmp_path, journal.DecisionMade, 5)
    assert [row["lsn"] for row in found] == [11]
    assert tables["undecided_steps"] == []


def test_a_report_that_is_taken_leaves_no_row_and_an_attempt_that_is_leaves_it_pending(tmp_path):
    _, tables = forgetting(tmp_path / "one", journal.FieldReportIssued, 6)
    assert tables["field_reports"] == []
    _, tables = forgetting(tmp_path / "other", journal.PublishAttempted, 7)
    assert [row[-1] for row in tables["field_reports"]] == ["pending"]


def test_a_prune_takes_every_row_below_its_lsn_and_the_policies_that_only_those_named(tmp_path):
    found, tables = forgetting(tmp_path / "one", None, 0, prune_before_lsn=9)
    assert [(row["lsn"], row["step_index"], row["coverage"]) for row in found] == [(11, None, 0.75)]
    assert (tables["openings"], tables["field_reports"]) == ([], [])
    assert len(tables["policies"]) == 1
    found, tables = forgetting(tmp_path / "other", None, 0, prune_before_lsn=12)
    assert (found, tables["policies"]) == ([], [])


def pruned_log(directory, *batches):
    """A log of small segments, pruned as far as it can be below its last batch; the LSN that is left first."""
    with wal.Log.open(directory / "wal", segment_bytes=8192) as log:
        for batch in batches:
            log.append([encode(event) for event in batch])
        return log.prune(log.durable_lsn - 1).first_lsn


def many_steps(number):
    return [[opened()], *(step(2 + 3 * index, index + 1) for index in range(number))]


def test_a_log_without_a_beginning_and_without_a_base_is_a_clear_error(tmp_path):
    first_lsn = pruned_log(tmp_path, *many_steps(60))
    assert first_lsn > 1
    with Projection.open(tmp_path) as projection:
        with pytest.raises(JournalUnreadable, match="StateBase"):
            projection.catch_up(tmp_path / "wal")
        assert projection.applied_lsn == 0


def test_a_base_that_is_not_what_its_digest_says_is_a_clear_error(tmp_path):
    base = base_of(State(last_lsn=181), {}, 5)
    base.state.decisions = 99
    pruned_log(tmp_path, *many_steps(60), [base], *([opened(event_time_ns=5 + index)] for index in range(3)))
    with Projection.open(tmp_path) as projection, pytest.raises(JournalUnreadable, match="cannot be read"):
        projection.catch_up(tmp_path / "wal")


def test_what_stands_comes_from_the_base_and_goes_on_from_there(tmp_path):
    state = State(last_lsn=181, decisions=60, policy_version="v9")
    batches = [*many_steps(60), [base_of(state, {}, 5)], step(183, 61)]
    first_lsn = pruned_log(tmp_path, *batches)
    with projected(tmp_path) as projection:
        summary = projection.summary()
        assert (summary.decisions, summary.applied_lsn) == (61, 185)
        assert 1 < first_lsn <= projection.contents()["decisions"][0][0]
        assert projection.rebuilt_because == ""


def test_a_projection_that_the_log_was_pruned_past_is_made_anew_and_says_so(tmp_path):
    batches = many_steps(60)
    write_log(tmp_path / "whole", *batches)
    with wal.Log.open(tmp_path / "wal", segment_bytes=8192) as log:
        for batch in batches:
            log.append([encode(event) for event in batch])
        with Projection.open(tmp_path) as projection:
            projection.catch_up(log, limit=5)
            log.append([encode(base_of(State(last_lsn=181, decisions=60), {}, 5))])
            log.append([encode(opened(event_time_ns=9))])
            assert log.prune(100).first_lsn > 6
            projection.catch_up(log)
            assert "pruned" in projection.rebuilt_because
            assert projection.applied_lsn == 183


def test_a_follower_whose_place_is_pruned_while_it_reads_begins_again(tmp_path):
    with wal.Log.open(tmp_path / "wal", segment_bytes=8192) as log, Projection.in_memory() as projection:
        for batch in many_steps(30):
            log.append([encode(event) for event in batch])
        projection.catch_up(log, limit=5)  # its reader stands in the first segment
        for number in range(30, 60):
            log.append([encode(event) for event in step(2 + 3 * number, number + 1)])
        log.append([encode(base_of(State(last_lsn=181, decisions=60), {}, 5))])
        log.append([encode(opened(event_time_ns=9))])
        log.prune(150)
        projection.catch_up(log)
        assert "pruned" in projection.rebuilt_because
        assert (projection.applied_lsn, projection.summary().decisions) == (183, 60)


def test_what_was_pruned_without_a_plan_is_forgotten_once_the_log_is_seen_to_begin_later(tmp_path):
    with wal.Log.open(tmp_path / "wal", segment_bytes=8192) as log, Projection.in_memory() as projection:
        for batch in many_steps(60):
            log.append([encode(event) for event in batch])
        log.append([encode(base_of(State(last_lsn=181, decisions=60), {}, 5))])
        projection.catch_up(log)
        assert len(projection.contents()["decisions"]) == 60
        first_lsn = log.prune(100).first_lsn
        assert projection.catch_up(log) == 0
        assert first_lsn <= projection.contents()["decisions"][0][0] < first_lsn + 3
        assert projection.rebuilt_because == ""
        with Projection.in_memory() as fresh:
            fresh.catch_up(log)
            assert fresh.contents()["decisions"] == projection.contents()["decisions"]


def test_a_policy_that_only_a_step_without_a_decision_named_leaves_no_row(tmp_path):
    asked = journal.InferenceFailed(step_lsn=2, identity=journal.PolicyIdentity(version="v1"))
    paused = journal.StepPaused(step_lsn=2, released_command_id="safe", cause="log_full")
    write_log(tmp_path, [opened(), received(), asked])
    assert len(made_new(tmp_path)["policies"]) == 1
    write_log(tmp_path, [paused])
    assert made_new(tmp_path)["policies"] == []


def test_a_record_that_is_unknown_is_refused_though_its_payload_is_gone(tmp_path):
    with wal.Log.open(tmp_path / "wal", segment_bytes=8192) as log, Projection.in_memory() as projection:
        log.append([(999, b"")])
        for batch in many_steps(30):
            log.append([encode(event) for event in batch])
        assert log.redact(lambda entry: entry.kind == 999).records == 1
        with pytest.raises(JournalUnreadable, match="newer"):
            projection.catch_up(log)


def test_a_decision_whose_step_the_log_does_not_hold_is_a_row_without_it(tmp_path):
    (row,) = table(tmp_path, "decisions", opened(), decided(99, command(policy_version="v")))
    assert (row["step_lsn"], row["step_index"], row["coverage"]) == (99, None, None)
    with open_log(tmp_path) as log:
        assert log.durable_lsn == 2
