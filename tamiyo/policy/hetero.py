"""The graph as PyTorch Geometric takes it."""

import torch

from tamiyo.graph.graph import Graph
from tamiyo.graph.schema import NODE_TYPES, RELATIONS
from tamiyo.policy.pyg import HeteroData

__all__ = ["to_hetero"]


def to_hetero(graph: Graph) -> HeteroData:
    """All six node types and all 21 relations, empty ones too.

    Shapes: `data[type].x` float32 (N, 2F), `data[type].categories` int64 (N, K); `data[relation].edge_index` int64
    (2, E), `data[relation].edge_attr` float32 (E, 6). The tensors are copies: the graph stays as it is.
    """
    data = HeteroData()
    for kind in NODE_TYPES:
        data[kind].x = torch.tensor(graph.features[kind])
        data[kind].categories = torch.tensor(graph.categories[kind])
    for relation in RELATIONS:
        data[relation.edge_type].edge_index = torch.tensor(graph.edge_index[relation.edge_type])
        data[relation.edge_type].edge_attr = torch.tensor(graph.edge_attr[relation.edge_type])
    return data
