"""Long work in pieces, so that whoever does it beside a running step can rest in between."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["Pace", "paced", "without_rest"]

Pace = Callable[[], None]
"""Called between two pieces of work, a few microseconds each; it may take its time."""

T = TypeVar("T")


def without_rest() -> None:
    """The pace of work that nobody waits beside."""


def paced(items: Iterable[T], pace: Pace) -> Iterator[T]:
    """The items, with a call of `pace` after each."""
    for item in items:
        yield item
        pace()
