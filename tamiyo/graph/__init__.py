"""The graph: what a policy is shown of a step, built from packet, blueprints, norms and registries.

    schema     the tables: node types, features, relations; everything else interprets them
    metadata   reading a blueprint's `graph_metadata`, trusting nothing
    rules      how it is read, by the behaviour that a log was written with
    ties       what a blueprint's metadata says of seeds
    plan       what one blueprint contributes; made once for each digest
    topology   the plans of a step's blueprints, laid one behind the other
    seeds      the rows and the edges of a step's seeds
    layout     all edges, kept while no seed changes its stage or place
    scaling    raw values to features and masks
    nodes      the rows of a step
    edges      what edges carry
    counts     coverage
    builder    packet + topology to `Graph`
    graph      the finished arrays
    observed   what the journal says of one

Rule 1: numpy only; no torch. Rule 2: no input makes an exception; what is bad is ignored and counted.
Rule 3: a graph is a pure function of its inputs; the builder's cache changes its speed and nothing else.
"""

from tamiyo.graph.builder import GraphBuilder, build, registry_keys
from tamiyo.graph.graph import Graph
from tamiyo.graph.metadata import parse_metadata
from tamiyo.graph.observed import graph_observed
from tamiyo.graph.plan import BlueprintInput
from tamiyo.graph.rules import MetadataRules, host_of

__all__ = [
    "BlueprintInput",
    "Graph",
    "GraphBuilder",
    "MetadataRules",
    "build",
    "graph_observed",
    "host_of",
    "parse_metadata",
    "registry_keys",
]
