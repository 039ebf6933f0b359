"""Which blueprints a step's graph has: the host's own first, then the library's, 32 in all, and looked up again."""

from collections import Counter

import pytest
from live import DictLibrary, Live, Record, step_until
from rig import packet

from tamiyo.core import journal_pb2 as journal
from tamiyo.leyline import leyline_pb2 as pb

MOST = 32
MANY = [f"bp-{place}" for place in range(40)]


class CountingLibrary(DictLibrary):
    """Counts what it is asked for; "" is the list."""

    def __init__(self, *ids: str) -> None:
        super().__init__({name: Record(pb.BlueprintDescriptor(blueprint_id=name), {}) for name in ids})
        self.asked: Counter[str] = Counter()

    def list(self) -> list[str]:
        self.asked[""] += 1
        return super().list()

    def get(self, blueprint_id: str) -> Record | None:
        self.asked[blueprint_id] += 1
        return super().get(blueprint_id)


def used(live: Live) -> list[str]:
    """The blueprints of the last step's graph."""
    steps = live.events(journal.GraphObserved)
    return [each.blueprint_id for each in steps[-1].blueprints] if steps else []


def settled(live: Live, *ids: str) -> Live:
    """After the step that follows on the last of these answers."""
    step_until(live, lambda: live.service.state.blueprints.keys() >= {*ids})
    live.step(packet())
    return live


@pytest.mark.parametrize("place", [0, 20, 39])
def test_a_graph_has_the_host_first_and_the_best_of_the_list_up_to_32(place: int) -> None:
    listed = [*MANY[:place], "run-1", *MANY[place:]]
    library = CountingLibrary(*listed)
    live = settled(Live(urza=library), "run-1", *listed[:MOST])
    assert used(live) == ["run-1", *MANY[: MOST - 1]]
    assert library.asked.keys() == {"", "run-1", *listed[:MOST]}
    live.check()
    live.close()


@pytest.mark.parametrize("place", [0, 39])
def test_the_packet_names_the_host_wherever_the_library_lists_it(place: int) -> None:
    listed = [*MANY[:place], "packet-1", *MANY[place:]]
    live = settled(Live(urza=CountingLibrary(*listed)), *listed[:MOST])
    step_until(live, lambda: "packet-1" in live.service.state.blueprints)
    live.step(packet())
    assert used(live) == ["packet-1", *MANY[: MOST - 1]]
    assert live.events(journal.GraphObserved)[-1].host_blueprint_id == "packet-1"
    live.close()


def test_what_is_known_is_asked_for_again_after_five_minutes_and_not_before() -> None:
    library = CountingLibrary("run-1")
    live = Live(urza=library)
    step_until(live, lambda: used(live) == ["run-1"])
    live.clock.advance(299)
    for _ in range(5):
        live.step(packet())
    assert library.asked == {"": 1, "run-1": 1}
    live.clock.advance(2)
    step_until(live, lambda: library.asked == {"": 2, "run-1": 2})
    live.check()
    live.close()
