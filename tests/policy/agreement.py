"""How close a form has to be to the reference.

TOLERANCE is what fp32 brings when sums are taken in another order, of the largest output of its head; the largest seen
over 1,000 graphs was 2e-6.
"""

from tamiyo.graph import Graph
from tamiyo.policy.gnn import proposal_of
from tamiyo.policy.network import NetworkOutput

TOLERANCE = 2e-5


def assert_close(ours: NetworkOutput, theirs: NetworkOutput) -> None:
    for name, found, expected in zip(NetworkOutput._fields, ours, theirs, strict=True):
        assert found.shape == expected.shape, name
        if expected.numel():
            error = float((found - expected).abs().max())
            assert error <= TOLERANCE * max(1.0, float(expected.abs().max())), name


def decision(output: NetworkOutput, graph: Graph) -> tuple[int, ...]:
    proposal = proposal_of(output, graph.candidates)
    classes = (proposal.action, proposal.risk, proposal.blending_method)
    return (*(one.index(max(one)) for one in classes), proposal.seed_index, proposal.blueprint_index)
