"""Tests of the machine: every controller that is broken on purpose is found out, by the law that it breaks."""

import pytest
from hypothesis import Phase
from machines.broken_controllers import VARIANTS, Variant

from tamiyo.testing.machine import LawBroken, open_controller, run_controller_machine


def histories(broken: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.break_it(monkeypatch)
    run_controller_machine(
        open_controller,
        max_examples=200,
        step_count=20,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_a_broken_controller_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LawBroken) as found:
        histories(VARIANTS[name], monkeypatch)
    assert found.value.law.startswith(VARIANTS[name].laws), str(found.value)[:400]
