"""Observations, blueprints and metadata for the tests of graph and policy, from plain values."""

from collections.abc import Mapping
from typing import Any

from tamiyo.core import registries
from tamiyo.core.blueprint import Blueprint, SafetySheet
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import Observation, read_packet
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder
from tamiyo.leyline import leyline_pb2 as pb

HOST = "run-1"
INITIAL = registries.initial()


def seed(stage: int = pb.SEED_STAGE_TRAINING, **fields: Any) -> pb.SeedState:
    return pb.SeedState(stage=stage, **fields)


def observed(*seeds: pb.SeedState, **fields: Any) -> Observation:
    """A packet of run-1, read; seeds without an id are numbered."""
    packet = pb.SystemStatePacket(**{"training_run_id": HOST, "packet_id": "packet-1", **fields})
    for place, one in enumerate(seeds):
        packet.seed_states.add().CopyFrom(one)
        packet.seed_states[place].seed_id = one.seed_id or f"seed-{place}"
    return read_packet(packet.SerializeToString(), Limits())


def blueprint(blueprint_id: str = HOST, digest: str = "digest", **fields: Any) -> Blueprint:
    defaults: dict[str, Any] = {
        "tier": 1, "stage": 0, "descriptor_risk": 0.1, "quarantine_only": False, "approval_required": False,
        "allowed_parameters": (), "sheet": None,
    }  # fmt: skip
    return Blueprint(blueprint_id, digest, **{**defaults, **fields})


def sheet(hazard_band: int = pb.HAZARD_BAND_HIGH) -> SafetySheet:
    return SafetySheet(0.6, hazard_band, pb.HANDLING_CLASS_STANDARD, pb.RESOURCE_PROFILE_CPU, pb.PROVENANCE_CURATED, "")


def metadata(layers: int = 0, activations: int = 0, parameters: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "layers": [
            {"layer_id": f"layer-{place}", "type": "linear", "depth": place, "parameter_count": 100 * (place + 1)}
            for place in range(layers)
        ],
        "activations": [
            {"activation_id": f"activation-{place}", "type": "relu", "saturation_rate": 0.1, "gradient_flow": 0.9}
            for place in range(activations)
        ],
        "parameters": [{"name": f"parameter-{place}", "min": 0.0, "max": 2.0} for place in range(parameters)],
        **more,
    }


def host(**given: Any) -> BlueprintInput:
    return BlueprintInput(blueprint(), metadata(**given))


def built(observation: Observation, *blueprints: BlueprintInput, known: Mapping[str, Any] | None = None) -> Graph:
    """A valid graph, its new names numbered first as a service does."""
    builder = GraphBuilder()
    keys = builder.registry_keys(observation, blueprints)
    entries = known or registries.extended(INITIAL, registries.assignments(INITIAL, keys)[0])
    graph = builder.build(observation, norms=PRIORS, registries=entries, blueprints=blueprints)
    graph.validate()
    return graph


def small_graph() -> Graph:
    """The small graph of the performance bars: 4 seeds, 1 blueprint, 8 layers, 4 activations, 4 parameters."""
    stages = (pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING)
    seeds = [
        seed(
            stage, gradient_norm=0.5, learning_rate=0.01, layer_depth=place, metrics={"alpha": 0.5, "blend_allowed": 1}
        )
        for place, stage in enumerate(stages)
    ]
    metrics = {"loss": 0.9, "gradient_norm": 1.1, "samples_per_s": 4_000.0, "hook_latency_ms": 10.0}
    observation = observed(*seeds, training_loss=0.9, global_step=100, training_metrics=metrics)
    return built(observation, host(layers=8, activations=4, parameters=4))
