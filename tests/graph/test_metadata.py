import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.graph.metadata import (
    EDGES_MAX,
    METADATA_BYTES_MAX,
    NODES_MAX,
    TEXT_CHARS_MAX,
    Places,
    Tally,
    connections,
    entries,
    number,
    parse_metadata,
    text,
)

CORRUPT = [b"", b"{", b"[]", b"null", b"3", b'"text"', b"\xff\xfe", b"{" * 100_000, b'{"a": NaN}']


@pytest.mark.parametrize("data", CORRUPT, ids=lambda data: repr(data[:12]))
def test_what_is_no_json_object_is_empty(data: bytes) -> None:
    assert parse_metadata(data) == {}


def test_an_object_is_read() -> None:
    assert parse_metadata(b'{"layers": [{"depth": 1}]}') == {"layers": [{"depth": 1}]}


def test_metadata_over_its_cap_is_empty() -> None:
    assert parse_metadata(b'{"a": 1}' + b" " * METADATA_BYTES_MAX) == {}


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    assert isinstance(parse_metadata(data), dict)


NUMBERS = [
    (None, math.nan, 0), (1, 1.0, 0), (0.5, 0.5, 0), (math.inf, math.inf, 0), (True, math.nan, 1), ("1", math.nan, 1),
    ([], math.nan, 1), (10**400, math.nan, 1), (-(10**300), -1e300, 0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected", "ignored"), NUMBERS, ids=lambda value: repr(value)[:12])
def test_a_number_is_taken_and_anything_else_counted(value: object, expected: float, ignored: int) -> None:
    tally = Tally()
    found = number({"key": value}, "key", tally)
    assert found == expected or (math.isnan(found) and math.isnan(expected))
    assert tally.ignored == ignored


TEXTS = [
    (None, "", 0), ("relu", "relu", 0), ("", "", 0), (3, "", 1), ("\ud800", "", 1), ("x" * (TEXT_CHARS_MAX + 1), "", 1),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected", "ignored"), TEXTS, ids=lambda value: repr(value)[:12])
def test_a_name_is_taken_and_anything_else_counted(value: object, expected: str, ignored: int) -> None:
    tally = Tally()
    assert text({"key": value}, "key", tally) == expected
    assert tally.ignored == ignored


def test_an_entry_that_is_no_object_keeps_its_place() -> None:
    tally = Tally()
    assert entries({"layers": [{"a": 1}, 7, {"b": 2}]}, "layers", tally) == [{"a": 1}, {}, {"b": 2}]
    assert tally.ignored == 1


def test_a_list_over_the_cap_is_cut_and_the_rest_counted() -> None:
    tally = Tally()
    assert len(entries({"layers": [{}] * (NODES_MAX + 3)}, "layers", tally)) == NODES_MAX
    assert tally.ignored == 3


def test_a_list_that_is_none_is_counted() -> None:
    tally = Tally()
    assert entries({"layers": "many"}, "layers", tally) == []
    assert tally.ignored == 1


def joined(adjacency: object, layers: int = 3) -> tuple[list[tuple[int, int]], list[float], int]:
    tally = Tally()
    edges, strengths = connections(
        {"adjacency": adjacency}, Places([f"layer-{place}" for place in range(layers)]), tally
    )
    return [tuple(edge) for edge in edges.T.tolist()], strengths.tolist(), tally.ignored


def test_pairs_and_triples_are_read_with_their_strength() -> None:
    edges, strengths, ignored = joined({"layer": [[0, 1], [1, 2, 0.5]]})
    assert edges == [(0, 1), (1, 2)]
    assert math.isnan(strengths[0])
    assert strengths[1] == 0.5
    assert ignored == 0


@pytest.mark.parametrize("adjacency", [None, {}, {"layer": None}])
def test_without_adjacency_layers_make_a_chain(adjacency: object) -> None:
    edges, strengths, ignored = joined(adjacency)
    assert edges == [(0, 1), (1, 2)]
    assert all(map(math.isnan, strengths))
    assert ignored == 0


@pytest.mark.parametrize("adjacency", [[], "x", {"layer": "x"}, {"layer": {}}])
def test_ill_typed_adjacency_is_counted_and_layers_make_a_chain(adjacency: object) -> None:
    edges, _, ignored = joined(adjacency)
    assert edges == [(0, 1), (1, 2)]
    assert ignored == 1


def test_an_empty_list_means_no_connection() -> None:
    assert joined({"layer": []}) == ([], [], 0)


BAD_EDGES = [[0], [0, 1, 2, 3], [0, 3], [-1, 0], [0.0, 1], [True, 1], ["0", "1"], "01", None, {"src": 0}]


@pytest.mark.parametrize("bad", BAD_EDGES, ids=repr)
def test_a_bad_edge_is_left_out_and_counted(bad: object) -> None:
    edges, _, ignored = joined({"layer": [[0, 1], bad, [1, 2]]})
    assert edges == [(0, 1), (1, 2)]
    assert ignored == 1


def test_an_ill_typed_strength_is_counted_and_the_edge_stays() -> None:
    edges, strengths, ignored = joined({"layer": [[0, 1, "strong"]]})
    assert edges == [(0, 1)]
    assert math.isnan(strengths[0])
    assert ignored == 1


def test_connections_over_the_cap_are_counted() -> None:
    edges, _, ignored = joined({"layer": [[0, 1]] * (EDGES_MAX + 2)})
    assert len(edges) == EDGES_MAX
    assert ignored == 2


def test_what_orjson_writes_is_read_back() -> None:
    given_metadata = {"layers": [{"depth": 0, "latency_ms": 0.25, "type": "conv2d"}]}
    assert parse_metadata(orjson.dumps(given_metadata)) == given_metadata
