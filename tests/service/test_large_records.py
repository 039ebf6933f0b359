"""Records that are larger than a segment of the log."""

import pytest
from live import DictLibrary, Live, Record, reason, step_until
from rig import packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.errors import PacketRejected
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing import FixedPolicy

SEGMENT_BYTES = 2**16


def verbose(blueprint_id: str) -> Record:
    """A blueprint that fits the log, with names that take more than half of a segment to be numbered."""
    layers = [{"layer_id": str(place), "type": f"{blueprint_id}-{place}-" + "x" * 450} for place in range(80)]
    return Record(pb.BlueprintDescriptor(blueprint_id=blueprint_id), {"graph_metadata": {"layers": layers}})


def test_a_step_whose_records_do_not_fit_the_log_is_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    """Each blueprint fits; the names that are new with all of them do not."""
    names = ("run-1", "bp-2", "bp-3")
    live = Live(policy=FixedPolicy(1), urza=DictLibrary(), segment_bytes=SEGMENT_BYTES)
    assert reason(live.step(packet())) == "policy"
    live.urza.records.update({name: verbose(name) for name in names})
    live.clock.advance(301)  # what was looked up is not fresh any more
    live.step(packet(seeds=0))
    step_until(live, lambda: set(names) <= set(live.service.state.blueprints))
    paused = [live.step(packet()) for _ in range(3)]
    assert [reason(command) for command in paused] == ["log_full"] * 3
    assert caplog.text.count("do not fit the log") == 1
    assert "TAMIYO_SEGMENT_BYTES" in caplog.text
    assert live.service.packets_rejected == 0, "there is nothing wrong with the packets"
    live.reopen()
    assert live.service.state.undecided == ()
    assert {event.cause for event in live.events(journal.StepPaused)} == {"log_full"}
    live.check()
    live.close()


def test_a_packet_that_does_not_fit_the_log_is_rejected_and_not_journaled() -> None:
    live = Live(policy=FixedPolicy(1), segment_bytes=SEGMENT_BYTES)
    with pytest.raises(PacketRejected, match="TAMIYO_SEGMENT_BYTES"):
        live.step(packet(experiment_name="x" * SEGMENT_BYTES))
    assert live.service.state.undecided == ()
    assert live.events(journal.StepReceived) == []
    assert reason(live.step(packet())) == "policy"
    live.check()
    live.close()
