"""Whatever a log's writer does, whole, between two disk calls of somebody who looks: the look says what is true."""

import itertools

import pytest
from meddling_rig import (
    ABANDONED,
    BEGINNINGS,
    LOOKS,
    MEANWHILE,
    MEANWHILE_ABANDONED,
    OWNERS,
    at_each_call,
    hold_heads_against_it,
)

FOUND = [
    ("in_use", "follow", "rotates and prunes"),
    ("pruned_before", "follow", "rotates and prunes"),
    ("pruned_before", "follow", "prunes half"),
    ("just_opened", "read_the_end", "crashes, opens and rotates"),
    ("in_use", "scrub", "rotates and prunes"),
    ("in_use", "copy", "rotates and prunes"),
    ("in_use", "copy", "crashes, opens and rotates"),
    ("in_use", "verify", "crashes, opens and rotates"),
    ("in_use", "take_the_head", "crashes, opens and rotates"),
    ("in_use", "list_segments", "redacts"),
    ("in_use", "salvage", "rotates"),
    ("in_use", "salvage", "prunes half"),
    ("abandoned", "take_the_head", "opens and stages"),
]
"""In each of these pairs something was once wrong."""


def wrong(begin: str, look: str, meanwhile: str) -> list[str]:
    then = (MEANWHILE | MEANWHILE_ABANDONED)[meanwhile]
    return list(at_each_call(LOOKS[look], lambda beside: then(beside.life), (BEGINNINGS | ABANDONED)[begin]))


@pytest.mark.parametrize(("begin", "look", "meanwhile"), FOUND)
def test_what_happens_meanwhile_is_not_taken_for_damage(begin: str, look: str, meanwhile: str) -> None:
    assert wrong(begin, look, meanwhile) == []


@pytest.mark.parametrize("meanwhile", ["prunes half", "rotates and prunes"])
def test_a_log_holds_a_head_against_itself_while_it_is_pruned(meanwhile: str) -> None:
    then = MEANWHILE[meanwhile]
    moments = at_each_call(hold_heads_against_it, lambda beside: then(beside.life), BEGINNINGS["in_use"], whose=OWNERS)
    assert list(moments) == []


ALL = [
    *itertools.product(BEGINNINGS, LOOKS, MEANWHILE),
    *itertools.product(ABANDONED, LOOKS, MEANWHILE_ABANDONED),
]


@pytest.mark.long
@pytest.mark.parametrize(("begin", "look", "meanwhile"), ALL)
def test_whatever_happens_meanwhile_is_not_taken_for_damage(begin: str, look: str, meanwhile: str) -> None:
    assert wrong(begin, look, meanwhile) == []
