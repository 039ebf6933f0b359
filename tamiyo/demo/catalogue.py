"""What the blueprint library is told for the demo: the three modules that can grow, and the host itself.

The host's entry goes under the run's id, because that is where Tamiyo looks for the network that is being
trained. Its `graph_metadata` describes the network as it starts; what moves during training is in the packets.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.demo.network import DigitNetwork
from tamiyo.integrations.kasmina import BLUEPRINTS, SeedSettings
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Shelf", "describe", "stock"]


class Shelf(Protocol):
    """The part of a blueprint library that the demo fills; `tamiyo.integrations.urza.UrzaLibrary` is one."""

    def get(self, blueprint_id: str) -> object | None:
        """The record of an id, None when there is none."""

    def save(self, descriptor: pb.BlueprintDescriptor, artifact: bytes, extras: Mapping[str, Any]) -> object:
        """Store one blueprint."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Name, risk (0..1) and description of one blueprint."""

    name: str
    risk: float
    description: str


_ENTRIES: Mapping[str, _Entry] = {
    "conv-residual": _Entry("residual block", 0.20, "two 3x3 convolutions beside the identity"),
    "conv-bottleneck": _Entry("bottleneck block", 0.15, "1x1, 3x3, 1x1 over a quarter of the channels"),
    "se-gate": _Entry("squeeze and excitation", 0.10, "one learned gain for each channel"),
}
_DESCRIBED_CHANNELS = 32  # a blueprint fits any width; this one is described
_HOST_RISK = 0.05


def stock(
    shelf: Shelf, run_id: str, network: DigitNetwork, settings: SeedSettings, priors: Mapping[str, object]
) -> None:
    """Put the demo's blueprints into a library; what is there already stays as it is.

    Args:
        shelf: the library.
        run_id: the id of the training run, under which the host is stored.
        network: the host, untrained.
        settings: the seed manager's, for the bounds and the learning rate it states.
        priors: what the host is trained with: family, learning_rate, momentum, weight_decay of its optimizer.
    """
    for blueprint_id, entry in _ENTRIES.items():
        module = _example(blueprint_id)
        descriptor = _descriptor(blueprint_id, entry, {"alpha": (0.0, 1.0)})
        metadata = {"layers": describe(module), "parameters": [_parameter("alpha", 0.0, 1.0, 0.1)]}
        _save(shelf, descriptor, metadata, {"family": "adam", "learning_rate": settings.learning_rate, "momentum": 0.9})
    host = _Entry("digit network", _HOST_RISK, "three convolutions with a graft point after each")
    bounds = {"alpha": (0.0, 1.0), "lr_delta": (-settings.lr_delta_max, settings.lr_delta_max)}
    _save(shelf, _descriptor(run_id, host, bounds), host_metadata(network, settings), priors)


def host_metadata(network: DigitNetwork, settings: SeedSettings) -> dict[str, Any]:
    """The host's `graph_metadata`: layers in order, their activations, what may be adjusted, which seed sees what."""
    layers = describe(network)
    points = network.graft_points()
    return {
        "layers": layers,
        "activations": [_activation(layer) for layer in layers if layer["activation"] != "identity"],
        "parameters": [
            _parameter("alpha", 0.0, 1.0, 0.1),
            _parameter("lr_delta", -settings.lr_delta_max, settings.lr_delta_max, 0.0),
        ],
        "adjacency": {"layer": [[index, index + 1, 1.0] for index in range(len(layers) - 1)]},
        "monitored_layers": [[index, point.depth - 1, 1.0] for index, point in enumerate(points.values())],
        "monitors": {"thresholds": {"stage_min": "DORMANT", "risk_max": 1.0}},
        "capabilities": {
            "allowed_parameters_by_seed_id": {seed_id: ["alpha"] for seed_id in points},
            "allowed_blending_methods": list(BLENDING_METHODS),
        },
    }


def describe(module: nn.Module) -> list[dict[str, Any]]:
    """The convolutions and linear layers of a module in order, as `graph_metadata` rows; depth counts from 1."""
    found = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return [_layer(name, layer, depth, last=depth == len(found)) for depth, (name, layer) in enumerate(found, 1)]


def _example(blueprint_id: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # no device is seeded along
        return BLUEPRINTS[blueprint_id](_DESCRIBED_CHANNELS)


def _layer(name: str, layer: nn.Conv2d | nn.Linear, depth: int, *, last: bool) -> dict[str, Any]:
    is_conv = isinstance(layer, nn.Conv2d)
    return {
        "layer_id": name,
        "type": "conv2d" if is_conv else "linear",
        "depth": depth,
        "parameter_count": sum(parameter.numel() for parameter in layer.parameters()),
        "dropout_rate": 0.0,
        "weight_norm": round(float(layer.weight.detach().norm()), 6),
        "activation": "identity" if last else "relu",
        "input_channels": layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features,
        "output_channels": layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features,
    }


def _activation(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {"activation_id": f"{layer['layer_id']}.{layer['activation']}", "type": layer["activation"]}


def _parameter(name: str, low: float, high: float, default: float) -> dict[str, Any]:
    return {"name": name, "min": low, "max": high, "span": high - low, "default": default}


def _descriptor(blueprint_id: str, entry: _Entry, bounds: Mapping[str, Sequence[float]]) -> pb.BlueprintDescriptor:
    descriptor = pb.BlueprintDescriptor(
        blueprint_id=blueprint_id,
        name=entry.name,
        tier=pb.BLUEPRINT_TIER_SAFE,
        risk=entry.risk,
        description=entry.description,
    )
    for name, (low, high) in bounds.items():
        descriptor.allowed_parameters[name].min_value = low
        descriptor.allowed_parameters[name].max_value = high
    return descriptor


def _save(
    shelf: Shelf, descriptor: pb.BlueprintDescriptor, metadata: Mapping[str, Any], priors: Mapping[str, object]
) -> None:
    if shelf.get(descriptor.blueprint_id) is None:
        artifact = json.dumps({"builder": "tamiyo.integrations.kasmina", "blueprint": descriptor.blueprint_id})
        shelf.save(descriptor, artifact.encode(), {"graph_metadata": metadata, "optimizer_priors": priors})
