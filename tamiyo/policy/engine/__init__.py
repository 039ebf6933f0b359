"""The network's function, folded and laid out for speed; `tamiyo.policy.network` is the reference.

    fold     the weights, folded in float64: the same function, less than half of it left
    sizes    how a small graph is filled up, and the rows that gives
    dense    a small graph as matrices
    form     what a form for small graphs is
    warming  sizes met ahead of the graphs that have them
    vino     compiled by OpenVINO, on the dense form
    eager    plain torch, on the dense form
    sparse   plain torch on edge lists: large graphs, and many small ones
    joined   many small graphs as one, for audits
    device   what is needed of CUDA; dense_device and sparse_device are the forms on one
    raw      what a form returns
    kept     layouts and plans, by topology
    probe    graphs to warm up on
    engine   which form takes a graph, and what happens when one fails
    loading  folds, compiles, warms up, compares with the reference

docs/network.md explains it and has the figures.
"""

from tamiyo.policy.engine.engine import Engine, batch_key
from tamiyo.policy.engine.loading import Built, build

__all__ = ["Built", "Engine", "batch_key", "build"]
