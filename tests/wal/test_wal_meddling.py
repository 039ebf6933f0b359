"""Whatever a log's writer does, whole, between two disk calls of somebody who looks: the look says what is true."""

import pytest
from meddling_rig import LOOKS, MEANWHILE, at_each_call


@pytest.mark.parametrize("pruned", [False, True], ids=["begun", "pruned before"])
@pytest.mark.parametrize(
    ("look", "meanwhile"),
    [
        ("follow", "rotates and prunes"),
        ("follow", "prunes half"),
        ("scrub", "rotates and prunes"),
        ("copy", "rotates and prunes"),
    ],
)
def test_no_look_takes_what_the_writer_does_meanwhile_for_damage(look: str, meanwhile: str, *, pruned: bool) -> None:
    """The pairs in which something was once wrong."""
    assert list(at_each_call(LOOKS[look], MEANWHILE[meanwhile], pruned=pruned)) == []


@pytest.mark.long
@pytest.mark.parametrize("pruned", [False, True], ids=["begun", "pruned before"])
@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("look", LOOKS)
def test_no_look_takes_anything_meanwhile_for_damage(look: str, meanwhile: str, *, pruned: bool) -> None:
    assert list(at_each_call(LOOKS[look], MEANWHILE[meanwhile], pruned=pruned)) == []
