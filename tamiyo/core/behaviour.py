"""Changes of behaviour, numbered: a log replays under the behaviour it was written with.

`ServiceOpened` names the flags in force from there on. A flag is given a number once; retired by a major version,
it stays in the table and its logs can be read, but no longer recomputed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tamiyo.errors import JournalUnreadable

__all__ = [
    "CURRENT",
    "EXPLAINED",
    "FLAGS",
    "GRAPH_AS_NAMED",
    "METADATA_VALUES",
    "SAFE_PAUSES_UNCLEAN",
    "Flag",
    "require_known",
    "retired",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Flag:
    """One change: since when, what is different, and whether the code before it is gone."""

    since: str
    what: str
    retired: bool = False


EXPLAINED = "1-explained-decisions"
SAFE_PAUSES_UNCLEAN = "2-safe-pauses-unclean"
METADATA_VALUES = "3-metadata-values"
GRAPH_AS_NAMED = "4-graph-as-named"

FLAGS: Mapping[str, Flag] = MappingProxyType(
    {
        EXPLAINED: Flag(
            "0.1.0",
            "a decision records its loss delta, the conditions that begin, last and end, and its observation window; "
            "late commits and paused steps record theirs",
        ),
        SAFE_PAUSES_UNCLEAN: Flag(
            "0.1.0",
            "a step that was answered with a safe PAUSE, its commit late or its record missing, is no clean step: "
            "conservative mode counts from there anew",
        ),
        METADATA_VALUES: Flag(
            "0.1.0",
            "an object of names in a blueprint's metadata is read with its values: a parameter or a blending method "
            "that it gives as false is not allowed, a layer's number is its weight, and a key may be a place; methods "
            "and stages are read in any case",
        ),
        GRAPH_AS_NAMED: Flag(
            "0.1.0",
            "a graph's host is the blueprint that its record names, also where the packet's and the run's are both "
            "there; and a seed whose risk is a blueprint's `risk_max` is not over it: both are compared in the single "
            "precision that risks travel in",
        ),
    }
)
"""By name, in the order of their numbers."""

CURRENT = tuple(name for name, flag in FLAGS.items() if not flag.retired)
"""What a service that opens a log today writes with."""


def unknown(flags: Iterable[str]) -> tuple[str, ...]:
    """The flags that only a newer version knows."""
    return tuple(name for name in flags if name not in FLAGS)


def require_known(flags: Iterable[str]) -> None:
    """Go on only where this version knows them all.

    Raises:
        JournalUnreadable: a newer version wrote the log.
    """
    newer = unknown(flags)
    if newer:
        raise JournalUnreadable(
            f"the log was written with the behaviour {', '.join(newer)}, which this version does not know: "
            "open it with the version that wrote it"
        )


def retired(flags: Iterable[str]) -> tuple[str, ...]:
    """Retired changes that these flags do not have: such a log cannot be recomputed here."""
    present = set(flags)
    return tuple(name for name, flag in FLAGS.items() if flag.retired and name not in present)
