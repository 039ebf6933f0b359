"""What is measured on: two hosts, packets of a run under way, a library that has them.

The small graph has 22 nodes: global 1, seed 4, blueprint 1, layer 8, activation 4, parameter 4. The large one has
10,000 (1, 32, 1, 4,000, 3,000 and 2,966) and about 56,000 edges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tamiyo.core import registries
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import Observation, read_packet
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder
from tamiyo.leyline import leyline_pb2 as pb

__all__ = [
    "HOST",
    "INITIAL",
    "LARGE_HOST",
    "LARGE_SEEDS",
    "SMALL_SEEDS",
    "OneHost",
    "blueprint",
    "built",
    "host",
    "large_host",
    "metadata",
    "observed",
    "packet",
    "seed",
    "small_graph",
    "small_host",
    "training_packet",
    "training_step",
]

HOST = "run-1"
INITIAL = registries.initial()
SMALL_SEEDS, LARGE_SEEDS = 4, 32
LARGE_HOST = {"layer": 4_000, "activation": 3_000, "parameter": 2_966}

STAGES = (pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_GERMINATED, pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING)


def seed(stage: int = pb.SEED_STAGE_TRAINING, **fields: Any) -> pb.SeedState:
    """A seed; its fields are Leyline's."""
    return pb.SeedState(stage=stage, **fields)  # type: ignore[arg-type]  # a number of the enum is one of it


def packet(*seeds: pb.SeedState, **fields: Any) -> pb.SystemStatePacket:
    """A packet of run-1; seeds without an id are numbered."""
    made = pb.SystemStatePacket(**{"training_run_id": HOST, "packet_id": "packet-1", **fields})
    for place, one in enumerate(seeds):
        made.seed_states.add().CopyFrom(one)
        made.seed_states[place].seed_id = one.seed_id or f"seed-{place}"
    return made


def observed(*seeds: pb.SeedState, **fields: Any) -> Observation:
    """The same, read."""
    return read_packet(packet(*seeds, **fields).SerializeToString(), Limits())


def training_packet(seeds: int, step: int) -> pb.SystemStatePacket:
    """A packet of a quiet run under way: every number differs from step to step and is the same for a step."""
    draw = Random(step)  # noqa: S311  numbers to measure with, no secret
    metrics = {
        "loss": 0.8 + 0.01 * draw.random(), "gradient_norm": 1.0 + 0.1 * draw.random(),
        "samples_per_s": 4_000 + draw.random(), "hook_latency_ms": 1 + draw.random(), "optimizer_lr": 0.01,
        "step_latency_ms": 10 + draw.random(),
    }  # fmt: skip
    return packet(
        *(
            seed(STAGES[place % 4], gradient_norm=0.5 + draw.random(), learning_rate=0.01, layer_depth=place,
                 age_epochs=step, risk_score=0.1 * draw.random(),
                 metrics={"alpha": draw.random(), "blend_allowed": 1})
            for place in range(seeds)
        ),
        training_loss=metrics["loss"], validation_loss=metrics["loss"], global_step=step, training_metrics=metrics,
        packet_id=f"packet-{step}",
    )  # fmt: skip


def training_step(seeds: int, step: int) -> Observation:
    """The same, read."""
    return read_packet(training_packet(seeds, step).SerializeToString(), Limits())


def blueprint(blueprint_id: str = HOST, digest: str = "digest", **fields: Any) -> Blueprint:
    """A blueprint of little risk."""
    defaults: dict[str, Any] = {
        "tier": 1, "stage": 0, "descriptor_risk": 0.1, "quarantine_only": False, "approval_required": False,
        "allowed_parameters": (), "sheet": None,
    }  # fmt: skip
    return Blueprint(blueprint_id, digest, **{**defaults, **fields})


def metadata(layers: int = 0, activations: int = 0, parameters: int = 0, **more: Any) -> dict[str, Any]:
    """A host's graph metadata, so many of each."""
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
    """The host's own blueprint with `metadata` of this."""
    return BlueprintInput(blueprint(), metadata(**given))


def small_host() -> BlueprintInput:
    """The blueprint of the small graph."""
    return host(layers=8, activations=4, parameters=4)


def large_host() -> BlueprintInput:
    """The blueprint of the large graph."""
    draw = Random(0)  # noqa: S311  numbers to measure with, no secret
    layers, activations, parameters = LARGE_HOST.values()
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
        "capabilities": {
            "allowed_parameters_by_seed_id": {f"seed-{place}": list(range(60)) for place in range(LARGE_SEEDS)}
        },
    }  # fmt: skip
    return BlueprintInput(blueprint(digest="large"), given)


def built(observation: Observation, *blueprints: BlueprintInput, known: registries.Registries | None = None) -> Graph:
    """A valid graph, its new names numbered first as a service does."""
    builder = GraphBuilder()
    keys = builder.registry_keys(observation, blueprints)
    entries = known or registries.extended(INITIAL, registries.assignments(INITIAL, keys)[0])
    graph = builder.build(observation, norms=PRIORS, registries=entries, blueprints=blueprints)
    graph.validate()
    return graph


def small_graph() -> Graph:
    """The small graph, of one packet."""
    seeds = [
        seed(
            stage, gradient_norm=0.5, learning_rate=0.01, layer_depth=place, metrics={"alpha": 0.5, "blend_allowed": 1}
        )
        for place, stage in enumerate(STAGES)
    ]
    metrics = {"loss": 0.9, "gradient_norm": 1.1, "samples_per_s": 4_000.0, "hook_latency_ms": 10.0}
    observation = observed(*seeds, training_loss=0.9, global_step=100, training_metrics=metrics)
    return built(observation, small_host())


@dataclass(frozen=True)
class HostRecord:
    """What a library returns."""

    descriptor: pb.BlueprintDescriptor
    extras: Mapping[str, Any] = field(default_factory=dict)


class OneHost:
    """A library in memory with one host's blueprint."""

    def __init__(self, given: BlueprintInput) -> None:
        descriptor = pb.BlueprintDescriptor(blueprint_id=HOST, risk=given.blueprint.descriptor_risk)
        self.records = {HOST: HostRecord(descriptor, {"graph_metadata": given.metadata})}

    def list(self) -> Sequence[str]:
        """Its one id."""
        return list(self.records)

    def get(self, blueprint_id: str) -> HostRecord | None:
        """Its one record."""
        return self.records.get(blueprint_id)
