"""Extras: JSON in the database, a mapping outside; damaged ones degrade to empty."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from tamiyo.integrations.urza.errors import ExtrasRejected
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["EMPTY", "read_extras", "safety_sheet", "write_extras"]

logger = logging.getLogger(__name__)

EMPTY: Mapping[str, Any] = MappingProxyType({})


def write_extras(blueprint_id: str, extras: Mapping[str, Any]) -> bytes:
    """The stored form. A Leyline message among the values is stored as an object with its field names.

    Raises:
        ExtrasRejected: a value is of a type that JSON does not have.
    """
    try:
        return orjson.dumps(dict(extras), default=_as_object, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise ExtrasRejected(
            f"the extras of blueprint {blueprint_id!r} cannot be stored: {error.__cause__ or error}; "
            "use objects, lists, strings, numbers, booleans, null and Leyline messages"
        ) from error


def read_extras(data: bytes | None) -> tuple[Mapping[str, Any], str]:
    """The extras, and what is wrong with the stored bytes ("" for nothing); empty where something is."""
    if not data:
        return EMPTY, "there are none stored"
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return EMPTY, f"{len(data)} bytes are not JSON: {error}"
    if not isinstance(value, dict):
        return EMPTY, f"they are a JSON {type(value).__name__}, not an object"
    return MappingProxyType(value), ""


def safety_sheet(extras: Mapping[str, Any]) -> pb.BSDS | None:
    """The safety sheet among the extras; None where there is none, or where it is not one (logged)."""
    value = extras.get("bsds")
    if value is None:
        return None
    if isinstance(value, pb.BSDS):
        return value
    if isinstance(value, Message) and value.DESCRIPTOR.name == pb.BSDS.DESCRIPTOR.name:  # of whosever bindings
        return pb.BSDS.FromString(value.SerializeToString())
    if not isinstance(value, Mapping):
        logger.warning("extras['bsds'] is ignored: a %s is not an object", type(value).__name__)
        return None
    # Fields of a later Leyline are left out here rather than by ParseDict, which would then also take the name of
    # a hazard band that it does not know for no hazard at all.
    known = {name: value[name] for name in pb.BSDS.DESCRIPTOR.fields_by_name if name in value}
    try:
        orjson.dumps(known, default=_as_object)  # protobuf fails with SystemError where an enum's name has a surrogate
        return ParseDict(known, pb.BSDS())
    except (ParseError, TypeError, ValueError, OverflowError) as error:  # the last: an infinite enum value
        logger.warning("extras['bsds'] is ignored: %s", str(error))
        return None


def _as_object(value: object) -> dict[str, Any]:
    if isinstance(value, Message):
        fields: dict[str, Any] = MessageToDict(value, preserving_proto_field_name=True)
        return fields
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")
