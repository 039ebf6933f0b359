"""Whatever a record is changed into, an audit comes to a verdict: it is asked where somebody may have lied."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from audit.runs import asking
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import packet, proposal

import wal
from tamiyo.audit import Replay, replay
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, decode, encode
from tamiyo.errors import JournalUnreadable
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.history import History
from tamiyo.testing.library import MemoryRecord
from tamiyo.testing.strategies import histories

NUMBERS = (0, 1, 2, 7, 2**31 - 1)
FLOATS = (float("nan"), float("inf"), 1e30, -1.0, 0.0)
BYTES = (b"", b"\xff", b"\x08\x01")
TEXTS = ("", "x", "y" * 300)
FORGERIES = 10
"""Of each history."""


def places(message: Message, depth: int = 0) -> Iterator[tuple[Any, FieldDescriptor]]:
    """Every field of a message and of those within."""
    for one in message.DESCRIPTOR.fields:
        yield message, one
        inner = one.message_type
        if inner is None or inner.GetOptions().map_entry or depth > 3:
            continue
        value = getattr(message, one.name)
        for part in list(value)[:3] if one.is_repeated else [value] if message.HasField(one.name) else []:
            yield from places(part, depth + 1)


def forge(event: Message, stream: Random) -> None:
    """Change one field."""
    message, one = stream.choice(list(places(event)))
    values: tuple[Any, ...] = {
        FieldDescriptor.CPPTYPE_STRING: BYTES if one.type == FieldDescriptor.TYPE_BYTES else TEXTS,
        FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
        FieldDescriptor.CPPTYPE_BOOL: (True, False),
    }.get(one.cpp_type, NUMBERS)
    if one.message_type is not None:
        message.ClearField(one.name)
    elif one.is_repeated:
        kept = list(getattr(message, one.name))
        message.ClearField(one.name)
        getattr(message, one.name).extend(kept[:-1] if stream.random() < 0.5 else [*kept, stream.choice(values)])
    else:
        setattr(message, one.name, stream.choice(values))


def verdict(entries: list[wal.Entry], base: journal.StateBase | None = None) -> Replay | None:
    """What levels 2 and 3 find; None where the log cannot be read."""
    asked = asking()
    try:
        asked.begin(base)
        found = replay(entries, base=base, follower=asked)
    except JournalUnreadable:
        return None
    finally:
        asked.finish()
    return found


@given(history=histories(max_deeds=14), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_forged_record_gets_a_verdict(history: History, seed: int) -> None:
    stream = Random(seed)
    history.base()
    entries = history.entries()
    for _ in range(FORGERIES):
        at = stream.randrange(len(entries))
        event = decode(entries[at].kind, entries[at].payload)
        forge(event, stream)
        forged = [*entries[:at], wal.Entry(entries[at].lsn, *encode(event)), *entries[at + 1 :]]
        verdict(forged)
        last = decode(forged[-1].kind, forged[-1].payload)
        if isinstance(last, journal.StateBase) and 0 < last.needs_lsn <= len(forged):
            verdict(forged[last.needs_lsn - 1 :], last)


def changed(entries: list[wal.Entry], kind: type[Message], **fields: Any) -> list[wal.Entry]:
    """The first record of a kind with other fields."""
    at = next(place for place, entry in enumerate(entries) if entry.kind == KINDS[kind])
    event = decode(entries[at].kind, entries[at].payload)
    for name, value in fields.items():
        event.ClearField(name)
        if isinstance(value, list):
            getattr(event, name).extend(value)
        else:
            setattr(event, name, value)
    return [*entries[:at], wal.Entry(entries[at].lsn, *encode(event)), *entries[at + 1 :]]


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (journal.InferenceObserved, {"param_deltas": []}, "the decision cannot be recomputed"),
        (journal.BlueprintObserved, {"content": b"\xff"}, "no service writes such a BlueprintObserved"),
        (journal.StepReceived, {"packet": b"\xff"}, "the decision cannot be recomputed"),
    ],
    ids=["too few numbers", "a blueprint that is none", "a packet that is none"],
)
def test_what_no_service_writes_is_a_divergence_and_named(
    kind: type[Message], fields: dict[str, Any], words: str
) -> None:
    history = History()
    history.observe(MemoryRecord(pb.BlueprintDescriptor(blueprint_id="bp-1")))
    history.step(packet(), proposal())
    found = replay(changed(history.entries(), kind, **fields))
    assert found.divergence is not None
    assert words in found.divergence.what


def test_a_report_that_is_only_recalled_and_does_not_parse_makes_the_log_unreadable() -> None:
    history = History()
    for _ in range(2):
        history.step(packet(), proposal())
    history.base()
    entries = history.entries()
    base = decode(entries[-1].kind, entries[-1].payload)
    assert isinstance(base, journal.StateBase)
    forged = changed(entries, journal.FieldReportIssued, report=b"\xff")
    with pytest.raises(JournalUnreadable, match=r"field report of LSN \d+ does not parse"):
        replay(forged, base=base)
