"""Column types that keep what the journal holds, whatever the database thinks of it."""

import math
import re
from typing import Any

from sqlalchemy import BigInteger, Double, Integer, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

__all__ = ["Count", "JournalText", "Number"]

Count = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite's INTEGER is that wide, and only under this name is it the row id."""

_UNSTORABLE = re.compile("[\\\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(\\|u[0-9a-f]{4})")


class JournalText(TypeDecorator[str]):
    r"""Any Python string. SQLite refuses lone surrogates and PostgreSQL refuses NUL, so these are escaped.

    Stored: `\\` for a backslash, `\uXXXX` for NUL and surrogates; everything else as it is, and two different
    strings never become the same one.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  SQLAlchemy's
        """Escape on the way in."""
        return None if value is None else _UNSTORABLE.sub(_escape, value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Undo it on the way out."""
        return None if value is None else _ESCAPED.sub(_unescape, value)


class Number(TypeDecorator[float]):
    """A float that is always there. SQLite stores NaN as NULL, so NULL reads as NaN."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """NaN becomes NULL in every database, so that they agree."""
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> float:  # noqa: ARG002
        """NULL was NaN."""
        return math.nan if value is None else float(value)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return "\\\\" if character == "\\" else f"\\u{ord(character):04x}"


def _unescape(match: re.Match[str]) -> str:
    return "\\" if match[1] == "\\" else chr(int(match[1][1:], 16))
