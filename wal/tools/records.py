"""How `dump` and `tail` show a record."""

import base64
from typing import Any

import click

from wal.entries import Entry, Redacted
from wal.tools.show import printable

TEXT, HEX, NONE = "text", "hex", "none"

payload_option = click.option(
    "--payload",
    type=click.Choice([TEXT, HEX, NONE]),
    default=TEXT,
    show_default=True,
    help="How payloads are shown. In JSON, text is UTF-8, or base64 where it is none.",
)
"""The option that both commands have."""


def record_line(entry: Entry, payload: str) -> str:
    """Return a record on one line; a payload is shown whole, and the console cuts what a terminal has no room for."""
    if isinstance(entry, Redacted):
        return f"{entry.lsn:>12} {entry.kind:>6} {'redacted':>10}"
    facts = f"{entry.lsn:>12} {entry.kind:>6} {len(entry.payload):>10}"
    if payload == NONE or not entry.payload:
        return facts
    return f"{facts}  {entry.payload.hex() if payload == HEX else printable(entry.payload)}"


def heading(payload: str) -> str:
    """Return the titles of the columns."""
    return f"{'LSN':>12} {'kind':>6} {'bytes':>10}" + ("" if payload == NONE else "  payload")


def entry_as_dict(entry: Entry, payload: str) -> dict[str, Any]:
    """Return a record for JSON: "text" for UTF-8, "base64" for other bytes, "hex" when asked for."""
    fields: dict[str, Any] = {"lsn": entry.lsn, "kind": entry.kind}
    if isinstance(entry, Redacted):
        return fields | {"redacted": True}
    fields["bytes"] = len(entry.payload)
    if payload == HEX:
        fields["hex"] = entry.payload.hex()
    elif payload == TEXT:
        try:
            fields["text"] = entry.payload.decode("utf-8")
        except UnicodeDecodeError:
            fields["base64"] = base64.b64encode(entry.payload).decode("ascii")
    return fields
