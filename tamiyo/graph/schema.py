"""The tables of the graph: node types with their features, relations with their edge attributes.

Everything else in this package interprets these tables. docs/graph.md shows them; `python -m
tamiyo.graph.docs` prints them and a test compares. `tamiyo_gnn_v1` checkpoints carry `SCHEMA_DIGEST`:
a change here is a change of architecture.

Columns. A node row is float32 [2F]: F values, then F masks. A value is (x - offset) / scale, of log(1 + x)
where `log1p` says so, clipped to +-CLIP; offset and scale are constants, or the running norm that `norm`
names. Absent or not finite: the value is `default` (0 but for three) and the mask 0, else the mask is 1.
An edge row is float32 [6]: three values and three masks; a relation with fewer attributes leaves the rest 0.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from hashlib import sha256
from types import MappingProxyType

from tamiyo.core.norms import NORM_INDEX, NORM_INPUTS
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.core.registries import CAPACITIES

__all__ = [
    "CATEGORIES",
    "CLIP",
    "EDGE_ATTRIBUTES",
    "EDGE_COLUMNS",
    "FEATURES",
    "NODE_TYPES",
    "RELATIONS",
    "SCHEMA_DIGEST",
    "EdgeType",
    "Feature",
    "Relation",
    "column",
]

EdgeType = tuple[str, str, str]
"""(source, relation, target), as PyTorch Geometric names an edge type."""

CLIP = 8.0
"""Scaled values stay within +-8: a norm that has hardly varied makes deviations of any size."""

EDGE_ATTRIBUTES = 3
EDGE_COLUMNS = 2 * EDGE_ATTRIBUTES

NODE_TYPES = ("global", "seed", "blueprint", "layer", "activation", "parameter")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a node type.

    `source` says where the raw value comes from. `applies` is "always", or names the hardware without which
    an absent value is not counted in coverage.
    """

    name: str
    source: str
    offset: float = 0.0
    scale: float = 1.0
    log1p: bool = False
    norm: str = ""
    default: float = 0.0
    applies: str = "always"


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation. `carrier` is the end whose features the attributes copy, "given" where the edge has its own."""

    source: str
    name: str
    target: str
    attributes: tuple[str, ...]
    carrier: str

    @property
    def edge_type(self) -> EdgeType:
        """The key of its arrays."""
        return (self.source, self.name, self.target)

    @property
    def label(self) -> str:
        """As documents write it: `layer-connects-layer`."""
        return f"{self.source}-{self.name}-{self.target}"

    @property
    def family(self) -> str:
        """Its coverage family: `edges.layer_connects`."""
        return f"edges.{self.source}_{self.name}"


def _plain(name: str, source: str, scale: float = 1.0, applies: str = "always") -> Feature:
    return Feature(name, source, scale=scale, applies=applies)


def _logged(name: str, source: str, scale: float) -> Feature:
    return Feature(name, source, scale=scale, log1p=True)


def _normed(name: str, source: str, norm: str) -> Feature:
    return Feature(name, source, log1p=NORM_INPUTS[NORM_INDEX[norm]].log1p, norm=norm)


def _metric(name: str, scale: float, applies: str = "always") -> Feature:
    return _plain(name, f"training_metrics[{name}]", scale, applies)


def _normed_metric(name: str, norm: str) -> Feature:
    return _normed(name, f"training_metrics[{name}]", norm)


def _halved(name: str, source: str) -> Feature:
    return Feature(name, source, default=0.5)


FEATURES: Mapping[str, tuple[Feature, ...]] = MappingProxyType(
    {
        "global": (
            _normed("training_loss", "training_loss", "loss"),
            _normed("validation_loss", "validation_loss", "loss"),
            _plain("validation_accuracy", "validation_accuracy"),
            _logged("current_epoch", "current_epoch", 5.0),
            _logged("global_step", "global_step", 10.0),
            _normed_metric("loss", "loss"),
            _normed_metric("gradient_norm", "gradient_norm"),
            _normed_metric("samples_per_s", "samples_per_s"),
            _normed_metric("hook_latency_ms", "hook_latency_ms"),
            _metric("step_latency_ms", 120.0),
            _metric("tamiyo_latency_ms", 10.0),
            _metric("kasmina.apply_ms", 30.0),
            _metric("kasmina.finalize_ms", 30.0),
            _metric("loss_delta", 0.15),
            _normed_metric("loss_ewma", "loss"),
            _metric("loss_volatility", 0.15),
            _normed_metric("grad_norm_ewma", "gradient_norm"),
            _normed_metric("grad_var", "gradient_variance"),
            _metric("grad_conflict_rate", 1.0),
            _normed_metric("optimizer_lr", "learning_rate"),
            _normed_metric("optimizer_momentum", "momentum"),
            _metric("input_wait_ms", 50.0),
            _metric("h2d_copy_ms", 50.0, "accelerator"),
            _metric("gpu_mem_used_gb", 80.0, "accelerator"),
            _metric("gpu_mem_free_gb", 80.0, "accelerator"),
            _metric("gpu_util_percent", 100.0, "accelerator"),
            _metric("cpu_util_percent", 100.0),
            _plain("total_memory_gb", "hardware_context.total_memory_gb", 80.0, "hardware"),
            _plain("available_memory_gb", "hardware_context.available_memory_gb", 80.0, "hardware"),
            _plain("temperature_celsius", "hardware_context.temperature_celsius", 100.0, "accelerator"),
            _plain("utilization_percent", "hardware_context.utilization_percent", 100.0, "hardware"),
            _plain("compute_capability", "hardware_context.compute_capability", 100.0, "accelerator"),
        ),
        "seed": (
            _plain("stage", "stage", 11.0),
            _normed("learning_rate", "learning_rate", "learning_rate"),
            _halved("risk", "risk_score"),
            _normed("gradient_norm", "gradient_norm", "gradient_norm"),
            _logged("age", "age_epochs", 5.0),
            _plain("layer_depth", "layer_depth", 64.0),
            _plain("alpha", "metrics[alpha]"),
            _plain("alpha_steps", "metrics[alpha_steps]", 100.0),
            _plain("alpha_total_steps", "metrics[alpha_total_steps]", 100.0),
            _plain("alpha_temperature", "metrics[alpha_temperature]"),
            _plain("blend_allowed", "metrics[blend_allowed]"),
            _plain("risk_tolerance", "metrics[risk_tolerance]"),
            _plain("operation_allowed", "metrics[operation_allowed]"),
            _halved("activity", "metrics[activity]"),
            _halved("success", "metrics[success]"),
            *(
                _plain(f"blend_allowed_{name}", f"metrics[blend_allowed_{name}], else the host's capabilities")
                for name in BLENDING_METHODS
            ),
            _plain("allowed_parameters", "share of the host's parameters that it may set"),
        ),
        "blueprint": (
            _plain("tier", "descriptor tier", 3.0),
            _plain("stage", "descriptor stage", 11.0),
            _plain("risk", "the larger of descriptor and sheet risk"),
            _plain("quarantine_only", "descriptor quarantine_only"),
            _plain("approval_required", "descriptor approval_required"),
            _plain("sheet_risk", "sheet risk_score"),
            _plain("hazard_band", "sheet hazard_band", 4.0),
            _plain("handling_class", "sheet handling_class", 3.0),
            _plain("resource_profile", "sheet resource_profile", 5.0),
            _plain("provenance", "sheet provenance", 4.0),
            _logged("layer_count", "number of its layer nodes", 5.0),
            _logged("parameter_count", "sum of its layers' parameter_count", 20.0),
            _normed("prior_learning_rate", "optimizer_priors.learning_rate", "learning_rate"),
            _normed("prior_momentum", "optimizer_priors.momentum", "momentum"),
            _plain("prior_weight_decay", "optimizer_priors.weight_decay", 0.1),
        ),
        "layer": (
            _plain("depth", "layers[].depth", 64.0),
            _plain("latency_ms", "layers[].latency_ms", 10.0),
            _normed("parameter_count", "layers[].parameter_count", "parameter_count"),
            _plain("dropout_rate", "layers[].dropout_rate"),
            _logged("weight_norm", "layers[].weight_norm", 5.0),
            _normed("gradient_norm", "layers[].gradient_norm", "gradient_norm"),
            _logged("input_channels", "layers[].input_channels", 8.0),
            _logged("output_channels", "layers[].output_channels", 8.0),
            _normed("live_loss", "training_metrics[loss]", "loss"),
            _normed("live_gradient_norm", "training_metrics[gradient_norm]", "gradient_norm"),
            _normed("live_hook_latency_ms", "training_metrics[hook_latency_ms]", "hook_latency_ms"),
        ),
        "activation": (
            _plain("saturation_rate", "activations[].saturation_rate"),
            _plain("gradient_flow", "activations[].gradient_flow"),
            _plain("computational_cost", "activations[].computational_cost"),
            _plain("nonlinearity_strength", "activations[].nonlinearity_strength"),
            _normed("live_gradient_norm", "training_metrics[gradient_norm]", "gradient_norm"),
        ),
        "parameter": (
            _plain("min", "parameters[].min, else the descriptor's bound"),
            _plain("max", "parameters[].max, else the descriptor's bound"),
            _plain("span", "parameters[].span, else max - min"),
            _plain("default", "parameters[].default"),
        ),
    }
)
"""By node type, in column order."""

CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "global": ("optimizer_family",),
        "seed": ("seed_id", "schedule"),
        "blueprint": ("blueprint_id", "hazard_class", "optimizer_family"),
        "layer": ("layer_type", "activation_type"),
        "activation": ("activation_type",),
        "parameter": (),
    }
)
"""By node type, the registry of each categorical column; 0 is unknown."""

_SEED = ("stage", "risk", "alpha")
_BLUEPRINT = ("tier", "stage", "risk")
_LAYER = ("depth", "latency_ms", "parameter_count")
_ACTIVATION = ("saturation_rate", "gradient_flow", "computational_cost")
_PARAMETER = ("min", "max", "default")

RELATIONS: tuple[Relation, ...] = (
    Relation("global", "influences", "seed", _SEED, "target"),
    Relation("seed", "reports", "global", _SEED, "source"),
    Relation("global", "annotates", "blueprint", _BLUEPRINT, "target"),
    Relation("blueprint", "monitored_by", "global", _BLUEPRINT, "source"),
    Relation("seed", "peer", "seed", ("stage_gap", "depth_gap", "alpha_gap"), "given"),
    Relation("global", "operates", "layer", _LAYER, "target"),
    Relation("layer", "feedback", "global", _LAYER, "source"),
    Relation("layer", "activates", "activation", _ACTIVATION, "target"),
    Relation("activation", "affects", "layer", _ACTIVATION, "source"),
    Relation("activation", "configures", "parameter", _PARAMETER, "target"),
    Relation("parameter", "modulates", "activation", _PARAMETER, "source"),
    Relation("seed", "allowed", "parameter", _PARAMETER, "target"),
    Relation("parameter", "associated", "seed", _PARAMETER, "source"),
    Relation("blueprint", "composes", "layer", _LAYER, "target"),
    Relation("layer", "belongs_to", "blueprint", _LAYER, "source"),
    Relation("blueprint", "energizes", "activation", _ACTIVATION, "target"),
    Relation("parameter", "targets", "blueprint", _PARAMETER, "source"),
    Relation("layer", "connects", "layer", ("strength", "depth_gap"), "given"),
    Relation("seed", "monitors", "layer", ("weight", "depth_gap"), "given"),
    Relation("layer", "monitored_by", "seed", ("weight", "depth_gap"), "given"),
    Relation("layer", "feeds", "activation", _ACTIVATION, "target"),
)
"""The 21 relations. A gap is the target's scaled feature minus the source's; strength and weight come with the edge."""

_COLUMNS = {kind: {feature.name: index for index, feature in enumerate(row)} for kind, row in FEATURES.items()}


def column(node_type: str, feature: str) -> int:
    """The value column of a feature; its mask is F columns on.

    Raises:
        KeyError: there is no such node type or feature.
    """
    return _COLUMNS[node_type][feature]


def _digest() -> str:
    tables = [
        CLIP,
        [[kind, [astuple(feature) for feature in FEATURES[kind]], CATEGORIES[kind]] for kind in NODE_TYPES],
        [astuple(relation) for relation in RELATIONS],
        sorted(CAPACITIES.items()),
    ]
    return sha256(json.dumps(tables, separators=(",", ":")).encode()).hexdigest()


SCHEMA_DIGEST = _digest()
"""SHA-256, hex, over the tables and the registries' capacities: two builds with the same one make the same columns."""
