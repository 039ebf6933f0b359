"""A request folder that goes wrong on demand (`tamiyo.testing.faults`)."""

from collections.abc import Callable, Container
from pathlib import Path
from typing import TypeVar

from tamiyo.requests import Request, RequestBox
from tamiyo.testing.faults import Faults

__all__ = ["FaultRequests"]

T = TypeVar("T")


class _Switchboard(Faults):
    """The words, for what is no `Faults` itself."""

    def call(self, op: str, honest: Callable[[], T]) -> T:
        return self._perform(op, honest)


class FaultRequests(RequestBox):
    """Does for a service what a `RequestBox` does, until its `faults` are told otherwise. Leaving one always works."""

    def __init__(self, directory: Path) -> None:
        """`directory` is a real one: a request is a file."""
        super().__init__(directory)
        self.faults = _Switchboard("waiting", "read", "done", "answer", "put_aside")

    def waiting(self, besides: Container[str] = ()) -> list[Path]:
        """What waits there."""
        return self.faults.call("waiting", lambda: super(FaultRequests, self).waiting(besides))

    def read(self, path: Path) -> Request:
        """What stands there."""
        return self.faults.call("read", lambda: super(FaultRequests, self).read(path))

    def done(self, path: Path) -> None:
        """Let the file go."""
        self.faults.call("done", lambda: super(FaultRequests, self).done(path))

    def answer(self, path: Path, answer: bytes) -> None:
        """Leave an answer."""
        self.faults.call("answer", lambda: super(FaultRequests, self).answer(path, answer))

    def put_aside(self, path: Path, reason: str) -> None:
        """Move it out of the way."""
        self.faults.call("put_aside", lambda: super(FaultRequests, self).put_aside(path, reason))
