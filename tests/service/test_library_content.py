"""What of a library's record is journaled, and so what a graph is built from."""

from typing import Any

import pytest

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
