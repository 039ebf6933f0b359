"""The folded network in plain torch on the dense form: runs wherever torch does, without compiling anything."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, leaky_relu

from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.ambient import unswayed
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.fold import Attention, Folded, Product, stacked, vectors
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sizes import Attended

__all__ = ["ENGINE", "EagerForm"]

ENGINE = f"folded fp32, torch {torch.__version__}"


class EagerForm:
    """The weights where they are. Keeps nothing between calls, so any number of threads may be in it."""

    engine = ENGINE

    def __init__(self, folded: Folded) -> None:
        self._folded = folded
        self._encoders = stacked(folded)
        self._vectors = [torch.from_numpy(vectors(layer)) for layer in folded.gat]

    def run(self, dense: Dense) -> Raw:
        """One graph."""
        with torch.inference_mode(), unswayed():
            encoded = states = self._encoded(dense)
            neighbours = torch.from_numpy(dense.neighbours)
            for sage in self._folded.sage:
                mixed = torch.split(neighbours @ states, dense.sizes.aggregated.tolist())
                received = [_received(part, rows) for part, rows in zip(sage.values(), mixed, strict=True)]
                states = torch.cat(received) + states
            for place, layer in enumerate(self._folded.gat):
                states = self._attention(layer, states, dense, place)
            return self._read(dense, states, encoded)

    def _encoded(self, dense: Dense) -> Tensor:
        encoders, kinds = self._encoders, torch.from_numpy(dense.sizes.kinds)
        projected = gelu(torch.from_numpy(dense.nodes) @ torch.from_numpy(encoders.weight))
        normal = layer_norm(projected, projected.shape[1:], eps=encoders.epsilon)
        scale, shift = (torch.from_numpy(rows).index_select(0, kinds) for rows in (encoders.scale, encoders.shift))
        return normal * scale + shift

    def _attention(self, layer: Mapping[str, Attention], states: Tensor, dense: Dense, place: int) -> Tensor:
        attended: Attended = dense.sizes.attended[place]
        joined = torch.cat([states, states.new_zeros(1, states.shape[1])])
        by_node = (joined @ self._vectors[place]).T.contiguous()
        sources = by_node.index_select(0, torch.from_numpy(attended.sources))
        targets = by_node.flatten().index_select(0, torch.from_numpy(attended.targets))[:, None]
        logits = torch.from_numpy(dense.logits[place]) + sources + targets
        weights = torch.softmax(leaky_relu(logits, self._folded.slope), dim=1)
        mixed = iter(torch.split(weights @ joined, attended.by_kind.tolist()))
        after = []
        for kind, rows in zip(NODE_TYPES, torch.split(states, dense.sizes.nodes.tolist()), strict=True):
            if kind not in layer:
                after.append(states.new_zeros(len(rows), self._folded.attention))
                continue
            state = _received(layer[kind].product, next(mixed))
            after.append(state + rows if state.shape == rows.shape else state)
        return torch.cat(after)

    def _read(self, dense: Dense, states: Tensor, encoded: Tensor) -> Raw:
        rows = torch.split(torch.cat([states, encoded], dim=1), dense.sizes.nodes.tolist())
        by_kind = dict(zip(NODE_TYPES, rows, strict=True))
        return Raw(
            heads=_product(self._folded.heads, by_kind["global"][:, : self._folded.attention])[0].numpy(),
            seed_scores=_product(self._folded.seed_score, by_kind["seed"])[:, 0].numpy(),
            blueprint_scores=_product(self._folded.blueprint_score, by_kind["blueprint"])[:, 0].numpy(),
        )


def _received(product: Product, rows: Tensor) -> Tensor:
    """One type's rows, those of a target in one."""
    return gelu(_product(product, rows.reshape(-1, len(product.weight))))


def _product(product: Product, inputs: Tensor) -> Tensor:
    return torch.addmm(torch.from_numpy(product.bias), inputs, torch.from_numpy(product.weight))
