"""Tests of the machine: every controller that is broken on purpose is found out, by the law that it breaks."""

from contextlib import suppress

import pytest
from hypothesis import Phase
from hypothesis.errors import FlakyFailure, FlakyStrategyDefinition
from hypothesis.stateful import RULE_MARKER
from machines.broken_controllers import VARIANTS, Variant
from machines.broken_policies import POLICY_VARIANTS
from machines.broken_retention import RETENTION_VARIANTS

from tamiyo.testing.machine import ControllerMachine, LawBroken, open_controller, run_controller_machine

ALL = VARIANTS | POLICY_VARIANTS | RETENTION_VARIANTS
SEEDS = range(4)


def only(among: tuple[str, ...]) -> type[ControllerMachine]:
    """The machine with these rules alone; with all where none is named."""
    known = {name for name, member in vars(ControllerMachine).items() if hasattr(member, RULE_MARKER)}
    assert known >= {*among}
    left_out = dict.fromkeys(known - {*among} if among else ())
    return type("Focused", (ControllerMachine,), left_out)


def histories(broken: Variant, among: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broken controller does may be up to its threads, so that a history means another thing the next time.

    Then Hypothesis gives it up, and others are drawn; or the law that was broken is not broken again, and counts.
    """
    broken.break_it(monkeypatch)
    for seed in SEEDS:
        with suppress(FlakyStrategyDefinition):
            try:
                run_controller_machine(
                    open_controller,
                    machine=only(among),
                    max_examples=200,
                    step_count=20,
                    seed=seed,
                    database=None,
                    phases=(Phase.generate,),
                    report_multiple_bugs=False,
                )
            except FlakyFailure as found:
                raise found.exceptions[0] from found


@pytest.mark.parametrize("name", ALL)
def test_a_broken_controller_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LawBroken) as found:
        histories(ALL[name], ALL[name].among, monkeypatch)
    assert found.value.law.startswith(ALL[name].laws), str(found.value)[:400]


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, variant in ALL.items() if variant.among])
def test_it_is_found_out_among_all_rules_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LawBroken) as found:
        histories(ALL[name], (), monkeypatch)
    assert found.value.law.startswith(ALL[name].laws), str(found.value)[:400]
