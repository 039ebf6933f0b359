"""What is read from a journal to learn from: the graphs that a policy saw, what it said, and what came of it."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from audit.runs import opened, training_packet
from rig import SECRET

import wal
from tamiyo import TamiyoService
from tamiyo.audit import bases
from tamiyo.bench.samples import OneHost, small_host
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, decode, encode
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.graph import Graph
from tamiyo.integrations.simic import Dataset, NothingToLearn, read_dataset
from tamiyo.integrations.simic.dataset import NO_GRAPH, NOT_ASKED, NOT_KNOWN
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FaultClock, FixedPolicy
from wal.disk import OsDisk
from wal.testing import FaultDisk

STEPS = 24
HORIZON = 4
ASKED = [step for step in range(STEPS) if step % 4 != 3]
"""Every fourth step has no seed that may be selected."""
UNHEARD = 3
"""Of the last `HORIZON` steps, those that the policy was asked in."""


@dataclass
class Remembers:
    """Proposes its action, and keeps the graphs that it was asked about."""

    action: int = 0
    graphs: list[Graph] = field(default_factory=list)
    identity: PolicyIdentity = field(default=PolicyIdentity("remembers-v1", "own", "python"))

    def propose(self, graph: Graph) -> Proposal:
        self.graphs.append(graph)
        return FixedPolicy(self.action, param_deltas=(0.1 * (len(self.graphs) % 7), 0.0, 0.0, 0.0)).propose(graph)


def packet(step: int, loss: float | None = None, **metrics: float) -> pb.SystemStatePacket:
    made = training_packet(step)
    made.validation_loss = 2.0 * 0.99**step if loss is None else loss
    made.training_metrics.update(metrics)
    return made


Change = Callable[[int], pb.SystemStatePacket]


def ran(
    directory: Path, policy: Remembers, packets: Change = packet, steps: int = STEPS, **changed: Any
) -> list[pb.AdaptationCommand]:
    with opened(directory, policy, **changed) as tamiyo:
        return [tamiyo.evaluate_step(packets(step)) for step in range(steps)]


def read(directory: Path, **given: Any) -> Dataset:
    return read_dataset(directory, **{"horizon": HORIZON} | given)


def test_each_decision_is_an_example_with_the_graph_that_its_policy_saw(tmp_path: Path) -> None:
    policy = Remembers()
    commands = ran(tmp_path, policy)
    dataset = read(tmp_path)
    assert dict(dataset.skipped) == {NOT_ASKED: STEPS - len(ASKED), NOT_KNOWN: UNHEARD}
    assert len(dataset.examples) == len(ASKED) - UNHEARD
    for example, step, graph in zip(dataset.examples, ASKED, policy.graphs, strict=False):
        for kind, features in graph.features.items():
            assert np.array_equal(example.graph.features[kind], features), (step, kind)
            assert np.array_equal(example.graph.categories[kind], graph.categories[kind]), (step, kind)
        for relation, edges in graph.edge_index.items():
            assert np.array_equal(example.graph.edge_index[relation], edges), (step, relation)
        assert example.run_id == "run-1"
        assert example.proposal.param_deltas[0] == pytest.approx(0.1 * ((ASKED.index(step) + 1) % 7))
        assert commands[step].command_type == pb.COMMAND_SEED
        assert (example.action, example.is_own, example.germinates) == (0, True, False)
        assert example.outcome.value > 0.0
        assert example.outcome.hazard == 0


def test_a_dataset_is_stamped_with_what_the_log_ends_with(tmp_path: Path) -> None:
    ran(tmp_path, Remembers())
    dataset = read(tmp_path)
    with TamiyoService.open(tmp_path, secret=SECRET) as tamiyo:
        state = tamiyo.state
        assert dataset.registries == state.registries
        assert dataset.norms == state.norms
        assert dataset.log_id == tamiyo.log.head().log_id.hex()
    assert dataset.registries["seed_id"]
    assert (dataset.directory, dataset.horizon) == (tmp_path, HORIZON)
    assert f"log_id='{dataset.log_id}'" in repr(dataset)
    assert len(repr(dataset)) < 1_000


@pytest.mark.parametrize("last", [1, 3, 100])
def test_the_newest_are_kept(tmp_path: Path, last: int) -> None:
    ran(tmp_path, Remembers())
    everything, found = read(tmp_path).examples, read(tmp_path, last=last)
    lsns = [example.step_lsn for example in everything]
    kept = [example.step_lsn for example in found.examples]
    assert kept == lsns[len(lsns) - len(kept) :]
    assert len(kept) <= last
    # of so few the policy was perhaps not asked; the graphs of more are not held
    assert len(kept) + sum(found.skipped.values()) <= last + HORIZON


def test_a_command_that_risk_changed_is_nobody_s_own(tmp_path: Path) -> None:
    """And the row that changed it is a hazard, and a regression, to the decisions before."""
    spike = 12

    def packets(step: int) -> pb.SystemStatePacket:
        return packet(step, hook_latency_ms=500.0 if step == spike else 1.0)

    commands = ran(tmp_path, Remembers(), packets)
    assert commands[spike].annotations["risk_reason"] == "hook_budget"
    calm_folder = tmp_path / "calm"
    ran(calm_folder, Remembers(), lambda step: packet(step, hook_latency_ms=1.0))
    calm = read(calm_folder).examples
    for example, other, step in zip(read(tmp_path).examples, calm, ASKED, strict=False):
        near = spike - HORIZON <= step < spike
        assert example.outcome.hazard == (3 if near else 0), step
        assert example.is_own is (step != spike)
        assert example.action == (2 if step == spike else 0)
        assert example.outcome.value == pytest.approx(other.outcome.value - near, abs=1e-6), step


def test_what_the_policy_says_of_the_risk_makes_no_return_less(tmp_path: Path) -> None:
    """It is a regression in its field report, and says nothing of training."""
    worried = ASKED[9]

    @dataclass
    class Worries(Remembers):
        def propose(self, graph: Graph) -> Proposal:
            calm = super().propose(graph)
            return calm._replace(risk=(0.0, 0.0, 0.0, 0.0, 1.0)) if len(self.graphs) == 10 else calm

    commands = ran(tmp_path, Worries())
    assert commands[worried].annotations["risk_reason"] == "policy_risk_critical"
    ran(tmp_path / "calm", Remembers())
    calm = read(tmp_path / "calm").examples
    for example, other in zip(read(tmp_path).examples, calm, strict=True):
        assert (example.outcome.value, example.outcome.hazard) == (other.outcome.value, other.outcome.hazard)


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["applied"], True), (["refused"], False), (["timed_out"], False), (["applied", "rejected"], True),
        (["timed_out", "applied"], True),
    ],
)  # fmt: skip
def test_whoever_applies_commands_is_heard(tmp_path: Path, words: list[str], own: bool) -> None:
    """Where a command is delivered twice, the copy is rejected, and was carried out all the same."""
    with opened(tmp_path, Remembers()) as tamiyo:
        for step in range(STEPS):
            command = tamiyo.evaluate_step(packet(step))
            if step == ASKED[2]:
                assert all(tamiyo.record_delivery(command.command_id, word) for word in words)
    assert [example.is_own for example in read(tmp_path).examples][:4] == [True, True, own, True]


def test_a_command_whose_commit_was_late_was_never_given(tmp_path: Path) -> None:
    clock, disk, late = FaultClock(), FaultDisk(OsDisk()), 5
    with TamiyoService.open(
        tmp_path, policy=Remembers(), urza=OneHost(small_host()), secret=SECRET, clock=clock, disk=disk
    ) as tamiyo:
        for step in range(STEPS):
            if step == late:
                disk.hang("fdatasync")
                clock.expire("log")
            command = tamiyo.evaluate_step(packet(step))
            if step == late:
                assert command.annotations["risk_reason"] == "timeout_wal"
                disk.release()
                clock.expire()
    owns = {step: example.is_own for step, example in zip(ASKED, read(tmp_path).examples, strict=False)}
    assert not owns.pop(late)
    assert all(owns.values())


def test_germinating_names_the_blueprint(tmp_path: Path) -> None:
    def packets(step: int) -> pb.SystemStatePacket:
        made = packet(step)
        for seed in made.seed_states:
            seed.stage = pb.SEED_STAGE_DORMANT
        return made

    commands = ran(tmp_path, Remembers(), packets)
    germinated = [command.seed_operation.operation == pb.SEED_OP_GERMINATE for command in commands]
    found = read(tmp_path)
    assert any(germinated)
    assert [example.germinates for example in found.examples] == germinated[: len(found.examples)]


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """A log whose first records are gone, up to what its last base needs."""
    with opened(tmp_path, Remembers(), segment_bytes=2**16) as tamiyo:
        tamiyo.journal.checkpoint_steps = 4
        for step in range(60):
            tamiyo.evaluate_step(packet(step))
            tamiyo.flush()
    entries = list(wal.read(tmp_path / "wal"))
    held = [decode(entry.kind, entry.payload) for entry in entries if entry.kind == KINDS[journal.StateBase]]
    first_lsn = held[-1].needs_lsn

    def left(_: Path, after: int | None = 0) -> Iterator[wal.Entry]:
        if after is not None and after + 1 < first_lsn:
            raise wal.Trimmed(after + 1, first_lsn)
        return iter(entries[max(after or 0, first_lsn - 1) :])

    monkeypatch.setattr(wal, "read", left)
    assert bases.base_past(tmp_path / "wal", first_lsn - 1)[1].needs_lsn == first_lsn
    return tmp_path, first_lsn


def test_a_log_is_read_from_a_base_on(cut_off: tuple[Path, int]) -> None:
    directory, first_lsn = cut_off
    found = read(directory)
    assert found.examples
    assert all(example.step_lsn >= first_lsn for example in found.examples)
    assert NO_GRAPH not in found.skipped


def test_nothing_is_learned_from_a_log_that_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(tmp_path, Remembers())
    entries = list(wal.read(tmp_path / "wal"))
    place = [at for at, entry in enumerate(entries) if entry.kind == KINDS[journal.GraphObserved]][5]
    event = decode(entries[place].kind, entries[place].payload)
    event.edge_counts[0] += 1
    entries[place] = wal.Entry(entries[place].lsn, *encode(event))
    monkeypatch.setattr(wal, "read", lambda _, after=0: iter(entries[after:]))
    with pytest.raises(NothingToLearn, match=rf"LSN {entries[place].lsn}.*tamiyo audit --level 3"):
        read(tmp_path)


def test_nothing_is_learned_from_records_that_do_not_hash_to_what_their_frames_state(tmp_path: Path) -> None:
    """One number of a packet is another, under right checksums."""
    ran(tmp_path, Remembers())
    (segment,) = (tmp_path / "wal").glob("*.wal")
    image = bytearray(segment.read_bytes())
    at = image.index(struct.pack("<f", 0.01))
    frame = image.rindex(b"\xf3WAL", 0, at)
    end = frame + int.from_bytes(image[frame + 8 : frame + 12], "little")
    image[at : at + 4] = struct.pack("<f", 0.02)
    image[end - 4 : end] = google_crc32c.value(bytes(image[frame : end - 4])).to_bytes(4, "little")
    segment.write_bytes(image)
    assert len(list(wal.read(tmp_path / "wal"))) > STEPS, "a reader looks at checksums alone"
    with pytest.raises(NothingToLearn, match="do not hash to the chain"):
        read(tmp_path)


def test_a_decision_that_does_not_follow_is_not_learned_from_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(tmp_path, Remembers())
    entries = list(wal.read(tmp_path / "wal"))
    place = [at for at, entry in enumerate(entries) if entry.kind == KINDS[journal.DecisionMade]][5]
    event = decode(entries[place].kind, entries[place].payload)
    event.risk_reason = "another"
    entries[place] = wal.Entry(entries[place].lsn, *encode(event))
    monkeypatch.setattr(wal, "read", lambda _, after=0: iter(entries[after:]))
    with pytest.raises(NothingToLearn, match=rf"LSN {entries[place].lsn}"):
        read(tmp_path)


@pytest.mark.parametrize("made", [False, True])
def test_without_a_log_there_is_nothing_to_read(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "wal").mkdir()
    with pytest.raises(FileNotFoundError, match="give the directory that the service was opened with"):
        read(tmp_path)


@pytest.mark.parametrize("given", [{"horizon": 0}, {"last": 0}])
def test_nonsense_is_refused(tmp_path: Path, given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        read(tmp_path, **given)


def test_progress_is_told(tmp_path: Path) -> None:
    ran(tmp_path, Remembers(), steps=240)
    told: list[int] = []
    read(tmp_path, progress=told.append)
    assert told == [1_000]
