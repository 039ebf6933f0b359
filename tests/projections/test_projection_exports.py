import json
import math
import os

import pytest

from tamiyo.core.norms import NORM_INPUTS, PRIORS, Norm
from tamiyo.core.registries import CAPACITIES, initial
from tamiyo.projections import export_norms, export_registries

ODD = {"s-1": 1, "a\x00b": 2, 'quote"\\': 3, "ünï 💥": 4, "\ud800": 5}


def test_norms_are_exported_by_name(tmp_path):
    path = export_norms(tmp_path, PRIORS)
    assert path == tmp_path / "gnn_norms.json"
    found = json.loads(path.read_bytes())
    assert list(found) == [row.name for row in NORM_INPUTS]
    assert found["loss"] == {"mean": PRIORS[0].mean, "variance": PRIORS[0].variance}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_norm_that_json_has_no_number_for_is_null(tmp_path, value):
    path = export_norms(tmp_path, (Norm(value, 1.0), *PRIORS[1:]))
    assert json.loads(path.read_bytes())["loss"] == {"mean": None, "variance": 1.0}


def test_a_wrong_number_of_norms_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        export_norms(tmp_path, PRIORS[1:])
    assert list(tmp_path.iterdir()) == []


def test_every_registry_is_a_file_of_its_own(tmp_path):
    paths = export_registries(tmp_path, initial())
    assert [path.name for path in paths] == [f"{kind}_registry.json" for kind in CAPACITIES]
    assert json.loads((tmp_path / "seed_id_registry.json").read_bytes()) == {}
    families = json.loads((tmp_path / "optimizer_family_registry.json").read_bytes())
    assert families == {"sgd": 1, "adam": 2, "adamw": 3, "rmsprop": 4, "adagrad": 5}


def test_odd_keys_come_back_as_they_were_in_the_order_of_their_indices(tmp_path):
    backwards = dict(sorted(ODD.items(), key=lambda entry: -entry[1]))
    (path,) = export_registries(tmp_path, {"seed_id": backwards})
    assert list(json.loads(path.read_bytes()).items()) == list(ODD.items())


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    export_registries(tmp_path, {"seed_id": dict.fromkeys(map(str, range(100)), 1)})
    export_registries(tmp_path, {"seed_id": {"s": 1}})
    assert [path.name for path in tmp_path.iterdir()] == ["seed_id_registry.json"]
    assert json.loads((tmp_path / "seed_id_registry.json").read_bytes()) == {"s": 1}


def test_a_failure_before_the_rename_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = export_norms(tmp_path, PRIORS)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        export_norms(tmp_path, (Norm(9.0, 9.0), *PRIORS[1:]))
    assert path.read_bytes() == before


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        export_norms(tmp_path / "nowhere", PRIORS)
