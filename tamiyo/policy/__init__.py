"""Policies: from graph to proposal.

    protocol    what every policy is
    baseline    documented rules over the graph; decides by default; knows no torch
    network     the graph network, on PyTorch Geometric
    hetero      the graph as PyTorch Geometric takes it
    engine      the same function folded and compiled; what runs by default
    gnn         the network as a policy
    checkpoint  its weights as a file: safetensors with a manifest
    store       the checkpoints that a service keeps
    past        the policies that a log names, for audits

Importing this package does not import torch; `network`, `hetero`, `engine`, `gnn` and `checkpoint` do.
"""

from tamiyo.policy.protocol import Policy, ProposesMany, WarmsUp, require_policy

__all__ = ["Policy", "ProposesMany", "WarmsUp", "require_policy"]
