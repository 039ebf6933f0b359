"""From examples to tensors: batches of graphs joined to one, and what the heads are to say of each.

Only what was proposed, commanded and carried out teaches the heads that chose it (`is_own`); what came of it teaches
the value and risk heads of every example.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.core.proposal import argmax
from tamiyo.integrations.simic.dataset import Example
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork
from tamiyo.policy.pyg import Batch, HeteroData, softmax

__all__ = ["Batched", "Losses", "batched", "losses_of", "run"]

SEED, OPTIMIZER, CULL = 0, 1, 5
"""Classes of the action head whose commands carry more than their type; `tamiyo.core.intent.POLICY_ACTIONS`."""
_FAR = -1e30
"""The score of what cannot be selected."""
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class Batched:
    """Graphs joined without an edge between them, and what their B examples say; S seeds and P blueprints in all.

    Shapes: `own`, `seeds`, `optimizes`, `selects`, `germinates` bool (B,); `action`, `method`, `hazard` int64 (B,);
    `value` float32 (B,); `deltas` float32 (B, 4), `schedule` float32 (B, 2); `seed` and `blueprint` int64 (B,), places
    among the S and P, 0 where none was selected; `selectable` bool (S,).
    """

    data: HeteroData
    own: Tensor
    seeds: Tensor
    optimizes: Tensor
    selects: Tensor
    germinates: Tensor
    action: Tensor
    method: Tensor
    hazard: Tensor
    value: Tensor
    deltas: Tensor
    schedule: Tensor
    seed: Tensor
    blueprint: Tensor
    selectable: Tensor

    def __len__(self) -> int:
        """How many examples."""
        return len(self.action)


@dataclass(frozen=True, slots=True)
class Losses:
    """Of each example, float32 (B,): of the heads that choose (0 where nothing was chosen), of value and of risk."""

    choice: Tensor
    value: Tensor
    risk: Tensor


def batched(examples: Sequence[Example]) -> Batched:
    """Join the graphs of some examples."""
    data = Batch.from_data_list([to_hetero(example.graph) for example in examples])
    own = torch.tensor([example.is_own for example in examples])
    action = torch.tensor([example.action for example in examples])
    seeds = torch.tensor([len(example.graph.seed_ids) for example in examples])
    blueprints = torch.tensor([len(example.graph.blueprint_ids) for example in examples])
    proposals = [example.proposal for example in examples]
    selectable = torch.zeros(int(seeds.sum()), dtype=torch.bool)
    first_seed, first_blueprint = seeds.cumsum(0) - seeds, blueprints.cumsum(0) - blueprints
    for first, example in zip(first_seed.tolist(), examples, strict=True):
        selectable[[first + place for place in example.graph.candidates]] = True
    germinates = own & torch.tensor([example.germinates for example in examples])
    blueprint = torch.tensor([max(proposal.blueprint_index, 0) for proposal in proposals])
    return Batched(
        data=data,
        own=own,
        seeds=own & (action == SEED),
        optimizes=own & (action == OPTIMIZER),
        selects=own & ((action == SEED) | (action == CULL)),
        germinates=germinates,
        action=action,
        method=torch.tensor([argmax(proposal.blending_method) for proposal in proposals]),
        hazard=torch.tensor([example.outcome.hazard for example in examples]),
        value=torch.tensor([example.outcome.value for example in examples], dtype=torch.float32),
        deltas=torch.tensor([proposal.param_deltas for proposal in proposals], dtype=torch.float32),
        schedule=torch.tensor([proposal.schedule for proposal in proposals], dtype=torch.float32),
        seed=first_seed + torch.tensor([proposal.seed_index for proposal in proposals]),
        blueprint=torch.where(germinates, first_blueprint + blueprint, torch.zeros_like(blueprint)),
        selectable=selectable,
    )


def run(network: TamiyoNetwork, batch: Batched, *, forget: float = 0.0) -> NetworkOutput:
    """The network's outputs for a batch, (B, ...) each, scores (S,) and (P,).

    `forget` is the share of registry indices that are read as unknown: names that a network meets later are, so it has
    to know what to make of them.
    """
    data = batch.data
    categories = data.categories_dict
    if forget:
        drawn = {kind: torch.rand(indices.shape, dtype=torch.float32) for kind, indices in categories.items()}
        categories = {kind: indices * (drawn[kind] >= forget) for kind, indices in categories.items()}
    output: NetworkOutput = network(data.x_dict, categories, data.edge_index_dict, data.edge_attr_dict)
    return output


def losses_of(output: NetworkOutput, batch: Batched) -> Losses:
    """What the heads are wrong by: cross-entropies in nats, squares of differences."""
    functional = torch.nn.functional
    choice = functional.cross_entropy(output.action, batch.action, reduction="none")
    method = functional.cross_entropy(output.blending_method, batch.method, reduction="none")
    schedule = (output.schedule - batch.schedule).square().mean(dim=1)
    deltas = (output.param_deltas - batch.deltas).square()
    choice = choice + batch.seeds * (method + schedule + deltas[:, 0]) + batch.optimizes * deltas[:, 1]
    choice = choice + batch.selects * _missed(output.seed_scores, batch.selectable, batch, "seed")
    if len(output.blueprint_scores):
        everything = torch.ones(len(output.blueprint_scores), dtype=torch.bool)
        choice = choice + batch.germinates * _missed(output.blueprint_scores, everything, batch, "blueprint")
    return Losses(
        choice=choice * batch.own,
        value=(output.value[:, 0] - batch.value).square(),
        risk=functional.cross_entropy(output.risk, batch.hazard, reduction="none"),
    )


def _missed(scores: Tensor, selectable: Tensor, batch: Batched, kind: str) -> Tensor:
    """Cross-entropy of selecting what was selected, among the nodes of a graph that can be: (B,)."""
    owner = batch.data[kind].batch
    shares: Tensor = softmax(
        torch.where(selectable, scores, torch.full_like(scores, _FAR)), owner, num_nodes=len(batch)
    )
    return -(shares[getattr(batch, kind)].clamp_min(_LEAST)).log()
