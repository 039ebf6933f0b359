"""The golden graphs: what a packet and a library come to, written down, so that a feature cannot change unnoticed.

`tests/golden/graph/CASE.json` is an input: a packet, the records of a library, and norms where they have moved, all as
JSON. `CASE.graph.json` is the graph it makes and what the baseline proposes for it; what is masked is null.
`outputs.json` is what the network that is made from one seed says of each.

On purpose, after a change that is meant to be one (a change of the schema is a change of architecture):

    python tests/graph/golden.py            # writes the graphs; the diff shows which features changed
    python tests/policy/golden_outputs.py   # writes the outputs
"""

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from tamiyo.core.blueprint import content_digest, read_blueprint
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS, Norm
from tamiyo.core.observation import read_packet
from tamiyo.core.registries import assignments, extended, initial
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder, parse_metadata
from tamiyo.graph.schema import CATEGORIES, EDGE_ATTRIBUTES, FEATURES, NODE_TYPES, RELATIONS
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import content_of
from tamiyo.policy.baseline import BaselinePolicy
from tamiyo.testing.library import MemoryRecord

DIRECTORY = Path(__file__).resolve().parents[1] / "golden" / "graph"
OUTPUTS = DIRECTORY / "outputs.json"
CASES = sorted(path.stem for path in DIRECTORY.glob("*.json") if path != OUTPUTS and path.suffixes == [".json"])


def read(name: str) -> Any:
    return json.loads((DIRECTORY / name).read_text(encoding="utf-8"))


def graph_of(case: str) -> Graph:
    """The graph of one case, made as a service makes it: through the journaled content and the registries."""
    given = read(f"{case}.json")
    packet = ParseDict(given["packet"], pb.SystemStatePacket())
    observation = read_packet(packet.SerializeToString(), Limits())
    blueprints = [_blueprint(record) for record in given["blueprints"]]
    builder = GraphBuilder()
    keys = builder.registry_keys(observation, blueprints)
    known = extended(initial(), assignments(initial(), keys)[0])
    norms = tuple(Norm(*norm) for norm in given["norms"]) if "norms" in given else PRIORS
    graph = builder.build(observation, norms=norms, registries=known, blueprints=blueprints)
    graph.validate()
    return graph


def _blueprint(record: dict[str, Any]) -> BlueprintInput:
    descriptor = ParseDict(record["descriptor"], pb.BlueprintDescriptor())
    content = content_of(MemoryRecord(descriptor, record["extras"]))
    blueprint = read_blueprint(descriptor.blueprint_id, content_digest(content), content)
    return BlueprintInput(blueprint, parse_metadata(content.graph_metadata))


def described(graph: Graph) -> dict[str, Any]:
    """Everything of a graph, by name."""
    return {
        "nodes": {kind: [_node(graph, kind, row) for row in range(len(graph.features[kind]))] for kind in NODE_TYPES},
        "edges": {relation.label: _edges(graph, relation.edge_type) for relation in RELATIONS},
        "ids": {"seed": graph.seed_ids, "blueprint": graph.blueprint_ids, **graph.node_ids},
        "allowed": [graph.allowed_parameters(seed) for seed in range(len(graph.seed_ids))],
        "host": graph.host_blueprint_index,
        "candidates": graph.candidates,
        "coverage": {f"{family}.{feature}": [present, total] for family, feature, present, total in graph.coverage},
        "norm_inputs": graph.norm_inputs,
        "ignored_inputs": graph.ignored_inputs,
        "baseline": BaselinePolicy().propose(graph)._asdict() if graph.candidates else None,
    }


def _node(graph: Graph, kind: str, row: int) -> dict[str, Any]:
    values = {feature.name: graph.scaled(kind, row, feature.name) for feature in FEATURES[kind]}
    numbers = zip(CATEGORIES[kind], graph.categories[kind][row].tolist(), strict=True)
    return values | {f"#{registry}": index for registry, index in numbers}


def _edges(graph: Graph, kind: tuple[str, str, str]) -> list[list[Any]]:
    found = []
    for (source, target), row in zip(graph.edge_index[kind].T.tolist(), graph.edge_attr[kind].tolist(), strict=True):
        values, masks = row[:EDGE_ATTRIBUTES], row[EDGE_ATTRIBUTES:]
        found.append([source, target, *(value if mask else None for value, mask in zip(values, masks, strict=True))])
    return found


def plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Where two of them differ, by more than a last digit of float32."""
    if isinstance(found, dict) and isinstance(expected, dict):
        moved = [f"{where}.{key} is new" for key in found.keys() - expected.keys()]
        moved += [f"{where}.{key} is gone" for key in expected.keys() - found.keys()]
        shared = [key for key in found if key in expected]
        return sorted(moved) + [
            line for key in shared for line in differences(found[key], expected[key], f"{where}.{key}")
        ]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for place, (one, other) in pairs for line in differences(one, other, f"{where}[{place}]")]
    if isinstance(found, float) and isinstance(expected, float):
        same = abs(found - expected) <= 1e-6 * max(1.0, abs(expected))
    else:
        same = found == expected
    return [] if same else [f"{where}: {found!r} was {expected!r}"]


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    for case in CASES:
        made, path = plain(described(graph_of(case))), DIRECTORY / f"{case}.graph.json"
        changed = differences(made, read(path.name)) if path.exists() else ["new"]
        sys.stdout.write("".join(f"{case}{line}\n" for line in changed[:20]))
        write(path, made)


if __name__ == "__main__":
    main()
