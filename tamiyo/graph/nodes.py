"""The rows of the nodes in one step: what the packet moves, laid over what the blueprints keep."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from tamiyo.core.norms import NORM_INPUTS
from tamiyo.core.observation import Observation
from tamiyo.graph.graph import FloatArray, RawArray, freeze
from tamiyo.graph.layout import Layout
from tamiyo.graph.scaling import NormColumns, scaled
from tamiyo.graph.schema import FEATURES, column
from tamiyo.graph.topology import Topology

__all__ = ["node_rows", "norm_inputs"]

_PACKET_FIELDS = ("training_loss", "validation_loss", "validation_accuracy", "current_epoch", "global_step")
_HARDWARE_FIELDS = (
    "total_memory_gb",
    "available_memory_gb",
    "temperature_celsius",
    "utilization_percent",
    "compute_capability",
)
_METRICS = tuple(
    feature.name for feature in FEATURES["global"] if feature.name not in (*_PACKET_FIELDS, *_HARDWARE_FIELDS)
)

_LIVE = tuple(
    (kind, column(kind, feature.name), feature.name.removeprefix("live_"))
    for kind in FEATURES
    for feature in FEATURES[kind]
    if feature.name.startswith("live_")
)
"""Columns that every node of a type shares: (node type, column, entry of `training_metrics`)."""

_NORM_METRICS = {
    "loss": "loss",
    "gradient_norm": "gradient_norm",
    "samples_per_s": "samples_per_s",
    "hook_latency_ms": "hook_latency_ms",
    "learning_rate": "optimizer_lr",
    "gradient_variance": "grad_var",
    "momentum": "optimizer_momentum",
}
"""Which entry of `training_metrics` feeds which norm; `parameter_count` takes the layers in turn."""

_GLOBAL_LIVE = {metric: column("global", metric) for _, _, metric in _LIVE}


def node_rows(
    observation: Observation, layout: Layout, seeds: RawArray, norms: NormColumns
) -> tuple[dict[str, RawArray], dict[str, FloatArray]]:
    """Raw values and features of every node type; `seeds` are the seeds' raw rows.

    Call it under `np.errstate(all="ignore")`, as `scaled`.
    """
    topology = layout.topology
    raw = {"global": _global_row(observation), "seed": seeds, **topology.raw}
    features = scaled(raw, layout.columns, norms)
    features.update(topology.features)
    for kind in topology.moved:
        features[kind] = topology.features[kind].copy()
    topology.moving.write(features, norms)
    copied = _fill_in_live(observation, raw, features)
    freeze([raw[kind] for kind in ("global", "seed", *copied)])
    freeze([features[kind] for kind in ("global", "seed", *topology.moved)])
    return raw, features


def _fill_in_live(
    observation: Observation, raw: dict[str, RawArray], features: Mapping[str, FloatArray]
) -> Iterable[str]:
    """A live column is the global node's of the same metric and norm, said once more at every node of a type.

    Returns the node types whose raw rows are a copy now.
    """
    told, width = features["global"][0], len(FEATURES["global"])
    copied = set()
    for kind, place, metric in _LIVE:
        if not len(raw[kind]):
            continue
        if kind not in copied:
            raw[kind] = raw[kind].copy()
            copied.add(kind)
        at = _GLOBAL_LIVE[metric]
        raw[kind][:, place] = observation.metrics.get(metric, math.nan)
        features[kind][:, place] = told[at]
        features[kind][:, place + len(FEATURES[kind])] = told[at + width]
    return copied


def _global_row(observation: Observation) -> RawArray:
    nan, hardware = math.nan, observation.hardware
    fields = [getattr(observation, name) for name in _PACKET_FIELDS]
    metrics = [observation.metrics.get(name, nan) for name in _METRICS]
    device = [getattr(hardware, name) if hardware is not None else nan for name in _HARDWARE_FIELDS]
    return np.array([[nan if value is None else value for value in (*fields, *metrics, *device)]], dtype=np.float64)


def norm_inputs(observation: Observation, topology: Topology) -> tuple[tuple[int, float], ...]:
    """(row of NORM_INPUTS, value), log1p applied where the row says so."""
    found = []
    for place, row in enumerate(NORM_INPUTS):
        value = _norm_value(row.name, observation, topology)
        if value is not None and math.isfinite(value) and (value > -1.0 or not row.log1p):
            found.append((place, math.log1p(value) if row.log1p else value))
    return tuple(found)


def _norm_value(name: str, observation: Observation, topology: Topology) -> float | None:
    if name in _NORM_METRICS:
        value = observation.metrics.get(_NORM_METRICS[name])
        return observation.training_loss if value is None and name == "loss" else value
    # One update a step, from layers that differ: each has its turn, so that the norm learns their spread.
    counts = topology.parameter_counts
    return counts[observation.global_step % len(counts)] if counts else None
