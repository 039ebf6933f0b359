"""No feature changes by accident: see `golden.py`."""

import pytest
from graph.golden import CASES, described, differences, graph_of, plain, read


def test_there_are_golden_graphs_of_every_kind() -> None:
    assert {"empty", "first-step", "small", "rich", "hostile", "every-stage", "guard-spec", "no-host"} <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_is_what_it_was(case: str) -> None:
    changed = differences(plain(described(graph_of(case))), read(f"{case}.graph.json"))
    assert not changed, "meant? then `python tests/graph/golden.py`; " + "; ".join(changed[:10])


def test_a_changed_feature_is_named() -> None:
    found = plain(described(graph_of("small")))
    found["nodes"]["seed"][2]["risk"] += 0.01
    found["edges"]["seed-monitors-layer"][0][1] += 1
    changed = differences(found, read("small.graph.json"))
    assert [line.split(":")[0] for line in changed] == [".nodes.seed[2].risk", ".edges.seed-monitors-layer[0][1]"]


def test_golden_graphs_together_show_every_feature_and_every_relation() -> None:
    """What no case has could change unnoticed."""
    graphs = [read(f"{case}.graph.json") for case in CASES]
    for kind in graphs[0]["nodes"]:
        nodes = [node for graph in graphs for node in graph["nodes"][kind]]
        assert [name for name in nodes[0] if not any(node[name] not in (None, 0) for node in nodes)] == []
    assert [label for label in graphs[0]["edges"] if not any(graph["edges"][label] for graph in graphs)] == []
