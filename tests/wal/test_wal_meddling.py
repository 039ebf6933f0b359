"""Whatever one thread or process does with a log, whole, between two disk calls of another: both say what is true."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from meddling_looks import BY_THE_OWNER, LOOKS, Look
from meddling_rig import ABANDONED, BEGINNINGS, MEANWHILE, MEANWHILE_ABANDONED, Life, Process

import wal

OTHERS, OWNERS, WRITERS = "others", "owners", "writers"
"""Whose disk calls something comes between: another process's, or in the log's own its callers' or its writer's."""
Pair = tuple[str, str, str, str]

FOUND: list[Pair] = [
    ("in_use", OTHERS, "follow", "rotates and prunes"),
    ("pruned_before", OTHERS, "read_the_end", "rotates and prunes"),
    ("pruned_before", OTHERS, "follow", "prunes half"),
    ("just_opened", OTHERS, "read_the_end", "crashes, opens and rotates"),
    ("in_use", OTHERS, "read", "prunes"),
    ("in_use", OTHERS, "scrub", "rotates and prunes"),
    ("just_opened", OTHERS, "copy", "crashes, opens and rotates"),
    ("in_use", OTHERS, "verify", "crashes, opens and rotates"),
    ("in_use", OTHERS, "take_the_head", "crashes, opens and rotates"),
    ("abandoned", OTHERS, "take_the_head", "opens and stages"),
    ("in_use", OTHERS, "list_segments", "redacts"),
    ("in_use", OTHERS, "salvage", "rotates"),
    ("in_use", OTHERS, "salvage", "prunes half"),
    ("in_use", OWNERS, "hold_heads_against_it", "prunes half"),
    ("in_use", OWNERS, "hold_heads_against_it", "rotates and prunes"),
    ("in_use", WRITERS, "rotates", "prunes"),
    ("in_use", WRITERS, "rotates", "redacts"),
]
"""In each of these pairs something was once wrong: a log, whose disk calls, what makes them, and what comes between."""

OPENINGS = ["opens", "opens with other limits"]
STANDING = ["appends", "rotates", "prunes half", "prunes", "rotates and prunes", "redacts"]
ADDING = ["appends", "stages", "rotates"]
MAINTAINING = ["prunes half", "prunes", "redacts"]  # one at a time: each waits for the other, and for a close
ALONE = [look for look in LOOKS if look != "follow"]  # it is told by a writer how far the log is durable

ALL: list[Pair] = [
    *itertools.product(BEGINNINGS, [OTHERS], LOOKS, MEANWHILE),
    *itertools.product(ABANDONED, [OTHERS], ALONE, MEANWHILE_ABANDONED),
    *itertools.product(BEGINNINGS, [OWNERS], BY_THE_OWNER, STANDING),
    *itertools.product(BEGINNINGS, [OWNERS], MAINTAINING, [*ADDING, *LOOKS]),
    *itertools.product(BEGINNINGS, [WRITERS], ADDING, [*MAINTAINING, *LOOKS]),
    *itertools.product(BEGINNINGS, [WRITERS, OWNERS], ["closes"], ALONE),
    *itertools.product(ABANDONED, [OWNERS], OPENINGS, ALONE),
]
"""Left out is what waits for the other side by a lock, and what nothing may come between: `links` (see `Process`)."""


def at_each_call(
    act: Callable[[Look], object],
    meanwhile: Callable[[Look], object],
    begin: Callable[[], Life],
    *,
    whose: str = OTHERS,
) -> Iterator[str]:
    """Act while that happens, before each disk call of theirs in turn; yield what each of them found wrong."""
    for at in itertools.count(1):
        life = begin()
        calls = itertools.count(1)
        process = Process(life.disk)
        look = Look(life, process)
        wrong_meanwhile: list[str] = []

        def between(
            at: int = at, life: Life = life, calls: Iterator[int] = calls, wrong: list[str] = wrong_meanwhile
        ) -> None:
            writers = threading.current_thread().name.startswith("wal-writer")
            if writers == (whose == WRITERS) and next(calls) == at:
                beside = Look(life, Process(life.disk))
                beside.seal_may_be_due = writers or life.log is None
                with _told(beside, wrong):
                    meanwhile(beside)

        if whose == OTHERS:
            process.between = between
        else:
            life.between = between
        with _told(look) as wrong:
            act(look)
            assert not process.open_files
        process.between = life.between = lambda: None
        if look.then_power_fails:
            life.lose_power()
        over = next(calls) <= at
        with _told(look) as wrong_at_last:
            life.end()
        yield from [f"at call {at}: {problem}" for problem in wrong_meanwhile + wrong + wrong_at_last]
        if over:
            return


@contextmanager
def _told(look: Look, problems: list[str] | None = None) -> Iterator[list[str]]:
    """Keep what is wrong. Not so: that what was asked for has been pruned since, or is to be asked for again."""
    problems = [] if problems is None else problems
    try:
        yield problems
    except wal.Trimmed as trimmed:
        if trimmed.first_lsn <= trimmed.wanted_lsn or look.life.begins == look.first:
            problems.append(repr(trimmed))
    except (wal.LogError, OSError, AssertionError) as error:
        if "ask again" not in str(error):
            problems.append(f"{type(error).__name__}: {error}")


def _named(what: str) -> Callable[[Look], object]:
    deed = (MEANWHILE | MEANWHILE_ABANDONED).get(what)
    return (LOOKS | BY_THE_OWNER)[what] if deed is None else lambda look: deed(look.life)


def _wrong(pair: Pair) -> Iterator[str]:
    begin, whose, act, meanwhile = pair
    return at_each_call(_named(act), _named(meanwhile), (BEGINNINGS | ABANDONED)[begin], whose=whose)


def _words(pair: Pair) -> str:
    return "-".join(pair)


@pytest.mark.parametrize("pair", FOUND, ids=_words)
def test_what_comes_between_two_disk_calls_is_taken_for_what_it_is(pair: Pair) -> None:
    assert list(_wrong(pair)) == []


@pytest.mark.long
@pytest.mark.parametrize("pair", ALL, ids=_words)
def test_whatever_comes_between_two_disk_calls_is_taken_for_what_it_is(pair: Pair) -> None:
    assert list(_wrong(pair)) == []
