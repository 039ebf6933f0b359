"""The network says of the golden graphs what it said: see `tests/graph/golden.py`."""

import pytest
from graph.golden import OUTPUTS, read
from policy.golden_outputs import outputs

from tamiyo.policy.gnn import GnnPolicy

TOLERANCE = 1e-4
"""Between engines and versions of torch; one feature that changes moves the outputs by more."""


def test_the_network_says_of_the_golden_graphs_what_it_said(policy: GnnPolicy) -> None:
    expected = read(OUTPUTS.name)
    found = outputs(policy)
    assert found.keys() == expected.keys()
    for case, proposal in expected.items():
        for name, value in proposal.items():
            assert found[case][name] == pytest.approx(value, abs=TOLERANCE), f"{case}: {name}"
