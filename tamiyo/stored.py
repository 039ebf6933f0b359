"""Records of the log as events."""

import wal
from tamiyo.core.events import MESSAGES, Event, decode
from tamiyo.errors import RecordRedacted

__all__ = ["event_of"]


def event_of(entry: wal.Entry) -> Event:
    """The event that a record holds.

    Raises:
        JournalUnreadable: the kind is unknown here, or the payload does not parse.
        RecordRedacted: a retention run took the payload out.
    """
    if isinstance(entry, wal.Redacted):
        message = MESSAGES.get(entry.kind)
        raise RecordRedacted(entry.lsn, f"record of kind {entry.kind}" if message is None else message.DESCRIPTOR.name)
    return decode(entry.kind, entry.payload)
