"""What of a library's record is journaled, and so what a graph is built from."""

from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from live import DictLibrary, Live, Record, library, step_until
from rig import packet

from tamiyo.blueprints import REFRESH_S
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import CLOSED
from tamiyo.graph import parse_metadata
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import content_of
from tamiyo.testing.library import MemoryRecord

PRIORS = {"family": "sgd", "momentum": 0.9}
METADATA = {"layers": [{"depth": 1}]}
GUARD = {"layers": [{"depth": 2}]}


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        ({}, {}),
        ({"graph_metadata": METADATA}, METADATA),
        ({"guard_spec": GUARD}, GUARD),
        ({"graph_metadata": METADATA, "guard_spec": GUARD}, METADATA),
        ({"graph_metadata": None, "guard_spec": GUARD}, GUARD),
        ({"optimizer_priors": PRIORS}, {"optimizer_priors": PRIORS}),
        ({"graph_metadata": METADATA, "optimizer_priors": PRIORS}, METADATA | {"optimizer_priors": PRIORS}),
        ({"graph_metadata": METADATA | {"optimizer_priors": {}}, "optimizer_priors": PRIORS},
         METADATA | {"optimizer_priors": {}}),
        ({"graph_metadata": [1], "optimizer_priors": PRIORS}, {}),
    ],
    ids=repr,
)  # fmt: skip
def test_a_record_gives_its_graph_metadata(extras: dict[str, Any], expected: dict[str, Any]) -> None:
    record = MemoryRecord(pb.BlueprintDescriptor(blueprint_id="bp-1"), extras)
    assert parse_metadata(content_of(record).graph_metadata) == expected


def test_a_record_without_priors_keeps_the_bytes_it_had() -> None:
    record = MemoryRecord(pb.BlueprintDescriptor(blueprint_id="bp-1"), {"graph_metadata": METADATA})
    assert content_of(record).graph_metadata == b'{"layers":[{"depth":1}]}'


UNUSABLE: dict[str, tuple[object, int]] = {
    "a list": ([METADATA], 1),
    "a text": ("layers", 1),
    "too long": ({"layers": ["x" * 1_000]}, 1),
    "empty": ({}, 0),
    "none": (None, 0),
    "good": (METADATA, 0),
}


@pytest.mark.parametrize(("metadata", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_graph_metadata_that_cannot_be_used_is_said_once_and_steps_go_on(
    metadata: object, said: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamiyo.graph.metadata.METADATA_BYTES_MAX", 1_000)
    record = Record(pb.BlueprintDescriptor(blueprint_id="run-1"), {"graph_metadata": metadata})
    live = Live(urza=DictLibrary({"run-1": record}))
    for times in (1, 2):  # the second time the same is looked up again
        step_until(live, lambda least=times: live.events(journal.BlueprintObserved)[least - 1 :] != [])
        live.clock.advance(REFRESH_S + 1)
    assert {event.blueprint_id for event in live.events(journal.BlueprintObserved)} == {"run-1"}
    assert caplog.text.count("the graph metadata of blueprint 'run-1' is left out") == said
    live.check()
    live.close()


def test_a_library_in_the_process_writes_its_metadata_as_python_does() -> None:
    metadata = {
        "capabilities": {"allowed_parameters_by_seed_index": MappingProxyType({0: [1], 12: ["momentum"]})},
        "layers": ({"layer_id": "first", "latency_ms": np.float32(1.5), "shape": np.arange(2)},),
    }
    written = content_of(MemoryRecord(pb.BlueprintDescriptor(), MappingProxyType({"graph_metadata": metadata})))
    assert parse_metadata(written.graph_metadata) == {
        "capabilities": {"allowed_parameters_by_seed_index": {"0": [1], "12": ["momentum"]}},
        "layers": [{"layer_id": "first", "latency_ms": 1.5, "shape": [0, 1]}],
    }


def hosted(run_id: str) -> pb.SystemStatePacket:
    made = packet()
    made.training_run_id = run_id
    return made


def test_a_blueprint_that_cannot_be_used_keeps_no_other_out_and_is_asked_for_again_in_time() -> None:
    known = library()
    bad = Record(pb.BlueprintDescriptor(blueprint_id="bad"), {"bsds": [1]})
    known.records["bad"] = bad
    live = Live(urza=known)
    step_until(live, lambda: bool(live.events(journal.MetadataFailed)), elapsed_s=1.5)
    for turn in range(8):
        new = f"run-{turn}"
        known.records[new] = Record(pb.BlueprintDescriptor(blueprint_id=new))
        step_until(live, lambda new=new: new in live.service.state.blueprints, made=hosted(new))
    assert [failed.blueprint_id for failed in live.events(journal.MetadataFailed)] == ["bad"]
    assert live.service.state.breakers["metadata"].state == CLOSED
    object.__setattr__(bad, "extras", {})
    live.clock.advance(REFRESH_S + 1)
    step_until(live, lambda: "bad" in live.service.state.blueprints)
    live.check()
    live.close()


class OneHost:
    """Nothing that JSON knows."""


def test_what_json_has_nothing_for_is_named() -> None:
    record = MemoryRecord(pb.BlueprintDescriptor(), {"graph_metadata": {"layers": [OneHost()]}})
    with pytest.raises(TypeError) as raised:
        content_of(record)
    assert str(raised.value.__cause__) == "JSON has nothing for a OneHost"
