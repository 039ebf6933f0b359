"""How graph metadata is read, which has changed once: a log's graphs come out again as they were written."""

from collections.abc import Container
from typing import NamedTuple, Self

from tamiyo.core.behaviour import METADATA_VALUES

__all__ = ["MetadataRules"]


class MetadataRules(NamedTuple):
    """Today's, if nothing else is said.

    `has_values`: in an object of names, what a name leads to counts (whether it is allowed, its weight), and a place
    may stand for a name; blending methods and stages may be written in any case. Without: its names are read as a
    list, whatever they lead to.
    """

    has_values: bool = True

    @classmethod
    def under(cls, flags: Container[str]) -> Self:
        """Those that go with a log's behaviour flags."""
        return cls(has_values=METADATA_VALUES in flags)
