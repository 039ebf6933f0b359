"""`tamiyo run`, the whole of it, a few steps at a time."""

import json
import os
import shutil
import signal
from collections import Counter

import pytest
from click.testing import CliRunner, Result

import wal
from tamiyo.cli.run import command
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import decode
from tamiyo.demo import display
from tamiyo.demo.session import fill, last_checkpoint, spare_a_core
from tamiyo.demo.sizing import example_graph
from tamiyo.demo.summary import latencies, read_log
from tamiyo.integrations.kasmina.lifecycle import name_of_stage
from tamiyo.integrations.urza import UrzaLibrary
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.checkpoint import init_checkpoint
from tamiyo.stages import StepTimings


@pytest.fixture(autouse=True)
def _own_secret_and_no_hurry(monkeypatch):
    """No secret in the environment, and budgets that a slow disk or a busy machine cannot miss."""
    monkeypatch.delenv("ESPER_LEYLINE_SECRET", raising=False)
    monkeypatch.setenv("TAMIYO_STEP_TIMEOUT_MS", "60000")
    monkeypatch.setenv("TAMIYO_COMMIT_TIMEOUT_MS", "60000")


def run(out, *options: object) -> Result:
    return CliRunner().invoke(command, ["--out", str(out), *map(str, options)], catch_exceptions=False)


def decisions(out) -> list[journal.DecisionMade]:
    events = (decode(entry.kind, entry.payload) for entry in wal.read(out / "wal"))
    return [event for event in events if isinstance(event, journal.DecisionMade)]


def test_a_run_trains_logs_audits_and_sums_up(tmp_path):
    result = run(tmp_path, "--steps", 25)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "audit: PASS (levels 1, 2)"
    assert last_checkpoint(tmp_path)["step"] == 25
    assert len(decisions(tmp_path)) == 25
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["run_id"], summary["steps"], summary["audit"]) == (
        "digits-0",
        25,
        "audit: PASS (levels 1, 2)",
    )
    assert sum(summary["decisions"].values()) == 25
    assert sum(summary["outcomes"].values()) == 25
    assert {"graph", "inference", "decide", "commit", "total"} <= set(summary["latencies_ms"])
    assert set(summary["seeds"]) == {"seed-1", "seed-2", "seed-3"}
    assert 0.0 < summary["validation_accuracy"] <= 1.0


def test_a_trace_of_the_first_steps_shows_the_stages_beside_the_training(tmp_path):
    result = run(tmp_path / "run", "--steps", 22, "--profile", tmp_path / "trace.json")
    assert result.exit_code == 0
    assert len(decisions(tmp_path / "run")) == 22
    names = Counter(event.get("name") for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"])
    assert names["tamiyo: propose"] == names["tamiyo: commit"] == 20
    assert any("backward" in str(name).lower() for name in names)


def test_the_log_says_what_became_of_every_command(tmp_path):
    assert run(tmp_path, "--steps", 12).exit_code == 0
    events = [decode(entry.kind, entry.payload) for entry in wal.read(tmp_path / "wal")]
    delivered = [event for event in events if isinstance(event, journal.CommandDelivered)]
    assert [event.command_id for event in delivered] == [made.command_id for made in decisions(tmp_path)]
    assert {event.outcome for event in delivered} <= {"applied", "refused"}


def test_the_generated_secret_is_for_its_owner_alone(tmp_path):
    run(tmp_path, "--steps", 1)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_with_a_secret_in_the_environment_none_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPER_LEYLINE_SECRET", "0123456789abcdef0123456789abcdef")
    assert run(tmp_path, "--steps", 1).exit_code == 0
    assert not (tmp_path / "secret").exists()


def test_a_run_that_is_complete_trains_nothing_and_says_how_to_extend_it(tmp_path):
    run(tmp_path, "--steps", 4)
    figures = (tmp_path / "summary.json").read_text()
    result = run(tmp_path, "--steps", 4)
    assert result.exit_code == 0
    assert "nothing more to train" in result.output
    assert f"--out {tmp_path} --steps" in result.output
    assert result.output.splitlines()[-1] == "audit: PASS (levels 1, 2)"
    assert len(decisions(tmp_path)) == 4
    assert (tmp_path / "summary.json").read_text() == figures


def test_a_longer_run_in_the_same_directory_continues(tmp_path):
    run(tmp_path, "--steps", 4)
    result = run(tmp_path, "--steps", 7)
    assert "from step 4 of 7; its log has 4 steps" in result.output
    assert "fewer than were trained" not in result.output
    assert result.exit_code == 0
    assert len(decisions(tmp_path)) == 7


def test_a_log_that_was_replaced_is_noticed_by_its_steps(tmp_path):
    run(tmp_path / "short", "--steps", 2)
    run(tmp_path, "--steps", 4)
    shutil.rmtree(tmp_path / "wal")
    shutil.copytree(tmp_path / "short" / "wal", tmp_path / "wal")
    result = run(tmp_path, "--steps", 5)
    assert "from step 4 of 5; its log has 2 steps" in result.output
    assert "that is fewer than were trained: the log is another one now" in result.output


def test_another_seed_in_the_same_directory_is_refused(tmp_path):
    run(tmp_path, "--steps", 2)
    result = run(tmp_path, "--steps", 4, "--seed", 1)
    assert result.exit_code == 1
    assert "'digits-0'" in result.output
    assert "'digits-1'" in result.output
    assert len(decisions(tmp_path)) == 2


def test_a_directory_that_cannot_be_made_is_said_to_be_that_of_the_run(tmp_path):
    (tmp_path / "file").touch()
    result = run(tmp_path / "file" / "run", "--steps", 2)
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.startswith("Error: "))
    assert f"the run in {tmp_path}/file/run cannot go on: [Errno 20] Not a directory" in line
    assert "look at the path, its permissions and its disk" in line


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    run(tmp_path, "--steps", 2)
    (tmp_path / "training.pt").write_bytes(b"not a checkpoint")
    result = run(tmp_path, "--steps", 4)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "move it away" in result.output


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_continue(tmp_path, monkeypatch):
    shown = display._print_line

    def press(console, trainer, result, steps):
        shown(console, trainer, result, steps)
        if result.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(display, "_print_line", press)
    handler = signal.getsignal(signal.SIGINT)
    result = run(tmp_path, "--steps", 9)
    assert result.exit_code == 130
    assert f"tamiyo run --out {tmp_path} --steps 9" in result.output
    stopped_at = last_checkpoint(tmp_path)["step"]
    assert stopped_at in (3, 4)  # the signal is seen at the latest in the step after
    assert len(decisions(tmp_path)) == stopped_at
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.setattr(display, "_print_line", shown)
    assert run(tmp_path, "--steps", 9).exit_code == 0
    assert len(decisions(tmp_path)) == 9


def test_an_audit_that_fails_makes_the_run_fail(tmp_path):
    run(tmp_path, "--steps", 3)
    segment = max((tmp_path / "wal").glob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    at = data.index(b"digits-0/2")
    data[at] ^= 1
    segment.write_bytes(data)
    result = run(tmp_path, "--steps", 3)
    assert result.exit_code == 1
    assert "audit: FAIL" in result.output


def test_a_checkpoint_decides_under_a_budget_that_it_can_meet_and_the_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TAMIYO_STEP_TIMEOUT_MS", "1")
    version = init_checkpoint(tmp_path / "net.safetensors", seed=0).version
    result = run(tmp_path / "run", "--steps", 2, "--policy", tmp_path / "net.safetensors")
    assert result.exit_code == 0
    assert f"{version} decides; its step budget is " in result.output
    opened = [decode(entry.kind, entry.payload) for entry in wal.read(tmp_path / "run" / "wal") if entry.kind == 1]
    assert [event.policy_version for event in opened] == [version]
    assert opened[0].step_budget_ms > 1


def test_the_graph_that_a_policy_is_measured_on_holds_all_that_the_steps_will(tmp_path):
    with UrzaLibrary.open(tmp_path / "urza.sqlite") as library:
        fill(library, 0)
        graph = example_graph(library, 0)
    assert graph.candidates == (0, 1, 2)
    assert graph.ignored_inputs == 0
    counts = graph.node_counts()
    assert (counts["seed"], counts["blueprint"]) == (3, 4)
    assert min(counts["layer"], counts["activation"], counts["parameter"]) > 0
    assert graph.blueprint_ids[graph.host_blueprint_index] == "digits-0"


def test_a_late_commit_counts_as_the_pause_that_was_released(tmp_path):
    with wal.Log.open(tmp_path / "wal") as log:
        command_ = pb.AdaptationCommand(command_type=pb.COMMAND_SEED).SerializeToString()
        made = journal.DecisionMade(command=command_, risk_reason="policy").SerializeToString()
        first = log.append([(12, made), (12, made)])
        late = journal.CommitLate(decision_lsn=first.first_lsn, cause="timeout_wal").SerializeToString()
        lost = journal.StepsUnrecorded(count=3, cause="log_failed").SerializeToString()
        log.append([(16, late), (17, lost)])
    counted = read_log(tmp_path)
    assert dict(counted.decisions) == {
        ("SEED", "policy"): 1,
        ("PAUSE", "timeout_wal"): 1,
        ("PAUSE", "log_failed"): 3,
    }
    assert counted.steps == 5
    assert counted.records == 4
    assert counted.bytes_per_step == counted.record_bytes / 5


def test_latencies_are_percentiles_of_each_stage():
    rows = latencies([StepTimings(total_ns=n * 1_000_000) for n in range(1, 101)])
    total = next(row for row in rows if row.stage == "total")
    assert (total.p50_ms, total.max_ms) == (50.5, 100.0)
    assert total.p50_ms < total.p95_ms < total.p99_ms < total.max_ms
    assert latencies([]) == ()


def test_one_core_is_left_to_the_log_and_the_policy():
    import torch

    before = torch.get_num_threads()
    try:
        assert [spare_a_core(cores) for cores in (1, 2, 3, 16)] == [1, 1, 2, 4]
    finally:
        torch.set_num_threads(before)


def test_seeds_in_the_summary_bear_the_names_of_their_stages(tmp_path):
    run(tmp_path, "--steps", 1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {facts["stage"] for facts in summary["seeds"].values()} <= {
        name_of_stage(stage) for stage in pb.SeedLifecycleStage.values()
    }
