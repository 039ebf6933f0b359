"""A graph of the size that the demo's steps have, to measure a policy on before the run begins."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tamiyo.core.blueprint import read_blueprint
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import read_packet
from tamiyo.core.registries import initial
from tamiyo.demo.session import new_trainer, run_of
from tamiyo.graph import BlueprintInput, Graph, build, parse_metadata
from tamiyo.integrations.kasmina import Verdict
from tamiyo.integrations.tolaria import StepMonitor
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import content_of

__all__ = ["Catalogue", "example_graph"]


class _Record(Protocol):
    @property
    def descriptor(self) -> pb.BlueprintDescriptor: ...

    @property
    def extras(self) -> Mapping[str, Any]: ...


class Catalogue(Protocol):
    """The part of a blueprint library that is read here."""

    def list(self) -> Sequence[str]:
        """Every id."""

    def get(self, blueprint_id: str) -> _Record | None:
        """One record."""


def example_graph(catalogue: Catalogue, seed: int) -> Graph:
    """The graph of a first step: three dormant seeds, every blueprint of the catalogue, the host's own among them."""
    seeds = new_trainer(seed, _Nobody(), _Nobody(), None).seeds
    packet = StepMonitor(run_of(seed)).packet(seeds=seeds.export_seed_states())
    observation = read_packet(packet.SerializeToString(), Limits())
    records = [(blueprint_id, catalogue.get(blueprint_id)) for blueprint_id in catalogue.list()]
    blueprints = [_input(blueprint_id, record) for blueprint_id, record in records if record is not None]
    return build(observation, norms=PRIORS, registries=initial(), blueprints=blueprints)


def _input(blueprint_id: str, record: _Record) -> BlueprintInput:
    content = content_of(record)
    return BlueprintInput(read_blueprint(blueprint_id, "", content), parse_metadata(content.graph_metadata))


class _Nobody:
    """Stands where a controller and a verifier go in a trainer that takes no step."""

    def evaluate_step(self, packet: pb.SystemStatePacket) -> pb.AdaptationCommand:
        raise NotImplementedError

    def record_delivery(self, command_id: str, outcome: str, detail: str = "") -> None:
        raise NotImplementedError

    def verify(self, command: pb.AdaptationCommand) -> Verdict:
        raise NotImplementedError
