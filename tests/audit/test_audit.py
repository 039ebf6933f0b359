"""The audit: a clean log passes, and any event that does not follow is named with its first difference."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from live import Live, library
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import audit, differences, replay
from tamiyo.audit.report import INTEGRITY
from tamiyo.cli import main
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, Event, decode, encode
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FailingPolicy
from wal.verify import STATUSES


@pytest.fixture(scope="module")
def history() -> list[wal.Entry]:
    """Steps of many kinds: quiet, spiking, failing, with a blueprint, across a restart."""
    policy = FailingPolicy(failing=False, action=0)
    live = Live(policy=policy, urza=library(risk=0.6))
    for index in range(12):
        policy.failing = index in (4, 5, 6)
        live.clock.advance(0.7)
        live.step(packet(validation_loss=0.5 + 0.3 * (index == 9), training_metrics={"grad_var": 2.0 * (index == 2)}))
        if index == 7:
            live.reopen()
    live.check()
    entries = live.entries()
    live.close()
    return entries


def test_a_clean_history_passes(history: list[wal.Entry]) -> None:
    found = replay(history)
    assert found.divergence is None
    assert found.decisions == 12


def change_command(event: journal.DecisionMade) -> None:
    command = pb.AdaptationCommand.FromString(event.command)
    command.annotations["risk_reason"] = "because"
    event.command = command.SerializeToString(deterministic=True)


def change_report(event: journal.FieldReportIssued) -> None:
    report = pb.FieldReport.FromString(event.report)
    report.metrics["loss_delta"] = 9.0
    event.report = report.SerializeToString(deterministic=True)


TAMPERED: dict[str, tuple[type[Event], Callable[[Event], object], str]] = {
    "command": (journal.DecisionMade, change_command, "command.annotations['risk_reason']"),
    "reason": (journal.DecisionMade, lambda e: setattr(e, "risk_reason", "x"), "risk_reason"),
    "row": (journal.DecisionMade, lambda e: e.rows.add(reason="x"), "rows["),
    "clean": (journal.DecisionMade, lambda e: setattr(e, "clean", not e.clean), "clean"),
    "outcome": (journal.DecisionMade, lambda e: e.outcomes.add(breaker="log"), "outcomes["),
    "report": (journal.FieldReportIssued, change_report, "report.metrics['loss_delta']"),
    "proposal": (journal.InferenceObserved, lambda e: setattr(e, "value", e.value + 1), "policy_value_estimate"),
    "coverage": (journal.GraphObserved, lambda e: e.total.__setitem__(0, e.total[0] + 9), "feature_coverage"),
    "packet": (journal.StepReceived, lambda e: setattr(e, "packet", b""), "cannot be recomputed"),
    "identity": (journal.StepReceived, lambda e: setattr(e, "decision_id", "other"), "command.command_id"),
    "breaker": (journal.BreakerMoved, lambda e: setattr(e, "cause", "x"), "cause"),
    "mode": (journal.ConservativeModeChanged, lambda e: setattr(e, "reason", "x"), "reason"),
    "thresholds": (journal.ServiceOpened, lambda e: e.thresholds.update({"blueprint_risk": 0.9}), "rows["),
}


def tampered(history: list[wal.Entry], kind: type[Event], change: Callable[[Event], object]) -> list[wal.Entry]:
    """The history with its last event of a kind changed (the first, for a service's opening)."""
    events = [decode(entry.kind, entry.payload) for entry in history]
    places = [index for index, event in enumerate(events) if isinstance(event, kind)]
    place = places[0] if kind is journal.ServiceOpened else places[-1]
    change(events[place])
    record_kind, payload = encode(events[place])
    return [*history[:place], wal.Entry(history[place].lsn, record_kind, payload), *history[place + 1 :]]


@pytest.mark.parametrize(("kind", "change", "words"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_record_that_does_not_follow_is_named(
    history: list[wal.Entry], kind: type[Event], change: Callable[[Event], object], words: str
) -> None:
    found = replay(tampered(history, kind, change))
    assert found.divergence is not None
    assert words in str(found.divergence) or found.divergence.differences
    assert found.divergence.state_digest_before.startswith("3:")


@pytest.mark.parametrize("kind", [journal.FieldReportIssued, journal.BreakerMoved, journal.ConservativeModeChanged])
def test_a_record_that_is_missing_is_named(history: list[wal.Entry], kind: type[Event]) -> None:
    places = [i for i, entry in enumerate(history) if isinstance(decode(entry.kind, entry.payload), kind)]
    kept = [entry for index, entry in enumerate(history) if index != places[-1]]
    renumbered = [wal.Entry(index, entry.kind, entry.payload) for index, entry in enumerate(kept, start=1)]
    assert replay(renumbered).divergence is not None


def test_a_log_that_ends_within_a_step_names_that_step(history: list[wal.Entry]) -> None:
    places = [
        i for i, entry in enumerate(history) if isinstance(decode(entry.kind, entry.payload), journal.DecisionMade)
    ]
    found = replay(history[: places[7]])
    assert found.divergence is not None
    assert found.divergence.step_index == 8
    assert f"LSN {places[7]}, step 8: a step was observed" in str(found.divergence)


def test_a_record_of_no_step_names_none(history: list[wal.Entry]) -> None:
    kind, payload = encode(FORGED["mode"])
    found = replay([*history, wal.Entry(len(history) + 1, kind, payload)])
    assert str(found.divergence).startswith(f"LSN {len(history) + 1}: nothing brought about")


def test_a_step_whose_decision_does_not_follow_is_not_called_undecided(tmp_path: Path) -> None:
    small_run(tmp_path / "true")
    last = [entry.lsn for entry in wal.read(tmp_path / "true/wal") if entry.kind == KINDS[journal.DecisionMade]][-1]
    with wal.Log.open(tmp_path / "forged/wal", segment_bytes=2**16) as log:
        for entry in wal.read(tmp_path / "true/wal"):
            event = decode(entry.kind, entry.payload)
            if entry.lsn == last:
                change_command(event)
            log.append([encode(event)])
    report = audit(tmp_path / "forged")
    assert report.verdict_line == "audit: FAIL (level 2)"
    assert f"LSN {last}, step 3: DecisionMade is not what follows" in report.text
    assert "never decided" not in report.text


FORGED = {
    "mode": journal.ConservativeModeChanged(active=True, reason="forged", event_time_ns=2**62),
    "report": journal.FieldReportIssued(step_lsn=3),
    "move of a step": journal.BreakerMoved(breaker="inference", from_state=1, to_state=2, step_lsn=3, cause="failures"),
    "move of no step": journal.BreakerMoved(breaker="inference", from_state=1, to_state=2, cause="failures"),
    "decision": journal.DecisionMade(step_lsn=3),
    "registry": journal.RegistryAssigned(kind="layer_type", keys=["forged"], first_index=1),
    "late commit": journal.CommitLate(decision_lsn=4, step_lsn=3),
    "observation": journal.InferenceSkipped(step_lsn=3, cause="breaker_open"),
    "blueprint": journal.BlueprintObserved(blueprint_id="x", digest="0" * 64, event_time_ns=2**62, content=b"\x0a\x00"),
}


@pytest.mark.parametrize("event", FORGED.values(), ids=FORGED.keys())
def test_a_record_that_nothing_brought_about_is_named(history: list[wal.Entry], event: Event) -> None:
    kind, payload = encode(event)
    found = replay([*history, wal.Entry(len(history) + 1, kind, payload)])
    assert found.divergence is not None
    assert found.divergence.lsn >= len(history)


def test_a_log_that_failed_and_came_back_passes() -> None:
    live = Live()
    for op in ("fdatasync", "pwrite"):
        live.step(packet())
        live.disk.fail(op, 5)
        for _ in range(6):
            live.step(packet())
            live.clock.advance(1.5)
            live.service.journal.wait_for_trial()
    live.check()
    assert any(isinstance(event, journal.StepsUnrecorded) for event in live.events())
    live.close()


def test_floats_are_compared_by_bits_with_their_distance() -> None:
    one = journal.InferenceObserved(value=1.0)
    other = journal.InferenceObserved(value=struct.unpack(">d", struct.pack(">q", 0x3FF0000000000003))[0])
    (found,) = differences(one, other)
    assert (found.path, found.ulps) == ("value", 3)
    assert str(found).endswith(" (3 ULP apart)")
    (far,) = differences(one, journal.InferenceObserved(value=-1.0))
    assert str(far) == "value: recomputed 1.0, recorded -1.0", "the distance says nothing there"
    nan = journal.InferenceObserved(value=float("nan"))
    assert list(differences(nan, nan)) == []


def small_run(directory: Path) -> None:
    with TamiyoService.open(directory, secret=SECRET, settings=Settings(segment_bytes=2**16)) as tamiyo:
        for _ in range(3):
            tamiyo.evaluate_step(packet())


def test_the_command_passes_a_clean_directory(tmp_path: Path) -> None:
    small_run(tmp_path)
    result = CliRunner().invoke(main, ["audit", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "audit: PASS (levels 1, 2)"
    assert audit(tmp_path, level=1).verdict_line == "audit: PASS (level 1)"
    as_json = json.loads(CliRunner().invoke(main, ["audit", "--json", str(tmp_path)]).output)
    assert as_json["verdict"] == "PASS"


def test_the_command_fails_on_a_flipped_bit_and_says_where(tmp_path: Path) -> None:
    small_run(tmp_path)
    segment = next((tmp_path / "wal").glob("*.wal"))
    data = bytearray(segment.read_bytes())
    place = data.index(b"run-1")
    data[place] ^= 1
    segment.write_bytes(data)
    result = CliRunner().invoke(main, ["audit", str(tmp_path)])
    assert result.exit_code == 1
    assert "audit: FAIL (level 1)" in result.output
    assert "of segment 1, after LSN" in result.output


def test_a_directory_without_a_log_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["audit", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "there is no log" in result.output


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="levels 1 to 3"):
        audit(tmp_path, level=4)


def test_every_verdict_on_a_log_has_a_meaning_for_level_1() -> None:
    assert set(INTEGRITY) == set(STATUSES)


def test_a_log_is_audited_against_the_head_that_was_kept_elsewhere(tmp_path: Path) -> None:
    small_run(tmp_path)
    head = wal.head(tmp_path / "wal")
    result = CliRunner().invoke(main, ["audit", str(tmp_path), "--head", str(head)])
    assert result.exit_code == 0, result.output
    assert "the expected head is confirmed" in result.output
    other = replace(head, root=b"o" * 32)
    result = CliRunner().invoke(main, ["audit", str(tmp_path), "--head", str(other)])
    assert result.exit_code == 1
    assert "tampered" in result.output
    longer = replace(head, size=head.size + 1)
    assert audit(tmp_path, head=longer).verdict_line == "audit: FAIL (level 1)"
    result = CliRunner().invoke(main, ["audit", str(tmp_path), "--head", "nothing"])
    assert result.exit_code == 2
    assert "is not a log's head" in result.output


@pytest.mark.parametrize("work", ["prune", "redact"])
def test_decisions_whose_grounds_were_taken_out_are_unverifiable_and_the_log_passes(tmp_path: Path, work: str) -> None:
    small_run(tmp_path)
    with wal.Log.open(tmp_path / "wal", segment_bytes=2**16) as log:
        early = log.head()
        for _ in range(80):
            log.append([(1, bytes(2000))])
        if work == "prune":
            log.prune(log.next_lsn)
        else:
            log.redact(lambda entry: entry.lsn == 2)
    report = audit(tmp_path)
    assert [level.verdict for level in report.levels] == ["PASS", "UNVERIFIABLE"]
    assert f"{work}" in report.text.replace("pruned", "prune").replace("redacted", "redact")
    if work == "prune":
        assert audit(tmp_path, level=1, head=early).verdict == "UNVERIFIABLE"
