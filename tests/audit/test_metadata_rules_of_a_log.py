"""Level 3 builds a log's graphs by the rules that it was written with, and by today's from an upgrade on."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from audit.runs import asking, opened, training_packet
from click.testing import CliRunner

import wal
from tamiyo import fingerprint
from tamiyo.audit import audit, replay
from tamiyo.audit.agreement import Reinference
from tamiyo.bench.samples import metadata
from tamiyo.cli import main
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import read_base
from tamiyo.core.behaviour import CURRENT, GRAPH_AS_NAMED, METADATA_VALUES
from tamiyo.core.events import KINDS, decode, encode
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.library import MemoryLibrary

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "journal" / "behaviour-2.json"
BEFORE = tuple(flag for flag in CURRENT if flag not in (METADATA_VALUES, GRAPH_AS_NAMED))
BEFORE_NAMED = tuple(flag for flag in CURRENT if flag != GRAPH_AS_NAMED)
STEPS = 4

HOST = metadata(
    layers=3, activations=1, parameters=2,
    monitors={"by_seed_id": {"seed-0-0": {"layer-2": 0.75, "layer-1": False}}},
    capabilities={
        "allowed_parameters_by_seed_id": {"seed-0-0": {"parameter-0": False, "parameter-1": True}},
        "allowed_blending_methods": ["Cosine", "LINEAR"],
    },
)  # fmt: skip
"""Of which nothing is the same by the two rules."""


def run(directory: Path, steps: Iterable[int], flags: tuple[str, ...], *, checkpoint_steps: int = 0) -> None:
    """A service that writes with these flags, its library always the same."""
    library = MemoryLibrary()
    library.save(pb.BlueprintDescriptor(blueprint_id="run-1", name="host"), graph_metadata=HOST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "CURRENT", flags)
        with opened(directory, None, library, segment_bytes=2**16) as tamiyo:
            if checkpoint_steps:
                tamiyo.journal.checkpoint_steps = checkpoint_steps
            for step in steps:
                tamiyo.evaluate_step(training_packet(step))
                tamiyo.flush()


def again(entries: Iterable[wal.Entry], base: journal.StateBase | None = None) -> Reinference:
    """What level 3 says."""
    inferences = asking()
    inferences.begin(base)
    found = replay(entries, base=base, follower=inferences)
    assert found.divergence is None, str(found.divergence)
    return inferences.finish()


def ignored(directory: Path) -> list[int]:
    """How much of its inputs each step's graph left out."""
    events = [decode(entry.kind, entry.payload) for entry in wal.read(directory / "wal")]
    return [event.ignored_inputs for event in events if isinstance(event, journal.GraphObserved)]


def flagged(entries: Iterable[wal.Entry], flags: tuple[str, ...]) -> list[wal.Entry]:
    """The same records, as if they had been written with these flags."""
    changed = []
    for entry in entries:
        event = decode(entry.kind, entry.payload)
        if isinstance(event, journal.ServiceOpened):
            event.behaviour_flags[:] = flags
        changed.append(wal.Entry(entry.lsn, *encode(event)))
    return changed


def recorded() -> tuple[list[wal.Entry], int]:
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    records = [(kind, base64.b64decode(payload)) for kind, payload in stored["records"]]
    return [wal.Entry(lsn, *record) for lsn, record in enumerate(records, start=1)], stored["decisions"]


def test_graphs_that_were_built_before_there_were_values_come_out_again() -> None:
    """Written by the code of then. A change of the graph's schema ends this: its graphs are of no schema of today."""
    entries, decisions = recorded()
    found = again(entries)
    assert found.divergence is None, str(found.divergence)
    assert (found.graphs, found.unknown) == (decisions, {})
    assert found.inferences > 0


def test_they_would_be_others_by_today_s_rules() -> None:
    found = again(flagged(recorded()[0], CURRENT))
    assert found.divergence is not None
    assert "the graph is not what its packet and blueprints come to" in str(found.divergence)


@pytest.mark.parametrize(("flags", "others"), [(BEFORE, CURRENT), (CURRENT, BEFORE)], ids=("before", "today"))
def test_a_log_is_what_its_own_rules_make_of_it(
    tmp_path: Path, flags: tuple[str, ...], others: tuple[str, ...]
) -> None:
    run(tmp_path, range(STEPS), flags)
    result = CliRunner().invoke(main, ["audit", str(tmp_path), "--level", "3"])
    assert result.output.splitlines()[-1] == "audit: PASS (levels 1, 2, 3)", result.output
    assert again(flagged(wal.read(tmp_path / "wal"), others)).divergence is not None


@pytest.mark.parametrize(
    ("flags", "others"), [(BEFORE_NAMED, CURRENT), (CURRENT, BEFORE_NAMED)], ids=("before", "today")
)
def test_a_graph_s_host_is_the_one_that_was_then(
    tmp_path: Path, flags: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """The library lists the packet's blueprint, and has no record of it; it has one of the run's."""
    library = MemoryLibrary()
    for blueprint_id in ("run-1", "packet-0"):
        library.save(pb.BlueprintDescriptor(blueprint_id=blueprint_id, name="host"), graph_metadata=HOST)
    get = library.get
    library.get = lambda blueprint_id: None if blueprint_id == "packet-0" else get(blueprint_id)
    packet = training_packet(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "CURRENT", flags)
        with opened(tmp_path, None, library) as tamiyo:
            for _ in range(STEPS):
                tamiyo.evaluate_step(packet)
                tamiyo.flush()
    assert audit(tmp_path, level=3).passed
    entries = list(wal.read(tmp_path / "wal"))
    events = [decode(entry.kind, entry.payload) for entry in entries]
    last = [event for event in events if isinstance(event, journal.GraphObserved)][-1]
    assert last.host_blueprint_id == "packet-0"
    assert [use.blueprint_id for use in last.blueprints] == ["run-1"]
    assert again(entries).graphs == STEPS
    assert again(flagged(entries, others)).graphs < STEPS


def test_a_log_that_was_begun_before_and_went_on_today_comes_out_again(tmp_path: Path) -> None:
    """One version of one blueprint, read in one log by both rules."""
    run(tmp_path, range(STEPS), BEFORE)
    run(tmp_path, range(STEPS, 2 * STEPS), CURRENT)
    report = audit(tmp_path, level=3)
    assert report.passed, report.text
    assert f"{2 * STEPS} graphs built again" in report.text
    assert ignored(tmp_path) == [2] * STEPS + [0] * STEPS, "methods in capitals"
    observed = [e for e in wal.read(tmp_path / "wal") if e.kind == KINDS[journal.BlueprintObserved]]
    contents = [decode(entry.kind, entry.payload).content for entry in observed]
    assert sum(map(bool, contents)) == 1, "its content stands in the log once"


def test_a_base_says_by_which_rules_to_go_on(tmp_path: Path) -> None:
    run(tmp_path, range(40), BEFORE, checkpoint_steps=4)
    run(tmp_path, range(40, 80), CURRENT, checkpoint_steps=4)
    entries = list(wal.read(tmp_path / "wal"))
    bases = [decode(entry.kind, entry.payload) for entry in entries if entry.kind == KINDS[journal.StateBase]]
    assert {METADATA_VALUES in read_base(base).behaviour_flags for base in bases} == {True, False}
    for base in bases:
        found = again(entries[base.needs_lsn - 1 :], base)
        assert found.divergence is None, str(found.divergence)
        assert found.unknown == {}
        assert found.graphs > 0
