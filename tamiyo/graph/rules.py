"""How graph metadata is read, which has changed twice: a log's graphs come out again as they were written."""

from collections.abc import Container
from typing import NamedTuple, Self

from tamiyo.core.behaviour import GRAPH_AS_NAMED, METADATA_VALUES

__all__ = ["MetadataRules", "host_of"]


class MetadataRules(NamedTuple):
    """Today's, if nothing else is said.

    `has_values`: in an object of names, what a name leads to counts (whether it is allowed, its weight), and a place
    may stand for a name; blending methods and stages may be written in any case. Without: its names are read as a
    list, whatever they lead to.

    `has_singles`: `risk_max` is taken in single precision, as risks travel: 0.2 comes as 0.20000000298, and is not over
    0.2. Without: as it stands there.
    """

    has_values: bool = True
    has_singles: bool = True

    @classmethod
    def under(cls, flags: Container[str]) -> Self:
        """Those that go with a log's behaviour flags."""
        return cls(has_values=METADATA_VALUES in flags, has_singles=GRAPH_AS_NAMED in flags)


def host_of(host_id: str, flags: Container[str]) -> str | None:
    """What a builder is told of a graph's host: nothing in a log from before it went by the id that is recorded."""
    return host_id if GRAPH_AS_NAMED in flags else None
