"""The graph network, `tamiyo_gnn_v1`, on PyTorch Geometric.

    encoder     per node type: Linear, GELU, LayerNorm of (features | registry embeddings) to 256
    sage 1, 2   per relation GraphSAGE 256 -> 256        (Hamilton et al., 2017, https://arxiv.org/abs/1706.02216)
    gat 1, 2    per relation GAT -> 128, 4 heads averaged, edge attributes in the attention
                                                          (Velickovic et al., 2018, https://arxiv.org/abs/1710.10903)
    heads       from the global node; seed and blueprint scores from their own nodes, as encoded and at the end

Each layer: the mean over the relations that end in a node type, GELU, dropout 0.2, plus the layer's input where the
shapes agree. All 21 relations take part, empty ones too, so that a node without neighbours has a defined state.

The scores read the encoded state again (Xu et al., 2018, https://arxiv.org/abs/1806.03536) because a GAT layer passes a
node its neighbours and not itself: two blueprints without layers would come out alike, whatever their risk.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tamiyo.core.proposal import ACTIONS, BLENDING_METHODS, PARAM_DELTAS, RISK_CLASSES
from tamiyo.core.registries import CAPACITIES
from tamiyo.graph.schema import CATEGORIES, EDGE_COLUMNS, FEATURES, NODE_TYPES, RELATIONS, SCHEMA_DIGEST, EdgeType
from tamiyo.policy.ambient import float32_made
from tamiyo.policy.pyg import GATConv, HeteroConv, SAGEConv

__all__ = ["ARCHITECTURE_VERSION", "NetworkConfig", "NetworkOutput", "TamiyoNetwork"]

ARCHITECTURE_VERSION = "tamiyo_gnn_v1"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The sizes of `tamiyo_gnn_v1`; a checkpoint names them, and another size is another architecture."""

    hidden: int = 256
    attention: int = 128
    heads: int = 4
    dropout: float = 0.2
    category: int = 16
    telemetry: int = 64
    schema_digest: str = SCHEMA_DIGEST

    def as_map(self) -> dict[str, object]:
        """For a manifest."""
        return asdict(self)


class NetworkOutput(NamedTuple):
    """Raw outputs; `tamiyo.policy.gnn` makes probabilities of the logits.

    Shapes: `action` (1, 32), `risk` (1, 5) and `blending_method` (1, 4) logits; `param_deltas` (1, 4) and `schedule`
    (1, 2) in (-1, 1); `value` (1, 1); `breaker_scores` (1, 2); `seed_scores` (S,); `blueprint_scores` (B,);
    `telemetry` (1, 64), an embedding of the whole state for observers.
    """

    action: Tensor
    param_deltas: Tensor
    blending_method: Tensor
    schedule: Tensor
    risk: Tensor
    value: Tensor
    breaker_scores: Tensor
    seed_scores: Tensor
    blueprint_scores: Tensor
    telemetry: Tensor


class NodeEncoder(nn.Module):
    """One node type's features and registry indices to a state.

    Shapes: features (N, 2F), categories (N, K) int64 -> (N, hidden). An index past a registry's capacity, or past
    what `TamiyoNetwork.know_registries` says, reads as 0.
    """

    def __init__(self, node_type: str, config: NetworkConfig) -> None:
        super().__init__()
        kinds = CATEGORIES[node_type]
        self.capacities = tuple(CAPACITIES[kind] for kind in kinds)
        self.embeddings = nn.ModuleList(nn.Embedding(CAPACITIES[kind] + 1, config.category) for kind in kinds)
        width = 2 * len(FEATURES[node_type]) + config.category * len(kinds)
        self.project = nn.Linear(width, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, features: Tensor, categories: Tensor) -> Tensor:
        """Encode the nodes of this type."""
        embedded = [table(_known(categories[:, place], most)) for place, (table, most) in enumerate(self._tables())]
        encoded: Tensor = self.norm(nn.functional.gelu(self.project(torch.cat([features, *embedded], dim=1))))
        return encoded

    def _tables(self) -> Iterator[tuple[nn.Module, int]]:
        return zip(self.embeddings, self.capacities, strict=True)


class TamiyoNetwork(nn.Module):
    """The whole network.

    Args:
        config: its sizes.

    Shapes: see `forward` and `NetworkOutput`.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        with float32_made():
            self._make(self.config)

    def _make(self, config: NetworkConfig) -> None:
        hidden, attention = config.hidden, config.attention
        self.encoders = nn.ModuleDict({f"{kind}_nodes": NodeEncoder(kind, config) for kind in NODE_TYPES})
        self.sage1, self.sage2 = _sage(hidden), _sage(hidden)
        self.gat1, self.gat2 = _gat(hidden, config), _gat(attention, config)
        self.dropout = nn.Dropout(config.dropout)
        self.action = nn.Linear(attention, ACTIONS)
        self.param_deltas = nn.Linear(attention, PARAM_DELTAS)
        self.blending_method = nn.Linear(attention, len(BLENDING_METHODS))
        self.schedule = nn.Linear(attention, 2)
        self.risk = nn.Linear(attention, RISK_CLASSES)
        self.value = nn.Linear(attention, 1)
        self.breaker_scores = nn.Linear(attention, 2)
        self.seed_score = nn.Linear(attention + hidden, 1)
        self.blueprint_score = nn.Linear(attention + hidden, 1)
        self.telemetry = nn.Linear(attention, config.telemetry)

    def forward(
        self,
        features: Mapping[str, Tensor],
        categories: Mapping[str, Tensor],
        edge_index: Mapping[EdgeType, Tensor],
        edge_attr: Mapping[EdgeType, Tensor],
    ) -> NetworkOutput:
        """One graph.

        Args:
            features: by node type, float32 (N, 2F).
            categories: by node type, int64 (N, K).
            edge_index: by relation, int64 (2, E); all 21 of them.
            edge_attr: by relation, float32 (E, 6).
        """
        encoded = {kind: self.encoders[f"{kind}_nodes"](features[kind], categories[kind]) for kind in NODE_TYPES}
        states = encoded
        for sage in (self.sage1, self.sage2):
            states = self._passed_on(states, sage(states, edge_index))
        for gat in (self.gat1, self.gat2):
            states = self._passed_on(states, gat(states, edge_index, edge_attr_dict=edge_attr))
        return self._read_out(states, encoded)

    def know_registries(self, counts: Mapping[str, int]) -> None:
        """Let indices past those that the weights were trained on, by kind, read as 0; kinds not named stay whole."""
        for node_type in NODE_TYPES:
            encoder = self.encoders[f"{node_type}_nodes"]
            assert isinstance(encoder, NodeEncoder)  # noqa: S101  it was made so
            encoder.capacities = tuple(
                min(CAPACITIES[kind], counts.get(kind, CAPACITIES[kind])) for kind in CATEGORIES[node_type]
            )

    def _passed_on(self, before: Mapping[str, Tensor], messages: Mapping[str, Tensor]) -> dict[str, Tensor]:
        after = {kind: self.dropout(nn.functional.gelu(messages[kind])) for kind in NODE_TYPES}
        return {
            kind: state + before[kind] if state.shape == before[kind].shape else state for kind, state in after.items()
        }

    def _read_out(self, states: Mapping[str, Tensor], encoded: Mapping[str, Tensor]) -> NetworkOutput:
        whole = states["global"]
        seeds, blueprints = (torch.cat([states[kind], encoded[kind]], dim=1) for kind in ("seed", "blueprint"))
        return NetworkOutput(
            action=self.action(whole),
            param_deltas=torch.tanh(self.param_deltas(whole)),
            blending_method=self.blending_method(whole),
            schedule=torch.tanh(self.schedule(whole)),
            risk=self.risk(whole),
            value=self.value(whole),
            breaker_scores=self.breaker_scores(whole),
            seed_scores=self.seed_score(seeds).squeeze(1),
            blueprint_scores=self.blueprint_score(blueprints).squeeze(1),
            telemetry=self.telemetry(whole),
        )


def _known(indices: Tensor, capacity: int) -> Tensor:
    return torch.where(indices <= capacity, indices, torch.zeros_like(indices))


def _sage(width: int) -> HeteroConv:
    return HeteroConv({relation.edge_type: SAGEConv((width, width), width) for relation in RELATIONS}, aggr="mean")


def _gat(width: int, config: NetworkConfig) -> HeteroConv:
    convolutions = {
        relation.edge_type: GATConv(
            (width, width),
            config.attention,
            heads=config.heads,
            concat=False,
            edge_dim=EDGE_COLUMNS,
            add_self_loops=False,  # they have no meaning between node types
        )
        for relation in RELATIONS
    }
    return HeteroConv(convolutions, aggr="mean")
