"""Observations, blueprints and metadata for the tests of graph and policy, from plain values."""

from collections.abc import Mapping
from random import Random
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


LARGE = {"layer": 4_000, "activation": 3_000, "parameter": 2_966}


def large_host() -> BlueprintInput:
    """The blueprint of the large graph of the performance bars: with a global node and 32 seeds, 10,000 nodes."""
    draw = Random(0)
    layers, activations, parameters = LARGE.values()
    given = {
        "layers": [
            {"layer_id": f"layer-{place}", "type": ("conv2d", "linear", "norm")[place % 3], "depth": place // 4,
             "latency_ms": draw.random(), "parameter_count": draw.randrange(10**6), "dropout_rate": 0.1,
             "weight_norm": 9 * draw.random(), "gradient_norm": draw.random(),
             "activation": f"activation-{place % activations}", "input_channels": 64, "output_channels": 128}
            for place in range(layers)
        ],
        "activations": [
            {"activation_id": f"activation-{place}", "type": "relu", "saturation_rate": draw.random(),
             "gradient_flow": draw.random(), "computational_cost": 1.0, "nonlinearity_strength": draw.random()}
            for place in range(activations)
        ],
        "parameters": [
            {"name": f"parameter-{place}", "min": 0.0, "max": 1.0, "span": 1.0, "default": 0.5}
            for place in range(parameters)
        ],
        "adjacency": {
            "layer": [[place, place + 1, draw.random()] for place in range(layers - 1)]
            + [[place, place + 7, draw.random()] for place in range(layers - 7)]
        },
        "capabilities": {"allowed_parameters_by_seed_id": {f"seed-{place}": list(range(60)) for place in range(32)}},
    }  # fmt: skip
    return BlueprintInput(blueprint(digest="large"), given)


def training_step(seeds: int, step: int) -> Observation:
    """A packet of a run under way, every number of it different from step to step and the same for a step."""
    draw = Random(step)
    stages = (pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING)
    metrics = {"loss": draw.random(), "gradient_norm": 0.5 + draw.random(), "samples_per_s": 4_000 + draw.random(),
               "hook_latency_ms": 10 * draw.random(),
               "optimizer_lr": 0.01, "step_latency_ms": 40 * draw.random()}  # fmt: skip
    return observed(
        *(
            seed(stages[place % 4], gradient_norm=0.5 + draw.random(), learning_rate=0.01, layer_depth=place,
                 age_epochs=step, risk_score=draw.random() / 2, metrics={"alpha": draw.random(), "blend_allowed": 1})
            for place in range(seeds)
        ),
        training_loss=0.1 + draw.random(), global_step=step, training_metrics=metrics,
    )  # fmt: skip
