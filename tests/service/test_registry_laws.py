"""The laws of the registries: the same log gives the same indices in any process and after any restart."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import DictLibrary, Live, Record, step_until
from rig import SECRET

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.audit import replay
from tamiyo.core import journal_pb2 as journal
from tamiyo.core import registries
from tamiyo.core.registries import Registries, assignments, extended, initial
from tamiyo.leyline import leyline_pb2 as pb

NAMES = ("zeta", "alpha", "Grün", "日本", "alpha ", "a/b", "0", "None")
IN_ANOTHER_PROCESS = """
import json, sys, wal
from tamiyo.audit import replay
found = replay(wal.read(sys.argv[1]))
print(json.dumps({kind: dict(known) for kind, known in found.state.registries.items()}))
"""


def library() -> DictLibrary:
    layers = [{"type": name, "activation": f"{name}-act"} for name in NAMES]
    metadata = {"layers": layers, "activations": [{"type": "gelu"}]}
    sheet = pb.BSDS(risk_score=0.1, hazard_band=pb.HAZARD_BAND_LOW)
    extras = {"graph_metadata": metadata, "optimizer_priors": {"family": "Lion"}, "bsds": sheet}
    return DictLibrary({"run-1": Record(pb.BlueprintDescriptor(blueprint_id="run-1"), extras)})


def steps() -> Iterator[pb.SystemStatePacket]:
    """Seeds that come and go, one of them known already each time, with schedules of every kind."""
    for step in range(6):
        made = pb.SystemStatePacket(training_run_id="run-1", packet_id="packet-1", training_loss=0.5)
        for place in (step, step + 1, 0):
            one = made.seed_states.add(seed_id=NAMES[place], stage=pb.SEED_STAGE_TRAINING)
            one.metrics["alpha_schedule_index"] = (3 - step) % 4
        yield made


def plain(known: Registries) -> dict[str, dict[str, int]]:
    return {kind: dict(entries) for kind, entries in known.items()}


def test_another_process_finds_the_same_indices_in_the_log(tmp_path: Path) -> None:
    settings = Settings(segment_bytes=2**18, step_timeout_ms=60_000, commit_timeout_ms=60_000)
    with TamiyoService.open(tmp_path, secret=SECRET, settings=settings, urza=library()) as tamiyo:
        for made in steps():
            tamiyo.evaluate_step(made)
        here = plain(tamiyo.state.registries)
        exported = {kind: tmp_path / f"{kind}_registry.json" for kind in here}
    assert len(here["seed_id"]) == 7
    for seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ran = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "wal")],
            env=environment, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        assert json.loads(ran.stdout) == here
    assert {kind: json.loads(path.read_text(encoding="utf-8")) for kind, path in exported.items()} == here
    assert plain(replay(wal.read(tmp_path / "wal")).state.registries) == here


@pytest.mark.parametrize("after", range(1, 6))
def test_a_restart_or_a_crash_at_any_step_changes_no_index(after: int) -> None:
    undisturbed, closed, killed = (Live() for _ in range(3))
    for step, made in enumerate(steps(), start=1):
        for live in (undisturbed, closed, killed):
            live.step(made)
        if step == after:
            before = plain(killed.service.state.registries)
            killed.durable()
            closed.reopen()
            killed.crash()
            assert plain(killed.service.state.registries) == before
    expected = plain(undisturbed.service.state.registries)
    assert len(expected["schedule"]) == 4
    for live in (undisturbed, closed, killed):
        assert plain(live.service.state.registries) == expected
        live.check()
        live.close()


KEYS = st.lists(st.tuples(st.sampled_from(("seed_id", "layer_type")), st.sampled_from(("", *NAMES))), max_size=30)


def small(kinds: Mapping[str, int]) -> Registries:
    return MappingProxyType({kind: kinds.get(kind, most) for kind, most in registries.CAPACITIES.items()})


@pytest.fixture(autouse=True, scope="module")
def little_room() -> Iterator[None]:
    """Registries of three, so that they are soon full."""
    patch = pytest.MonkeyPatch()
    patch.setattr(registries, "CAPACITIES", small({"layer_type": 3}))
    yield
    patch.undo()


@given(KEYS, st.lists(st.integers(0, 30), max_size=4))
def test_indices_do_not_depend_on_how_the_steps_cut_the_keys(keys: list[tuple[str, str]], cuts: list[int]) -> None:
    whole = extended(initial(), assignments(initial(), keys)[0])
    known, edges = initial(), [0, *sorted(cuts), len(keys)]
    for start, end in pairwise(edges):
        known = extended(known, assignments(known, keys[start:end])[0])
    assert plain(known) == plain(whole)


@given(KEYS)
def test_what_does_not_fit_is_zero_and_counted_and_the_first_ones_stay(keys: list[tuple[str, str]]) -> None:
    seen = list(dict.fromkeys(key for kind, key in keys if kind == "layer_type" and key))
    added, overflow = assignments(initial(), keys)
    known = extended(initial(), added)
    assert dict(known["layer_type"]) == {key: place for place, key in enumerate(seen[:3], start=1)}
    assert overflow == len(seen[3:])
    assert all(registries.lookup(known, "layer_type", key) == 0 for key in seen[3:])
    again, still = assignments(known, keys)
    assert again == {}
    assert still == overflow


def test_an_overflow_in_a_live_log_is_reported_each_step_and_the_same_after_a_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = Live(urza=library())
    made = next(steps())
    step_until(live, lambda: bool(live.service.state.registries["layer_type"]), made=made)
    assert dict(live.service.state.registries["layer_type"]) == {name: place for place, name in enumerate(NAMES[:3], 1)}
    overflows = [event.registry_overflow for event in live.events(journal.GraphObserved)]
    assert overflows[-1] == len(NAMES) - 3
    live.step(made)
    said = [record.getMessage() for record in caplog.records if "is full" in record.message]
    assert said == ["the registry layer_type is full with 3 names: any new one reads as 0"]
    live.durable()
    live.crash()
    live.step(made)
    assert live.events(journal.GraphObserved)[-1].registry_overflow == len(NAMES) - 3
    assert len(live.service.state.registries["layer_type"]) == 3
    live.check()
    live.close()
