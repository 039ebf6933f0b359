"""What a blueprint library holds: descriptors, safety sheets, graph metadata, and extras of every wrong shape."""

import math
from typing import Any

from hypothesis import strategies as st

from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.library import MemoryRecord
from tamiyo.testing.strategies.numbers import FLOAT32, IDS, TEXTS

__all__ = [
    "descriptors",
    "extras",
    "graph_metadata",
    "hostile_extras",
    "hostile_metadata",
    "json_values",
    "records",
    "safety_sheets",
]

BLUEPRINT_IDS = ("bp-1", "bp-2", "bp-3")
RISKS = (0.0, 0.25, 0.5, 0.75, 0.8125, 1.0, math.nan)
KEYS = st.sampled_from(
    (
        "layers", "activations", "parameters", "adjacency", "layer", "type", "depth", "activation", "activation_id",
        "parameter_count", "name", "min", "max", "span", "saturation_rate", "latency_ms", "monitors", "thresholds",
        "by_seed_id", "by_seed_index", "risk_max", "stage_min", "monitored_layers", "capabilities", "layer_id",
        "allowed_parameters_by_seed_id", "allowed_parameters_by_seed_index", "allowed_blending_methods", "default",
        "gradient_norm", "dropout_rate", "weight_norm", "input_channels", "output_channels", "gradient_flow",
        "computational_cost", "nonlinearity_strength", "optimizer_priors", "family", "learning_rate", "momentum",
    )
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.integers(0, 4),
    st.sampled_from(("relu", "conv2d", "\ud800")),  # the last is no text that can be written
)  # fmt: skip


@st.composite
def descriptors(draw: st.DrawFn, ids: st.SearchStrategy[str] | None = None) -> pb.BlueprintDescriptor:
    """A blueprint's descriptor; risk on either side of the thresholds, NaN included."""
    described = pb.BlueprintDescriptor(
        blueprint_id=draw(st.sampled_from(BLUEPRINT_IDS) if ids is None else ids),
        name=draw(TEXTS),
        risk=draw(st.sampled_from(RISKS) | FLOAT32),
        stage=draw(st.integers(0, 9)),
        quarantine_only=draw(st.booleans()),
        approval_required=draw(st.booleans()),
    )
    described.tier = draw(st.integers(0, 4))  # type: ignore[assignment]  # an open enum
    for name in draw(st.lists(IDS, max_size=2, unique=True)):
        bounds = described.allowed_parameters[name]
        bounds.min_value, bounds.max_value = draw(st.floats()), draw(st.floats())
    return described


@st.composite
def safety_sheets(draw: st.DrawFn) -> pb.BSDS:
    """A blueprint's safety sheet (BSDS); every band and class, and numbers that are none."""
    sheet = pb.BSDS(version=1, blueprint_id=draw(st.sampled_from(BLUEPRINT_IDS)), recommendation=draw(TEXTS))
    sheet.risk_score = draw(st.sampled_from(RISKS) | FLOAT32)
    sheet.hazard_band = draw(st.integers(0, 5))  # type: ignore[assignment]  # an open enum
    sheet.handling_class = draw(st.integers(0, 4))  # type: ignore[assignment]  # an open enum
    sheet.resource_profile = draw(st.integers(0, 6))  # type: ignore[assignment]  # an open enum
    sheet.provenance = draw(st.integers(0, 5))  # type: ignore[assignment]  # an open enum
    return sheet


def _layers(draw: st.DrawFn) -> list[dict[str, Any]]:
    kinds, activations = st.sampled_from(("conv2d", "linear")), st.sampled_from(("relu", "gelu"))
    return [
        {
            "layer_id": f"layer-{place}", "type": draw(kinds), "depth": place, "activation": draw(activations),
            "latency_ms": 0.5, "parameter_count": 100 * (place + 1), "dropout_rate": 0.1, "weight_norm": 1.0,
            "gradient_norm": 0.5, "input_channels": 8, "output_channels": 8,
        }
        for place in range(draw(st.integers(0, 4)))
    ]  # fmt: skip


@st.composite
def graph_metadata(draw: st.DrawFn) -> dict[str, Any]:
    """Graph metadata as the library's documents describe it: layers, activations, parameters, edges, capabilities."""
    layers = _layers(draw)
    places = st.integers(0, max(len(layers) - 1, 0))
    pairs = st.lists(st.tuples(places, places).map(list), max_size=4) if layers else st.just([])
    watched = st.lists(st.tuples(st.integers(0, 2), places, st.floats(0, 1)).map(list), max_size=3)
    return {
        "layers": layers,
        "activations": [
            {"activation_id": f"activation-{place}", "type": "relu", "saturation_rate": 0.1, "gradient_flow": 0.9,
             "computational_cost": 1.0, "nonlinearity_strength": 0.5}
            for place in range(draw(st.integers(0, 2)))
        ],
        "parameters": [
            {"name": f"parameter-{place}", "min": 0.0, "max": 2.0, "span": 2.0, "default": 1.0}
            for place in range(draw(st.integers(0, 2)))
        ],
        "adjacency": {"layer": draw(pairs)},
        "monitored_layers": draw(watched) if layers else [],
        "monitors": {"thresholds": {"risk_max": draw(st.sampled_from((0.5, 1.0))), "stage_min": 1}},
        "capabilities": {"allowed_blending_methods": draw(st.lists(st.sampled_from(("linear", "cosine")), max_size=2))},
    }  # fmt: skip


def json_values(max_leaves: int = 25) -> st.SearchStrategy[Any]:
    """Any JSON value, with the keys that mean something often enough to be found; floats beyond JSON's included."""
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS | IDS, inner, max_size=6),
        max_leaves=max_leaves,
    )


def hostile_metadata() -> st.SearchStrategy[Any]:
    """Graph metadata in which anything may be of the wrong type, out of range or missing."""
    any_json = json_values()
    rows = st.lists(st.dictionaries(KEYS, SCALARS, max_size=6) | SCALARS, max_size=5)
    edges = st.lists(st.lists(st.integers(-1, 5) | SCALARS, max_size=4) | SCALARS, max_size=6)
    adjacency = st.fixed_dictionaries({"layer": edges}) | any_json
    optional = dict.fromkeys(("layers", "activations", "parameters", "optimizer_priors"), rows | any_json)
    ties = {"monitors": _monitors(edges), "monitored_layers": edges | any_json, "capabilities": _capabilities()}
    return st.fixed_dictionaries({}, optional={**optional, **ties, "adjacency": adjacency}) | any_json


def _by_seed(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A table by seed, as an object or a list, with seeds and rows of which some are none."""
    seeds = st.sampled_from(("seed-a", "seed-b", "0", "1", "3", "x", "-1")) | IDS
    return st.dictionaries(seeds, rows | SCALARS, max_size=3) | st.lists(rows | SCALARS, max_size=3) | SCALARS


def _valued(*names: str) -> st.SearchStrategy[Any]:
    """An object of names, each with a value, of which some are none."""
    return st.dictionaries(st.sampled_from(names) | IDS, SCALARS | st.lists(SCALARS, max_size=2), max_size=3)


def _monitors(edges: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    thresholds = st.fixed_dictionaries(
        {}, optional={"risk_max": SCALARS, "stage_min": SCALARS | st.sampled_from(("BLENDING", "NEVER"))}
    )
    rows = st.lists(st.integers(-1, 5) | SCALARS, max_size=4) | edges | _valued("layer-0", "layer-1")
    shaped = {"by_seed_id": _by_seed(rows), "by_seed_index": _by_seed(rows), "thresholds": thresholds | SCALARS}
    return st.fixed_dictionaries({}, optional=shaped) | json_values(8)


def _capabilities() -> st.SearchStrategy[Any]:
    names = ("parameter-0", "parameter-1")
    rows = st.lists(st.integers(-1, 3) | SCALARS | st.sampled_from(names), max_size=4) | _valued(*names)
    methods = st.lists(SCALARS | st.sampled_from(("linear", "Sigmoid")), max_size=3) | _valued("linear", "SIGMOID")
    shaped = {
        "allowed_parameters_by_seed_id": _by_seed(rows),
        "allowed_parameters_by_seed_index": _by_seed(rows),
        "allowed_blending_methods": methods | SCALARS,
    }
    return st.fixed_dictionaries({}, optional=shaped) | json_values(8)


def extras() -> st.SearchStrategy[dict[str, Any]]:
    """A record's extras, well formed: graph metadata and a safety sheet, or one of them, or nothing."""
    return st.fixed_dictionaries({}, optional={"graph_metadata": graph_metadata(), "bsds": safety_sheets()})


def hostile_extras() -> st.SearchStrategy[dict[str, Any]]:
    """Extras of the wrong type; a lookup that returns them must not take a step down with it."""
    sheets = safety_sheets() | st.sampled_from(
        ({"risk_score": "high"}, {"hazard_band": "CRITICAL"}, {"of_tomorrow": 1}, [1, 2], "text", 7, b"\xff")
    )
    return st.fixed_dictionaries({}, optional={"graph_metadata": hostile_metadata(), "bsds": sheets})


def records(ids: st.SearchStrategy[str] | None = None, *, hostile: bool = False) -> st.SearchStrategy[MemoryRecord]:
    """What a library returns for an id."""
    return st.builds(MemoryRecord, descriptors(ids), hostile_extras() if hostile else extras())
