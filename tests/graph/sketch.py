"""Observations, blueprints and metadata for the tests of graph and policy, from plain values."""

from tamiyo.bench.samples import HOST, INITIAL, blueprint, built, host, metadata, observed, seed, small_graph
from tamiyo.core.blueprint import SafetySheet
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["HOST", "INITIAL", "blueprint", "built", "host", "metadata", "observed", "seed", "sheet", "small_graph"]


def sheet(hazard_band: int = pb.HAZARD_BAND_HIGH) -> SafetySheet:
    return SafetySheet(0.6, hazard_band, pb.HANDLING_CLASS_STANDARD, pb.RESOURCE_PROFILE_CPU, pb.PROVENANCE_CURATED, "")
