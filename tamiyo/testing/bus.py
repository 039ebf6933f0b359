"""A bus in memory that keeps what it was given, and a bus that goes wrong on demand (`tamiyo.testing.faults`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from tamiyo.bus import Bus
from tamiyo.testing.faults import Faults

__all__ = ["FaultBus", "MemoryBus", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was handed over."""

    stream: str
    message_id: str
    payload: bytes
    attributes: Mapping[str, str]


class FaultBus(Faults):
    """Does what another bus does, until it is told not to (`Faults`, method "publish").

    A call that waits does so on its event loop, and ends when it is cancelled; of a `stubborn` bus it ends only when
    it is released.
    """

    def __init__(self, inner: Bus, *, stubborn: bool = False) -> None:
        super().__init__("publish")
        self.inner = inner
        self.stubborn = stubborn
        self.named: set[str] = set()
        """Every message that it was ever told to refuse by its id."""
        self._refused: frozenset[str] = frozenset()

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        """Hand a message on, or do what the bus was told to."""
        handed = await self._perform_async("publish", lambda: True, stubborn=self.stubborn)
        if message_id in self._refused:
            raise OSError(f"the bus was told to refuse {message_id}")
        if handed is True:  # a garbled bus took it and lost it
            await self.inner.publish(stream, message_id, payload, attributes)

    def refuse(self, *message_ids: str) -> None:
        """Refuse these messages, and no others."""
        self._refused = frozenset(message_ids)
        self.named |= self._refused

    def heal(self, op: str | None = None) -> None:
        """Take messages again."""
        self._refused = frozenset()
        super().heal(op)


class MemoryBus(FaultBus):
    """`messages` has what was taken, in order, repeats included."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.messages: list[Message] = []
        super().__init__(_Shelf(self.messages), stubborn=stubborn)

    def ids(self, stream: str | None = None) -> list[str]:
        """The ids of what was taken, in order, of one stream when asked."""
        return [message.message_id for message in self.messages if stream in (None, message.stream)]


@dataclass(frozen=True, slots=True)
class _Shelf:
    messages: list[Message]

    async def publish(self, stream: str, message_id: str, payload: bytes, attributes: Mapping[str, str]) -> None:
        self.messages.append(Message(stream, message_id, payload, dict(attributes)))
