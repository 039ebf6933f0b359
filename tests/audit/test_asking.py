"""Audit level 3: whether the policy was to be asked, and what a host's own one answers now."""

import weakref
from pathlib import Path
from typing import Any

import pytest
from audit.runs import Moody, Together, asking, opened, training_packet

import wal
from tamiyo.audit import audit, replay
from tamiyo.bench.samples import small_graph
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.core.thresholds import Thresholds
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.stages import Stages
from tamiyo.testing import FixedPolicy
from tamiyo.testing.history import History

UNSOUND = FixedPolicy().propose(small_graph())._replace(value=float("nan"))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Together(), ""),
        (Together(key=None), ""),
        (Together(answers=()), ""),
        (Together(answers=[None, UNSOUND, "nothing"]), ""),
        (Together(one="nothing"), "answers with a malformed proposal: a str is no Proposal"),
        (Together(one=UNSOUND), "answers with a malformed proposal: value is no finite number"),
    ],
    ids=["sound", "no key", "too few", "unsound together", "no proposal", "not finite"],
)
def test_whatever_a_host_s_own_policy_answers_is_judged(tmp_path: Path, policy: Together, words: str) -> None:
    with opened(tmp_path, Together()) as tamiyo:
        for step in range(3):
            tamiyo.evaluate_step(training_packet(step))
    report = audit(tmp_path, level=3, policies=[policy])
    assert words in report.text
    assert report.verdict_line == ("audit: FAIL (level 3)" if words else "audit: PASS (levels 1, 2, 3)")


def test_a_policy_that_nothing_waits_for_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = ("first", "second")
    for version in versions:
        with opened(tmp_path, Together(identity=PolicyIdentity(version, "own", "python"))) as tamiyo:
            for step in range(3):
                tamiyo.evaluate_step(training_packet(step))
    spoke: dict[str, weakref.ref[Policy]] = {}

    def find(version: str, *_: object) -> Policy:
        known = spoke[version]() if version in spoke else None
        policy = known or Together(identity=PolicyIdentity(version, "own", "python"))
        spoke[version] = weakref.ref(policy)
        return policy

    inferences = asking()
    monkeypatch.setattr(inferences._policies, "find", find)
    replay(wal.read(tmp_path / "wal"), follower=inferences)
    assert [spoke[version]() is None for version in versions] == [True, False]
    assert inferences.finish().inferences == 6


class Wavering(Moody):
    """Says something else of the first seeds than it did."""

    def propose(self, graph: Graph) -> Proposal:
        return FixedPolicy(2 if graph.seed_ids[0] == "seed-0-0" else self.action).propose(graph)


def test_what_was_found_before_a_record_that_was_taken_out_stays_found(tmp_path: Path) -> None:
    with opened(tmp_path, Moody(), segment_bytes=2**16) as tamiyo:
        tamiyo.journal.checkpoint_steps = 4
        for step in range(60):
            tamiyo.evaluate_step(training_packet(step))
            tamiyo.flush()
    packets = [entry.lsn for entry in wal.read(tmp_path / "wal") if entry.kind == KINDS[journal.StepReceived]]
    with wal.Log.open(tmp_path / "wal") as log:
        assert log.redact(lambda entry: entry.lsn == packets[10]).records == 1
    assert audit(tmp_path, level=3, policies=[Moody()]).passed
    report = audit(tmp_path, level=3, policies=[Wavering()])
    assert [level.verdict for level in report.levels] == ["PASS", "PASS", "FAIL"]
    assert report.divergence is not None
    assert packets[0] < report.divergence.lsn < packets[1]


def test_what_waits_to_be_asked_is_asked_before_the_audit_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path, Together()) as tamiyo:
        tamiyo.evaluate_step(training_packet(0))
    inferences = asking(policies=[Together(action=2)])
    replay(wal.read(tmp_path / "wal"), follower=inferences)
    inferences.begin(None)
    assert inferences.finish().divergence is not None


class Restarting(History):
    """Another process takes the log up between a packet and its decision, which no service does."""

    def _receive(self, packet: pb.SystemStatePacket) -> Any:
        found = super()._receive(packet)
        self.open()
        return found


def test_no_step_is_decided_once_its_process_has_ended() -> None:
    history = Restarting()
    history.step(training_packet(0), FixedPolicy().propose(small_graph()))
    inferences = asking()
    assert replay(history.entries(), follower=inferences).divergence is None
    found = inferences.finish()
    assert found.divergence is not None
    assert "whose process had ended" in found.divergence.what


@pytest.mark.parametrize(
    ("cause", "step", "words"),
    [
        ("breaker_open", 0, "the inference breaker let a call through, and InferenceSkipped ('breaker_open')"),
        ("no_seed_candidates", 0, "are candidates and the inference breaker"),
        ("idleness", 0, "InferenceSkipped ('idleness')"),
        (None, 3, "no seed is a candidate, and InferenceFailed is recorded"),
        ("breaker_open", 3, "no seed is a candidate, and InferenceSkipped ('breaker_open')"),
    ],
)
def test_a_call_that_was_left_out_without_cause_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str | None, step: int, words: str
) -> None:
    monkeypatch.setattr(Stages, "_skip_cause", lambda *_: cause)
    with opened(tmp_path, Moody(error=RuntimeError("not today"))) as tamiyo:
        tamiyo.evaluate_step(training_packet(step))
    report = audit(tmp_path, level=3)
    assert [level.verdict for level in report.levels] == ["PASS", "PASS", "FAIL"]
    assert words in report.text


def test_a_call_that_an_open_breaker_left_out_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(directory: Path) -> list[str]:
        with opened(directory, Moody(error=RuntimeError("not today"))) as tamiyo:
            for _ in range(5):
                tamiyo.evaluate_step(training_packet(0))
        report = audit(directory, level=3)
        return [level.verdict for level in report.levels] + [report.text]

    *verdicts, text = run(tmp_path / "honest")
    assert verdicts == ["PASS", "PASS", "PASS"], text
    monkeypatch.setattr(Stages, "_skip_cause", lambda *_: None)
    *verdicts, text = run(tmp_path / "asked-all-the-same")
    assert verdicts == ["PASS", "PASS", "FAIL"]
    assert "the inference breaker was open, and InferenceFailed is recorded" in text


@pytest.mark.parametrize("cause", ["breaker_open", "no_seed_candidates"])
def test_of_a_breaker_that_cooled_down_without_a_candidate_older_logs_say_the_other_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    thresholds = Thresholds(breaker_cool_down_s=0.0)
    with opened(tmp_path, Moody(error=RuntimeError("not today")), thresholds=thresholds) as tamiyo:
        for _ in range(3):
            tamiyo.evaluate_step(training_packet(0))
        monkeypatch.setattr(Stages, "_skip_cause", lambda *_: cause)
        tamiyo.evaluate_step(training_packet(3))
    report = audit(tmp_path, level=3)
    assert [level.verdict for level in report.levels] == ["PASS"] * 3, report.text


def test_what_was_found_counts_where_the_rest_of_the_log_cannot_be_read(tmp_path: Path) -> None:
    with opened(tmp_path, Moody()) as tamiyo:
        tamiyo.evaluate_step(training_packet(0))
    with wal.Log.open(tmp_path / "wal") as log:
        log.append([(9_999, b"of a later version")])
    report = audit(tmp_path, level=3, policies=[Moody()])
    assert [level.verdict for level in report.levels] == ["PASS", "UNVERIFIABLE"], "and no word of a level 3 half done"
    report = audit(tmp_path, level=3, policies=[Moody(action=2)])
    assert [level.verdict for level in report.levels] == ["PASS", "UNVERIFIABLE", "FAIL"]
    assert report.divergence is not None
