"""A policy is told which sizes of graph are coming, before a step brings one; and what is not needed is let go."""

import gc
import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from live import PATIENT
from rig import SECRET, packet

from tamiyo import Settings, TamiyoService
from tamiyo.core.policies import PROBATION_PROPOSALS
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.core.registries import Registries
from tamiyo.graph import Graph
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FixedPolicy, ManualClock, MemoryLibrary

METADATA = {
    "layers": [{"layer_id": "a"}, {"layer_id": "b"}],
    "activations": [{"activation_id": "c", "type": "relu"}],
    "parameters": [{"name": "d"}, {"name": "e"}, {"name": "f"}],
}

Counts = Mapping[str, int]


@dataclass(eq=False)
class Listening:
    """Writes down what it is told, and which sizes it was then asked about."""

    version: str
    told: list[tuple[str, Counts]] = field(default_factory=list)
    error: Exception | None = None

    @property
    def identity(self) -> PolicyIdentity:
        return PolicyIdentity(self.version, "listening", "python")

    def propose(self, graph: Graph) -> Proposal:
        self.told.append(("asked", graph.node_counts()))
        return FixedPolicy(1).propose(graph)

    def warm_up(self, counts: Counts) -> None:
        self._hear("warm_up", counts)

    def expect(self, counts: Counts) -> None:
        self._hear("expect", counts)

    def rest(self) -> None:
        self._hear("rest", {})

    def _hear(self, word: str, counts: Counts) -> None:
        self.told.append((word, counts))
        if self.error is not None:
            raise self.error

    def heard(self, word: str) -> list[tuple[int, ...]]:
        return [tuple(counts.values()) for said, counts in self.told if said == word]


class Run:
    """One directory. Checkpoints are words; each becomes a policy that listens, remembered weakly."""

    def __init__(self, directory: Path, policy: Any, library: Any = None) -> None:
        self.directory, self.library = directory, library
        self.clock = ManualClock()
        self.loaded: dict[str, weakref.ref[Listening]] = {}
        self.service = self.open(policy)

    def open(self, policy: Any) -> TamiyoService:
        settings = Settings(**PATIENT, metadata_timeout_ms=20)
        return TamiyoService.open(
            self.directory, policy=policy, urza=self.library, secret=SECRET, settings=settings, clock=self.clock,
            load=self.load,
        )  # fmt: skip

    def load(self, data: bytes, name: str, registries: Registries) -> Listening:
        made = Listening(data.decode())
        self.loaded[made.version] = weakref.ref(made)
        return made

    def install(self, word: str) -> None:
        assert self.service._desk.install(word.encode(), word, operator="ada").installed

    def prove(self) -> None:
        for _ in range(PROBATION_PROPOSALS):
            self.service.evaluate_step(packet())

    def alive(self) -> set[str]:
        self.prove()  # a step, so that no thread of one before holds on to who was asked
        gc.collect()
        return {word for word, policy in self.loaded.items() if policy() is not None}


def library() -> MemoryLibrary:
    made = MemoryLibrary()
    made.save(pb.BlueprintDescriptor(blueprint_id="run-1"), graph_metadata=METADATA)
    return made


@pytest.fixture
def listening() -> Listening:
    return Listening("first")


def test_a_policy_hears_of_a_blueprint_before_a_graph_has_it(tmp_path: Path, listening: Listening) -> None:
    run = Run(tmp_path, listening, library())
    with run.service:
        while (1, 2, 1, 2, 1, 3) not in listening.heard("asked"):
            run.service.evaluate_step(packet(seeds=2))
    words = [(word, tuple(counts.values())) for word, counts in listening.told]
    assert words.index(("expect", (1, 2, 1, 2, 1, 3))) < words.index(("asked", (1, 2, 1, 2, 1, 3)))


def test_a_service_that_opens_gets_its_policy_ready_for_the_blueprints_that_the_log_knows(
    tmp_path: Path, listening: Listening
) -> None:
    run = Run(tmp_path, listening, library())
    while (1, 1, 1, 2, 1, 3) not in listening.heard("asked"):
        run.service.evaluate_step(packet())
    run.service.close()
    again = Listening("again")
    run.open(again).close()
    assert again.heard("warm_up") == [(1, seeds, 1, 2, 1, 3) for seeds in (1, 2, 4, 8)]
    assert again.heard("expect") == [(1, 8, 1, 2, 1, 3)]


def test_a_size_is_told_once_and_again_when_it_changes(tmp_path: Path, listening: Listening) -> None:
    run = Run(tmp_path, listening)
    with run.service:
        listening.told.clear()
        for seeds in (1, 1, 1, 3, 3, 1):
            run.service.evaluate_step(packet(seeds=seeds))
    assert [seeds for _, seeds, *_ in listening.heard("expect")] == [1, 3, 1]


def test_who_is_installed_is_ready_for_the_graphs_that_there_are_before_it_speaks(tmp_path: Path) -> None:
    run = Run(tmp_path, None)
    with run.service:
        run.service.evaluate_step(packet(seeds=3))
        run.install("one")
        one = run.loaded["one"]()
        assert one is not None
        asked_when_installed = len(one.heard("asked"))
        run.service.evaluate_step(packet(seeds=3))
        assert [word for word, _ in one.told][asked_when_installed:] == ["warm_up", "expect", "asked"]
        assert one.heard("warm_up") == one.heard("expect") == one.heard("asked")[asked_when_installed:]


def test_who_does_not_speak_any_more_rests(tmp_path: Path) -> None:
    run = Run(tmp_path, None)
    with run.service:
        for word in ("one", "two"):
            run.install(word)
            run.prove()
        one, two = (run.loaded[word]() for word in ("one", "two"))
        assert one is not None
        assert two is not None
        assert (len(one.heard("rest")), len(two.heard("rest"))) == (1, 0)
        run.service.roll_back_policy(operator="ada")
        assert (len(one.heard("rest")), len(two.heard("rest"))) == (1, 1)


def test_a_policy_that_cannot_get_ready_is_asked_all_the_same(
    tmp_path: Path, listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    listening.error = RuntimeError("no memory to get ready in")
    run = Run(tmp_path, listening, library())
    with caplog.at_level(logging.WARNING), run.service:
        while (1, 1, 1, 2, 1, 3) not in listening.heard("asked"):
            assert run.service.evaluate_step(packet()).annotations["policy_version"] == "first"
    assert "policy first cannot get ready for a size: RuntimeError: no memory to get ready in" in caplog.text
    assert run.service.state.blueprints["run-1"].blueprint is not None, "no fault of the library's"


def test_only_who_may_have_to_speak_stays_loaded(tmp_path: Path) -> None:
    run = Run(tmp_path, None)
    with run.service:
        for word in ("one", "two", "three", "four"):
            run.install(word)
            run.prove()
        assert run.alive() == {"three", "four"}, "who speaks, and the last good one"
        run.install("five")
        assert run.service.state.policies.previous is not None
        assert run.service.state.policies.previous.version == "four"
        assert run.alive() == {"four", "five"}
        run.service.roll_back_policy(operator="ada")
        run.install("six")
        assert run.alive() == {"four", "six"}


def test_a_policy_from_the_store_is_let_go_once_it_is_not_needed(tmp_path: Path) -> None:
    run = Run(tmp_path, None)
    run.install("kept")
    run.service.close()
    run.service = run.open(None)
    with run.service:
        for word in ("one", "two"):
            run.install(word)
            run.prove()
        assert run.alive() == {"one", "two"}


def test_a_step_under_way_still_finds_who_was_replaced_while_it_was_on_probation(tmp_path: Path) -> None:
    run = Run(tmp_path, None)
    with run.service:
        run.install("good")
        run.prove()
        run.install("trial")
        trial = run.loaded["trial"]()
        assert trial is not None
        gate, reached = threading.Event(), threading.Event()
        expect = trial.expect

        def wait(counts: Counts) -> None:
            expect(counts)
            reached.set()
            gate.wait()

        trial.expect = wait  # type: ignore[method-assign]  # between the packet's arrival and the question
        answers: list[str] = []
        stepping = threading.Thread(
            target=lambda: answers.append(run.service.evaluate_step(packet(seeds=2)).annotations["policy_version"])
        )
        stepping.start()
        reached.wait()
        run.install("next")
        gate.set()
        stepping.join()
        assert answers == ["trial"]
