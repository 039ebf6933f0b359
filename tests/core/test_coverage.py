import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.core.coverage import MAP_BYTES_MAX, Count, Coverage, average, by_family

names = st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=24)
shares = st.integers(1, 2_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))
counts = st.dictionaries(st.tuples(names, names), shares, max_size=80).map(
    lambda found: [(family, feature, *share) for (family, feature), share in found.items()]
)


def coverage_map(found: list[Count]) -> str:
    return Coverage.of(found).annotations["coverage_map"]


def types_json(found: list[Count]) -> str:
    return Coverage.of(found).annotations["coverage_types"]


def test_the_average_weighs_every_feature_by_what_applies() -> None:
    assert average([("node.seed", "alpha", 1, 1), ("node.seed", "risk", 0, 3)]) == 0.25


def test_nothing_that_applies_is_nothing_known() -> None:
    assert average([]) == 0.0
    assert average([("node.layer", "depth", 0, 0)]) == 0.0


def test_a_family_to_which_nothing_applies_is_not_in_the_list() -> None:
    found = by_family([("node.layer", "depth", 0, 0), ("node.seed", "risk", 1, 2), ("node.seed", "alpha", 2, 2)])
    assert found == {"node.seed": 0.75}


def test_families_are_written_with_three_decimals() -> None:
    assert json.loads(types_json([("node.seed", "risk", 1, 3)])) == {"node.seed": 0.333}


def test_the_average_is_written_with_three_decimals_and_nothing_with_blanks() -> None:
    thirds = [("node.seed", "risk", 1, 3), ("node.layer", "depth", 1, 1), ("n", "a", 2, 3)]
    covered = Coverage.of(thirds)
    assert covered.annotations["feature_coverage"] == "0.571"
    assert covered.annotations["coverage_types"] == '{"n":0.667,"node.layer":1.0,"node.seed":0.333}'
    assert covered.annotations["coverage_map"] == '{"node.seed.risk":0.333,"n.a":0.667}'
    assert covered.average == pytest.approx(4 / 7)
    assert dict(covered.families) == {"node.seed": 1 / 3, "node.layer": 1.0, "n": 2 / 3}


def test_the_map_has_the_features_below_one_lowest_first_and_then_by_name() -> None:
    found = coverage_map([("n", "whole", 2, 2), ("n", "half", 1, 2), ("n", "b", 0, 2), ("n", "a", 0, 2)])
    assert list(json.loads(found).items()) == [("n.a", 0.0), ("n.b", 0.0), ("n.half", 0.5)]


def test_what_lacks_next_to_nothing_still_reads_as_below_one() -> None:
    assert json.loads(coverage_map([("n", "nearly", 9_999, 10_000)])) == {"n.nearly": 0.999}


def test_what_applies_nowhere_is_not_in_the_map() -> None:
    assert coverage_map([("n", "a", 0, 0)]) == "{}"


def test_what_does_not_fit_is_counted_at_the_end() -> None:
    many = [("node.layer", f"feature_{place:03}", 0, 1) for place in range(100)]
    found = coverage_map(many)
    entries = json.loads(found)
    assert len(found) <= MAP_BYTES_MAX
    assert list(entries)[-1] == "_omitted"
    assert entries["_omitted"] + len(entries) - 1 == 100
    assert len(found) > MAP_BYTES_MAX - 40  # no more is left out than has to be


@pytest.mark.parametrize(("chars", "fits"), [(1_015, True), (1_016, False)])
def test_the_map_takes_all_of_one_kib_and_a_comma_after_every_entry(chars: int, fits: bool) -> None:
    name = "n." + "x" * (chars - len("n."))
    found = coverage_map([("n", name.removeprefix("n."), 0, 1)])
    assert found == (f'{{"{name}":0.0}}' if fits else '{"_omitted":1}')


@given(counts)
def test_the_map_is_bounded_ordered_and_complete(found: list[tuple[str, str, int, int]]) -> None:
    text = coverage_map(found)
    entries = json.loads(text)
    omitted = entries.pop("_omitted", 0)
    assert len(text.encode()) <= MAP_BYTES_MAX
    assert list(entries.values()) == sorted(entries.values())
    assert len(entries) + omitted == sum(present < total for _, _, present, total in found)


@given(counts)
def test_averages_lie_between_the_families(found: list[tuple[str, str, int, int]]) -> None:
    families = by_family(found).values()
    if families:
        assert min(families) - 1e-12 <= average(found) <= max(families) + 1e-12
