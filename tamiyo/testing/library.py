"""A blueprint library in memory, and one that goes wrong."""

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.library import Library, LibraryRecord
from tamiyo.testing.faults import Faults

__all__ = ["FaultLibrary", "MemoryLibrary", "MemoryRecord"]


@dataclass(frozen=True)
class MemoryRecord:
    """What a library returns for an id: a descriptor, and extras with `graph_metadata` and `bsds` where it has them."""

    descriptor: Message
    extras: Mapping[str, Any] = field(default_factory=dict)


class MemoryLibrary:
    """A library in a dictionary; the order of saving is the order of its list."""

    def __init__(self, *records: MemoryRecord) -> None:
        self.records: dict[str, MemoryRecord] = {}
        for record in records:
            self.put(record)

    def save(self, descriptor: pb.BlueprintDescriptor, **extras: Any) -> None:
        """Add or replace a blueprint."""
        self.put(MemoryRecord(descriptor, extras))

    def put(self, record: MemoryRecord) -> None:
        """Add or replace a record under its descriptor's id."""
        self.records[str(getattr(record.descriptor, "blueprint_id", ""))] = record

    def withdraw(self, blueprint_id: str) -> None:
        """Forget a blueprint; one that is not there is no matter."""
        self.records.pop(blueprint_id, None)

    def list(self) -> builtins.list[str]:
        """Every id."""
        return list(self.records)

    def get(self, blueprint_id: str) -> MemoryRecord | None:
        """One record, None for an unknown id."""
        return self.records.get(blueprint_id)


class FaultLibrary(Faults):
    """Does what another library does, until it is told not to (`Faults`, methods "list" and "get")."""

    def __init__(self, inner: Library | None = None) -> None:
        """Wrap `inner`, or an empty library."""
        super().__init__("list", "get")
        self.inner: Library = MemoryLibrary() if inner is None else inner
        self.listed: tuple[str, ...] = ()
        """What it last listed, when it was asked and answered."""

    def list(self) -> builtins.list[str]:
        """What `inner` lists."""
        return self._perform("list", self._list)

    def get(self, blueprint_id: str) -> LibraryRecord | None:
        """What `inner` has."""
        return self._perform("get", lambda: self.inner.get(blueprint_id))

    def _list(self) -> builtins.list[str]:
        self.listed = tuple(self.inner.list())
        return list(self.listed)
