"""The blueprint library (Urza) as the controller needs it, and what is taken from its answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson
from google.protobuf.message import Message

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.limits import TEXT_CHARS_MAX
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["Library", "LibraryRecord", "checked_id", "content_of"]


class LibraryRecord(Protocol):
    """What a library returns for an id it knows."""

    @property
    def descriptor(self) -> Message:
        """A `BlueprintDescriptor`, of our bindings or the host's."""
        ...

    @property
    def extras(self) -> Mapping[str, Any]:
        """Free-form extras; `graph_metadata`, `guard_spec`, `optimizer_priors` and `bsds` are read."""
        ...


class Library(Protocol):
    """The blueprint library (Urza) as the controller needs it; both calls may be slow, fail or hang."""

    def list(self) -> Sequence[str]:
        """Every id, the best candidates first."""
        ...

    def get(self, blueprint_id: str) -> LibraryRecord | None:
        """One record, None for an unknown id."""
        ...


def content_of(record: LibraryRecord) -> journal.BlueprintContent:
    """What is journaled of a record. Raises what the record's own code raises, and TypeError for a strange sheet."""
    metadata, sheet = _graph_metadata(record.extras), record.extras.get("bsds")
    return journal.BlueprintContent(
        descriptor=record.descriptor.SerializeToString(deterministic=True),
        safety_sheet=_sheet_bytes(sheet),
        graph_metadata=_json(metadata) if metadata is not None else b"",
    )


_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def _json(value: object) -> bytes:
    """What Python writes for JSON, a library in this process too: numbers as keys, views of mappings, numpy's numbers.

    Raises:
        TypeError: a value is of a type that JSON has nothing for.
    """
    return orjson.dumps(value, default=_as_dict, option=_OPTIONS)


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON has nothing for a {type(value).__name__}")


def _graph_metadata(extras: Mapping[str, Any]) -> object:
    """The graph metadata, else what the compiler knew (`guard_spec`); with the optimizer priors where it has none."""
    metadata, priors = extras.get("graph_metadata"), extras.get("optimizer_priors")
    if metadata is None:
        metadata = extras.get("guard_spec")
    if priors is None or not isinstance(metadata, Mapping | None):
        return metadata
    return {"optimizer_priors": priors, **(metadata or {})}


def checked_id(blueprint_id: object) -> bool:
    """Whether an id is one to ask for: neither empty nor longer than a packet's ids may be.

    Raises where it is no text that can be journaled; the lookup then counts as failed.
    """
    if not isinstance(blueprint_id, str):
        raise TypeError(f"the library lists {blueprint_id!r:.50}, which is no text")
    return bool(blueprint_id.encode()) and len(blueprint_id) <= TEXT_CHARS_MAX


def _sheet_bytes(sheet: object) -> bytes:
    """A BSDS from a message or from a JSON object with Leyline's field names; ill-typed ones are an error."""
    if sheet is None:
        return b""
    if isinstance(sheet, Message):
        return sheet.SerializeToString(deterministic=True)
    if isinstance(sheet, Mapping):
        from google.protobuf.json_format import ParseDict  # noqa: PLC0415  slow to import, rarely needed

        # Fields of a newer sheet are left out; a hazard band of no known name must not pass for "unspecified".
        known = {name: value for name, value in sheet.items() if name in pb.BSDS.DESCRIPTOR.fields_by_name}
        return ParseDict(known, pb.BSDS()).SerializeToString(deterministic=True)
    raise TypeError(f"extras['bsds'] is a {type(sheet).__name__}, neither a BSDS nor an object")
