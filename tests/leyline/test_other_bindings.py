"""A host's own Leyline bindings: whatever it hands over is taken as ours is."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from live import Live, Record
from rig import SECRET, packet

from tamiyo.integrations.kasmina import GraftPoint, SeedManager
from tamiyo.integrations.tolaria import Run, StepMonitor
from tamiyo.integrations.urza import UrzaLibrary, safety_sheet
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import content_of
from tamiyo.signing import Verifier, sign_update

POOL = DescriptorPool()
for module in (duration_pb2, struct_pb2, timestamp_pb2, pb):
    POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)

SHEET = pb.BSDS(blueprint_id="run-1", risk_score=0.5, hazard_band=pb.HAZARD_BAND_HIGH)
DESCRIPTOR = pb.BlueprintDescriptor(blueprint_id="run-1", risk=0.25)


def theirs(ours: Message) -> Any:
    """The same message, of other classes than ours."""
    made = message_factory.GetMessageClass(POOL.FindMessageTypeByName(ours.DESCRIPTOR.full_name))
    assert made is not type(ours)
    return made.FromString(ours.SerializeToString())


@pytest.fixture
def command() -> Any:
    live = Live()
    yield theirs(live.step(theirs(packet())))
    live.close()


def verifier(command: Any) -> Verifier:
    return Verifier(SECRET, wall_ns=command.issued_at.ToNanoseconds)


def test_a_command_is_verified(command: Any) -> None:
    belief = verifier(command)
    changed = theirs(pb.AdaptationCommand.FromString(command.SerializeToString()))
    changed.target_seed_id = "another"
    assert belief.verify(changed).reason == "invalid_signature"
    assert belief.verify(command).accepted
    assert belief.verify(command).reason == "nonce_replayed"


def test_a_command_is_carried_out(command: Any) -> None:
    manager = SeedManager({"seed-0": GraftPoint(2, depth=1)}, verifier(command))
    assert manager.apply(command).outcome == "refused", "authentic, and of a seed that has not germinated"


def test_the_states_of_seeds_go_into_a_packet() -> None:
    seed = pb.SeedState(seed_id="seed-0", stage=pb.SEED_STAGE_TRAINING, metrics={"alpha": 0.5})
    assert list(StepMonitor(Run("run-1")).packet(seeds=[theirs(seed), seed]).seed_states) == [seed, seed]


def test_a_blueprint_and_its_safety_sheet_are_kept_and_read(tmp_path: Path) -> None:
    with UrzaLibrary.open(tmp_path / "urza.sqlite") as library:
        library.save(theirs(DESCRIPTOR), b"", {"bsds": theirs(SHEET)})
        record = library.get("run-1")
    assert record is not None
    assert (record.descriptor, safety_sheet(record.extras)) == (DESCRIPTOR, SHEET)
    assert safety_sheet({"bsds": theirs(SHEET)}) == SHEET
    content = content_of(Record(theirs(DESCRIPTOR), {"bsds": theirs(SHEET)}))
    assert content == content_of(Record(DESCRIPTOR, {"bsds": SHEET}))


def test_a_message_that_is_no_safety_sheet_is_none() -> None:
    assert safety_sheet({"bsds": theirs(DESCRIPTOR)}) is None


def test_a_policy_update_is_judged_by_its_bytes() -> None:
    live, update = Live(), theirs(pb.PolicyUpdate(version=1, policy_id="p"))
    verdict = live.service.ingest_policy_update(update, sign_update(update, SECRET))
    assert verdict.reason == "stale_update", "it says nothing of when; its signature was good"
    live.close()
