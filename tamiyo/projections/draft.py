"""A draft: what the projectors of one transaction's events write into, and `tamiyo.projections.writing` writes down."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from tamiyo.errors import JournalUnreadable
from tamiyo.projections.models import Base

__all__ = ["Draft", "Projector", "Waiting", "json_text", "parsed"]


@dataclass(slots=True)
class Waiting:
    """A received packet that awaits its decision, and what was observed for it; None where the log does not say."""

    step_index: int | None = None
    received_unix_ns: int | None = None
    coverage: float | None = None
    graph_lsn: int | None = None
    inference: str | None = None
    inference_lsn: int | None = None
    inference_elapsed_ns: int | None = None
    policy_id: str | None = None


@dataclass(slots=True)
class Draft:
    """The rows of one transaction: what the tables held that matters to it, and what it adds.

    `updates` are made after the inserts, in their order: the name of one of `tamiyo.projections.writing.UPDATES`, and
    its parameters. `unnamed_policies` says that there may be policies that no row names any more.
    """

    waiting: dict[int, Waiting] = field(default_factory=dict)
    policies: set[str] = field(default_factory=set)
    inserts: dict[type[Base], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    updates: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    unnamed_policies: bool = False

    def add(self, table: type[Base], **row: Any) -> None:
        """Insert a row."""
        self.inserts[table].append(row)

    def step(self, lsn: int) -> Waiting:
        """What is known of a step, to be added to until its decision."""
        step = self.waiting.get(lsn)
        if step is None:
            step = self.waiting[lsn] = Waiting()
        return step

    def change(self, update: str, **parameters: Any) -> None:
        """Change rows that are there."""
        self.updates.append((update, parameters))


Projector = Callable[[Draft, int, Any], None]
"""Puts what follows from an event at an LSN into the draft; raises JournalUnreadable."""


def parsed(lsn: int, what: str, message: Any, data: bytes) -> Any:
    """A message that an event holds as bytes.

    Raises:
        JournalUnreadable: they do not parse.
    """
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise JournalUnreadable(f"{what} at LSN {lsn} does not parse: {error}; run tamiyo audit to see more") from error


def json_text(content: Mapping[str, object] | Sequence[object]) -> str:
    """JSON with its keys in order, in which NaN and the infinities are null."""
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()
