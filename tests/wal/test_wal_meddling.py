"""Whatever a log's writer does, whole, between two disk calls of somebody who looks: the look says what is true."""

from functools import partial

import pytest
from meddling_rig import LOOKS, MEANWHILE, OWNERS, at_each_call, begun, hold_heads_against_it

both = pytest.mark.parametrize("pruned", [False, True], ids=["begun", "pruned before"])


def wrong(look: str, meanwhile: str, *, pruned: bool) -> list[str]:
    then = MEANWHILE[meanwhile]
    return list(at_each_call(LOOKS[look], lambda beside: then(beside.life), partial(begun, pruned=pruned)))


@both
@pytest.mark.parametrize(
    ("look", "meanwhile"),
    [
        ("follow", "rotates and prunes"),
        ("follow", "prunes half"),
        ("scrub", "rotates and prunes"),
        ("copy", "rotates and prunes"),
        ("list_segments", "redacts"),
    ],
)
def test_no_look_takes_what_the_writer_does_meanwhile_for_damage(look: str, meanwhile: str, *, pruned: bool) -> None:
    """The pairs in which something was once wrong."""
    assert wrong(look, meanwhile, pruned=pruned) == []


@both
@pytest.mark.parametrize("meanwhile", ["prunes half", "rotates and prunes"])
def test_a_log_holds_a_head_against_itself_while_it_is_pruned(meanwhile: str, *, pruned: bool) -> None:
    then = MEANWHILE[meanwhile]
    moments = at_each_call(
        hold_heads_against_it, lambda beside: then(beside.life), partial(begun, pruned=pruned), whose=OWNERS
    )
    assert list(moments) == []


@pytest.mark.long
@both
@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("look", LOOKS)
def test_no_look_takes_anything_meanwhile_for_damage(look: str, meanwhile: str, *, pruned: bool) -> None:
    assert wrong(look, meanwhile, pruned=pruned) == []
