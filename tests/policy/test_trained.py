"""The engine on weights that training has moved, for a few seconds here; `tests/bench/trained_agreement.py` goes on."""

import torch
from bench.trained_agreement import trained

from tamiyo.bench.agreement import measure_agreement
from tamiyo.bench.network import from_network

GRAPHS = 12


def test_after_training_the_exact_forms_decide_as_the_reference_does() -> None:
    network, losses = trained(6)
    untrained, _ = trained(0)
    before = untrained.state_dict()
    moved = [name for name, weights in network.state_dict().items() if not torch.equal(weights, before[name])]
    assert len(losses) == 6
    assert {"action.weight", "risk.weight", "seed_score.weight", "encoders.global_nodes.project.weight"} <= set(moved)
    found = measure_agreement(from_network("trained", network), GRAPHS, lambda _: None)
    for form in ("small_fp32", "large_fp32"):
        assert found[form]["equal"] == GRAPHS
        assert found[form]["largest_error"] < 2e-5
