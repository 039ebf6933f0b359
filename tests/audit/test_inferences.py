"""Audit level 3: graphs and inferences come out again as they are recorded, and what does not is named."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from audit.runs import Moody, asking, opened, training_packet
from click.testing import CliRunner

import wal
from tamiyo.audit import audit, replay
from tamiyo.audit.agreement import CLOSE, EQUAL, SAME_CHOICE, Reinference
from tamiyo.audit.graphs import CONTENT, SCHEMA
from tamiyo.audit.inference import Inferences
from tamiyo.bench.samples import OneHost, host, small_graph
from tamiyo.cli import main
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.events import KINDS, Event, decode, encode
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.policy.checkpoint import init_checkpoint, load_policy
from tamiyo.testing import FixedPolicy
from tamiyo.testing.history import History
from tamiyo.testing.library import MemoryLibrary

PAGE = Path(__file__).resolve().parents[2] / "docs/audit.md"
STEPS = 24
CHECKPOINT_SEED = 7


@dataclass(frozen=True)
class Recorded:
    """A run's directory, and the file of the network that decided its second half."""

    directory: Path
    checkpoint: Path

    def entries(self) -> list[wal.Entry]:
        return list(wal.read(self.directory / "wal"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Half a run by the baseline, then a restart, and half by a network."""
    folder = tmp_path_factory.mktemp("inferences")
    checkpoint = init_checkpoint(folder / "untrained.safetensors", CHECKPOINT_SEED)
    for policy, steps in ((None, range(STEPS // 2)), (load_policy(checkpoint.path), range(STEPS // 2, STEPS))):
        with opened(folder / "run", policy) as tamiyo:
            for step in steps:
                tamiyo.evaluate_step(training_packet(step))
    return Recorded(folder / "run", checkpoint.path)


def again(
    entries: Iterable[wal.Entry],
    checkpoints: Iterable[Path] = (),
    policies: Iterable[Policy] = (),
    base: journal.StateBase | None = None,
) -> Reinference:
    """What level 3 says of entries that level 2 finds nothing wrong with."""
    inferences = asking(checkpoints, policies)
    inferences.begin(base)
    found = replay(entries, base=base, follower=inferences)
    assert found.divergence is None, str(found.divergence)
    return inferences.finish()


class Forgetful:
    """Follows as another does, and never hears of a blueprint."""

    def __init__(self, inner: Inferences) -> None:
        self.inner = inner

    def recall(self, lsn: int, event: Event, state: Standing) -> None:
        raise AssertionError("there is no base")

    def take(self, lsn: int, event: Event, standing: Standing) -> None:
        if not isinstance(event, journal.BlueprintObserved):
            self.inner.take(lsn, event, standing)


def test_a_clean_run_comes_out_again(recorded: Recorded) -> None:
    found = again(recorded.entries(), [recorded.checkpoint])
    assert found.divergence is None, str(found.divergence)
    assert found.graphs == STEPS
    answered = STEPS * 3 // 4
    assert found.equal >= answered // 2, "the baseline's, to the last bit"
    assert found.inferences == answered
    assert (found.skipped, found.unanswered) == (STEPS - answered, 0)
    assert (found.unknown, found.ties) == ({}, 0)
    assert found.largest_error < 1e-5


def changed(
    entries: list[wal.Entry], kind: type[Event], change: Callable[[Any], object], *, place: int = -1
) -> tuple[list[wal.Entry], int]:
    """The entries with one event of a kind changed, and its LSN."""
    of_kind = [index for index, entry in enumerate(entries) if entry.kind == KINDS[kind]]
    index = of_kind[place]
    event = decode(entries[index].kind, entries[index].payload)
    change(event)
    lsn = entries[index].lsn
    return [*entries[:index], wal.Entry(lsn, *encode(event)), *entries[index + 1 :]], lsn


def another_packet(event: journal.StepReceived) -> None:
    """The same to every rule, and not to the network."""
    packet = pb.SystemStatePacket.FromString(event.packet)
    packet.training_metrics["samples_per_s"] = 4_001.0
    event.packet = packet.SerializeToString(deterministic=True)


UNSEEN_BY_LEVEL_2: Mapping[str, tuple[type[Event], Callable[[Any], object], str]] = {
    "edges": (journal.GraphObserved, lambda e: e.edge_counts.__setitem__(0, e.edge_counts[0] + 1), "edge_counts[0]"),
    "norm input": (journal.GraphObserved, lambda e: e.norm_values.__setitem__(0, 0.25), "norm_values[0]"),
    "host": (journal.GraphObserved, lambda e: setattr(e, "host_blueprint_id", "other"), "is not what the packet says"),
    "host left out": (
        journal.GraphObserved,
        lambda e: e.ClearField("host_blueprint_id"),
        "is not what the packet says",
    ),
    "name": (journal.RegistryAssigned, lambda e: e.keys.__setitem__(0, "other"), "other"),
    "packet": (journal.StepReceived, another_packet, "norm_values["),
    "score": (journal.InferenceObserved, lambda e: e.breaker_scores.__setitem__(0, 0.5), "breaker_scores[0]"),
    "parameter": (journal.InferenceObserved, lambda e: e.param_deltas.__setitem__(3, 0.5), "param_deltas[3]"),
}


@pytest.mark.parametrize(("kind", "change", "words"), UNSEEN_BY_LEVEL_2.values(), ids=UNSEEN_BY_LEVEL_2.keys())
@pytest.mark.parametrize("place", [0, -1], ids=["baseline", "network"])
def test_what_level_2_cannot_see_is_named(
    recorded: Recorded, kind: type[Event], change: Callable[[Any], object], words: str, place: int
) -> None:
    entries, lsn = changed(recorded.entries(), kind, change, place=place)
    found = again(entries, [recorded.checkpoint])
    assert found.divergence is not None
    assert words in str(found.divergence)
    named = next(entry for entry in entries if entry.lsn == found.divergence.lsn)
    of_step = decode(named.kind, named.payload)
    assert found.divergence.lsn == lsn if kind is journal.InferenceObserved else of_step.step_lsn <= lsn < named.lsn + 8


def test_the_first_of_several_is_named_whatever_is_asked_first(recorded: Recorded) -> None:
    """Inferences wait for others of their topology; a graph that is wrong is found at once, and is a later one."""
    entries, first = changed(recorded.entries(), *UNSEEN_BY_LEVEL_2["score"][:2], place=-3)
    entries, later = changed(entries, *UNSEEN_BY_LEVEL_2["edges"][:2])
    assert first < later
    found = again(entries, [recorded.checkpoint])
    assert found.divergence is not None
    assert found.divergence.lsn == first


def test_a_version_of_another_blueprint_was_never_observed_of_this_one(tmp_path: Path) -> None:
    library = MemoryLibrary()
    for name in ("first", "second"):
        library.save(pb.BlueprintDescriptor(blueprint_id=name, name=name))
    with opened(tmp_path, None, library) as tamiyo:
        for step in range(2):
            tamiyo.evaluate_step(training_packet(step))

    def exchange(event: journal.GraphObserved) -> None:
        event.blueprints[0].digest, event.blueprints[1].digest = event.blueprints[1].digest, event.blueprints[0].digest

    entries = list(wal.read(tmp_path / "wal"))
    assert replay(entries).divergence is None
    found = replay(changed(entries, journal.GraphObserved, exchange)[0]).divergence
    assert found is not None
    assert "versions that were never observed, of first, second" in found.what


def test_a_rounding_of_another_processor_is_no_difference(recorded: Recorded) -> None:
    def rounded(event: journal.GraphObserved) -> None:
        event.norm_values[0] *= 1 + 2**-52

    entries, _ = changed(recorded.entries(), journal.GraphObserved, rounded)
    assert again(entries, [recorded.checkpoint]).divergence is None


def test_a_policy_whose_checkpoint_is_not_there_is_no_failure_and_no_pass(recorded: Recorded) -> None:
    found = again(recorded.entries())
    assert found.divergence is None
    assert found.graphs == STEPS
    ((reason, count),) = found.unknown.items()
    assert "give its file with --checkpoint" in reason
    assert count == STEPS * 3 // 8


def test_the_command_takes_a_checkpoint_and_says_what_it_compared(recorded: Recorded) -> None:
    command = ["audit", str(recorded.directory), "--level", "3"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "audit: UNVERIFIABLE (level 3)"
    result = CliRunner().invoke(main, [*command, "--checkpoint", str(recorded.checkpoint)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "audit: PASS (levels 1, 2, 3)"
    told = json.loads(CliRunner().invoke(main, [*command, "--checkpoint", str(recorded.checkpoint), "--json"]).output)
    assert told["inferences"]["graphs"] == STEPS
    assert f"{STEPS} graphs built again" in result.output


def test_the_command_says_which_file_it_cannot_read(recorded: Recorded, tmp_path: Path) -> None:
    pipe, other = tmp_path / "pipe", tmp_path / "other"
    os.mkfifo(pipe)
    other.write_bytes(b"no checkpoint")
    command = ["audit", str(recorded.directory), "--level", "3", "--checkpoint"]
    result = CliRunner().invoke(main, [*command, str(pipe)])
    assert result.exit_code == 3
    assert "cannot read a checkpoint: " in result.output
    assert "it is no regular file" in result.output
    result = CliRunner().invoke(main, [*command, str(other)])
    assert result.exit_code == 1
    assert f"is not among those kept in {recorded.directory / 'policies'} or given" in result.output


def test_torch_keeps_its_threads(recorded: Recorded) -> None:
    before = torch.get_num_threads()
    assert audit(recorded.directory, level=3, checkpoints=[recorded.checkpoint]).passed
    assert torch.get_num_threads() == before


def test_a_checkpoint_that_the_directory_keeps_is_found_there(tmp_path: Path, recorded: Recorded) -> None:
    with opened(tmp_path, None) as tamiyo:
        tamiyo.evaluate_step(training_packet(0))
        data = recorded.checkpoint.read_bytes()
        assert tamiyo._desk.install(data, "untrained", operator="ada").installed
        for step in range(1, 4):
            tamiyo.evaluate_step(training_packet(step))
    report = audit(tmp_path, level=3)
    assert report.passed, report.text


def test_a_host_s_own_policy_is_asked_again(tmp_path: Path) -> None:
    with opened(tmp_path, Moody()) as tamiyo:
        for step in range(3):
            tamiyo.evaluate_step(training_packet(step))
    assert "takes it as an object" in audit(tmp_path, level=3).text
    assert audit(tmp_path, level=3, policies=[Moody()]).passed
    changed_since = audit(tmp_path, level=3, policies=[Moody(action=2)])
    assert changed_since.verdict_line == "audit: FAIL (level 3)"
    assert "action[1]: recomputed 0.0, recorded 1.0" in changed_since.text
    raising = audit(tmp_path, level=3, policies=[Moody(error=RuntimeError("not today"))])
    assert "asked again, the policy raises RuntimeError: not today" in raising.text


def test_level_3_says_how_far_level_2_came(tmp_path: Path) -> None:
    with opened(tmp_path, None) as tamiyo:
        for step in range(3):
            tamiyo.evaluate_step(training_packet(step))
    lsn = wal.head(tmp_path / "wal").size
    with wal.Log.open(tmp_path / "wal") as log:
        log.append([encode(journal.ConservativeModeChanged(active=True, reason="forged", event_time_ns=2**62))])
    report = audit(tmp_path, level=3)
    assert [level.verdict for level in report.levels] == ["PASS", "FAIL", "PASS"]
    assert f"up to LSN {lsn + 1}, where level 2 ends" in report.levels[2].detail


def test_an_answer_that_never_came_is_counted(tmp_path: Path) -> None:
    with opened(tmp_path, Moody(error=RuntimeError("not today"))) as tamiyo:
        tamiyo.evaluate_step(training_packet(0))
    report = audit(tmp_path, level=3)
    assert report.passed, report.text
    assert "1 graph built again, 0 inferences run again, 1 step had no answer to compare" in report.text


def test_a_made_up_graph_is_one_of_another_schema() -> None:
    history = History()
    history.step(training_packet(0), FixedPolicy().propose(small_graph()))
    assert again(history.entries()).unknown == {SCHEMA: 1}


def test_a_content_that_is_gone_is_no_difference(recorded: Recorded) -> None:
    inferences = asking([recorded.checkpoint])
    forgetful = Forgetful(inferences)
    replay(recorded.entries(), follower=forgetful)
    found = inferences.finish()
    assert found.divergence is None
    assert found.unknown == {CONTENT: STEPS}


def test_graphs_of_another_schema_are_no_difference(recorded: Recorded) -> None:
    def older(event: journal.GraphLayoutObserved) -> None:
        event.relations[-1] = "of-before"

    found = again(changed(recorded.entries(), journal.GraphLayoutObserved, older, place=0)[0], [recorded.checkpoint])
    assert found.divergence is None
    assert found.unknown[SCHEMA] > 0
    assert found.graphs + found.unknown[SCHEMA] == STEPS


def test_a_log_is_followed_from_a_base_on(tmp_path: Path) -> None:
    with opened(tmp_path, None, segment_bytes=2**16) as tamiyo:
        tamiyo.journal.checkpoint_steps = 4
        for step in range(40):
            tamiyo.evaluate_step(training_packet(step))
            tamiyo.flush()
    entries = list(wal.read(tmp_path / "wal"))
    bases = [decode(entry.kind, entry.payload) for entry in entries if entry.kind == KINDS[journal.StateBase]]
    assert bases
    for base in bases:
        assert isinstance(base, journal.StateBase)
        found = again(entries[base.needs_lsn - 1 :], base=base)
        assert found.divergence is None, str(found.divergence)
        assert found.unknown == {}
        assert 0 < found.graphs < 40


def test_a_large_graph_is_asked_by_itself(tmp_path: Path, recorded: Recorded) -> None:
    large = OneHost(host(layers=160, activations=10, parameters=10))
    with opened(tmp_path, load_policy(recorded.checkpoint), large) as tamiyo:
        for step in range(3):
            tamiyo.evaluate_step(training_packet(step))
    report = audit(tmp_path, level=3, checkpoints=[recorded.checkpoint])
    assert report.passed, report.text
    assert "3 graphs built again, 3 inferences run again" in report.text


def test_the_page_s_commands_run_and_its_grades_are_those_there_are(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "controller").symlink_to(recorded.directory)
    (tmp_path / "base.safetensors").symlink_to(recorded.checkpoint)
    page = PAGE.read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)).splitlines()
    results = [CliRunner().invoke(main, shlex.split(line, comments=True)[1:]) for line in lines]
    assert [result.exit_code for result in results] == [1, 0, 0], "the first one misses its checkpoint"
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")}
    assert {EQUAL, CLOSE, SAME_CHOICE} <= rows
