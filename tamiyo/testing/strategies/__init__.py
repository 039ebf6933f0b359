"""Hypothesis strategies for what a controller is fed, from tame to hostile.

`pip install 'tamiyo[test]'` brings Hypothesis. Importing this package, or `tamiyo.testing` where Hypothesis is
installed, registers the strategies of `REGISTERED` for `hypothesis.strategies.from_type`, so that a host's
`@given` can infer them from annotations.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from tamiyo.core.proposal import Proposal
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.history import History
from tamiyo.testing.library import MemoryRecord
from tamiyo.testing.strategies.extras import (
    descriptors,
    extras,
    graph_metadata,
    hostile_extras,
    hostile_metadata,
    json_values,
    records,
    safety_sheets,
)
from tamiyo.testing.strategies.histories import histories
from tamiyo.testing.strategies.hostile import hostile_bytes, hostile_packets, oversized_packets, undecodable_bytes
from tamiyo.testing.strategies.numbers import FLOAT32, IDS, TAME, TEXTS
from tamiyo.testing.strategies.packets import (
    METRICS,
    hardware_contexts,
    metrics,
    packets,
    seed_states,
    tame_packets,
    training_packets,
)
from tamiyo.testing.strategies.proposals import malformed_proposals, proposals

__all__ = [
    "FLOAT32",
    "IDS",
    "METRICS",
    "REGISTERED",
    "TAME",
    "TEXTS",
    "descriptors",
    "extras",
    "graph_metadata",
    "hardware_contexts",
    "histories",
    "hostile_bytes",
    "hostile_extras",
    "hostile_metadata",
    "hostile_packets",
    "json_values",
    "malformed_proposals",
    "metrics",
    "oversized_packets",
    "packets",
    "proposals",
    "records",
    "register",
    "safety_sheets",
    "seed_states",
    "tame_packets",
    "training_packets",
    "undecodable_bytes",
]

REGISTERED: Mapping[type, Callable[[], st.SearchStrategy[Any]]] = {
    pb.SystemStatePacket: packets,
    pb.SeedState: seed_states,
    pb.HardwareContext: hardware_contexts,
    pb.BlueprintDescriptor: descriptors,
    pb.BSDS: safety_sheets,
    MemoryRecord: records,
    Proposal: proposals,
    History: histories,
}
"""What `from_type` draws for each type."""


def register() -> None:
    """Tell Hypothesis of `REGISTERED`; doing it again changes nothing."""
    for kind, strategy in REGISTERED.items():
        st.register_type_strategy(kind, strategy())


register()
