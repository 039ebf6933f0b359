"""The strategies keep what they promise."""

import math
import subprocess
import sys

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live
from rig import packet

from tamiyo.core.limits import Limits
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import Proposal, malformation
from tamiyo.errors import PacketRejected
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FaultLibrary, MemoryLibrary, MemoryRecord
from tamiyo.testing import strategies as ts

FEW = settings(max_examples=40)


@FEW
@given(ts.undecodable_bytes())
def test_undecodable_bytes_never_parse(data: bytes) -> None:
    with pytest.raises(PacketRejected, match="do not parse"):
        read_packet(data, Limits())


@FEW
@given(ts.oversized_packets())
def test_oversized_packets_are_over_a_limit(made: pb.SystemStatePacket) -> None:
    with pytest.raises(PacketRejected, match="over the limit"):
        read_packet(made.SerializeToString(), Limits())


@FEW
@given(ts.hostile_packets() | ts.training_packets().map(lambda made: made.SerializeToString()))
def test_hostile_packets_are_packets(data: bytes) -> None:
    assert read_packet(data, Limits()).training_run_id


def test_hostile_bytes_hold_what_they_promise() -> None:
    """Each kind of badness comes up: the strategy does not quietly draw empty bytes."""
    seen: set[str] = set()

    @settings(max_examples=400, database=None, derandomize=True)
    @given(ts.hostile_bytes())
    def look(data: bytes) -> None:
        try:
            observation = read_packet(data, Limits())
        except PacketRejected as error:
            seen.add("undecodable" if "parse" in str(error) else "oversized")
            return
        if observation.global_step == 2**64 - 1:
            seen.add("negative step")
        if any(not 0 <= seed.stage <= 11 for seed in observation.seeds):
            seen.add("unknown enum")
        if observation.training_loss is not None and not math.isfinite(observation.training_loss):
            seen.add("not finite")
        if len(observation.metrics) == Limits().metrics_max:
            seen.add("huge map")

    look()
    assert seen == {"undecodable", "oversized", "negative step", "unknown enum", "not finite", "huge map"}


@FEW
@given(st.data())
def test_proposals_fit_their_graph(data: st.DataObject) -> None:
    observation = read_packet(packet(seeds=4).SerializeToString(), Limits())
    blueprints = data.draw(st.integers(0, 3))
    made = data.draw(ts.proposals((0, 2, 3), blueprints))
    assert malformation(made, observation, blueprints) is None
    assert made.seed_index in (0, 2, 3)


@FEW
@given(ts.malformed_proposals())
def test_malformed_proposals_fit_no_graph(made: object) -> None:
    observation = read_packet(packet(seeds=4).SerializeToString(), Limits())
    assert malformation(made, observation, 4) is not None


@settings(max_examples=15)
@given(st.lists(ts.records(hostile=True) | ts.records(), max_size=3))
def test_a_library_of_any_records_leaves_steps_answered(given_records: list[MemoryRecord]) -> None:
    live = Live(urza=FaultLibrary(MemoryLibrary(*given_records)))
    for _ in range(2):
        assert live.step(packet(pb.SEED_STAGE_DORMANT)).annotations["risk_reason"]
    live.check()
    live.close()


@FEW
@given(ts.graph_metadata())
def test_graph_metadata_is_json(made: dict[str, object]) -> None:
    assert orjson.loads(orjson.dumps(made)) == made


@pytest.mark.parametrize("kind", ts.REGISTERED, ids=lambda kind: kind.__name__)
def test_types_are_inferred(kind: type) -> None:
    @settings(max_examples=5, database=None)
    @given(st.from_type(kind))
    def look(made: object) -> None:
        assert isinstance(made, kind)

    look()


def test_importing_the_package_registers_the_strategies() -> None:
    """In a process of its own, as a host's test module would."""
    program = (
        "import tamiyo.testing\n"
        "from hypothesis import given, settings, strategies as st\n"
        "from tamiyo.leyline import leyline_pb2 as pb\n"
        "@settings(max_examples=3, database=None)\n"
        "@given(...)\n"
        "def look(packet: pb.SystemStatePacket): assert isinstance(packet, pb.SystemStatePacket)\n"
        "look()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_proposal_is_of_any_action() -> None:
    seen = set()

    @settings(max_examples=300, database=None, derandomize=True)
    @given(ts.proposals())
    def look(made: Proposal) -> None:
        seen.add(made.action.index(1.0))

    look()
    assert set(range(6)) < seen
