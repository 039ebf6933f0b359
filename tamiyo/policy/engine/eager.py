"""The folded network in plain torch on the dense form: runs wherever torch does, without compiling anything."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, leaky_relu

from tamiyo.graph.graph import FloatArray
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.fold import Attention, Encoder, Folded, Product
from tamiyo.policy.engine.raw import Raw

__all__ = ["ENGINE", "EagerForm"]

ENGINE = f"folded fp32, torch {torch.__version__}"


class EagerForm:
    """The weights where they are. Keeps nothing between calls, so any number of threads may be in it."""

    engine = ENGINE

    def __init__(self, folded: Folded) -> None:
        self._folded = folded

    def run(self, dense: Dense) -> Raw:
        """One graph."""
        with torch.inference_mode():
            encoded = {kind: self._encoded(self._folded.encoders[kind], dense.nodes[kind]) for kind in NODE_TYPES}
            states: Mapping[str, Tensor] = encoded
            neighbours = {kind: torch.from_numpy(array) for kind, array in dense.neighbours.items()}
            for sage in self._folded.sage:
                joined = torch.cat([states[kind] for kind in NODE_TYPES])
                states = {
                    kind: gelu(_product(product, (neighbours[kind] @ joined).flatten(1))) + states[kind]
                    for kind, product in sage.items()
                }
            for layer, logits in zip(self._folded.gat, dense.logits, strict=True):
                states = self._attention(layer, states, logits, dense)
            return self._read(states, encoded)

    def _encoded(self, encoder: Encoder, nodes: FloatArray) -> Tensor:
        projected = gelu(_product(encoder.project, torch.from_numpy(nodes)))
        scale, shift = torch.from_numpy(encoder.scale), torch.from_numpy(encoder.shift)
        return layer_norm(projected, scale.shape, scale, shift, encoder.epsilon)

    def _attention(
        self,
        layer: Mapping[str, Attention],
        states: Mapping[str, Tensor],
        logits: Mapping[str, FloatArray],
        dense: Dense,
    ) -> dict[str, Tensor]:
        width = next(iter(states.values())).shape[1]
        rows = [states[kind] if kind in states else torch.zeros(_rows(dense, kind), width) for kind in NODE_TYPES]
        joined = torch.cat([*rows, torch.zeros(1, width)])
        after = {}
        for kind, part in layer.items():
            sources = (joined @ torch.from_numpy(part.source)).T
            targets = (states[kind] @ torch.from_numpy(part.target)).unsqueeze(2)
            weights = torch.softmax(
                leaky_relu(torch.from_numpy(logits[kind]) + sources + targets, self._folded.slope), dim=2
            )
            state = gelu(_product(part.product, (weights @ joined).flatten(1)))
            after[kind] = state + states[kind] if state.shape == states[kind].shape else state
        return after

    def _read(self, states: Mapping[str, Tensor], encoded: Mapping[str, Tensor]) -> Raw:
        seeds, blueprints = (torch.cat([states[kind], encoded[kind]], dim=1) for kind in ("seed", "blueprint"))
        return Raw(
            heads=_product(self._folded.heads, states["global"])[0].numpy(),
            seed_scores=_product(self._folded.seed_score, seeds)[:, 0].numpy(),
            blueprint_scores=_product(self._folded.blueprint_score, blueprints)[:, 0].numpy(),
        )


def _product(product: Product, inputs: Tensor) -> Tensor:
    return torch.addmm(torch.from_numpy(product.bias), inputs, torch.from_numpy(product.weight))


def _rows(dense: Dense, kind: str) -> int:
    return len(dense.nodes[kind])
