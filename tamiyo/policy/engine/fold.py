"""The network's weights, folded: the same function with less of it. Done once for each checkpoint, in float64.

    SAGE    the mean over k relations of (W_l a_r + W_r x + b) is one product of [a_1 | .. | a_k | x]: the k root
            matrices are summed, everything is divided by k
    GAT     what the attention reads of a node is one number for each relation and head, so its matrix is a vector,
            v_h = sum over c of W[h, c] a[h, c], for source, target and edge alike; a target matrix has no other use
    single  a softmax over neighbours that are all the one global node is 1, whatever the logits: its heads are one
    heads   all that read the global node are one product
    dead    what no output can read is left out, found by walking back from the heads: `live`

Weights are laid out input-major: a row vector times one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tamiyo.graph.graph import FloatArray
from tamiyo.graph.schema import NODE_TYPES, RELATIONS, Relation
from tamiyo.policy.network import NodeEncoder, TamiyoNetwork
from tamiyo.policy.pyg import GATConv, HeteroConv, SAGEConv

__all__ = [
    "GLOBAL_HEADS",
    "INTO",
    "READ",
    "SINGLE",
    "Attention",
    "Encoder",
    "Folded",
    "Product",
    "bound",
    "fold",
    "live",
    "stacked",
    "vectors",
]

Wide = NDArray[np.float64]

INTO: Mapping[str, tuple[Relation, ...]] = MappingProxyType(
    {kind: tuple(relation for relation in RELATIONS if relation.target == kind) for kind in NODE_TYPES}
)
"""By target, the relations that end there, in the order of the schema."""

READ = ("global", "seed", "blueprint")
"""The node types that a head reads at the end."""

SINGLE = "global"
"""The node type that every graph has exactly one node of (`Graph.validate`)."""

GLOBAL_HEADS = ("action", "param_deltas", "blending_method", "schedule", "risk", "value", "breaker_scores", "telemetry")
"""The heads of the global node, in the order of their columns; `param_deltas` and `schedule` are tanh of them."""


@dataclass(frozen=True, slots=True)
class Product:
    """x @ weight + bias. Shapes: weight (in, out), bias (out,)."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, slots=True)
class Encoder:
    """One node type's encoder. Shapes: tables (capacity + 1, category) each; scale and shift (hidden,)."""

    project: Product
    scale: FloatArray
    shift: FloatArray
    epsilon: float
    tables: tuple[FloatArray, ...]


@dataclass(frozen=True, slots=True)
class Attention:
    """What one node type receives in a GAT layer.

    `heads` has a number for each relation: those of the layer, or 1 where there is nothing to choose from. `q` counts
    the heads of the relations with several, by relation and head. Shapes: product.weight (sum of heads * in, out), rows
    by relation, head, input; source and target (in, q), the vectors of the logits; edge (columns, q).
    """

    heads: tuple[int, ...]
    product: Product
    source: FloatArray
    target: FloatArray
    edge: FloatArray


@dataclass(frozen=True, slots=True)
class Folded:
    """All that is left of the network. `sage` and `gat` are layers by target; a dead target has no entry.

    `embedded` is all encoders' tables below each other, by node type and place; theirs are views of it.

    Shapes: a SAGE product's weight ((k + 1) * hidden, hidden), rows by relation, its own state last; `heads`
    (attention, sum of the heads' widths); the scores (attention + hidden, 1).
    """

    encoders: Mapping[str, Encoder]
    embedded: FloatArray
    sage: tuple[Mapping[str, Product], ...]
    gat: tuple[Mapping[str, Attention], ...]
    heads: Product
    widths: tuple[int, ...]
    seed_score: Product
    blueprint_score: Product
    hidden: int
    attention: int
    attention_heads: int
    slope: float


def live(layers: int) -> tuple[tuple[str, ...], ...]:
    """For each layer the targets that an output can read, first layer first."""
    needed, found = set(READ), []
    for _ in range(layers):
        found.append(tuple(kind for kind in NODE_TYPES if kind in needed))
        needed |= {relation.source for kind in needed for relation in INTO[kind]}
    return tuple(reversed(found))


def fold(network: TamiyoNetwork) -> Folded:
    """Fold a network in evaluation mode; it is not changed, and dropout has no part in it."""
    config = network.config
    sages, gats = (network.sage1, network.sage2), (network.gat1, network.gat2)
    targets = live(len(sages) + len(gats))
    heads = [getattr(network, name) for name in GLOBAL_HEADS]
    first = gats[0].convs[RELATIONS[0].edge_type]
    encoders = {kind: _module(network.encoders[f"{kind}_nodes"]) for kind in NODE_TYPES}
    tables = [table for encoder in encoders.values() for table in _tables(encoder)]
    embedded = np.concatenate(tables)
    views = iter(np.split(embedded, np.cumsum([len(table) for table in tables])))
    return Folded(
        encoders={
            kind: _encoder(encoder, tuple(next(views) for _ in encoder.embeddings))
            for kind, encoder in encoders.items()
        },
        embedded=embedded,
        sage=tuple(
            {kind: _sage(layer, kind) for kind in kinds} for layer, kinds in zip(sages, targets[:2], strict=True)
        ),
        gat=tuple({kind: _gat(layer, kind) for kind in kinds} for layer, kinds in zip(gats, targets[2:], strict=True)),
        heads=_product(
            np.concatenate([_wide(head.weight).T for head in heads], axis=1),
            np.concatenate([_wide(head.bias) for head in heads]),
        ),
        widths=tuple(head.out_features for head in heads),
        seed_score=_linear(network.seed_score),
        blueprint_score=_linear(network.blueprint_score),
        hidden=config.hidden,
        attention=config.attention,
        attention_heads=config.heads,
        slope=float(first.negative_slope),
    )


@dataclass(frozen=True, slots=True)
class Encoders:
    """All encoders as one product: of all types' inputs beside each other and a column for each type.

    Shapes: weight (sum of the inputs + types, hidden), the last rows the biases; scale and shift (types, hidden).
    """

    weight: FloatArray
    scale: FloatArray
    shift: FloatArray
    epsilon: float


def stacked(folded: Folded) -> Encoders:
    """Stack the encoders, which are alike but for their weights."""
    encoders = [folded.encoders[kind] for kind in NODE_TYPES]
    biases = np.stack([encoder.project.bias for encoder in encoders])
    return Encoders(
        weight=np.concatenate([*(encoder.project.weight for encoder in encoders), biases]),
        scale=np.stack([encoder.scale for encoder in encoders]),
        shift=np.stack([encoder.shift for encoder in encoders]),
        epsilon=encoders[0].epsilon,
    )


def vectors(layer: Mapping[str, Attention]) -> FloatArray:
    """What a layer's attention reads of all nodes, (in, 2q): of the sources, then of the targets, by target type."""
    parts = layer.values()
    return np.concatenate([*(part.source for part in parts), *(part.target for part in parts)], axis=1)


def bound(folded: Folded, largest: float) -> float:
    """No number inside the network exceeds this in size, for any graph whose inputs are within +-`largest`.

    Sums of absolute weights: means and attention never exceed what they average, GELU and tanh never their argument.
    """
    encoded, most = 0.0, 0.0
    for encoder in folded.encoders.values():
        inputs = max([largest, *(float(np.abs(table).max()) for table in encoder.tables)])
        most = max(most, _grown(encoder.project, inputs))
        unit = float(np.sqrt(folded.hidden))
        encoded = max(encoded, float((np.abs(encoder.scale) * unit + np.abs(encoder.shift)).max()))
    state = encoded
    for layer in folded.sage:
        state += max(_grown(product, state) for product in layer.values())
    for attention in folded.gat:
        logits = max(_logit(part, state, largest) for part in attention.values())
        # the weights of a target's k relations are already divided by k: what each brings in is at most the state
        grown = max(_grown(part.product, state) for part in attention.values())
        most, state = max(most, logits), state + grown
    scores = max(
        _grown(part, max(state, encoded)) for part in (folded.heads, folded.seed_score, folded.blueprint_score)
    )
    return max(most, state, scores)


def _grown(product: Product, inputs: float) -> float:
    return float((np.abs(product.weight).sum(axis=0, dtype=np.float64) * inputs + np.abs(product.bias)).max())


def _logit(part: Attention, state: float, largest: float) -> float:
    nodes = (np.abs(part.source).sum(axis=0) + np.abs(part.target).sum(axis=0)).max()
    return float(nodes * state + np.abs(part.edge).sum(axis=0).max() * largest)


def _module(encoder: torch.nn.Module) -> NodeEncoder:
    assert isinstance(encoder, NodeEncoder)  # noqa: S101  it was made so
    return encoder


def _tables(encoder: NodeEncoder) -> list[FloatArray]:
    """Each ends with the last index that the network knows: what lies past the end reads as 0."""
    return [
        _narrow(_wide(table.weight)[: last + 1])
        for table, last in zip(encoder.embeddings, encoder.capacities, strict=True)
    ]


def _encoder(encoder: NodeEncoder, tables: tuple[FloatArray, ...]) -> Encoder:
    return Encoder(
        project=_linear(encoder.project),
        scale=_narrow(_wide(encoder.norm.weight)),
        shift=_narrow(_wide(encoder.norm.bias)),
        epsilon=float(encoder.norm.eps),
        tables=tables,
    )


def _sage(layer: HeteroConv, kind: str) -> Product:
    convolutions: list[SAGEConv] = [layer.convs[relation.edge_type] for relation in INTO[kind]]
    share = 1 / len(convolutions)
    neighbours = [_wide(one.lin_l.weight).T * share for one in convolutions]
    own = sum((_wide(one.lin_r.weight).T for one in convolutions), np.zeros(())) * share
    bias = sum((_wide(one.lin_l.bias) for one in convolutions), np.zeros(())) * share
    return _product(np.concatenate([*neighbours, own]), bias)


def _gat(layer: HeteroConv, kind: str) -> Attention:
    convolutions: list[GATConv] = [layer.convs[relation.edge_type] for relation in INTO[kind]]
    share = 1 / len(convolutions)
    blocks = [_mixing(layer, relation) * share for relation in INTO[kind]]  # each (heads or 1, in, C)
    bias = sum((_wide(one.bias) for one in convolutions), np.zeros(())) * share
    chosen = [layer.convs[relation.edge_type] for relation in INTO[kind] if relation.source != SINGLE]
    return Attention(
        heads=tuple(len(block) for block in blocks),
        product=_product(np.concatenate([block.reshape(-1, block.shape[2]) for block in blocks]), bias),
        source=_narrow(np.concatenate([_logits(one.lin_src.weight, one.att_src, one) for one in chosen], axis=1)),
        target=_narrow(np.concatenate([_logits(one.lin_dst.weight, one.att_dst, one) for one in chosen], axis=1)),
        edge=_narrow(np.concatenate([_logits(one.lin_edge.weight, one.att_edge, one) for one in chosen], axis=1)),
    )


def _mixing(layer: HeteroConv, relation: Relation) -> Wide:
    """What a relation's sources are multiplied with, the mean over the heads included."""
    convolution: GATConv = layer.convs[relation.edge_type]
    by_head: Wide = _by_head(convolution.lin_src.weight, convolution) / convolution.heads
    return np.sum(by_head, axis=0, keepdims=True) if relation.source == SINGLE else by_head


def _by_head(weight: Tensor, convolution: GATConv) -> Wide:
    """Return (H * C, in) as (H, in, C)."""
    wide = _wide(weight)
    return wide.reshape(convolution.heads, convolution.out_channels, wide.shape[1]).transpose(0, 2, 1)


def _logits(weight: Tensor, attention: Tensor, convolution: GATConv) -> Wide:
    """Return (in, H): for each head, what an input adds to the attention logit."""
    found: Wide = np.einsum("hic,hc->ih", _by_head(weight, convolution), _wide(attention)[0])
    return found


def _linear(layer: torch.nn.Linear) -> Product:
    return _product(_wide(layer.weight).T, _wide(layer.bias))


def _product(weight: Wide, bias: Wide) -> Product:
    return Product(_narrow(weight), _narrow(bias))


def _wide(tensor: Tensor | torch.nn.Module) -> Wide:
    assert isinstance(tensor, Tensor)  # noqa: S101  torch's modules know no types of their attributes
    return tensor.detach().cpu().numpy().astype(np.float64)


def _narrow(array: Wide) -> FloatArray:
    return np.ascontiguousarray(array, dtype=np.float32)
