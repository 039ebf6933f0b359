"""From events to rows: one small function for each kind of event, in a table.

A projector writes into a `Draft`, which is the rows of one transaction; `tamiyo.projections.projection` writes
the draft down together with the applied LSN. What a projector needs from earlier events is in the draft, so
rows depend on the events alone and never on how they were cut into transactions. The projectors are in
`tamiyo.projections.rows`, by family.

A log may have lost what came before: its beginning was pruned, payloads were redacted. A row then has NULL where a
record is gone, and no event is refused because the one before it is.
"""

from collections.abc import Mapping
from types import MappingProxyType

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import Event
from tamiyo.projections.draft import Draft, Projector
from tamiyo.projections.rows import operation, reports, steps, upkeep

__all__ = ["NOT_PROJECTED", "PROJECTORS", "VERSION", "project"]

VERSION = 3
"""Goes up with every change of what rows come out; a projection made by another version is made again."""

PROJECTORS: Mapping[type[Event], Projector] = MappingProxyType(
    {**steps.PROJECTORS, **reports.PROJECTORS, **operation.PROJECTORS, **upkeep.PROJECTORS}
)
"""The projector of each event that leaves rows of its own."""

NOT_PROJECTED = frozenset(
    {
        journal.RegistryAssigned,  # folded: tamiyo.projections.standing
        journal.RegistryImported,  # the same
        journal.BlueprintObserved,
        journal.MetadataTimedOut,
        journal.MetadataFailed,
        journal.GraphLayoutObserved,
        journal.WindowClosed,
        journal.TelemetryDrained,
        journal.TelemetryDropped,
    }
)
"""Events without rows of their own. Every event of the journal is in one of the two; a test sees to it."""


def project(draft: Draft, lsn: int, event: Event) -> None:
    """Put what follows from one event into the draft.

    Raises:
        JournalUnreadable: a message inside the event does not parse.
    """
    projector = PROJECTORS.get(type(event))
    if projector is not None:
        projector(draft, lsn, event)
