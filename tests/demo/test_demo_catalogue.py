import orjson
import torch

from tamiyo.demo.catalogue import host_metadata, stock
from tamiyo.demo.network import CLASSES, new_network
from tamiyo.integrations.kasmina import BLUEPRINTS, SeedSettings
from tamiyo.leyline import leyline_pb2 as pb


class Shelf:
    """A library in memory that remembers what was saved."""

    def __init__(self) -> None:
        self.saved = {}

    def get(self, blueprint_id):
        return self.saved.get(blueprint_id)

    def save(self, descriptor, artifact, extras):
        assert descriptor.blueprint_id not in self.saved
        self.saved[descriptor.blueprint_id] = (descriptor, artifact, orjson.dumps(extras))


def stocked() -> Shelf:
    shelf = Shelf()
    stock(shelf, "digits-0", new_network(0), SeedSettings(), {"family": "adamw"})
    return shelf


def test_the_library_holds_every_blueprint_that_can_grow_and_the_host():
    assert set(stocked().saved) == {*BLUEPRINTS, "digits-0"}


def test_stocking_twice_changes_nothing():
    shelf = stocked()
    before = dict(shelf.saved)
    stock(shelf, "digits-0", new_network(0), SeedSettings(), {"family": "adamw"})
    assert shelf.saved == before


def test_what_is_stored_does_not_depend_on_the_process_random_stream():
    first = stocked()
    torch.rand(7)
    assert stocked().saved == first.saved


def test_every_blueprint_is_safe_by_its_own_account():
    for descriptor, _, _ in stocked().saved.values():
        assert descriptor.tier == pb.BLUEPRINT_TIER_SAFE
        assert 0.0 < descriptor.risk < 0.5
        assert not descriptor.quarantine_only
        assert descriptor.allowed_parameters["alpha"].max_value == 1.0


def test_the_hosts_metadata_points_only_at_what_is_there():
    network = new_network(0)
    metadata = host_metadata(network, SeedSettings())
    layers = metadata["layers"]
    assert [layer["layer_id"] for layer in layers] == ["conv1", "conv2", "conv3", "classify"]
    assert [layer["depth"] for layer in layers] == [1, 2, 3, 4]
    assert all(layer["parameter_count"] > 0 and layer["weight_norm"] > 0 for layer in layers)
    assert {index for pair in metadata["adjacency"]["layer"] for index in pair[:2]} == {0, 1, 2, 3}
    assert [pair[:2] for pair in metadata["monitored_layers"]] == [[0, 0], [1, 1], [2, 2]]
    assert set(metadata["capabilities"]["allowed_parameters_by_seed_id"]) == set(network.graft_points())
    assert {row["name"] for row in metadata["parameters"]} == {"alpha", "lr_delta"}


def test_a_network_depends_on_its_seed_alone():
    first, second, other = new_network(5), new_network(5), new_network(6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_the_network_maps_images_to_one_score_a_class():
    assert new_network(0)(torch.zeros(5, 1, 8, 8)).shape == (5, CLASSES)


def test_each_graft_point_states_the_width_and_depth_of_what_it_stands_behind():
    network = new_network(0)
    points = network.graft_points()
    assert [point.channels for point in points.values()] == [
        network.conv1.out_channels,
        network.conv2.out_channels,
        network.conv3.out_channels,
    ]
    assert [point.depth for point in points.values()] == [1, 2, 3]
