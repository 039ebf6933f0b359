"""Heads on the command line."""

from typing import Any

import click

from wal.head import Head


class _HeadType(click.ParamType[Head]):
    """The text of a head, as `python -m wal head` prints it."""

    name = "head"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        """Parse, or fail as a wrong option."""
        try:
            return value if isinstance(value, Head) else Head.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


HEAD = _HeadType()
