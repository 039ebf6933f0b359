import math
import sys

import pytest
import torch
from graph.sketch import blueprint, built, host, observed, seed, small_graph

from tamiyo.core.proposal import argmax, malformation
from tamiyo.graph import BlueprintInput, Graph
from tamiyo.graph.schema import CATEGORIES, FEATURES, NODE_TYPES, RELATIONS
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy
from tamiyo.policy.gnn import GnnPolicy, measured_budget_ms, proposal_of
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import NetworkConfig, NetworkOutput, NodeEncoder

STAGES = (pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_CULLED, pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_TERMINATED)


def test_all_node_types_and_relations_are_in_the_data() -> None:
    data = to_hetero(small_graph())
    data.validate(raise_on_error=True)
    assert data.node_types == list(NODE_TYPES)
    assert data.edge_types == [relation.edge_type for relation in RELATIONS]
    for kind in NODE_TYPES:
        assert data[kind].x.shape[1] == 2 * len(FEATURES[kind])
        assert data[kind].categories.shape[1] == len(CATEGORIES[kind])


def test_the_data_is_a_copy() -> None:
    graph = small_graph()
    before = graph.features["seed"].copy()
    to_hetero(graph)["seed"].x.fill_(9.0)
    assert (graph.features["seed"] == before).all()


def test_the_outputs_have_their_shapes(policy: GnnPolicy, graph: Graph) -> None:
    shapes = {name: tuple(value.shape) for name, value in policy.outputs(graph)._asdict().items()}
    assert shapes == {
        "action": (1, 32), "param_deltas": (1, 4), "blending_method": (1, 4), "schedule": (1, 2), "risk": (1, 5),
        "value": (1, 1), "breaker_scores": (1, 2), "seed_scores": (4,), "blueprint_scores": (1,), "telemetry": (1, 64),
    }  # fmt: skip


def test_the_layers_are_what_the_architecture_says(policy: GnnPolicy) -> None:
    network = policy.network
    for sage in (network.sage1, network.sage2):
        assert len(sage.convs) == 21
        assert {(conv.in_channels, conv.out_channels) for conv in sage.convs.values()} == {((256, 256), 256)}
    for gat, width in ((network.gat1, 256), (network.gat2, 128)):
        assert len(gat.convs) == 21
        assert {(c.in_channels, c.out_channels, c.heads, c.concat, c.edge_dim) for c in gat.convs.values()} == {
            ((width, width), 128, 4, False, 6)
        }
    assert network.dropout.p == 0.2
    assert {network.sage1.aggr, network.sage2.aggr, network.gat1.aggr, network.gat2.aggr} == {"mean"}


def test_it_is_a_policy_whose_proposals_are_well_formed(policy: GnnPolicy) -> None:
    one: Policy = policy
    observation = observed(*(seed(stage) for stage in STAGES), training_loss=0.5)
    proposal = one.propose(built(observation, host(layers=3, activations=2, parameters=2)))
    assert malformation(proposal, observation, 1) is None
    for probabilities in (proposal.action, proposal.risk, proposal.blending_method):
        assert sum(probabilities) == pytest.approx(1)
    assert all(-1 <= value <= 1 for value in (*proposal.param_deltas, *proposal.schedule))
    assert proposal.blueprint_index == 0
    assert {type(value) for value in (proposal.value, proposal.seed_score, *proposal.action)} == {float}


EMPTY = {
    "no blueprints": (),
    "a blueprint and no layers": (host(),),
    "layers alone": (host(layers=2),),
    "activations alone": (host(activations=2),),
    "parameters alone": (host(parameters=2),),
}


@pytest.mark.parametrize("blueprints", EMPTY.values(), ids=EMPTY)
def test_a_graph_without_nodes_of_a_type_works(policy: GnnPolicy, blueprints: tuple[BlueprintInput, ...]) -> None:
    observation = observed(seed())
    proposal = policy.propose(built(observation, *blueprints))
    assert malformation(proposal, observation, len(blueprints)) is None
    assert proposal.blueprint_index == (0 if blueprints else -1)


def test_outputs_without_any_seed_are_finite(policy: GnnPolicy) -> None:
    output = policy.outputs(built(observed()))
    assert output.seed_scores.shape == (0,)
    assert all(bool(torch.isfinite(value).all()) for value in output)


def test_a_graph_without_a_candidate_is_refused(policy: GnnPolicy) -> None:
    with pytest.raises(ValueError, match="without a candidate"):
        policy.propose(built(observed(seed(pb.SEED_STAGE_FOSSILIZED))))


def test_the_same_graph_has_the_same_proposal(policy: GnnPolicy, graph: Graph) -> None:
    assert policy.propose(graph) == policy.propose(graph)


def test_nothing_is_dropped_out_and_no_gradient_is_kept(policy: GnnPolicy, graph: Graph) -> None:
    assert not policy.network.training
    assert not policy.outputs(graph).action.requires_grad
    assert not any(parameter.requires_grad for parameter in policy.network.parameters())


def test_the_random_stream_is_left_alone(policy: GnnPolicy, graph: Graph) -> None:
    before = torch.get_rng_state()
    policy.propose(graph)
    assert torch.equal(before, torch.get_rng_state())


def test_the_order_of_edges_does_not_matter(policy: GnnPolicy, graph: Graph) -> None:
    data = to_hetero(graph)
    with torch.inference_mode():
        straight = policy.network(data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict)
        index = {kind: value.flip(1) for kind, value in data.edge_index_dict.items()}
        attributes = {kind: value.flip(0) for kind, value in data.edge_attr_dict.items()}
        flipped = policy.network(data.x_dict, data.categories_dict, index, attributes)
    for ours, theirs in zip(straight, flipped, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_edge_attributes_and_categories_are_heard(policy: GnnPolicy, graph: Graph) -> None:
    data = to_hetero(graph)
    with torch.inference_mode():
        before = policy.network(data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict)
        silent = {kind: torch.zeros_like(value) for kind, value in data.edge_attr_dict.items()}
        unnamed = {kind: torch.zeros_like(value) for kind, value in data.categories_dict.items()}
        without_edges = policy.network(data.x_dict, data.categories_dict, data.edge_index_dict, silent)
        without_names = policy.network(data.x_dict, unnamed, data.edge_index_dict, data.edge_attr_dict)
    assert not torch.equal(before.action, without_edges.action)
    assert not torch.equal(before.action, without_names.action)


def test_an_index_past_the_capacity_reads_as_unknown() -> None:
    encoder = NodeEncoder("activation", NetworkConfig()).eval()
    features = torch.ones(1, 2 * len(FEATURES["activation"]))
    # one at a time: in one product of three rows, some processors add up the last row in another order
    first, past, unknown = (encoder(features, torch.tensor([[index]])) for index in (1, 257, 0))
    assert torch.equal(past, unknown)
    assert not torch.equal(first, unknown)


def output(seed_scores: list[float], blueprint_scores: list[float], **changes: torch.Tensor) -> NetworkOutput:
    zeros = {
        "action": 32, "param_deltas": 4, "blending_method": 4, "schedule": 2, "risk": 5, "value": 1,
        "breaker_scores": 2, "telemetry": 64,
    }  # fmt: skip
    values = {name: torch.zeros(1, width) for name, width in zeros.items()}
    scores = {"seed_scores": torch.tensor(seed_scores), "blueprint_scores": torch.tensor(blueprint_scores)}
    return NetworkOutput(**{**values, **scores, **changes})


def test_only_candidates_are_selected() -> None:
    proposal = proposal_of(output([1.0, 9.0, 2.0, 8.0], [1.0, 3.0, 3.0]), (0, 2))
    assert (proposal.seed_index, proposal.seed_score) == (2, 2.0)
    assert proposal.blueprint_index == 1


def test_ties_go_to_the_lowest_place() -> None:
    proposal = proposal_of(output([5.0, 1.0, 1.0], []), (1, 2))
    assert (proposal.seed_index, proposal.blueprint_index) == (1, -1)


def test_logits_become_probabilities() -> None:
    proposal = proposal_of(output([0.0], [], risk=torch.tensor([[0.0, 0.0, math.log(2.0), 0.0, 0.0]])), (0,))
    assert proposal.risk == pytest.approx((1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6))
    assert argmax(proposal.action) == 0


def test_what_is_not_finite_is_passed_on_for_the_caller_to_refuse() -> None:
    proposal = proposal_of(output([0.0], [], value=torch.tensor([[math.nan]])), (0,))
    assert malformation(proposal, observed(seed()), 0) == "value is no finite number"


class CountingPolicy:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def propose(self, graph: Graph) -> None:
        self.calls += 1


def test_a_budget_is_measured_after_a_warm_up_and_is_at_least_a_millisecond(graph: Graph) -> None:
    policy = CountingPolicy()
    assert measured_budget_ms(policy, graph) >= 1
    assert policy.calls == 23


def test_a_budget_is_twice_what_nineteen_of_twenty_calls_take(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    times_ns = iter([*range(20_000_000, 1_000_000, -1_000_000), 1_000_000])
    monkeypatch.setattr("tamiyo.policy.gnn._timed_ns", lambda *_: next(times_ns))
    assert measured_budget_ms(CountingPolicy(), graph) == 38


def test_importing_the_policies_does_not_import_pyg(tmp_path: object) -> None:
    import subprocess

    code = "import sys, tamiyo.policy; sys.exit('torch_geometric' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_blueprints_without_layers_are_told_apart_and_the_best_scored_is_named(policy: GnnPolicy) -> None:
    given = tuple(
        BlueprintInput(blueprint(f"b{place}", f"d{place}", descriptor_risk=place / 4), {}) for place in range(4)
    )
    graph = built(observed(seed()), *given)
    scores = tuple(policy.outputs(graph).blueprint_scores.tolist())
    assert policy.propose(graph).blueprint_index == argmax(scores)
    assert len(set(scores)) == 4
