"""The service as its host sees it: open, step, close, again; any input, and after any end of the process."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live, library
from rig import SECRET, packet, proposal

import tamiyo.probe as probe_module
import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import audit
from tamiyo.config import load_settings
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.errors import InvariantViolation, PacketRejected, SecretMissing, ServiceClosed, SettingsInvalid
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.probe import sync_ms
from tamiyo.signing import Verifier
from tamiyo.testing import FixedPolicy, ScriptedPolicy
from tamiyo.testing.strategies import hostile_bytes, packets


def test_a_step_is_durable_signed_and_accepted() -> None:
    live = Live()
    command = live.step(packet())
    assert Verifier(SECRET, wall_ns=live.clock.wall_ns).verify(command).accepted
    made = live.decisions()[-1]
    recorded = pb.AdaptationCommand.FromString(made.command)
    assert "signature" not in recorded.annotations
    del command.annotations["signature"]
    assert recorded == command
    assert command.command_id == live.events(journal.StepReceived)[-1].decision_id
    live.close()


def test_the_packet_is_kept_byte_for_byte() -> None:
    live = Live()
    data = packet(training_loss=0.5).SerializeToString() + b"\xd2\x3e\x03new"
    live.step(data)
    assert live.events(journal.StepReceived)[-1].packet == data
    live.close()


def test_the_same_packet_twice_is_two_steps() -> None:
    live = Live()
    one, other = live.step(packet()), live.step(packet())
    assert one.command_id != other.command_id
    assert live.service.state.decisions == 2
    live.close()


def test_a_policy_that_fell_back_says_so_from_then_on() -> None:
    policy = ScriptedPolicy(proposal(), PolicyIdentity("gnn", "v1", "compiled", is_compiled=True))
    live = Live(policy=policy)
    live.step(packet())
    policy.identity = replace(policy.identity, engine="eager", is_compiled=False, compile_fallbacks=1)
    live.step(packet())
    policy.identity = replace(policy.identity, version="another")
    live.step(packet())
    told = [event.identity for event in live.events(journal.InferenceObserved)]
    assert [(each.engine, each.compile_fallbacks) for each in told] == [("compiled", 0), ("eager", 1), ("compiled", 0)]
    assert {each.version for each in told} == {"gnn"}, "which policy it is does not change by itself"
    live.check()
    live.close()


def test_an_epoch_has_a_budget_of_its_own() -> None:
    live = Live(epoch_timeout_ms=1234)
    assert live.service.evaluate_epoch(packet()).execution_deadline_ms == 1234
    assert live.events(journal.StepReceived)[-1].call == "epoch"
    live.close()


def test_every_decision_has_one_field_report() -> None:
    live = Live()
    ids = [live.step(packet()).command_id for _ in range(3)]
    reports = [pb.FieldReport.FromString(event.report) for event in live.events(journal.FieldReportIssued)]
    assert [report.report_id for report in reports] == [f"fr-{command_id}" for command_id in ids]
    live.close()


def test_without_candidates_the_policy_is_not_asked() -> None:
    asked = []
    policy = FixedPolicy()
    spy = type("Spy", (), {"identity": policy.identity, "propose": lambda _, graph: asked.append(graph)})()
    live = Live(policy=spy)
    assert live.step(packet(pb.SEED_STAGE_FOSSILIZED)).annotations["risk_reason"] == "no_seed_candidates"
    assert live.step(packet(seeds=0)).annotations["risk_reason"] == "no_seed_candidates"
    assert asked == []
    live.close()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff", "do not parse"),
        (b"x" * (4 * 2**20 + 1), "over the limit"),
        (packet(seeds=1_025).SerializeToString(), "1025 seeds"),
    ],
)
def test_a_packet_that_cannot_be_used_is_rejected_counted_and_not_journaled(data: bytes, words: str) -> None:
    live = Live()
    before = live.service.state
    with pytest.raises(PacketRejected, match=words):
        live.step(data)
    assert live.service.packets_rejected == 1
    assert live.service.state is before
    assert live.step(packet()).command_id
    live.close()


@settings(max_examples=150)
@given(data=packets().map(lambda made: made.SerializeToString()) | hostile_bytes())
def test_any_input_gives_a_signed_command_or_is_rejected(shared: Live, data: bytes) -> None:
    try:
        command = shared.step(data)
    except PacketRejected:
        return
    assert command.annotations["signature"]
    assert command.annotations["risk_reason"]


@pytest.fixture(scope="module")
def shared() -> object:
    live = Live(policy=None, urza=library())
    yield live
    live.check()
    live.close()


def test_a_closed_service_says_so_and_may_be_closed_again() -> None:
    live = Live()
    live.close()
    live.close()
    with pytest.raises(ServiceClosed, match=r"open .* again"):
        live.step(packet())


def test_a_broken_invariant_stops_the_service_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live()
    monkeypatch.setattr("tamiyo.stages.decide", lambda *_: (_ for _ in ()).throw(InvariantViolation("a rule broke")))
    with pytest.raises(InvariantViolation, match="a rule broke"):
        live.step(packet())
    monkeypatch.undo()
    with pytest.raises(InvariantViolation, match="a rule broke"):
        live.step(packet())
    live.close()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"settings": {"step_timeout_ms": 10}}, SettingsInvalid, "is a dict: give Settings"),
        ({"policy": "network.safetensors"}, TypeError, "'network.safetensors' is a str, and no policy: .*load_policy"),
        ({"policy": FixedPolicy}, TypeError, "is a type, and no policy"),
        ({"policy": SimpleNamespace(identity="v1", propose=print)}, TypeError, "no policy"),
    ],
)
def test_what_is_given_in_the_wrong_form_is_named_and_nothing_is_opened(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        TamiyoService.open(tmp_path / "run", secret=SECRET, **given)
    assert not (tmp_path / "run").exists()


class Mistyped:
    propose = print

    @property
    def identity(self) -> object:
        return self.identiy  # type: ignore[attr-defined]


def test_what_a_policy_s_own_identity_stumbles_over_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"no policy: .*`propose` and `identity`, a .*PolicyIdentity") as caught:
        TamiyoService.open(tmp_path / "run", secret=SECRET, policy=Mistyped())
    assert "identiy" in str(caught.value.__cause__)


def test_without_a_secret_nothing_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPER_LEYLINE_SECRET", raising=False)
    with pytest.raises(SecretMissing):
        TamiyoService.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_settings_come_from_the_environment_and_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIYO_STEP_TIMEOUT_MS", "17")
    assert load_settings().step_timeout_ms == 17
    for over in ("9", "21"):
        monkeypatch.setenv("TAMIYO_METADATA_TIMEOUT_MS", over)
        with pytest.raises(SettingsInvalid, match=r"metadata_timeout_ms.*TAMIYO_"):
            load_settings()
    for within in ("10", "20"):
        monkeypatch.setenv("TAMIYO_METADATA_TIMEOUT_MS", within)
        assert load_settings().metadata_timeout_ms == int(within)


@pytest.mark.parametrize("make", [Settings, load_settings])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"step_timeout_ms": 0}, r"step_timeout_ms: .* greater than or equal to 1 \(got 0\)"),
        ({"step_timout_ms": 5}, r"step_timout_ms: .* not permitted"),
        ({"thresholds": {"max_loss_spike": "x"}}, r"thresholds\.max_loss_spike: .* valid number"),
    ],
)
def test_settings_in_code_are_refused_as_those_of_the_environment(
    make: Callable[..., Settings], given: dict[str, object], words: str
) -> None:
    with pytest.raises(SettingsInvalid, match=words):
        make(**given)


def test_settings_in_code_meet_what_the_environment_has_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIYO_THRESHOLDS", "abc")
    with pytest.raises(SettingsInvalid, match="a group is a JSON object"):
        Settings(step_timeout_ms=8)


def test_a_threshold_has_a_variable_of_its_own_and_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIYO_THRESHOLDS__MAX_LOSS_SPIKE", "0.5")
    monkeypatch.setenv("TAMIYO_LIMITS__SEEDS_MAX", "7")
    loaded = load_settings()
    assert (loaded.thresholds.max_loss_spike, loaded.limits.seeds_max) == (0.5, 7)
    for value, words in (("nan", "not a finite number"), ("-1", "below 0"), ("a lot", "max_loss_spike")):
        monkeypatch.setenv("TAMIYO_THRESHOLDS__MAX_LOSS_SPIKE", value)
        with pytest.raises(SettingsInvalid, match=words):
            load_settings()
    monkeypatch.setenv("TAMIYO_THRESHOLDS", "abc")
    with pytest.raises(SettingsInvalid):
        load_settings()


def test_a_variable_that_means_nothing_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TAMIYO_STEP_TIMEOUT_MSS", "17")
    load_settings()
    assert "did you mean TAMIYO_STEP_TIMEOUT_MS?" in caplog.text


def test_a_packet_that_no_segment_holds_is_rejected_and_the_service_goes_on() -> None:
    live = Live(segment_bytes=2**16)
    with pytest.raises(PacketRejected, match="TAMIYO_SEGMENT_BYTES"):
        live.step(packet(experiment_name="x" * 190_000))
    assert live.step(packet()).annotations["risk_reason"] == "policy"
    live.check()
    live.close()


def test_the_state_survives_closing_and_a_crash() -> None:
    live = Live(urza=library())
    for index in range(5):
        live.step(packet(validation_loss=1.0 - index / 10))
    live.reopen()
    live.check()
    steps = live.service.state.steps_received
    live.step(packet())
    live.crash()
    assert live.service.state.steps_received == steps + 1
    live.check()
    live.close()


def test_a_crash_in_the_policy_keeps_the_packet_that_caused_it() -> None:
    class Fatal(BaseException):
        pass

    live = Live()

    def die(*_: object) -> None:
        raise Fatal

    live.service._stages.propose = die
    with pytest.raises(Fatal):
        live.step(packet(training_loss=0.125))
    live.crash()
    assert len(live.service.state.undecided) == 1
    assert b"run-1" in live.events(journal.StepReceived)[-1].packet
    live.check()
    live.close()


HISTORY = st.lists(
    st.sampled_from(["step", "step", "step", "reopen", "crash", "spike", "time"]),
    max_size=12,
)


@settings(max_examples=40)
@given(HISTORY)
def test_live_and_replayed_never_differ(history: list[str]) -> None:
    live = Live(urza=library(risk=0.6))
    decided = 0
    for what in history:
        if what in ("step", "spike"):
            live.step(packet(training_loss=float("nan") if what == "spike" else 0.5))
            decided += 1
        elif what == "time":
            live.clock.advance(1.5)
        else:
            getattr(live, what)()
        live.check()
    assert live.service.state.decisions == decided
    live.close()


def test_thresholds_in_force_are_journaled_and_replayed(tmp_path: Path) -> None:
    live = Live()
    live.service.close()
    live.settings = live.settings.model_copy(
        update={"thresholds": live.settings.thresholds.__class__(hook_latency_max_ms=1.0, feature_coverage_low=-1.0)}
    )
    live.service = live._open()
    assert live.step(packet(training_metrics={"hook_latency_ms": 2.0})).annotations["risk_reason"] == "hook_budget"
    live.check()
    live.close()


KILLED = textwrap.dedent(
    """
    import sys
    from tamiyo import Settings, TamiyoService
    from tamiyo.leyline import leyline_pb2 as pb
    settings = Settings(step_timeout_ms=60_000, commit_timeout_ms=60_000, segment_bytes=2**16)
    with TamiyoService.open(sys.argv[1], secret="x" * 16, settings=settings) as tamiyo:
        while True:
            packet = pb.SystemStatePacket(training_run_id="run", training_loss=0.5)
            packet.seed_states.add(seed_id="seed", stage=pb.SEED_STAGE_DORMANT)
            print(tamiyo.evaluate_step(packet).command_id, flush=True)
    """
)


@pytest.mark.parametrize("after", [1, 7, 40])
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path, after: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(after)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout if len(line) == 37]
    process.wait()
    process.stdout.close()
    with TamiyoService.open(tmp_path, secret="x" * 16, settings=Settings(segment_bytes=2**16)) as tamiyo:
        tamiyo.evaluate_step(packet())
        steps = tamiyo.state.decisions
    found = {
        pb.AdaptationCommand.FromString(journal.DecisionMade.FromString(entry.payload).command).command_id
        for entry in wal.read(tmp_path / "wal")
        if entry.kind == 12
    }
    assert set(acknowledged) <= found
    assert steps >= len(acknowledged)
    report = audit(tmp_path)
    assert report.passed, report.text


def test_a_service_that_is_given_no_directory_has_the_documented_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TamiyoService.open(secret=SECRET, settings=Settings(segment_bytes=2**16)).close()
    assert (tmp_path / "var/tamiyo/gnn_norms.json").exists()


def test_closing_exports_norms_and_registries(tmp_path: Path) -> None:
    with TamiyoService.open(tmp_path, secret=SECRET, settings=Settings(segment_bytes=2**16)) as tamiyo:
        tamiyo.evaluate_step(packet(training_loss=0.5))
    assert "loss" in json.loads((tmp_path / "gnn_norms.json").read_text())
    assert json.loads((tmp_path / "seed_id_registry.json").read_text()) == {"seed-0": 1}
    assert (tmp_path / "projection.sqlite").exists()


def test_a_disk_that_cannot_meet_the_budget_is_named_at_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "sync_ms", lambda _: 7.25)
    probe_module.warn_of_a_slow_disk(tmp_path, 5)
    assert "takes 7.2 ms and the budget of a commit is 5 ms" in caplog.text
    caplog.clear()
    probe_module.warn_of_a_slow_disk(tmp_path, 8)
    assert caplog.text == ""
    TamiyoService.open(tmp_path, secret=SECRET, settings=Settings(commit_timeout_ms=7)).close()
    assert "the budget of a commit is 7 ms" in caplog.text
    monkeypatch.undo()
    assert 0.0 < sync_ms(tmp_path) < 60_000.0


def test_a_flush_rewrites_the_exported_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TamiyoService.open(tmp_path, secret=SECRET, settings=Settings(segment_bytes=2**16)) as tamiyo:
        tamiyo.evaluate_step(packet(training_loss=0.5))
        assert tamiyo.flush(60.0)
        assert json.loads((tmp_path / "seed_id_registry.json").read_text()) == {"seed-0": 1}
        written = (tmp_path / "gnn_norms.json").read_bytes()
        tamiyo.evaluate_step(packet(training_loss=0.9))
        (tmp_path / "gnn_norms.json").unlink()
        (tmp_path / "gnn_norms.json").mkdir()  # no file can take its place
        tamiyo.flush(60.0)
        assert "not up to date" in caplog.text, "said, and no more than that"
        (tmp_path / "gnn_norms.json").rmdir()
        tamiyo.flush(60.0)
        assert (tmp_path / "gnn_norms.json").read_bytes() != written, "made good as soon as it can be"


def test_exported_files_that_are_gone_or_changed_are_back_after_the_next_flush_or_close(tmp_path: Path) -> None:
    norms, seeds = tmp_path / "gnn_norms.json", tmp_path / "seed_id_registry.json"
    with TamiyoService.open(tmp_path, secret=SECRET, settings=Settings(segment_bytes=2**16)) as tamiyo:
        tamiyo.evaluate_step(packet(training_loss=0.5))
        assert tamiyo.flush(60.0)
        written = {path: path.read_bytes() for path in (norms, seeds)}
        norms.unlink()
        seeds.unlink()
        assert tamiyo.flush(60.0)
        assert {path: path.read_bytes() for path in written} == written
        norms.write_text("{}")
        seeds.write_text("{}")
    assert {path: path.read_bytes() for path in written} == written


@pytest.mark.parametrize("error", [OSError(28, "no space"), KeyboardInterrupt()])
def test_what_goes_wrong_while_opening_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(_: Path) -> float:
        raise error

    monkeypatch.setattr(probe_module, "sync_ms", fails)
    try:
        TamiyoService.open(tmp_path, secret=SECRET, settings=Settings(segment_bytes=2**16)).close()
    except KeyboardInterrupt:
        assert isinstance(error, KeyboardInterrupt)
    monkeypatch.undo()
    TamiyoService.open(tmp_path, secret=SECRET, settings=Settings(segment_bytes=2**16)).close()
