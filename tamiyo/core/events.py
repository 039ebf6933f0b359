"""Record kinds of the journal: the number a message is stored under, and the way back.

A number is given once and never reused. A kind this version does not know is refused, not skipped: the
state after it would be a guess.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from google.protobuf.message import DecodeError, Message

from tamiyo.core import journal_pb2 as journal
from tamiyo.errors import JournalUnreadable

__all__ = ["KINDS", "MESSAGES", "Event", "decode", "encode"]

Event = Message
"""One message of `journal.proto`."""

MESSAGES: Mapping[int, type[Message]] = MappingProxyType(
    {
        1: journal.ServiceOpened,
        2: journal.StepReceived,
        3: journal.GraphObserved,
        4: journal.BlueprintObserved,
        5: journal.MetadataTimedOut,
        6: journal.MetadataFailed,
        7: journal.InferenceObserved,
        8: journal.InferenceTimedOut,
        9: journal.InferenceFailed,
        10: journal.InferenceSkipped,
        11: journal.RegistryAssigned,
        12: journal.DecisionMade,
        13: journal.BreakerMoved,
        14: journal.ConservativeModeChanged,
        15: journal.FieldReportIssued,
        16: journal.CommitLate,
        17: journal.StepsUnrecorded,
        18: journal.GraphLayoutObserved,
        19: journal.StepPaused,
        20: journal.OperatorDirected,
        21: journal.CommandDelivered,
        22: journal.WindowClosed,
        23: journal.PublishAttempted,
        24: journal.FieldReportsDropped,
        25: journal.TelemetryDrained,
        26: journal.StateBase,
        27: journal.SnapshotTaken,
        28: journal.RetentionPlanned,
        29: journal.RetentionCompleted,
        30: journal.PolicyInstalled,
        31: journal.PolicyRejected,
        32: journal.PolicyRolledBack,
        33: journal.RegistryImported,
        34: journal.TelemetryDropped,
    }
)

KINDS: Mapping[type[Message], int] = MappingProxyType({message: kind for kind, message in MESSAGES.items()})

_PARSERS: dict[int, Callable[[bytes], Event]] = {kind: message.FromString for kind, message in MESSAGES.items()}


def encode(event: Event) -> tuple[int, bytes]:
    """The record of an event: (kind, payload). Maps are written in key order, so equal events give equal bytes."""
    return KINDS[type(event)], event.SerializeToString(deterministic=True)


def decode(kind: int, payload: bytes) -> Event:
    """The event of a record.

    Raises:
        JournalUnreadable: the kind is unknown here, or the payload does not parse as that kind.
    """
    parse = _PARSERS.get(kind)
    if parse is None:
        raise JournalUnreadable(
            f"record kind {kind} is unknown; kinds 1 to {max(MESSAGES)} are read by this version: "
            "the log was written by a newer Tamiyo, open it with that version"
        )
    try:
        return parse(payload)
    except DecodeError as error:
        raise JournalUnreadable(
            f"{len(payload)} bytes stored as {MESSAGES[kind].DESCRIPTOR.name} (kind {kind}) do not parse: {error}; "
            "the log's checksums hold, so the writer was at fault: keep the directory and report it"
        ) from error
