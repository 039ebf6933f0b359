"""What the network runs on, from the engine through the journal to the telemetry that goes out."""

import asyncio
from dataclasses import replace
from pathlib import Path

from live import PATIENT
from policy.processor import Processor
from rig import SECRET, packet

from tamiyo import Settings, TamiyoService
from tamiyo.bench.chance import random_network
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.engine import build
from tamiyo.policy.gnn import GnnPolicy, engine_identity
from tamiyo.testing import ManualClock, MemoryBus


def told(bus: MemoryBus) -> list[pb.TelemetryPacket]:
    packets = [
        pb.TelemetryPacket.FromString(message.payload) for message in bus.messages if "telemetry" in message.stream
    ]
    return [one for one in packets if "policy_compile" in one.system_health.indicators]


def test_a_device_that_fails_while_a_run_is_on_is_told_in_the_telemetry_of_that_step(tmp_path: Path) -> None:
    device, bus = Processor(), MemoryBus()
    built = build(random_network(3), device=lambda: device)
    assert built.engine is not None
    identity = PolicyIdentity("gnn-test", "tamiyo_gnn_v1", "", compile_warm_ms=built.warm_ms)
    policy = GnnPolicy(random_network(3), engine_identity(identity, built.engine), engine=built.engine)
    settings = Settings(**PATIENT)
    with TamiyoService.open(tmp_path, policy=policy, secret=SECRET, settings=settings, clock=ManualClock()) as service:
        service.evaluate_step(packet())
        device.failing = 1
        service.evaluate_step(packet())
        service.evaluate_step(packet())
        service.flush()
        assert asyncio.run(service.publish_history(bus))
    steps = [{metric.name: metric.value for metric in one.metrics} for one in told(bus)]
    assert [step["tamiyo.gnn.compile_enabled"] for step in steps] == [1.0, 1.0, 1.0]
    assert [step["tamiyo.gnn.compile_fallback_total"] for step in steps] == [0.0, 1.0, 1.0]
    assert {step["tamiyo.gnn.compile_warm_ms"] for step in steps} == {built.warm_ms}
    assert [one.system_health.indicators["policy_compile"] for one in told(bus)] == ["1", "1", "1"]


def test_plain_torch_and_the_reference_are_told_as_not_compiled(tmp_path: Path) -> None:
    bus, network = MemoryBus(), random_network(3)
    reference = GnnPolicy(network, PolicyIdentity("reference", "tamiyo_gnn_v1", "pyg", compile_fallbacks=1))
    with TamiyoService.open(
        tmp_path, policy=reference, secret=SECRET, settings=Settings(**PATIENT), clock=ManualClock()
    ) as service:
        service.evaluate_step(packet())
        reference.identity = replace(reference.identity, compile_fallbacks=2)
        service.evaluate_step(packet())
        service.flush()
        assert asyncio.run(service.publish_history(bus))
    steps = [{metric.name: metric.value for metric in one.metrics} for one in told(bus)]
    assert [step["tamiyo.gnn.compile_enabled"] for step in steps] == [0.0, 0.0]
    assert [step["tamiyo.gnn.compile_fallback_total"] for step in steps] == [1.0, 2.0]
    assert [one.system_health.indicators["policy_compile"] for one in told(bus)] == ["0", "0"]
