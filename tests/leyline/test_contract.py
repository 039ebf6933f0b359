"""The wire contract: the bindings are what the .proto generates, and the bytes are what others write."""

import gc
import struct
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.leyline._pool import POOL

MESSAGES = sorted(pb.DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize("proto", ["tamiyo/leyline/leyline.proto", "tamiyo/core/journal.proto"])
def test_the_committed_bindings_are_what_the_proto_generates(proto: str) -> None:
    pytest.importorskip("grpc_tools", reason="the protobuf compiler comes with the dev extra")
    from tamiyo.leyline.generate import PACKAGE_ROOT, render

    for target, text in render(Path(proto)).items():
        assert (PACKAGE_ROOT / target).read_text(encoding="utf-8") == text, f"{target} is stale"


def test_the_package_and_the_reserved_numbers_are_those_of_the_contract() -> None:
    assert pb.DESCRIPTOR.package == "esper.leyline.v1"
    assert POOL.FindMessageTypeByName("esper.leyline.v1.SystemStatePacket") is pb.SystemStatePacket.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    packet = next(message for message in file.message_type if message.name == "SystemStatePacket")
    assert [(span.start, span.end) for span in packet.reserved_range] == [(100, 200)]


def contract_lines() -> Iterator[str]:
    """Every enum value and every field, a line each, as the contract's table has them."""
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        for value in enum.values:
            yield f"enum {enum.name} {value.number} {value.name}"
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            union = f" oneof:{field.containing_oneof.name}" if field.containing_oneof else ""
            yield f"message {message.name} {field.number} {field.name} {type_name(field)}{union}"


def type_name(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"map<{type_name(key)},{type_name(value)}>"
    if named is None:
        scalar = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        return f"repeated{scalar}" if field.is_repeated else scalar
    short = named.full_name.removeprefix("esper.leyline.v1.")
    return f"repeated{short}" if field.is_repeated else short


def test_every_name_number_and_type_is_the_contract_s() -> None:
    table = (Path(__file__).parent / "contract.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(contract_lines()) == sorted(table)


def test_a_packet_written_by_hand_parses() -> None:
    """Bytes put together from the wire format alone: tag = number << 3 | type."""
    data = (
        b"\x08\x03"  # 1 version: varint 3
        b"\x25" + struct.pack("<f", 0.5)  # 4 validation_loss: 32-bit
        + b"\x3a\x0b\x0a\x04loss\x15" + struct.pack("<f", 1.25)  # 7 training_metrics: {key 1, value 2}
        + b"\x42\x06\x0a\x02s1\x10\x03"  # 8 seed_states: seed_id "s1", stage TRAINING
        + b"\x6a\x03run"  # 13 training_run_id
    )  # fmt: skip
    packet = pb.SystemStatePacket.FromString(data)
    assert (packet.version, packet.validation_loss, packet.training_metrics["loss"]) == (3, 0.5, 1.25)
    assert (packet.seed_states[0].seed_id, packet.seed_states[0].stage) == ("s1", pb.SEED_STAGE_TRAINING)
    assert packet.training_run_id == "run"


def test_a_command_is_written_by_number_with_sorted_maps() -> None:
    command = pb.AdaptationCommand(version=1, command_id="c", command_type=pb.COMMAND_PAUSE)
    command.annotations["b"] = "2"
    command.annotations["a"] = "1"
    by_hand = (
        b"\x08\x01\x12\x01c\x18\x05"  # 1 version, 2 command_id, 3 command_type
        b"\xa2\x01\x06\x0a\x01a\x12\x011"  # 20 annotations["a"]
        b"\xa2\x01\x06\x0a\x01b\x12\x012"  # 20 annotations["b"]
    )
    assert command.SerializeToString(deterministic=True) == by_hand


@pytest.mark.parametrize("name", MESSAGES)
def test_unknown_fields_of_a_newer_writer_are_kept(name: str) -> None:
    message = getattr(pb, name)
    data = b"\xd2\x3e\x03new"  # field 1002, length-delimited
    assert message.FromString(data).SerializeToString() == data


@pytest.mark.parametrize("order", ["host first", "host last"])
def test_a_host_s_own_bindings_live_beside_ours(order: str) -> None:
    """A host registers its own esper.leyline.v1 in the default pool, before or after us."""
    program = textwrap.dedent(
        f"""
        from google.protobuf import descriptor_pool, message_factory, timestamp_pb2, struct_pb2, duration_pb2
        def host():
            from pathlib import Path
            import re
            source = Path({pb.__file__!r}).read_text()
            data = eval(re.search(r"AddSerializedFile\\((b'.*')\\)", source).group(1))
            pool = descriptor_pool.Default()
            pool.AddSerializedFile(data)
            return message_factory.GetMessageClass(pool.FindMessageTypeByName("esper.leyline.v1.SystemStatePacket"))
        if {order!r} == "host first":
            packet = host()
            from tamiyo.leyline import leyline_pb2 as pb
        else:
            from tamiyo.leyline import leyline_pb2 as pb
            packet = host()
        assert packet is not pb.SystemStatePacket
        made = packet(training_run_id="host")
        assert pb.SystemStatePacket.FromString(made.SerializeToString()).training_run_id == "host"
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_classes_of_protobuf_s_own_types_stay() -> None:
    """Each that is made anew is a cycle for the collector."""
    kinds = [weakref.ref(type(pb.AdaptationCommand().issued_at)), weakref.ref(type(pb.EventEnvelope().ttl)),
             weakref.ref(type(pb.AdaptationCommand().rollback_payload))]  # fmt: skip
    gc.collect()
    assert all(kind() is not None for kind in kinds)
