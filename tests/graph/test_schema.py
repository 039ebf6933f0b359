from pathlib import Path

import pytest

from tamiyo.core.norms import NORM_INDEX, NORM_INPUTS
from tamiyo.core.registries import CAPACITIES
from tamiyo.graph import docs
from tamiyo.graph.schema import CATEGORIES, EDGE_ATTRIBUTES, FEATURES, NODE_TYPES, RELATIONS, column

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "graph.md"

REQUIRED_RELATIONS = """
global-influences-seed, seed-reports-global, global-annotates-blueprint, blueprint-monitored_by-global, seed-peer-seed,
global-operates-layer, layer-feedback-global, layer-activates-activation, activation-affects-layer,
activation-configures-parameter, parameter-modulates-activation, seed-allowed-parameter, parameter-associated-seed,
blueprint-composes-layer, layer-belongs_to-blueprint, blueprint-energizes-activation, parameter-targets-blueprint,
layer-connects-layer, seed-monitors-layer, layer-monitored_by-seed, layer-feeds-activation
"""


def test_the_21_relations_are_the_required_ones_in_their_order() -> None:
    required = [label.strip() for label in REQUIRED_RELATIONS.split(",")]
    assert [relation.label for relation in RELATIONS] == required


def test_every_table_covers_every_node_type() -> None:
    assert set(FEATURES) == set(CATEGORIES) == set(NODE_TYPES)


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_feature_names_are_unique_and_lead_to_their_column(kind: str) -> None:
    for place, feature in enumerate(FEATURES[kind]):
        assert column(kind, feature.name) == place


@pytest.mark.parametrize(
    ("kind", "feature"), [pytest.param(k, f, id=f"{k}-{f.name}") for k in NODE_TYPES for f in FEATURES[k]]
)
def test_a_feature_says_where_it_comes_from_and_how_it_is_scaled(kind: str, feature: object) -> None:
    assert feature.source
    assert feature.scale > 0
    assert feature.applies in {"always", "hardware", "accelerator"}
    if feature.norm:
        assert (feature.offset, feature.scale) == (0.0, 1.0)  # the norm has them
        assert feature.log1p == NORM_INPUTS[NORM_INDEX[feature.norm]].log1p


def test_activity_success_and_risk_of_seeds_alone_have_a_default() -> None:
    defaults = {(kind, f.name): f.default for kind in NODE_TYPES for f in FEATURES[kind] if f.default}
    assert defaults == {("seed", "risk"): 0.5, ("seed", "activity"): 0.5, ("seed", "success"): 0.5}


def test_every_norm_is_read_by_a_feature() -> None:
    assert {feature.norm for row in FEATURES.values() for feature in row} - {""} == set(NORM_INDEX)


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_categorical_columns_are_registries(kind: str) -> None:
    assert set(CATEGORIES[kind]) <= set(CAPACITIES)


def test_every_registry_has_a_column() -> None:
    assert {kind for kinds in CATEGORIES.values() for kind in kinds} == set(CAPACITIES)


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.label)
def test_a_relation_joins_node_types_and_copies_features_that_exist(relation: object) -> None:
    assert {relation.source, relation.target} <= set(NODE_TYPES)
    assert 1 <= len(relation.attributes) <= EDGE_ATTRIBUTES
    if relation.carrier != "given":
        carrier = relation.source if relation.carrier == "source" else relation.target
        for name in relation.attributes:
            assert column(carrier, name) >= 0


def test_coverage_families_are_told_apart() -> None:
    assert len({relation.family for relation in RELATIONS}) == 21
    assert "edges.layer_connects" in {relation.family for relation in RELATIONS}


def test_the_document_shows_the_schema() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text[text.index(docs.BEGIN) + len(docs.BEGIN) + 1 : text.index(docs.END)]
    assert shown == docs.tables(), "run `python -m tamiyo.graph.docs` and put its output into docs/graph.md"


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_the_document_has_every_feature(kind: str) -> None:
    table = docs.tables().split(f"### `{kind}`")[1].split("###")[0]
    assert all(f"| `{feature.name}` |" in table for feature in FEATURES[kind])
