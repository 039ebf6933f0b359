"""A bus in memory that keeps what it was given, and goes wrong on demand.

The words are those of `tamiyo.testing.faults`; a call that waits does so on its event loop, and ends when it is
cancelled, unless the bus is `stubborn`.
"""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["MemoryBus", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was handed over."""

    stream: str
    message_id: str
    payload: bytes
    attributes: Mapping[str, str]


@dataclass
class MemoryBus:
    """`messages` has what was taken, in order, repeats included; `calls` counts every call, refused ones too.

    Args:
        stubborn: a call that waits does not end when it is cancelled, only when it is released.
    """

    stubborn: bool = False
    messages: list[Message] = field(default_factory=list)
    calls: int = 0
    _error: BaseException | None = None
    _failing: int | None = 0
    _refused: frozenset[str] = frozenset()
    _open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Nothing waits."""
        self._open.set()

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        """Take a message, or do what the bus was told to."""
        self.calls += 1
        await self._pass()
        if message_id in self._refused or self._failing is None or self._failing > 0:
            if self._failing:
                self._failing -= 1
            raise self._error or OSError("the bus was told to fail")
        self.messages.append(Message(stream, message_id, payload, dict(attributes)))

    def fail(self, error: BaseException | None = None, *, times: int | None = None) -> None:
        """Refuse every message, or the next `times`."""
        self._error, self._failing = error, times

    def refuse(self, *message_ids: str) -> None:
        """Refuse these messages, and no others."""
        self._refused = frozenset(message_ids)

    def hang(self) -> None:
        """Let calls wait until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let every call go that waits."""
        self._open.set()

    def heal(self) -> None:
        """Take messages again."""
        self._error, self._failing, self._refused = None, 0, frozenset()

    def ids(self, stream: str | None = None) -> list[str]:
        """The ids of what was taken, in order, of one stream when asked."""
        return [message.message_id for message in self.messages if stream in (None, message.stream)]

    async def _pass(self) -> None:
        """Wait while the bus hangs; any thread may release it."""
        while not self._open.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
